"""The model that listeners share: of a run's workdir, an export, or a file of the release."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.audio.features import embedding_size
from dsaml_jax.config.experiment import Experiment, experiment_from_config
from dsaml_jax.config.files import config_file, load_config, to_plain_dict
from dsaml_jax.config.inner import InnerConfig
from dsaml_jax.data.scaling import Scaling
from dsaml_jax.errors import UserError
from dsaml_jax.evaluation.predictor import make_adapter
from dsaml_jax.interop.dsaml_release import load_dsaml_checkpoint
from dsaml_jax.meta import MetaParams
from dsaml_jax.model import DSAMLConfig, initialize
from dsaml_jax.model.batch import Batch
from dsaml_jax.model.weights import Weights
from dsaml_jax.runtime.arrays import read_arrays
from dsaml_jax.runtime.files import read_json_object
from dsaml_jax.training.stages import restore, training_stages

SCALING = "embedding_scaling.npz"
"""File of a run, and of an export, that says how the global embedding is scaled."""


@dataclasses.dataclass(frozen=True, eq=False)
class SharedModel:
    """Everything that is the same for all listeners.

    Attributes:
      source: where it was read from, for messages.
      model: sizes of the network.
      inner: the inner loop by which a listener is inferred.
      audio: how sound becomes the network's inputs.
      hops: segments between the windows of a song, for (arousal, valence).
      scaling: of the global embedding.
      population: the weights that predict for everybody.
      meta: the weights from which a listener is inferred; None if labels were consensus.
      embedding_weights: file of ImageBind's weights; "" if the embedding needs none.
    """

    source: str
    model: DSAMLConfig
    inner: InnerConfig
    audio: AudioConfig
    hops: tuple[int, int]
    scaling: Scaling
    population: Weights
    meta: Weights | None
    embedding_weights: str = ""

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 of the weights and of all settings that predictions depend on."""
        settings = {name: dataclasses.asdict(getattr(self, name)) for name in _SETTINGS}
        digest = hashlib.sha256(json.dumps([settings, self.hops], sort_keys=True).encode())
        for name, array in sorted(named_arrays(self).items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    @functools.cached_property
    def adapter(self) -> Callable[[Weights, Batch], tuple[Any, jax.Array]]:
        """The compiled inner loop, that of evaluation: (weights, support) -> (weights, losses)."""
        return jax.jit(make_adapter(self.model, self.inner))

    def checked_meta(self) -> Weights:
        """Returns `meta`; raises UserError if no listener can be inferred."""
        if self.meta is None:
            raise UserError(
                f"{self.source} was trained on consensus labels, so it cannot adapt to a listener; "
                "choose a run with data.labels = 'personal'."
            )
        if not self.inner.steps:
            raise UserError(f"{self.source} has inner.steps = 0, so it does not adapt.")
        return self.meta


_SETTINGS = ("model", "inner", "audio")


def named_arrays(shared: SharedModel) -> dict[str, np.ndarray]:
    """Returns all arrays of a shared model by name, such as "meta/params/predictor/..."."""
    stages = {"population": shared.population, "meta": shared.meta}
    tree = {name: weights_tree(weights) for name, weights in stages.items() if weights is not None}
    return flat({**tree, "scaling": shared.scaling._asdict()})


def weights_tree(weights: Weights) -> dict[str, Any]:
    """Returns weights as nested dicts."""
    return {
        "params": weights.params,
        "rates": weights.meta_params.rates,
        "batch_stats": weights.batch_stats,
    }


def flat(tree: Any) -> dict[str, np.ndarray]:
    """Returns {path: array} of a pytree; empty subtrees and None are omitted."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def unflat(arrays: Mapping[str, np.ndarray], like: Any, source: Path) -> Any:
    """Returns the pytree `like`, of shapes, filled with the arrays of the same paths.

    Raises:
      UserError: an array is missing, unknown, or has another shape or dtype.
    """
    expected = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree.leaves_with_path(like)
    }
    wrong = [
        f"{name} is {_shape(arrays.get(name))}, expected {_shape(expected.get(name))}"
        for name in sorted(arrays.keys() | expected.keys())
        if _shape(arrays.get(name)) != _shape(expected.get(name))
    ]
    if wrong:
        raise UserError(
            f"{source} does not fit its settings ({wrong[0]}; {len(wrong)} arrays differ); restore "
            "the folder as it was written."
        )
    leaves = [arrays[name] for name in expected]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _shape(array: Any) -> str:
    return "missing" if array is None else f"{np.dtype(array.dtype)}{list(array.shape)}"


def weights_shapes(model: DSAMLConfig, inner: InnerConfig, audio: AudioConfig) -> dict[str, Any]:
    """Returns the shapes of `weights_tree`, for weights that `inner` adapts."""

    def tree(key: jax.Array) -> dict[str, Any]:
        variables = initialize(model, key, audio.image, embedding_size(audio))
        params = variables["params"]
        rates = inner.loop().initial_rates(params)
        stats = variables.get("batch_stats", {})
        return weights_tree(Weights(MetaParams(params, rates), stats))

    return jax.eval_shape(tree, jax.random.key(0))


def open_run(folder: Path, embedding_weights: str = "") -> SharedModel:
    """Reads the weights that validation chose in a run of --mode=train.

    Raises:
      UserError: a file of the run is missing or damaged, or training has not finished.
    """
    try:
        experiment = experiment_from_config(read_json_object(folder / "config.json"))
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{folder}/config.json cannot be read ({reason}).") from error
    for stage in training_stages(experiment):
        _check_finished(folder, stage.name, stage.config.steps)
    scaling = read_scaling(
        folder / SCALING, "run --mode=train there again, which writes it", experiment.audio
    )
    trained = restore(experiment, folder)
    return SharedModel(
        source=str(folder),
        model=experiment.model,
        inner=experiment.inner,
        audio=experiment.audio,
        hops=experiment.evaluation.hops,
        scaling=scaling,
        population=trained.population,
        meta=trained.meta,
        embedding_weights=embedding_weights or experiment.data.embedding_weights,
    )


def _check_finished(folder: Path, stage: str, steps: int) -> None:
    """Raises UserError unless a stage's last checkpoint is that of its last step."""
    found = [
        int(path.name)
        for path in (folder / "checkpoints" / stage).glob("*")
        if path.name.isdecimal()
    ]
    if not found or max(found) < steps:
        at = f"is at step {max(found)} of {steps}" if found else "has not begun"
        raise UserError(
            f"{folder} is not finished (stage {stage} {at}); finish it with --mode=train."
        )


def read_scaling(path: Path, remedy: str, audio: AudioConfig) -> Scaling:
    """Reads the scaling of an embedding; raises UserError if it is missing or of another size."""
    if not path.exists():
        raise UserError(
            f"{path.parent} lacks {path.name}, without which no song's embedding can be scaled; "
            f"{remedy}."
        )
    scaling = Scaling(**read_arrays(path, *Scaling._fields, remedy=remedy))
    size = embedding_size(audio)
    if any(array.shape != (size,) for array in scaling):
        raise UserError(
            f"{path} has {scaling.mean.size} values, but the embedding {audio.embedding!r} has "
            f"{size}; {remedy}."
        )
    return scaling


def open_release(
    file: Path, experiment: Experiment | None = None, embedding_weights: str = ""
) -> SharedModel:
    """Reads a `.pt` file of the authors' release, which scales no embedding.

    Its one model is both the population's and the one that adapts, by the release's inner loop.

    Args:
      file: the `state_dict`.
      experiment: sizes, inner loop, and features, if they are not the release's.
      embedding_weights: ImageBind's weights, which the release's embedding needs.

    Raises:
      UserError: the file has other weights, or ImageBind's are not given.
    """
    if experiment is None:
        if not embedding_weights:
            raise UserError(
                f"{file}: the release embeds songs with ImageBind, whose weights (CC BY-NC 4.0: no "
                "commercial use) are not given; give --embedding_weights=imagebind_huge.pth."
            )
        config = load_config(config_file("base"))
        changes = {
            "model.normalization": "running",
            "audio.embedding": "imagebind_as_released",
            "data.embedding_weights": embedding_weights,
        }
        config.update_from_flattened_dict(changes)
        experiment = experiment_from_config(to_plain_dict(config))
    model, audio, inner = experiment.model, experiment.audio, experiment.inner
    variables = load_dsaml_checkpoint(file, model)
    rates = inner.loop().initial_rates(variables["params"])
    weights = Weights(MetaParams(variables["params"], rates), variables.get("batch_stats", {}))
    expected = weights_shapes(model, inner, audio)
    unflat(flat(weights_tree(weights)), expected, file)
    size = embedding_size(audio)
    return SharedModel(
        source=str(file),
        model=model,
        inner=inner,
        audio=audio,
        hops=experiment.evaluation.hops,
        scaling=Scaling(np.zeros(size, np.float32), np.ones(size, np.float32)),
        population=weights._replace(meta_params=MetaParams(weights.params, {})),
        meta=weights,
        embedding_weights=embedding_weights or experiment.data.embedding_weights,
    )
