"""Identification of raters in VGMIDI, which has no rater ids."""

from __future__ import annotations

import collections
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from dsaml_jax.datasets.schema import EVERYONE, Song

PROFILE = ("age", "gender", "country", "musicianship")
ANSWERS = ("ex1_arousal", "ex1_description", "ex1_valence", "ex2_arousal", "ex2_valence")
"""A rater's answers about two practice pieces; identical in all of the rater's annotations."""

_USUAL_PIECES = 2  # pieces that each rater was given


def identify(annotations: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Returns the rater's id of each annotation whose rater can be identified.

    Two annotations are by the same person if profile and answers are identical. For people who gave
    no answers the profile alone must identify them; if more annotations share it than a rater was
    given pieces, they are by several people and none of them gets an id.

    Returns:
      Annotation -> id, a hash of profile and answers that reveals neither.
    """
    keys = {name: _key(annotation) for name, annotation in annotations.items()}
    sizes = collections.Counter(keys.values())
    return {
        name: hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
        for name, key in keys.items()
        if key is not None and _is_one_person(annotations[name], sizes[key])
    }


def pieces_each(songs: Iterable[Song]) -> collections.Counter[str]:
    """Counts the pieces of each rater, the aggregate excluded."""
    return collections.Counter(
        rating.annotator_id
        for song in songs
        for rating in song.ratings
        if rating.annotator_id != EVERYONE
    )


def _key(annotation: Mapping[str, Any]) -> str | None:
    """Returns profile and answers as one text; None if a field is neither text nor a number."""
    fields = [annotation.get(field) for field in PROFILE + ANSWERS]
    if not all(field is None or isinstance(field, str | int | float) for field in fields):
        return None
    # 7 and 7.0 are the same answer.
    whole = [int(f) if isinstance(f, float) and f.is_integer() else f for f in fields]
    return json.dumps(whole)


def _is_one_person(annotation: Mapping[str, Any], annotations: int) -> bool:
    answered = any(str(annotation.get(field) or "").strip() for field in ANSWERS)
    return answered or annotations <= _USUAL_PIECES
