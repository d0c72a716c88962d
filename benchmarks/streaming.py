"""Measures prediction while a song plays: python -m benchmarks.streaming

Streams music-like noise through `StreamingPredictor` with random weights, at the size of a config
(`--config=base`, the paper's, or `--config=demo`). Reports the time of a step (from the block that
completes half a second to its value; median, 99th percentile, most), the share of it that features
take, the real-time factor (seconds of sound per second of work), how long the resampler holds sound
back, and the memory of the process after a minute and at the end of `--minutes` of sound.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

import jax
import numpy as np

from benchmarks import process
from benchmarks.inference import sizes
from benchmarks.output import add_json_flag, report
from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.features import embedding_size
from dsaml_jax.model import DSAMLConfig, initialize
from dsaml_jax.streaming import StreamingFeatures, WindowReader

BLOCK_S = 0.02


def measure(
    model: DSAMLConfig, audio: AudioConfig, minutes: float, sample_rate: int
) -> dict[str, Any]:
    """Streams some minutes of sound, and returns what a step and the whole cost."""
    rng = np.random.default_rng(0)
    variables = initialize(model, jax.random.key(0), audio.image, embedding_size(audio))
    features, reader = StreamingFeatures(audio, sample_rate), WindowReader(model, variables)
    size = round(BLOCK_S * sample_rate)
    blocks = round(60 * minutes / BLOCK_S)
    steps: list[float] = []
    in_features: list[float] = []
    waiting, held_back, memory = 0.0, 0.0, {}
    for i in range(blocks):
        block = 0.1 * rng.standard_normal(size, np.float32)
        block *= 1 + np.sin(i * BLOCK_S)  # loudness that changes
        start = time.perf_counter()
        windows = features.push(block)
        after_features = time.perf_counter()
        for window in windows:
            reader.read(window)
        end = time.perf_counter()
        if not windows:
            waiting += end - start
            continue
        if len(steps) == 120:
            memory["after_a_minute"] = process.memory()
        end_s = (windows[-1].segment + 1) * audio.segment_s
        held_back = max(held_back, (i + 1) * BLOCK_S - end_s)
        steps.append(end - start)
        in_features.append(after_features - start)
    memory["at_the_end"] = process.memory()
    warm = slice(2, None)  # the first ones compile
    step, inside = np.array(steps[warm]), np.array(in_features[warm])
    sound = len(step) * audio.segment_s
    return {
        "device": jax.devices()[0].device_kind,
        "load": process.load(),
        "normalization": model.normalization,
        "embedding": audio.embedding,
        "minutes_of_sound": minutes,
        "steps": len(step),
        "step_s": {
            "median": float(np.median(step)),
            "percentile_99": float(np.percentile(step, 99)),
            "most": float(step.max()),
        },
        "share_of_features": float(inside.sum() / step.sum()),
        "real_time_factor": sound / (float(step.sum()) + waiting),
        "sound_held_back_s": held_back,
        "memory_bytes": memory,
    }


def main() -> None:
    flags = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    flags.add_argument("--config", default="base", help="name of a file in configs/")
    flags.add_argument("--embedding", help="instead of the config's; one that needs no weights")
    flags.add_argument("--normalization", help="instead of the config's")
    flags.add_argument("--minutes", type=float, default=2.0)
    flags.add_argument("--sample_rate", type=int, default=48_000)
    add_json_flag(flags)
    args = flags.parse_args()
    model, audio, _ = sizes(args.config)
    if args.config == "base":
        audio = dataclasses.replace(audio, embedding="statistics")
    if args.embedding:
        audio = dataclasses.replace(audio, embedding=args.embedding)
    if args.normalization:
        model = dataclasses.replace(model, normalization=args.normalization)
    report(measure(model, audio, args.minutes, args.sample_rate), args.json)


if __name__ == "__main__":
    main()
