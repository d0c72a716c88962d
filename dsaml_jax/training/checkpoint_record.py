"""The record in a checkpoint: the run it belongs to, its arrays, its metrics, and hashes.

The record is part of the checkpoint's own metadata, so that a checkpoint that was copied or linked
elsewhere is recognized and one wrong byte is detected; storage formats check only some bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dsaml_jax.runtime.files import read_json_object
from dsaml_jax.runtime.processes import digest
from dsaml_jax.training.devices import first_replica
from dsaml_jax.training.state import State

_METADATA = "_CHECKPOINT_METADATA"
_METRICS = Path("metrics", "metrics")


class Record(NamedTuple):
    """The record of one checkpoint.

    Attributes:
      step: of the state.
      run: description of the run, such as its "config" and "data".
      arrays: {path in the state: dtype and shape, such as "float32[3, 4]"}.
      content: hash of the state.
      metrics: of its validation; None if it has not been validated.
    """

    step: int
    run: dict[str, Any]
    arrays: dict[str, str]
    content: str
    metrics: dict[str, float] | None

    def sealed(self) -> dict[str, Any]:
        """Returns the record, JSON-compatible, with a hash of itself."""
        fields = self._asdict()
        return {**fields, "seal": _hash(fields)}


def make_record(
    run: Mapping[str, Any], state: State, metrics: Mapping[str, float] | None
) -> Record:
    """Returns the record of a state that is about to be saved; waits for the device."""
    return Record(
        int(state.step),
        dict(run),
        describe_arrays(state),
        state_hash(state),
        None if metrics is None else dict(metrics),
    )


def read_record(checkpoint: Path) -> Record:
    """Reads the record of a checkpoint's folder.

    Raises:
      ValueError: it is damaged, or does not match the metrics next to it or the folder's name.
      OSError: it cannot be read.
    """
    fields = read_json_object(checkpoint / _METADATA).get("custom_metadata")
    if not isinstance(fields, dict) or "seal" not in fields:
        raise ValueError("no record of its run: damaged, or written by an earlier version")
    seal = fields.pop("seal")
    if seal != _hash(fields):
        raise ValueError(f"{_METADATA} has changed since it was written")
    if fields.keys() != set(Record._fields):
        raise ValueError("its record has other fields: written by an earlier version")
    record = Record(**fields)
    if checkpoint.name != str(record.step):
        raise ValueError(f"it is the checkpoint of step {record.step}, under another name")
    metrics = checkpoint / _METRICS
    stored = read_json_object(metrics) if record.metrics is not None or metrics.exists() else None
    if json.dumps(stored, sort_keys=True) != json.dumps(record.metrics, sort_keys=True):
        raise ValueError(f"{_METRICS} has changed since it was written")
    return record


def describe_arrays(state: State) -> dict[str, str]:
    """Returns the dtype and shape of every array of a state, by its path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): (
            f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def state_hash(state: State) -> str:
    """Returns a hash of the values, dtypes and shapes of a state, one replica of each array."""
    return digest(first_replica(state)).hex()


def _hash(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
