"""Report on a data set: its size, its distribution of values, and the state of its audio."""

from __future__ import annotations

import collections
import os
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from dsaml_jax.datasets.schema import DIMENSIONS, EVERYONE, Song
from dsaml_jax.preparation.songs import Prepared
from dsaml_jax.reports.style import BLUE, GREEN, ORANGE, new_figure, save

_BINS = np.linspace(-1.0, 1.0, 11)


def describe_audio(prepared: Prepared) -> list[str]:
    """Describes the outcome of preparation: how many songs have features, and how they end."""
    lines = [
        f"Prepared: {len(prepared.songs)} songs with features and ratings; features of "
        f"{prepared.already_there} songs were stored before, {len(prepared.set_aside)} songs were "
        "set aside"
    ]
    silence = list(prepared.silence_s.values())
    if silence:
        lines.append(
            f"  {len(silence)} songs end in silence because their audio is shorter than their "
            f"span, by {np.mean(silence):.1f} s on average and {max(silence):.1f} s at most"
        )
    if prepared.silent:
        song_id, most = max(prepared.silent.items(), key=lambda item: item[1])
        lines.append(
            f"  {sum(prepared.silent.values())} rated half seconds of {len(prepared.silent)} songs "
            f"are silent, at most {most} of one song ({song_id})"
        )
    return lines


def describe_splits(splits: Mapping[str, Sequence[Song]]) -> list[str]:
    """Describes the size of each split, and the distribution of values over all of them."""
    lines = []
    for name, songs in splits.items():
        ratings, rated = ratings_per_song(songs), songs_per_annotator(songs)
        averaged = sum(r.annotator_id == EVERYONE for song in songs for r in song.ratings)
        lines.append(
            f"  {name}: {len(songs)} songs, {len(ratings)} of them rated by people; {len(rated)} "
            f"annotators, {sum(rated.values())} ratings; {averaged} averaged ratings"
        )
        if rated:
            lines.append(
                f"    ratings a song: {_spread(ratings.values())}; "
                f"songs an annotator: {_spread(rated.values())}"
            )
    songs = [song for split in splits.values() for song in split]
    personal = bool(songs_per_annotator(songs))
    values = rating_values(songs, personal)
    lines.append(f"  values of {'personal' if personal else 'averaged'} ratings, in percent")
    lines.append("    from    to" + "".join(f"{name:>10}" for name in DIMENSIONS))
    counts = np.stack([np.histogram(column, _BINS)[0] for column in values.T], axis=1)
    percent = 100 * counts / max(len(values), 1)
    for low, high, row in zip(_BINS[:-1], _BINS[1:], percent, strict=True):
        lines.append(f"    {low:4.1f}  {high:4.1f}" + "".join(f"{share:10.1f}" for share in row))
    return lines


def data_figure(
    path: str | os.PathLike[str],
    values: Mapping[str, np.ndarray],
    ratings_per_song: Sequence[int],
    songs_per_annotator: Sequence[int],
) -> None:
    """Draws the distribution of values, and how many ratings songs and annotators have.

    Args:
      path: the PNG to write.
      values: {source: [N, 2] (arousal, valence)}, at most two sources; empty ones are not drawn.
      ratings_per_song: the number of personal ratings of each song that has any.
      songs_per_annotator: the number of songs of each annotator.
    """
    spread = {"ratings a song": ratings_per_song, "songs an annotator": songs_per_annotator}
    spread = {title: counts for title, counts in spread.items() if len(counts)}
    figure = new_figure(height=3.6)
    axes = figure.subplots(1, len(DIMENSIONS) + len(spread), squeeze=False)[0]
    bins = np.linspace(-1, 1, 41).tolist()
    for i, name in enumerate(DIMENSIONS):
        for (label, curves), color in zip(values.items(), (BLUE, ORANGE), strict=False):
            if len(curves):
                axes[i].hist(
                    curves[:, i],
                    bins,
                    density=True,
                    histtype="step",
                    linewidth=1.6,
                    color=color,
                    label=label,
                )
        axes[i].set_title(f"{name} (density)", fontsize=10)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=len(values), frameon=False)
    for axis, (title, counts) in zip(axes[len(DIMENSIONS) :], spread.items(), strict=True):
        axis.plot(np.arange(1, len(counts) + 1), np.sort(counts)[::-1], color=GREEN, linewidth=2)
        axis.set_ylim(bottom=0)
        if max(counts) > 10 * min(counts):  # a few annotators rated nearly everything
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(f"{title.split()[-1]}s, most first")
    save(figure, path)


def ratings_per_song(songs: Sequence[Song]) -> dict[str, int]:
    """Counts the personal ratings of each song that has any."""
    counts = {
        song.song_id: sum(rating.annotator_id != EVERYONE for rating in song.ratings)
        for song in songs
    }
    return {name: count for name, count in counts.items() if count}


def songs_per_annotator(songs: Sequence[Song]) -> dict[str, int]:
    """Counts the songs that each annotator rated."""
    names = (rating.annotator_id for song in songs for rating in song.ratings)
    return dict(collections.Counter(name for name in names if name != EVERYONE))


def rating_values(songs: Sequence[Song], personal: bool) -> np.ndarray:
    """Concatenates the values [N, 2] of all personal, or of all averaged ratings."""
    curves = [
        rating.curve
        for song in songs
        for rating in song.ratings
        if (rating.annotator_id != EVERYONE) == personal
    ]
    return np.concatenate([np.zeros((0, 2), np.float32), *curves])


def _spread(counts: Collection[int]) -> str:
    return f"{min(counts)} to {max(counts)}, median {np.median(list(counts)):g}"
