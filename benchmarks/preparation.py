"""Measures how fast one core prepares songs: python -m benchmarks.preparation [AUDIO FILES]

Prints JSON: songs per minute, and for each step how many times faster than real time it is. Sizes
are those of the release (44.1 kHz, 60 segments from 15 s on). Without files it uses noise. It
measures processor time, so that other load on the machine hardly matters.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from threadpoolctl import threadpool_limits

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.decoding import decode
from dsaml_jax.audio.features import cut_span, resampled, statistics_embeddings
from dsaml_jax.audio.log_mel import cut_segments, log_mel
from dsaml_jax.datasets.schema import Rating, Song
from dsaml_jax.preparation.extract import extract, make_job

START_S, RATED_S, LENGTH_S = 15.0, 30.0, 45.0


def noise(folder: Path, songs: int) -> list[Path]:
    """Writes stereo MP3 files of 45 s, like those of DEAM; returns their paths."""
    paths = [folder / f"{i}.mp3" for i in range(songs)]
    for i, path in enumerate(paths):
        inputs = np.random.default_rng(i).normal(0, 0.1, (int(LENGTH_S * 44_100), 2))
        soundfile.write(path, inputs, 44_100)
    return paths


def timed(function: Callable, *arguments) -> tuple[float, Any]:
    """Returns the processor seconds of a call, and its result."""
    start = time.process_time()
    result = function(*arguments)
    return time.process_time() - start, result


def steps(path: Path, audio: AudioConfig) -> dict[str, float]:
    """Returns the processor seconds of each step of one song, and the duration of the song."""
    decoding, (waveform, rate) = timed(decode, path)
    inputs = resampled(waveform, rate, audio.sample_rate)
    span = cut_span(inputs, audio.sample_rate, START_S, RATED_S)
    images_s, images = timed(log_mel, cut_segments(span, audio), audio)
    statistics, _ = timed(statistics_embeddings, span, images, audio)
    return {
        "decode": decoding,
        "log_mel": images_s,
        "statistics": statistics,
        "song_s": len(waveform) / rate,
    }


def whole(path: Path, audio: AudioConfig, store: str) -> float:
    """Returns the processor seconds of a song from its file to its entries in the store."""
    curve = np.zeros((round(2 * RATED_S), 2), np.float32)
    song = Song(path.stem, LENGTH_S, START_S, (Rating("all", curve),), audio=path.name)

    def prepare() -> None:
        result = extract(make_job(song, str(path.parent), audio, store, ""))
        if result.fault:
            raise RuntimeError(result.fault)

    return timed(prepare)[0]


def main(files: list[str]) -> None:
    """Measures with the given files, or with noise."""
    audio = AudioConfig()
    with tempfile.TemporaryDirectory() as temporary, threadpool_limits(1):
        paths = [Path(name).resolve() for name in files] or noise(Path(temporary), 10)
        store = f"{temporary}/store"
        whole(paths[0], audio, store + "/warm")  # the first call builds filters and loads libraries
        steps(paths[0], audio)
        songs = [whole(path, audio, store) for path in paths]
        parts = [steps(path, audio) for path in paths]
    durations = {
        "decode": sum(part["song_s"] for part in parts),
        "log_mel": RATED_S * len(parts),
        "statistics": RATED_S * len(parts),
    }
    rate = {
        name: seconds / sum(part[name] for part in parts) for name, seconds in durations.items()
    }
    report = {
        "songs": len(paths),
        "songs_a_minute_per_core": round(60 * len(songs) / sum(songs), 1),
        "times_real_time_per_core": {name: round(value) for name, value in rate.items()},
        "bar_log_mel": 30,
        "log_mel_meets_bar": rate["log_mel"] >= 30,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
