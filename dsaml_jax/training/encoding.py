"""Songs encoded once, for stages that leave the encoder as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsaml_jax.data.tables import Tables
from dsaml_jax.errors import UserError
from dsaml_jax.evaluation.predictor import encode_clips
from dsaml_jax.evaluation.windows import Clips, map_windows
from dsaml_jax.meta.subset import partition
from dsaml_jax.model import ENCODER, DSAMLConfig
from dsaml_jax.model.weights import Weights


def freezes_encoder(trained: Sequence[str], params: Any) -> bool:
    """Returns whether no weight of the encoder is among those that the patterns select."""
    moved, _ = partition(params, trained)
    return not jax.tree.leaves([moved[name] for name in ENCODER])


def encoded_tables(model: DSAMLConfig, weights: Weights, tables: Tables) -> Tables:
    """Returns the tables with the encoder's features in place of its inputs.

    There is no dropout in the encoder then, and no attention loss.

    Raises:
      UserError: the features of a clip depend on the clips beside it.
    """
    if model.normalization == "batch":
        raise UserError(
            "model.normalization is 'batch', so the encoder's features of a song depend on the "
            "songs beside it and cannot be computed once; train the encoder too, by train = "
            "'everything', or set model.normalization to 'clip' or 'running'."
        )
    songs = len(tables.log_mel)

    def encode(rows: np.ndarray):
        return encode_clips(
            model, weights.variables, Clips(tables.log_mel[rows], tables.embedding[rows])
        )

    features = jnp.asarray(map_windows(encode, songs))
    return tables.without_songs()._replace(encoded=features)
