"""Options of the modes that start from a trained model instead of a config."""

from __future__ import annotations

import dataclasses
import glob
from pathlib import Path

from dsaml_jax.audio import ffmpeg_file, midi
from dsaml_jax.config.experiment import Experiment
from dsaml_jax.errors import UserError

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".caf", ".w64"),
    *ffmpeg_file.SUFFIXES,
    *midi.SUFFIXES,
)
"""Files of a folder that count as songs."""


@dataclasses.dataclass(frozen=True)
class ListenerOptions:
    """Flags of the modes for listeners; "" and None where they are not given.

    Attributes:
      checkpoint: a run's workdir, an exported folder, a listener's folder, or a `.pt` file.
      workdir: gets the results.
      audio: files, folders, and patterns.
      ratings: files of ratings, one for each of `audio`.
      scale: of the ratings, such as "1..9".
      time_unit: of the ratings, "s" or "ms".
      dimension: what each file with one column of values rates.
      clips: the largest number of clips of a song that is adapted to; 0 for all.
      start_s, end_s: the part of each song that is predicted.
      shared: where the shared model of a listener is, if it has moved.
      embedding_weights: ImageBind's file of weights.
      experiment: for a `.pt`, settings that are not the release's.
    """

    checkpoint: str = ""
    workdir: str = ""
    audio: tuple[str, ...] = ()
    ratings: tuple[str, ...] = ()
    scale: str = ""
    time_unit: str = ""
    dimension: tuple[str, ...] = ()
    clips: int = 0
    start_s: float = 0.0
    end_s: float | None = None
    shared: str = ""
    embedding_weights: str = ""
    experiment: Experiment | None = None

    def need(self, mode: str, *names: str) -> None:
        """Raises UserError unless the flags of these names are given."""
        for name in names:
            if not getattr(self, name):
                raise UserError(f"--{name} is missing; --mode={mode} needs it.")


def audio_files(patterns: tuple[str, ...]) -> list[str]:
    """Returns the songs that files, folders and patterns name, each once, in order.

    Raises:
      UserError: one of them names no file.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            named = sorted(
                str(file) for file in path.iterdir() if file.suffix.lower() in AUDIO_SUFFIXES
            )
        elif path.exists():
            named = [pattern]
        else:
            named = sorted(file for file in glob.glob(pattern) if Path(file).is_file())
        if not named:
            what = "holds no audio file" if path.is_dir() else "names no file"
            raise UserError(f"--audio={pattern} {what}; give songs, their folder, or a pattern.")
        found.update(dict.fromkeys(named))
    return list(found)
