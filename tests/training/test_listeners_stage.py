"""All stages with a context: a tiny run end to end, and a stopped one that resumes."""

import jax
import numpy as np
import pytest

from configs.base import estimator
from dsaml_jax.commands.evaluate import evaluate_methods
from dsaml_jax.commands.workdir import open_workdir
from dsaml_jax.config.experiment import experiment_from_config
from dsaml_jax.data.loading import load_corpora
from dsaml_jax.evaluation.protocols import make_eval_set
from dsaml_jax.training.stage_log import StageLog
from dsaml_jax.training.stages import restore, train
from tests import tiny


def experiment(folder):
    config = tiny.get_config()
    config.data.prepared = str(folder)
    config.diagnostics.every = 0
    config.audio.embedding = "descriptors"
    config.model.context_dim = 3
    config.model.support_loss = "likelihood"
    config.model.decision = True
    config.model.basis_scale = 8.0
    config.listeners.update(
        steps=4, songs=3, infer_from=2, infer_every=1, infer_last=2, validate_every=2
    )
    config.listeners.embedding_noise = 0.1
    config.inner.update(
        steps=1, adapt="context", direction="newton", proximal=1.0, rates="fixed",
        rates_learning_rate=0.0,
    )  # fmt: skip
    config.inner.estimator = estimator("second_order")
    config.inner.optimizer.options.learning_rate = 1.0
    config.meta_from_population = False
    config.meta.train = "predictor/output, predictor/context, likelihood, decision"
    return experiment_from_config(config.to_dict())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    whole = experiment(tmp_path_factory.mktemp("data"))
    workdir = open_workdir(tmp_path_factory.mktemp("runs") / "run", whole, fresh=True)
    corpora = load_corpora(whole)
    return whole, corpora, workdir, train(whole, corpora, workdir)


def test_all_stages_run_and_all_methods_are_scored(finished):
    whole, corpora, workdir, trained = finished
    eval_set = make_eval_set(
        corpora["test"], whole.evaluation, support=1, seed=0, source="test", protocol="cross_song"
    )
    results = evaluate_methods(whole, corpora, {"cross_song": eval_set}, trained, workdir)
    rows = results["cross_song"].rows
    assert all(np.isfinite(rows[row]["ccc"]) for row in ("unadapted", "adapted", "wrong_listener"))
    assert rows["adapted"]["ccc"] != rows["unadapted"]["ccc"]
    assert (workdir / "figures" / "learning_listeners.png").is_file()


def test_meta_learning_moves_the_head_alone_and_starts_from_the_listeners(finished):
    _, _, _, trained = finished
    population, meta = trained.population.params, trained.meta.params
    for module in ("adapter", "fusion", "transformer"):
        # Meta-learning starts from the listeners' stage, after which the population model moved.
        different = jax.tree.map(lambda a, b: (a != b).any(), population[module], meta[module])
        assert any(jax.tree.leaves(different))
    assert (np.asarray(meta["predictor"]["context"]["vector"]) == 0).all()
    assert np.abs(meta["predictor"]["context"]["kernel"]).max() > 0


def test_a_run_stopped_in_the_listeners_stage_resumes_to_the_same_weights(
    finished, tmp_path, monkeypatch
):
    whole, corpora, _, trained = finished
    workdir = open_workdir(tmp_path / "run", whole, fresh=True)
    write, seen = StageLog.scalars, []

    def stop(log, kind, step, values):
        seen.append(kind == "train")
        if sum(seen) == 3:
            raise KeyboardInterrupt
        write(log, kind, step, values)

    monkeypatch.setattr(StageLog, "scalars", stop)
    with pytest.raises(KeyboardInterrupt):
        train(whole, corpora, workdir)
    monkeypatch.setattr(StageLog, "scalars", write)
    train(whole, corpora, workdir)
    ours = restore(whole, workdir)
    jax.tree.map(
        np.testing.assert_array_equal,
        (trained.population, trained.meta),
        (ours.population, ours.meta),
    )
