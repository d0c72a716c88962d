"""The cost of a compiled program on one device: operations, bytes moved, bytes communicated.

XLA's `cost_analysis` counts the body of a loop once. This module parses the text of the compiled
program and counts a loop's body as often as the program says that it runs.
"""

from __future__ import annotations

import dataclasses
import math
import re

BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16}
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)
MOVES_NOTHING = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
}
ARITHMETIC = {
    *("add", "subtract", "multiply", "divide", "maximum", "minimum", "negate", "abs", "power"),
    *("exponential", "exponential-minus-one", "log", "log-plus-one", "tanh", "logistic", "erf"),
    *("sqrt", "rsqrt", "cbrt", "sine", "cosine", "select", "compare", "convert", "sign", "floor"),
    *(
        "and",
        "or",
        "xor",
        "not",
        "shift-left",
        "shift-right-logical",
        "clamp",
        "round-nearest-even",
    ),
}
_ARRAY = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\]")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"\b(body|calls|to_apply|true_computation|false_computation)=%([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
# The second result of a cuBLAS product: scratch memory, most of it unused.
_WORKSPACE = re.compile(r", s8\[\d+\]")
_CONTRACTED = re.compile(r'lhs_contracting_dim(?:ension)?s(?:=\{|":\[)([0-9,"]*)')


@dataclasses.dataclass(frozen=True)
class Collective:
    """A point at which devices communicate.

    Attributes:
      kind: Operation, such as "all-reduce".
      bytes: Size of its result.
      times: How often it runs.
    """

    kind: str
    bytes: int
    times: int


@dataclasses.dataclass(frozen=True)
class ProgramCost:
    """The cost of one call of a program on one device.

    Attributes:
      matmul_flops: Multiplications and additions of matrix products.
      other_flops: Elementwise operations and reductions; a transcendental function counts as one.
      bytes: Bytes read and written by all kernels, disregarding caches and registers.
      collectives: The points at which devices communicate.
      unbounded_loops: Loops of unknown trip count; their bodies are counted once.
    """

    matmul_flops: int = 0
    other_flops: int = 0
    bytes: int = 0
    collectives: tuple[Collective, ...] = ()
    unbounded_loops: int = 0

    @property
    def flops(self) -> int:
        """All operations."""
        return self.matmul_flops + self.other_flops

    def __add__(self, other: ProgramCost) -> ProgramCost:
        return ProgramCost(
            matmul_flops=self.matmul_flops + other.matmul_flops,
            other_flops=self.other_flops + other.other_flops,
            bytes=self.bytes + other.bytes,
            collectives=self.collectives + other.collectives,
            unbounded_loops=self.unbounded_loops + other.unbounded_loops,
        )

    def times(self, count: int) -> ProgramCost:
        """Returns the cost of `count` calls."""
        return ProgramCost(
            matmul_flops=count * self.matmul_flops,
            other_flops=count * self.other_flops,
            bytes=count * self.bytes,
            collectives=tuple(
                dataclasses.replace(c, times=count * c.times) for c in self.collectives
            ),
            unbounded_loops=self.unbounded_loops,
        )


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    result: str
    opcode: str
    operands: tuple[str, ...]
    text: str
    is_root: bool


def program_cost(text: str) -> ProgramCost:
    """Returns the cost of a program, given `compiled.as_text()` of a jitted function."""
    computations, entry = _parse(text)
    known: dict[str, ProgramCost] = {}

    def total(name: str) -> ProgramCost:
        if name not in known:
            shapes = {instruction.name: instruction.result for instruction in computations[name]}
            known[name] = sum(
                (one(instruction, shapes) for instruction in computations[name]), ProgramCost()
            )
        return known[name]

    def one(instruction: _Instruction, shapes: dict[str, str]) -> ProgramCost:
        called = dict(_CALLED.findall(instruction.text))
        if instruction.opcode == "while":
            trips = _TRIPS.search(instruction.text)
            body = total(called["body"]).times(int(trips[1]) if trips else 1)
            return body if trips else body + ProgramCost(unbounded_loops=1)
        if instruction.opcode == "call":
            return total(called["to_apply"])
        if instruction.opcode == "conditional":
            branches = _BRANCHES.search(instruction.text)
            names = _NAME.findall(branches[1]) if branches else called.values()
            return max((total(name) for name in names), key=lambda cost: cost.bytes)
        if instruction.opcode in ("fusion", "fusion-start"):
            inside = computations[called["calls"]]
            within = sum(
                (_arithmetic(i, {x.name: x.result for x in inside}) for i in inside), ProgramCost()
            )
            return within + ProgramCost(bytes=_fusion_bytes(inside))
        return _arithmetic(instruction, shapes) + _movement(instruction, shapes)

    return total(entry)


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    """Returns {computation: its instructions}, and the name of the entry computation."""
    computations, entry, current = {}, "", []
    for line in text.splitlines():
        if line.endswith("{") and "->" in line and not line.startswith(" "):
            (name, *_) = _NAME.findall(line)
            current = computations[name] = []
            entry = name if line.startswith("ENTRY") else entry
        elif line.startswith("  ") and " = " in line:
            left, right = line.strip().split(" = ", 1)
            result, rest = _split_type(right)
            opcode, rest = rest.split("(", 1)
            inside = _up_to_closing(rest)
            names = tuple(_NAME.findall(inside))
            root = left.startswith("ROOT ")
            current.append(_Instruction(left.split("%")[-1], result, opcode, names, rest, root))
    return computations, entry


def _split_type(text: str) -> tuple[str, str]:
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter in "({[") - (letter in ")}]")
        if letter == " " and not depth:
            return text[:i], text[i + 1 :]
    raise ValueError(f"no instruction: {text}")


def _up_to_closing(text: str) -> str:
    depth = 1
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return text[:i]
    return text


def _arrays(result: str) -> list[tuple[str, list[int]]]:
    arrays = _ARRAY.findall(result)
    return [(kind, [int(n) for n in sizes.split(",") if n]) for kind, sizes in arrays]


def _elements(result: str) -> int:
    return sum(math.prod(sizes) for _, sizes in _arrays(result))


def size_of(result: str) -> int:
    """Returns the bytes of a type in HLO's notation, "f32[2,3]{1,0}" or a tuple of such types."""

    def width(kind: str) -> int:
        return BYTES[kind] if kind in BYTES else max(1, int(re.sub(r"\D", "", kind) or 0) // 8)

    return sum(width(kind) * math.prod(sizes) for kind, sizes in _arrays(result))


def _arithmetic(instruction: _Instruction, shapes: dict[str, str]) -> ProgramCost:
    if instruction.opcode == "dot" or _is_library_product(instruction):
        (_, out), *_ = _arrays(instruction.result)
        (_, left), *_ = _arrays(shapes[instruction.operands[0]])
        contracted = _CONTRACTED.search(instruction.text)
        sizes = [left[int(i)] for i in re.findall(r"\d+", contracted[1])] if contracted else []
        return ProgramCost(matmul_flops=2 * math.prod(out) * math.prod(sizes))
    if instruction.opcode in ARITHMETIC:
        return ProgramCost(other_flops=_elements(instruction.result))
    if instruction.opcode in ("reduce", "reduce-window"):
        return ProgramCost(other_flops=_elements(shapes[instruction.operands[0]]))
    return ProgramCost()


def _movement(instruction: _Instruction, shapes: dict[str, str]) -> ProgramCost:
    kind = instruction.opcode.removesuffix("-start")
    if kind in COLLECTIVES:
        collective = Collective(kind, size_of(instruction.result), 1)
        return ProgramCost(bytes=2 * collective.bytes, collectives=(collective,))
    if instruction.opcode in MOVES_NOTHING or instruction.opcode.endswith("-done"):
        return ProgramCost()
    if instruction.opcode in ("dynamic-slice", "slice", "gather"):
        return ProgramCost(bytes=2 * size_of(instruction.result))
    if instruction.opcode == "dynamic-update-slice":
        return ProgramCost(bytes=2 * size_of(shapes[instruction.operands[1]]))
    read = sum(size_of(shapes[name]) for name in instruction.operands if name in shapes)
    result = instruction.result
    if _is_library_product(instruction):
        result = _WORKSPACE.sub("", result)
    return ProgramCost(bytes=read + size_of(result))


def _is_library_product(instruction: _Instruction) -> bool:
    return instruction.opcode == "custom-call" and bool(
        re.search("gemm|matmul|dot", instruction.text)
    )


def _fusion_bytes(inside: list[_Instruction]) -> int:
    """Returns what a fused kernel reads and writes; sliced or updated arrays count in part."""
    shapes = {instruction.name: instruction.result for instruction in inside}
    total = 0
    for instruction in inside:
        if instruction.opcode == "parameter":
            users = [user for user in inside if instruction.name in user.operands]
            sizes = [_read(instruction, user, shapes) for user in users]
            total += min(sum(sizes), size_of(instruction.result))
        if instruction.is_root:
            updated = _update_of(instruction, inside)
            total += size_of(shapes[updated]) if updated else size_of(instruction.result)
    return total


def _read(parameter: _Instruction, user: _Instruction, shapes: dict[str, str]) -> int:
    if user.operands[0] == parameter.name:
        if user.opcode in ("dynamic-slice", "slice", "gather"):
            return size_of(user.result)
        if user.opcode == "dynamic-update-slice":
            return 0
    return size_of(parameter.result)


def _update_of(root: _Instruction, inside: list[_Instruction]) -> str | None:
    """Returns the operand that is written if a kernel updates a part of an array in place."""
    by_name = {instruction.name: instruction for instruction in inside}
    while root.opcode in ("bitcast", "copy", "convert") and root.operands:
        root = by_name[root.operands[0]]
    return root.operands[1] if root.opcode == "dynamic-update-slice" else None
