"""Measures how fast one core prepares songs, and in how much memory.

    python -m benchmarks.preparation [AUDIO FILES]

prints JSON: songs per minute, and for each step how many times faster than real time it is. Sizes
are those of the release (44.1 kHz, 60 segments from 15 s on). Without files it uses noise. It
measures processor time, so that other load on the machine hardly matters.

    python -m benchmarks.preparation --memory 10 60

prints the peak memory of a process that prepares one song of noise of 10 and of 60 minutes, all of
which is rated, as wav and as mp3.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
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
from dsaml_jax.audio.features import clip_features
from dsaml_jax.audio.log_mel import cut_segments, log_mel
from dsaml_jax.audio.statistics import clip_statistics
from dsaml_jax.datasets.schema import RATING_HZ, Rating, Song
from dsaml_jax.preparation.extract import extract
from dsaml_jax.preparation.job import make_job

START_S, RATED_S, LENGTH_S = 15.0, 30.0, 45.0


def noise(path: Path, seconds: float, seed: int = 0) -> Path:
    """Writes a stereo file of noise at 44.1 kHz; returns its path."""
    rng = np.random.default_rng(seed)
    with soundfile.SoundFile(path, "w", 44_100, 2) as file:
        for _ in range(round(seconds)):
            file.write(rng.normal(0, 0.1, (44_100, 2)))
    return path


def timed(function: Callable, *arguments) -> tuple[float, Any]:
    """Returns the processor seconds of a call, and its result."""
    start = time.process_time()
    result = function(*arguments)
    return time.process_time() - start, result


def steps(path: Path, audio: AudioConfig) -> dict[str, float]:
    """Returns the processor seconds of each step of one song, and the duration of the song."""
    decoding, (waveform, rate) = timed(decode, path)
    images = clip_features(waveform, rate, START_S, audio).log_mel
    start, size = round(START_S * rate), len(images) * audio.segment_samples
    span = waveform[start : start + size]  # not resampled: as many samples take as long
    images_s, _ = timed(log_mel, cut_segments(span, audio), audio)
    statistics, _ = timed(clip_statistics, span, images, audio)
    return {
        "decode": decoding,
        "log_mel": images_s,
        "statistics": statistics,
        "song_s": len(waveform) / rate,
    }


def whole(path: Path, audio: AudioConfig, store: str, start_s: float, rated_s: float) -> float:
    """Returns the processor seconds of a song from its file to its entries in the store."""
    curve = np.zeros((round(rated_s * RATING_HZ), 2), np.float32)
    song = Song(path.stem, start_s + rated_s, start_s, (Rating("all", curve),), audio=path.name)

    def prepare() -> None:
        result = extract(make_job(song, str(path.parent), audio, store, ""))
        if result.fault:
            raise RuntimeError(result.fault)

    return timed(prepare)[0]


def peak_mib(path: Path, minutes: float) -> int:
    """Returns the peak memory of a fresh process that prepares one song, in MiB."""
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.preparation", str(path), "--alone", str(minutes)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(ran.stdout)


def prepare_alone(path: Path, minutes: float) -> int:
    """Prepares one song in this process; returns the peak memory of the process in MiB."""
    with tempfile.TemporaryDirectory() as store, threadpool_limits(1):
        whole(path, AudioConfig(), store, 0.0, 60 * minutes)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def memory(minutes: list[float]) -> None:
    """Prints the peak memory of preparing songs of these lengths."""
    with tempfile.TemporaryDirectory() as folder:
        peaks = {
            f"{length:g} minutes, {suffix}": peak_mib(
                noise(Path(folder) / f"{length}.{suffix}", 60 * length), length
            )
            for length in minutes
            for suffix in ("wav", "mp3")
        }
    print(json.dumps({"peak_mib_of_a_process": peaks}, indent=1))


def speed(files: list[str]) -> None:
    """Measures with the given files, or with noise."""
    audio = AudioConfig()
    with tempfile.TemporaryDirectory() as temporary, threadpool_limits(1):
        paths = [Path(name).resolve() for name in files] or [
            noise(Path(temporary) / f"{i}.mp3", LENGTH_S, i) for i in range(10)
        ]
        store, span = f"{temporary}/store", (START_S, RATED_S)
        # The first call builds filters and loads libraries.
        whole(paths[0], audio, store + "/warm", *span)
        steps(paths[0], audio)
        songs = [whole(path, audio, store, *span) for path in paths]
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


def main(arguments: list[str]) -> None:
    """Measures speed or memory."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("files", nargs="*")
    flags.add_argument("--memory", nargs="+", type=float, metavar="MINUTES")
    flags.add_argument("--alone", type=float, help=argparse.SUPPRESS)
    given = flags.parse_args(arguments)
    if given.alone:
        print(prepare_alone(Path(given.files[0]), given.alone))
    elif given.memory:
        memory(given.memory)
    else:
        speed(given.files)


if __name__ == "__main__":
    main(sys.argv[1:])
