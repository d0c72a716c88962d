"""How long a prediction takes: python -m benchmarks.inference

One 30 s clip, and a song of five minutes predicted in windows at every hop, at paper size with
random weights: latency from features to curve, and the real-time factor (seconds of music that are
predicted in a second). Computing the features is not part of it.
"""

from __future__ import annotations

import argparse
import statistics
import time

import jax
import numpy as np

from benchmarks import process
from benchmarks.output import add_json_flag, tell
from dsaml_jax import DSAML, DSAMLConfig
from dsaml_jax.evaluation.splicing import predict_song
from dsaml_jax.model import initialize

SEGMENT_SECONDS = 0.5


def measure(config: DSAMLConfig, segments: int, song_s: float, repeats: int) -> dict:
    """{"clip" | "song": {"seconds_of_music", "latency_s", "real_time_factor"}, ...}."""
    image, rng = (51, 128), np.random.default_rng(0)
    variables = initialize(config, jax.random.key(0), image, config.dim)
    apply = jax.jit(lambda *inputs: DSAML(config).apply(variables, *inputs).curve)

    def window(log_mel, embedding):
        return np.asarray(apply(log_mel, embedding[:, 0]))

    results = {
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
            predict_song(window, log_mel, embedding, window=segments, batch=batch)
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
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    flags.add_argument("--dim", type=int, default=1024)
    flags.add_argument("--heads", type=int, default=16)
    flags.add_argument("--layers", type=int, default=3)
    flags.add_argument("--dtype", default="float32")
    flags.add_argument("--song_s", type=float, default=300.0)
    flags.add_argument("--repeats", type=int, default=3)
    add_json_flag(flags)
    given = flags.parse_args()
    config = DSAMLConfig(dim=given.dim, heads=given.heads, layers=given.layers, dtype=given.dtype)
    tell(measure(config, 60, given.song_s, given.repeats), given.json)


if __name__ == "__main__":
    main()
