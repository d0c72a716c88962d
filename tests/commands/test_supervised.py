"""Supervised training on consensus labels, long songs and both protocols, end to end."""

import json
import math

import pytest

from dsaml_jax.commands.evaluate import evaluate
from dsaml_jax.commands.train import train
from dsaml_jax.commands.workdir import open_workdir
from dsaml_jax.config.experiment import experiment_from_config
from dsaml_jax.data.loading import load_corpora
from dsaml_jax.errors import UserError
from dsaml_jax.evaluation.methods import IDEAL_METHODS, METHOD_ORDER
from tests import tiny


def experiment(folder, **changes):
    config = tiny.get_config()
    config.data.prepared = str(folder)
    config.diagnostics.every = 0
    config.update_from_flattened_dict(changes)
    return experiment_from_config(config.to_dict())


def finished(tmp_path, **changes):
    chosen = experiment(tmp_path / "prepared", **changes)
    workdir = open_workdir(tmp_path / "run", chosen, fresh=True)
    return chosen, workdir, train(chosen, workdir)


def test_consensus_labels_train_one_model_and_test_it_on_songs(tmp_path):
    chosen, workdir, results = finished(
        tmp_path,
        **{
            "data.labels": "consensus",
            "tasks.meta_batch": 1,
            "population.steps": 2,
            "evaluation.figures": 2,
        },
    )
    (result,) = results.values()
    assert set(result.rows) == {"constant", "population", "oracle"}
    assert result.counts == {"songs": 4, "sequences": 4} and result.unit == "songs"
    assert set(result.differences) == {"constant", "oracle"} and result.reference == "population"
    assert all(math.isfinite(value) for row in result.rows.values() for value in row.values())
    # The mean of a song's raters is closer to its true curve than a constant is.
    assert result.rows["oracle"]["rmse"] < result.rows["constant"]["rmse"]
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["population"]
    assert "over 4 songs" in (workdir / "results.md").read_text()
    assert (workdir / "figures" / "listeners.png").exists()
    again = evaluate(chosen, workdir)
    assert again["supervised"].to_json() == result.to_json()


def test_both_protocols_test_long_songs_whole(tmp_path):
    """Songs have 38 rated segments; the model sees 12 at a time."""
    chosen, workdir, results = finished(
        tmp_path,
        **{
            "data.builder.duration_s": 20.0,
            "data.on_device": False,  # evaluation then reads songs from host memory
            "evaluation.protocols": ("same_song", "cross_song"),
            "evaluation.whole_songs": True,
            "evaluation.hops": (6, 4),
            # The weights stay as initialized: training is tested elsewhere.
            "population.steps": 0,
            "meta.steps": 0,
        },
    )
    assert list(results) == ["same_song", "cross_song"]
    for name, suffix in (("cross_song", ""), ("same_song", "_same_song")):
        content = json.loads((workdir / f"results{suffix}.json").read_text())
        missing = set(IDEAL_METHODS) if name == "same_song" else set()
        assert content["protocol"] == name
        assert set(content["rows"]) == set(METHOD_ORDER) - missing
        assert content["rows"] == results[name].rows
        assert (workdir / "figures" / f"listeners{suffix}.png").exists()
    # Same song: one sequence per rating. Cross-song: three annotators, three supports, two queries.
    test = load_corpora(chosen)["test"]
    assert test.curve.shape[1] == 38 and test.segments == 12
    assert results["same_song"].counts["sequences"] == len(test.curve)
    assert results["cross_song"].counts["sequences"] == 3 * 3 * 2
    assert results["same_song"].rows["constant"] != results["cross_song"].rows["constant"]


def test_contradictory_configs_are_rejected(tmp_path):
    for changes, sentence in (
        ({"data.labels": "consensus"}, r"tasks\.meta_batch is 2"),
        ({"evaluation.protocols": ("same_song",)}, "whole_songs"),
        ({"evaluation.protocols": ("some_song",)}, "same_song"),
        ({"evaluation.hops": (5,)}, r"evaluation\.hops"),
        ({"evaluation.hops": (5, 13)}, r"audio\.segments = 12"),
    ):
        with pytest.raises(UserError, match=sentence):
            experiment(tmp_path, **changes)
