"""Times the meta-step in PyTorch alone: python -m benchmarks.torch_step --device=cuda

The counterpart of `meta_step`; `compare` alternates between the two.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from benchmarks import process, torch_baseline
from benchmarks.output import add_json_flag, report
from benchmarks.problem import Problem, from_flags, parser, random_songs


def measure(problem: Problem, repeats: int, device: str) -> dict[str, Any]:
    """Returns the median time of a step, after a warm-up."""
    dtype = getattr(torch, problem.dtype)
    tasks = {
        name: torch.from_numpy(x.reshape(problem.tasks, problem.songs, *x.shape[1:]))
        for name, x in random_songs(problem).items()
    }
    tasks = {name: x.to(device, dtype) for name, x in tasks.items()}
    model = torch_baseline.TorchDSAML(problem).to(device, dtype)
    optimizer = torch.optim.Adam(model.parameters(), 5e-5)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        torch_baseline.meta_step(model, optimizer, tasks, problem)  # waits: it returns floats
        seconds.append(time.perf_counter() - start)
    return {
        "problem": vars(problem),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "seconds": statistics.median(seconds[1:]),
        "fastest": min(seconds[1:]),
        "slowest": max(seconds[1:]),
        "device_bytes_peak": None if device == "cpu" else torch.cuda.max_memory_allocated(),
        "load": process.load(),
    }


def main() -> None:
    flags = parser((__doc__ or "").splitlines()[0])
    flags.add_argument("--repeats", type=int, default=3)
    flags.add_argument("--device", default="cpu", help="cpu or cuda")
    flags.add_argument(
        "--matmul_precision",
        default="highest",
        choices=("highest", "high", "medium"),
        help='of float32, as torch.set_float32_matmul_precision; "high" is TF32 on a GPU',
    )
    add_json_flag(flags)
    args = flags.parse_args()
    torch.set_float32_matmul_precision(args.matmul_precision)
    report(measure(from_flags(args), args.repeats, args.device), args.json)


if __name__ == "__main__":
    main()
