"""What a compiled program does on one device: operations, bytes moved, bytes communicated.

XLA's own `cost_analysis` counts the body of a loop once. Here the compiled program's text is read,
and a loop's body counts as often as the program says that it runs.
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
_CONTRACTED = re.compile(r'lhs_contracting_dim(?:ension)?s(?:=\{|":\[)([0-9,"]*)')


@dataclasses.dataclass(frozen=True)
class Collective:
    """Attributes: kind: "all-reduce", ...; bytes: of its result; times: how often it runs."""

    kind: str
    bytes: int
    times: int


@dataclasses.dataclass(frozen=True)
class Work:
    """Of one call of a program, on one device.

    Attributes:
      matmul_flops: multiplications and additions of matrix products.
      other_flops: elementwise operations and reductions, a transcendental function counted as one.
      bytes: read and written by every kernel; caches and what a kernel keeps in registers aside.
      collectives: each place where devices communicate.
      unbounded_loops: loops whose count the program does not say; their bodies are counted once.
    """

    matmul_flops: int = 0
    other_flops: int = 0
    bytes: int = 0
    collectives: tuple[Collective, ...] = ()
    unbounded_loops: int = 0

    @property
    def flops(self) -> int:
        return self.matmul_flops + self.other_flops

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(self._fields(), other._fields(), strict=True)))

    def times(self, count: int) -> Work:
        """The work of `count` calls."""
        *numbers, collectives, unbounded = self._fields()
        repeated = tuple(dataclasses.replace(c, times=count * c.times) for c in collectives)
        return Work(*(count * number for number in numbers), repeated, unbounded)

    def _fields(self):
        return tuple(getattr(self, field.name) for field in dataclasses.fields(self))


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    result: str
    opcode: str
    operands: tuple[str, ...]
    text: str
    is_root: bool


def program_cost(text: str) -> Work:
    """Reads `compiled.as_text()` of a jitted function."""
    computations, entry = _parse(text)
    known: dict[str, Work] = {}

    def total(name: str) -> Work:
        if name not in known:
            shapes = {each.name: each.result for each in computations[name]}
            known[name] = sum((one(each, shapes) for each in computations[name]), Work())
        return known[name]

    def one(each: _Instruction, shapes: dict[str, str]) -> Work:
        called = dict(_CALLED.findall(each.text))
        if each.opcode == "while":
            trips = _TRIPS.search(each.text)
            body = total(called["body"]).times(int(trips[1]) if trips else 1)
            return body if trips else body + Work(unbounded_loops=1)
        if each.opcode == "call":
            return total(called["to_apply"])
        if each.opcode == "conditional":
            branches = _BRANCHES.search(each.text)
            names = _NAME.findall(branches[1]) if branches else called.values()
            return max((total(name) for name in names), key=lambda work: work.bytes)
        if each.opcode == "fusion":
            inside = computations[called["calls"]]
            within = sum(
                (_arithmetic(i, {x.name: x.result for x in inside}) for i in inside), Work()
            )
            return within + Work(bytes=_fusion_bytes(inside))
        return _arithmetic(each, shapes) + _movement(each, shapes)

    return total(entry)


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    """{computation: its instructions}, and the name of the one that is run."""
    computations, entry, current = {}, "", []
    for line in text.splitlines():
        if line.endswith("{") and "->" in line and not line.startswith(" "):
            name = _NAME.search(line)[1]
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
    found = _ARRAY.findall(result)
    return [(kind, [int(n) for n in sizes.split(",") if n]) for kind, sizes in found]


def _elements(result: str) -> int:
    return sum(math.prod(sizes) for _, sizes in _arrays(result))


def size_of(result: str) -> int:
    """Bytes of a type as the text writes it, "f32[2,3]{1,0}" or a tuple of such."""

    def width(kind: str) -> int:
        return BYTES[kind] if kind in BYTES else max(1, int(re.sub(r"\D", "", kind) or 0) // 8)

    return sum(width(kind) * math.prod(sizes) for kind, sizes in _arrays(result))


def _arithmetic(each: _Instruction, shapes: dict[str, str]) -> Work:
    library = each.opcode == "custom-call" and re.search("gemm|matmul|dot", each.text)
    if each.opcode == "dot" or library:
        (_, out), *_ = _arrays(each.result)
        (_, left), *_ = _arrays(shapes[each.operands[0]])
        contracted = _CONTRACTED.search(each.text)
        sizes = [left[int(i)] for i in re.findall(r"\d+", contracted[1])] if contracted else []
        return Work(matmul_flops=2 * math.prod(out) * math.prod(sizes))
    if each.opcode in ARITHMETIC:
        return Work(other_flops=_elements(each.result))
    if each.opcode in ("reduce", "reduce-window"):
        return Work(other_flops=_elements(shapes[each.operands[0]]))
    return Work()


def _movement(each: _Instruction, shapes: dict[str, str]) -> Work:
    kind = each.opcode.removesuffix("-start")
    if kind in COLLECTIVES:
        found = Collective(kind, size_of(each.result), 1)
        return Work(bytes=2 * found.bytes, collectives=(found,))
    if each.opcode in MOVES_NOTHING or each.opcode.endswith("-done"):
        return Work()
    if each.opcode in ("dynamic-slice", "slice", "gather"):
        return Work(bytes=2 * size_of(each.result))
    if each.opcode == "dynamic-update-slice":
        return Work(bytes=2 * size_of(shapes[each.operands[1]]))
    read = sum(size_of(shapes[name]) for name in each.operands if name in shapes)
    return Work(bytes=read + size_of(each.result))


def _fusion_bytes(inside: list[_Instruction]) -> int:
    """What a fused kernel reads and writes; of arrays that it slices or updates, only that part."""
    shapes = {each.name: each.result for each in inside}
    total = 0
    for each in inside:
        if each.opcode == "parameter":
            users = [user for user in inside if each.name in user.operands]
            sizes = [_read(each, user, shapes) for user in users]
            total += min(sum(sizes), size_of(each.result))
        if each.is_root:
            updated = _update_of(each, inside)
            total += size_of(shapes[updated]) if updated else size_of(each.result)
    return total


def _read(parameter: _Instruction, user: _Instruction, shapes: dict[str, str]) -> int:
    if user.operands[0] == parameter.name:
        if user.opcode in ("dynamic-slice", "slice", "gather"):
            return size_of(user.result)
        if user.opcode == "dynamic-update-slice":
            return 0
    return size_of(parameter.result)


def _update_of(root: _Instruction, inside: list[_Instruction]) -> str | None:
    """The operand that is written, where a kernel updates a part of an array in place."""
    by_name = {each.name: each for each in inside}
    while root.opcode in ("bitcast", "copy", "convert") and root.operands:
        root = by_name[root.operands[0]]
    return root.operands[1] if root.opcode == "dynamic-update-slice" else None
