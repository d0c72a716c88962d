"""Measures how long a prediction takes: python -m benchmarks.inference

Predicts a 30 s clip, and a song of five minutes in windows at every hop, at paper size with random
weights. Reports the latency from features to curve, and the real-time factor (seconds of music
predicted per second). Computing the features is not included.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import jax
import numpy as np

from benchmarks import process
from benchmarks.output import add_json_flag, report
from dsaml_jax import DSAML, DSAMLConfig
from dsaml_jax.evaluation.splicing import song_windows, splice
from dsaml_jax.evaluation.windows import map_windows
from dsaml_jax.model import initialize

SEGMENT_SECONDS = 0.5


def measure(config: DSAMLConfig, segments: int, song_s: float, repeats: int) -> dict[str, Any]:
    """Returns {"clip" | "song": {"seconds_of_music", "latency_s", "real_time_factor"}, ...}."""
    image, rng = (51, 128), np.random.default_rng(0)
    variables = initialize(config, jax.random.key(0), image, config.dim)
    apply = jax.jit(lambda *inputs: DSAML(config).apply(variables, *inputs).curve)

    def predict(log_mel: np.ndarray, embedding: np.ndarray, batch: int) -> np.ndarray:
        plan = song_windows(len(log_mel), segments)
        size = min(segments, len(log_mel))

        def windows(rows: np.ndarray) -> jax.Array:
            log_mels = log_mel[plan.starts[rows][:, None] + np.arange(size)]
            return apply(log_mels, np.repeat(embedding, batch, axis=0))

        curves = map_windows(windows, len(plan.starts), batch)
        return splice(curves, plan.window, plan.position)

    results: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "dtype": config.dtype,
        "load": process.load(),
    }
    lengths = (("clip", segments, 1), ("song", round(song_s / SEGMENT_SECONDS), 32))
    for name, length, batch in lengths:
        log_mel = rng.standard_normal((length, *image), np.float32) * 2 - 5
        embedding = rng.standard_normal((1, config.dim), np.float32)
        seconds = []
        for _ in range(repeats + 1):  # the first one compiles
            start = time.perf_counter()
            predict(log_mel, embedding, batch)
            seconds.append(time.perf_counter() - start)
        latency, music = statistics.median(seconds[1:]), length * SEGMENT_SECONDS
        results[name] = {
            "seconds_of_music": music,
            "latency_s": latency,
            "fastest_s": min(seconds[1:]),
            "real_time_factor": music / latency,
        }
    return results


def main() -> None:
    flags = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    flags.add_argument("--dim", type=int, default=1024)
    flags.add_argument("--heads", type=int, default=16)
    flags.add_argument("--layers", type=int, default=3)
    flags.add_argument("--dtype", default="float32")
    flags.add_argument("--song_s", type=float, default=300.0)
    flags.add_argument("--repeats", type=int, default=3)
    add_json_flag(flags)
    args = flags.parse_args()
    config = DSAMLConfig(dim=args.dim, heads=args.heads, layers=args.layers, dtype=args.dtype)
    report(measure(config, 60, args.song_s, args.repeats), args.json)


if __name__ == "__main__":
    main()
