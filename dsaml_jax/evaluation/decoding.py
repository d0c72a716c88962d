"""Linear decoding of the true cues of simulated songs: what features tell of them.

A cue that cannot be decoded from the model's inputs is lost before training; one that can be
decoded from them, but not from the encoder's features, is lost in training. Real songs have no
known cues. The cues are drawn here, as in `dsaml_jax.evaluation.ideal`; no corpus holds them, so
training cannot see them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import uniform_filter1d

from dsaml_jax.config.experiment import Experiment
from dsaml_jax.data.corpus import Corpus
from dsaml_jax.datasets.synthetic import builder_config
from dsaml_jax.datasets.synthetic.listeners import at_ratings
from dsaml_jax.datasets.synthetic.music import CUE_HZ, CUES
from dsaml_jax.datasets.synthetic.settings import SyntheticSettings
from dsaml_jax.datasets.synthetic.simulation import cues_of
from dsaml_jax.evaluation.predictor import encode_clips
from dsaml_jax.evaluation.windows import Clips, map_windows
from dsaml_jax.model.weights import Weights

if TYPE_CHECKING:
    from jaxtyping import Float

LEVELS = ("song", "within")
"""What is decoded: the mean of a cue over a song, and its deviations from this mean."""

_MOST_SONGS = 400
"""Songs of a split that are used at most; they bound time and memory."""

_CONTEXT = 7  # segments over which features are averaged
_PENALTY = 0.003  # per row, for features of variance 1

CueDecoding = dict[str, dict[str, dict[str, float | None]]]
"""{features: {level: {cue: R²}}}; see `cue_decoding`."""


def cue_decoding(
    experiment: Experiment, corpora: Mapping[str, Corpus], models: Mapping[str, Weights]
) -> CueDecoding | None:
    """Fits decoders of the cues to training songs and scores them on validation songs.

    The features of a segment are "inputs", the mean and deviation of each band of its log-mel image
    and the global embedding, and the features that the encoder of each model computes.

    Args:
      experiment: its data set and model apply.
      corpora: "train" and "validation".
      models: weights by name.

    Returns:
      For each kind of features, level and cue the R² on validation songs; None in place of an R² of
      a cue that does not vary, and None for real data.
    """
    if experiment.data.name != "synthetic":
        return None
    settings = builder_config("run", **experiment.data.builder).settings
    features: dict[str, list[np.ndarray]] = {}
    cues: list[np.ndarray] = []
    for split in ("train", "validation"):
        corpus = corpora[split]
        songs = min(len(corpus.song_ids), _MOST_SONGS)
        cues.append(_cues(settings, corpus, songs))
        features.setdefault("inputs", []).append(_inputs(corpus, songs))
        for name, weights in models.items():
            features.setdefault(name, []).append(_encoded(experiment, weights, corpus, songs))
    return {
        name: {level: _r_squared(level, train, cues[0], validation, cues[1]) for level in LEVELS}
        for name, (train, validation) in features.items()
    }


def decoding_r_squared(
    features: Float[np.ndarray, "rows features"],
    targets: Float[np.ndarray, "rows targets"],
    new_features: Float[np.ndarray, "new_rows features"],
    new_targets: Float[np.ndarray, "new_rows targets"],
) -> Float[np.ndarray, " targets"]:
    """Fits a linear decoder by ridge regression (Hoerl and Kennard 1970) and scores it on new rows.

    With z the features scaled to mean 0 and variance 1, the weights V minimize, per row,

        |y - mean y - z V|² + penalty |V|².

    Returns:
      1 - Σ (y - decoded)² / Σ (y - mean y)² over the new rows; NaN for targets that do not vary.
    """
    mean, deviation = features.mean(0), features.std(0)
    constant = deviation <= 1e-6 * np.maximum(1.0, np.abs(features).max(0))
    scale = np.where(constant, 0.0, 1 / np.where(constant, 1.0, deviation))
    z = (features - mean) * scale
    gram = z.T @ z / len(z) + _PENALTY * np.eye(z.shape[1])
    weights = np.linalg.solve(gram, z.T @ (targets - targets.mean(0)) / len(z))
    decoded = (new_features - mean) * scale @ weights + targets.mean(0)
    total = ((new_targets - new_targets.mean(0)) ** 2).sum(0)
    left = ((new_targets - decoded) ** 2).sum(0)
    return np.where(total > 1e-12, 1 - left / np.maximum(total, 1e-12), np.nan)


def _r_squared(
    level: str,
    features: np.ndarray,
    cues: np.ndarray,
    new_features: np.ndarray,
    new_cues: np.ndarray,
) -> dict[str, float | None]:
    """Scores the decoders of one level; all arrays are [songs, S, ...]."""
    rows = [_rows(level, x) for x in (_in_context(features), cues)]
    new_rows = [_rows(level, x) for x in (_in_context(new_features), new_cues)]
    scores = decoding_r_squared(*rows, *new_rows)
    return {
        cue: float(score) if np.isfinite(score) else None
        for cue, score in zip(CUES, scores, strict=True)
    }


def _rows(level: str, values: np.ndarray) -> np.ndarray:
    """Returns the songs' means [songs, x], or the deviations from them [songs S, x]."""
    means = values.mean(1)
    return means if level == "song" else (values - means[:, None]).reshape(-1, values.shape[-1])


def _in_context(features: np.ndarray) -> np.ndarray:
    """Returns the features and their moving means over 3.5 s: [songs, S, 2 x]."""
    values = np.asarray(features, np.float64)
    moving = uniform_filter1d(values, _CONTEXT, axis=1, mode="nearest")
    return np.concatenate([values, moving], axis=-1)


def _cues(settings: SyntheticSettings, corpus: Corpus, songs: int) -> np.ndarray:
    """Returns the cues of the first songs at the times of their ratings: [songs, S, 6]."""
    trajectories = [cues_of(settings, song_id) for song_id in corpus.song_ids[:songs]]
    times_s = np.arange(len(trajectories[0])) / CUE_HZ
    start_s, segments = settings.ratings_start_s, corpus.segments
    return np.stack([at_ratings(cues, times_s, start_s, segments) for cues in trajectories])


def _inputs(corpus: Corpus, songs: int) -> np.ndarray:
    log_mel = np.asarray(corpus.tables.log_mel[:songs])
    embedding = np.asarray(corpus.tables.embedding[:songs])
    if not corpus.tables.embedding_per_segment:
        embedding = np.repeat(embedding[:, None], corpus.segments, axis=1)
    return np.concatenate([log_mel.mean(2), log_mel.std(2), embedding], axis=-1)


def _encoded(experiment: Experiment, weights: Weights, corpus: Corpus, songs: int) -> np.ndarray:
    tables = corpus.tables

    def encode(rows: np.ndarray):
        clips = Clips(tables.log_mel[rows], tables.embedding[rows])
        return encode_clips(experiment.model, weights.variables, clips)

    return map_windows(encode, songs)
