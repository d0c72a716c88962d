"""--mode=personalize: infers a listener from rated songs, and saves what is personal."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dsaml_jax.commands.options import ListenerOptions
from dsaml_jax.errors import UserError
from dsaml_jax.personal import Curves, Listener, Rating, read_rating
from dsaml_jax.personal.rating import joined
from dsaml_jax.personal.saved import check_vacant
from dsaml_jax.personal.shared import flat
from dsaml_jax.reports.songs import SongCurves, fit, song_figure


def personalize(options: ListenerOptions) -> str:
    """Adapts to the rated songs; writes `personal.json`, the weights, and a figure of each song.

    Returns:
      What was used of each song, and how well the curves fit the ratings before and after.

    Raises:
      UserError: a flag is missing, or a file cannot be used; nothing is written then.
    """
    options.need("personalize", "checkpoint", "audio", "ratings", "workdir")
    folder = Path(options.workdir)
    check_vacant(folder)
    songs = [*zip(options.audio, _ratings(options), strict=True)]
    base = Listener.open(
        options.checkpoint,
        shared=options.shared or None,
        experiment=options.experiment,
        embedding_weights=options.embedding_weights,
    )
    with tqdm(total=100, desc="adapting", unit="%", disable=not sys.stderr.isatty()) as bar:

        def show(share: float, what: str) -> None:
            bar.set_postfix_str(what)
            bar.update(round(100 * share) - bar.n)

        listener = base.adapt(songs, clips=options.clips or None, progress=show)
    rated: dict[str, list[Rating]] = {}
    for path, rating in songs:
        rated.setdefault(path, []).append(rating)
    drawn = [(path, joined(ratings)) for path, ratings in rated.items()]
    curves = listener.predict([path for path, _ in drawn])
    listener.save(folder)
    lines = []
    for i, ((path, rating), found) in enumerate(zip(drawn, curves, strict=True)):
        shown = _with_rating(found, rating)
        song_figure(folder / f"personal-{i + 1}.png", Path(path).name, shown)
        before, after = fit(shown)
        lines += [
            f"{path}: {listener.songs[i].clips} clips",
            *(f"  {note}" for note in listener.songs[i].notes),
            f"  CCC with the rating: population {before}, adapted {after} (the fit, not a test)",
        ]
    losses = ", ".join(f"{loss:.4f}" for loss in listener.losses)
    numbers = sum(array.size for array in flat(listener.adapted).values())
    return "\n".join(
        [
            *lines,
            f"Support loss along the inner loop: {losses}.",
            f"The listener is in {folder}/: personal.json, {numbers} adapted numbers, and figures; "
            f"it needs the model {base.shared.source} (hash {base.shared.hash[:12]}).",
        ]
    )


def _ratings(options: ListenerOptions) -> list[Rating]:
    """Reads the ratings, one for each song."""
    if len(options.audio) != len(options.ratings):
        raise UserError(
            f"--audio is given {len(options.audio)} times and --ratings {len(options.ratings)} "
            "times; give one file of ratings for each song, in the same order."
        )
    dimensions = options.dimension or ("",)
    if len(dimensions) == 1:
        dimensions *= len(options.ratings)
    if len(dimensions) != len(options.ratings):
        raise UserError(
            f"--dimension is given {len(dimensions)} times for {len(options.ratings)} files of "
            "ratings; give it once, or once for each."
        )
    return [
        read_rating(path, options.scale or None, options.time_unit or None, dimension or None)
        for path, dimension in zip(options.ratings, dimensions, strict=True)
    ]


def _with_rating(curves: Curves, rating: Rating) -> SongCurves:
    shown = np.full(curves.population.shape, np.nan)
    binned = rating.bins().curve[: len(shown)]
    shown[: len(binned)] = binned
    return SongCurves(curves.time_s, curves.population, curves.personal, shown)
