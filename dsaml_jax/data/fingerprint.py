"""What data a run is of, in a few numbers: to tell whether they are still the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dsaml_jax.data.corpus import Corpus

Fingerprint = dict[str, dict[str, Any]]
"""{split: {"songs", "annotators", "ratings": how many, "content": a hash}}"""


def fingerprint(corpora: Mapping[str, Corpus]) -> Fingerprint:
    """Of every split: who and what is in it, and a hash of all that training and tests see of it.

    The hash is of names, ratings and where in its features each song's sound is stored, which
    is itself a hash of the audio file and of all parameters. Features that another machine computed
    with other last bits have the same fingerprint.
    """
    return {split: _of(corpus) for split, corpus in corpora.items()}


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Fields in which two trees of dicts differ, as 'field was old, is new'."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{path} was {old!r}, is {new!r}"]
    found = []
    for name in sorted(old.keys() | new.keys()):
        found += differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    return found


def _of(corpus: Corpus) -> dict[str, Any]:
    digest = hashlib.blake2b(digest_size=10)
    for names in (corpus.song_ids, corpus.annotator_ids, corpus.sources):
        digest.update("\n".join(names).encode() + b"\0")
    for values in (corpus.curve, corpus.valid, corpus.tables.song_of, corpus.tables.annotator_of):
        array = np.asarray(values)
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return {
        "songs": len(corpus.song_ids),
        "annotators": len(corpus.annotator_ids),
        "ratings": len(corpus.curve),
        "content": digest.hexdigest(),
    }
