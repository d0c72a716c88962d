"""Measures how long a prediction takes: python -m benchmarks.inference

Predicts a 30 s clip, and songs of five minutes in windows at every hop, with random weights, at the
size of a config (`--config=base`, the paper's, or `--config=demo`). In one run and in turns:
    alone      every window from its images and embedding, normalization "running"
    shared     the same with what windows share computed once (`evaluation.encoding`)
    clip       normalization "clip", with which windows share nothing
Reports the latency from features to curve, the real-time factor (seconds of music predicted per
second), and how far the curves of `alone` and
`shared` are apart. Computing the features is not included.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import process
from benchmarks.output import add_json_flag, report
from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.features import SongFeatures, embedding_size, window_starts
from dsaml_jax.config.experiment import experiment_from_config
from dsaml_jax.evaluation import encoding
from dsaml_jax.evaluation.splicing import HOPS, song_windows, splice
from dsaml_jax.evaluation.windows import Clips, map_windows
from dsaml_jax.model import DSAMLConfig, initialize


def random_song(audio: AudioConfig, segments: int, width: int) -> SongFeatures:
    """Returns features of a song of n segments with the mean and deviation of music's."""
    rng = np.random.default_rng(0)
    starts = window_starts(segments, audio)
    return SongFeatures(
        rng.standard_normal((segments, *audio.image), np.float32) * 2 - 5,
        rng.standard_normal((len(starts), width), np.float32),
        starts,
    )


def predict_alone(
    model: DSAMLConfig, variables: dict[str, Any], song: SongFeatures, segments: int
) -> np.ndarray:
    """Predicts a song as `encoding.predict_song` does, but every window on its own."""
    plan = song_windows(len(song.log_mel), segments, HOPS)
    inside = plan.starts[:, None] + np.arange(segments)
    nearest = np.abs(song.starts - plan.starts[:, None]).argmin(1)
    row = inside if len(song.starts) == len(song.log_mel) else nearest

    def windows(rows: np.ndarray) -> jax.Array:
        clips = Clips(song.log_mel[inside[rows]], song.embeddings[row[rows]])
        return encoding.read_clips(encoding.curves_of, model, variables, clips)

    curves = map_windows(windows, len(plan.starts), min(encoding.TOGETHER, len(plan.starts)))
    return splice(curves, plan.window, plan.position)


def measure(
    model: DSAMLConfig, audio: AudioConfig, width: int, song_s: float, repeats: int
) -> dict[str, Any]:
    """Returns {"clip", "alone", "shared", "clip_normalization": figures} and their comparison."""
    segments = audio.segments
    song = random_song(audio, round(song_s / audio.segment_s), width)
    clip = random_song(audio, segments, width)
    running = dataclasses.replace(model, normalization="running")
    by_clip = dataclasses.replace(model, normalization="clip")
    weights = {
        config.normalization: initialize(config, jax.random.key(0), audio.image, width)
        for config in (running, by_clip)
    }
    programs: dict[str, tuple[SongFeatures, Callable[[], np.ndarray]]] = {
        "clip": (clip, lambda: predict_alone(by_clip, weights["clip"], clip, segments)),
        "alone": (song, lambda: predict_alone(running, weights["running"], song, segments)),
        "shared": (
            song,
            lambda: encoding.predict_song(running, weights["running"], song, segments),
        ),
        "clip_normalization": (
            song,
            lambda: encoding.predict_song(by_clip, weights["clip"], song, segments),
        ),
    }
    curves = {name: predict() for name, (_, predict) in programs.items()}  # compiles
    wall: dict[str, list[float]] = {name: [] for name in programs}
    processor: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, (_, predict) in programs.items():
            start, start_processor = time.perf_counter(), time.process_time()
            predict()
            wall[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - start_processor)
    results: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "dtype": model.dtype,
        "load": process.load(),
    }
    for name, (features, _) in programs.items():
        music = len(features.log_mel) * audio.segment_s
        latency = statistics.median(wall[name])
        results[name] = {
            "seconds_of_music": music,
            "windows": len(song_windows(len(features.log_mel), segments, HOPS).starts),
            "latency_s": latency,
            "fastest_s": min(wall[name]),
            "processor_s": statistics.median(processor[name]),
            "real_time_factor": music / latency,
        }
    results["times_as_fast"] = _ratios(wall)
    results["times_less_processor_time"] = _ratios(processor)
    results["largest_difference"] = float(np.abs(curves["alone"] - curves["shared"]).max())
    results["deviation_of_the_curve"] = float(curves["alone"].std())
    return results


def _ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Returns the median, least and largest ratio of alone to shared, pair by pair."""
    ratios = [a / b for a, b in zip(seconds["alone"], seconds["shared"], strict=True)]
    return {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}


def main() -> None:
    flags = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    flags.add_argument("--config", default="base", help="name of a file in configs/")
    flags.add_argument("--dim", type=int, help="instead of the config's")
    flags.add_argument("--heads", type=int, help="instead of the config's")
    flags.add_argument("--layers", type=int, help="instead of the config's")
    flags.add_argument("--dtype", default="float32")
    flags.add_argument("--song_s", type=float, default=300.0)
    flags.add_argument("--repeats", type=int, default=3)
    add_json_flag(flags)
    args = flags.parse_args()
    model, audio, width = sizes(args.config)
    changes = {name: getattr(args, name) for name in ("dim", "heads", "layers", "dtype")}
    model = dataclasses.replace(model, **{k: v for k, v in changes.items() if v is not None})
    report(measure(model, audio, width, args.song_s, args.repeats), args.json)


def sizes(config: str) -> tuple[DSAMLConfig, AudioConfig, int]:
    """Returns the model, the features and the width of the embedding of a file in configs/.

    For "base" the width is that of ImageBind's embedding, as in the paper.
    """
    experiment = experiment_from_config(
        importlib.import_module(f"configs.{config}").get_config().to_dict()
    )
    audio = experiment.audio
    if config == "base":
        audio = dataclasses.replace(audio, embedding="imagebind")
    return experiment.model, audio, embedding_size(audio)


if __name__ == "__main__":
    main()
