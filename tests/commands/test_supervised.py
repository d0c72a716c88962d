"""Training on everyone's labels, long songs, and both protocols, end to end."""

import json
import math

import pytest

from dsaml_jax.commands.evaluate import evaluate
from dsaml_jax.commands.train import train
from dsaml_jax.commands.workdir import open_workdir
from dsaml_jax.config.experiment import experiment_from_config
from dsaml_jax.data.loading import load_corpora
from dsaml_jax.errors import UserError
from dsaml_jax.evaluation.methods import METHOD_ORDER
from tests import tiny


def experiment(folder, **changes):
    config = tiny.get_config()
    config.data.prepared = str(folder)
    config.update_from_flattened_dict(changes)
    return experiment_from_config(config.to_dict())


def finished(tmp_path, **changes):
    chosen = experiment(tmp_path / "prepared", **changes)
    workdir = open_workdir(tmp_path / "run", chosen, fresh=True)
    return chosen, workdir, train(chosen, workdir)


def test_labels_of_everyone_train_one_model_and_test_it_on_songs(tmp_path):
    chosen, workdir, results = finished(
        tmp_path,
        **{
            "data.labels": "consensus",
            "tasks.meta_batch": 1,
            "population.steps": 2,
            "evaluation.figures": 2,
        },
    )
    (found,) = results.values()
    assert set(found.rows) == {"constant", "population", "oracle"}
    assert found.counts == {"songs": 4, "sequences": 4} and found.unit == "songs"
    assert set(found.differences) == {"constant", "oracle"} and found.reference == "population"
    assert all(math.isfinite(value) for row in found.rows.values() for value in row.values())
    # The mean of a song's raters lies nearer to its true curve than a constant does.
    assert found.rows["oracle"]["rmse"] < found.rows["constant"]["rmse"]
    assert [each.name for each in (workdir / "checkpoints").iterdir()] == ["population"]
    assert "over 4 songs" in (workdir / "results.md").read_text()
    assert (workdir / "figures" / "listeners.png").exists()
    again = evaluate(chosen, workdir)
    assert again["supervised"].to_json() == found.to_json()


def test_long_songs_are_tested_whole_by_both_protocols(tmp_path):
    """Songs of 38 rated segments before a model that sees 12."""
    chosen, workdir, results = finished(
        tmp_path,
        **{
            "data.builder.duration_s": 20.0,
            "evaluation.protocols": ("same_song", "cross_song"),
            "evaluation.whole_songs": True,
            "evaluation.hops": (6, 4),
            # Weights as they are drawn: training is tested elsewhere.
            "population.steps": 0,
            "meta.steps": 0,
        },
    )
    assert list(results) == ["same_song", "cross_song"]
    for name, suffix in (("cross_song", ""), ("same_song", "_same_song")):
        content = json.loads((workdir / f"results{suffix}.json").read_text())
        assert content["protocol"] == name and set(content["rows"]) == set(METHOD_ORDER)
        assert content["rows"] == results[name].rows
        assert (workdir / "figures" / f"listeners{suffix}.png").exists()
    # Same song: a sequence for each rating. Cross-song: up to two other songs for each of three.
    test = load_corpora(chosen)["test"]
    assert test.curve.shape[1] == 38 and test.segments == 12
    assert results["same_song"].counts["sequences"] == len(test.curve)
    assert results["cross_song"].counts["sequences"] == 3 * 3 * 2
    assert results["same_song"].rows["constant"] != results["cross_song"].rows["constant"]


def test_configs_that_contradict_themselves_are_refused(tmp_path):
    for changes, sentence in (
        ({"data.labels": "consensus"}, r"tasks\.meta_batch is 2"),
        ({"evaluation.protocols": ("same_song",)}, "whole_songs"),
        ({"evaluation.protocols": ("some_song",)}, "same_song"),
        ({"evaluation.hops": (5,)}, r"evaluation\.hops"),
        ({"evaluation.hops": (5, 13)}, r"audio\.segments = 12"),
    ):
        with pytest.raises(UserError, match=sentence):
            experiment(tmp_path, **changes)
