"""A compact fingerprint of a run's data, to detect changes when the run resumes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dsaml_jax.data.corpus import Corpus

Fingerprint = dict[str, dict[str, Any]]
"""{split: {"songs", "annotators", "ratings": their number, "content": a hash}}"""


def fingerprint(corpora: Mapping[str, Corpus]) -> Fingerprint:
    """Computes the size of every split and a hash of its content.

    The hash covers the names, the ratings, and the keys under which the features are stored. A key
    is itself a hash of the audio file and all audio parameters, so features that differ only in
    rounding between machines have the same fingerprint.
    """
    return {split: _split_fingerprint(corpus) for split, corpus in corpora.items()}


def _split_fingerprint(corpus: Corpus) -> dict[str, Any]:
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
