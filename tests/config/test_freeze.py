"""From a config file to a frozen experiment: defaults, and one-sentence errors for mistakes."""

import dataclasses
import math

import numpy as np
import pytest

from configs import base, demo, demo_paper, study_all_weights, study_meta_gradients
from configs.base import engine, estimator, optimizer
from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.config.estimators import ESTIMATORS, EngineConfig, SecondOrderConfig
from dsaml_jax.config.evaluation import ComparisonConfig, DiagnosticsConfig, EvaluationConfig
from dsaml_jax.config.experiment import experiment_from_config, resolved_config
from dsaml_jax.errors import UserError
from dsaml_jax.meta import ENGINES, Annealed, Implicit, Reptile, Unrolled
from dsaml_jax.model.config import DSAMLConfig


def freeze(**changes):
    """Returns the base experiment with fields replaced; "__" separates the parts of a path."""
    config = base.get_config().to_dict()
    for path, value in changes.items():
        *parents, name = path.split("__")
        node = config
        for parent in parents:
            node = node[parent]
        node[name] = value
    return experiment_from_config(config)


def test_the_base_config_has_the_defaults_and_the_released_values():
    experiment = experiment_from_config(base.get_config().to_dict())
    for config in (AudioConfig, DSAMLConfig, EvaluationConfig, DiagnosticsConfig, ComparisonConfig):
        assert config() in [getattr(experiment, f.name) for f in dataclasses.fields(experiment)]
    tasks, inner = experiment.tasks, experiment.inner
    assert (tasks.meta_batch, tasks.support, tasks.query, inner.steps) == (16, 1, 15, 16)
    assert (inner.adapt, inner.rates, inner.estimator.name) == ("all", "fixed", "first_order")
    assert (inner.optimizer.name, inner.optimizer.options) == ("sgd", {"learning_rate": 5e-3})
    for stage in (experiment.population, experiment.meta):
        assert (stage.optimizer.name, stage.optimizer.options) == ("adam", {"learning_rate": 5e-5})
        assert (stage.steps, stage.decay, stage.skip_at_most) == (2000, "constant", 10)
    assert (experiment.data.min_songs, experiment.data.filters.more_songs_than) == (16, 15)


def test_a_resolved_config_freezes_to_the_same_experiment():
    for module in (base, demo, study_all_weights):
        experiment = experiment_from_config(module.get_config().to_dict())
        assert experiment_from_config(resolved_config(experiment)) == experiment


@pytest.mark.parametrize(
    ("config", "built"),
    [
        (estimator("first_order"), Unrolled(0)),
        (estimator("second_order", multi_step_until=0.5), Unrolled(None, multi_step_until=0.5)),
        (
            estimator("truncated", last_steps=4, engine=engine("mixed", chunk=4)),
            Unrolled(4, dataclasses.replace(ENGINES["mixed"], chunk=4)),
        ),
        (estimator("annealed", anneal_at=0.3), Annealed(0.3)),
        (estimator("reptile"), Reptile()),
        (estimator("implicit", proximal=0.5, solver_steps=7), Implicit(7)),
    ],
)
def test_every_estimator_is_built_from_its_fields(config, built):
    inner = freeze(inner__estimator=config.to_dict()).inner
    assert inner.build_estimator() == built
    assert inner.loop().proximal == (0.5 if config.name == "implicit" else 0.0)
    assert config.name in ESTIMATORS


def test_proximal_and_direction_reach_the_inner_loop():
    assert freeze().inner.loop().proximal == 0.0 and freeze().inner.loop().direction == "gradient"
    loop = freeze(inner__proximal=0.5, inner__direction="newton").inner.loop()
    assert (loop.proximal, loop.direction) == (0.5, "newton")


MISTAKES = [
    ({"seed": -1}, "seed is -1; expected at least 0"),
    ({"seed": 1.5}, "seed is 1.5; expected an integer"),
    ({"sead": 1}, "config has no field 'sead'; did you mean 'seed'?"),
    ({"data__strict": 1}, "data.strict is 1; expected True or False"),
    ({"data__prepared": "caf\udce9"}, "data.prepared is 'caf\\udce9', which is not UTF-8"),
    ({"data__builder": 3}, "data.builder is 3; expected a mapping"),
    ({"data__beam_options": (1,)}, "data.beam_options[0] is 1; expected a string"),
    ({"data__name": "daem"}, "data.name is 'daem'; did you mean 'deam'?"),
    ({"data__name": "deam"}, "data.root is missing"),
    ({"data__filters": {"span": 0}}, "data.filters.span is 0; expected at least 1"),
    ({"data__split__test": math.nan}, "data.split.test is nan; expected a finite number"),
    ({"audio__sample_rate": 10}, "audio.sample_rate is 10; expected at least 8000"),
    ({"audio__segment_s": 1.0}, "audio.segment_s is 1.0; expected 0.5 s"),
    ({"audio__floor": 0.0}, "audio.floor is 0.0; expected at least 1e-30 and at most 1"),
    ({"audio__floor": 1e300}, "audio.floor is 1e+300; expected at least 1e-30 and at most 1"),
    ({"audio__floor": 1e-46}, "audio.floor is 1e-46; expected at least 1e-30"),
    ({"audio__hop_s": 0.3}, "audio.hop_s is 0.3; expected at most audio.window_s = 0.06"),
    ({"audio__segments": 10**9}, "audio.segments is 1000000000; expected at least 1 and at most"),
    ({"model__local_width": 2**31}, "model.local_width is 2147483648; expected at least 0 and at"),
    ({"model__layers": 10_000}, "model.layers is 10000; expected at least 1 and at most 1000"),
    ({"meta__steps": 2**31}, "meta.steps is 2147483648; expected at least 0 and at most"),
    ({"audio__window_s": math.inf}, "audio.window_s is inf; expected a finite number"),
    ({"audio__mel_bands": 2000}, "audio.mel_bands is 2000; with bins of 16.7 Hz"),
    ({"model__channels": (8, 0)}, "model.channels[1] is 0; expected at least 1"),
    ({"model__channels": (8,)}, "model.channels is (8,); expected 2 elements"),
    ({"model__dropout": 1.0}, "model.dropout is 1.0; expected at least 0 and below 1"),
    ({"model__layer_norm_epsilon": 0.0}, "model.layer_norm_epsilon is 0.0; expected above 0"),
    ({"tasks__at_once": 4}, "tasks.at_once is now called tasks.tasks_per_device"),
    ({"tasks__meta_batch": 0}, "tasks.meta_batch is 0; expected at least 1"),
    ({"meta__clip_norm": -1}, "meta.clip_norm is -1.0; expected at least 0"),
    ({"meta__decay": "cosin"}, "meta.decay is 'cosin'; did you mean 'cosine'?"),
    (
        {"population__optimizer": optimizer("adam", learning_rate=math.nan).to_dict()},
        "population.optimizer.options.learning_rate is nan; expected a finite number",
    ),
    (
        {"meta__optimizer": optimizer("adam", learning_rate=-1e-3).to_dict()},
        "optimizer.options.learning_rate is -0.001; expected at least 0",
    ),
    ({"inner__proximal": -1.0}, "inner.proximal is -1.0; expected at least 0"),
    ({"inner__direction": "newtom"}, "inner.direction is 'newtom'; did you mean 'newton'"),
    (
        {
            "inner__proximal": 1.0,
            "inner__estimator": estimator("implicit", proximal=0.5).to_dict(),
        },
        "inner.proximal is 1.0 and inner.estimator.proximal is 0.5: 'implicit' has a field",
    ),
    ({"inner__rates_learning_rate": math.inf}, "inner.rates_learning_rate is inf"),
    ({"evaluation__hops": ("a", "b")}, "evaluation.hops[0] is 'a'; expected an integer"),
    ({"evaluation__hops": (5,)}, "evaluation.hops is (5,); expected 2 elements"),
    ({"evaluation__hops": (61, 1)}, "evaluation.hops has 61; expected at most audio.segments"),
    ({"evaluation__resamples": 10**12}, "expected at least 1 and at most 1000000"),
    ({"evaluation__protocols": ("cross_song",) * 2}, "evaluation.protocols has 'cross_song' twice"),
    ({"evaluation__protocols": ("x",)}, "evaluation.protocols[0] is 'x'; expected one of"),
    ({"comparison__seeds": (0, -1)}, "comparison.seeds[1] is -1; expected at least 0"),
    ({"comparison__cost_steps": (0,)}, "comparison.cost_steps[0] is 0; expected at least 1"),
    (
        {"comparison__variants": {"mine": {"inner": {"stpes": 3}}}},
        "variants.mine.inner has no field",
    ),
    (
        {"comparison__variants": {"mine": {"inner": 3}}},
        "variants.mine.inner is 3; expected some of",
    ),
    (
        {"comparison__variants": {"mine": {"steps": 3}}},
        "comparison.variants.mine.steps is now comparison.variants.mine.inner.steps: a variant may",
    ),
    ({"comparison__variants": {"mine": 3}}, "comparison.variants.mine is 3; expected some of"),
    (
        {"comparison__variants": {"mine": {"inner": {"estimator": "reptile"}}}},
        "comparison.variants.mine: inner.estimator is 'reptile', but has fields now: write "
        'estimator("reptile")',
    ),
    (
        {
            "comparison__variants": {
                "mine": {"inner": {"estimator": {"name": "truncated"}, "last_steps": 2}}
            }
        },
        "inner.last_steps is now inner.estimator.last_steps",
    ),
    ({"comparison__variants": {"a/b": {}}}, "comparison.variants has the name 'a/b'"),
    ({"comparison__variants": {"..": {}}}, "comparison.variants has the name '..'"),
    ({"comparison__variants": {1: {}}}, "comparison.variants has the name 1; expected text"),
    ({"data__builder": {"a": {1, 2}}}, "data.builder.a is {1, 2}, a set; expected plain values"),
    ({"data__builder": {"a": b"x"}}, "data.builder.a is b'x', a bytes; expected plain values"),
    (
        {"data__builder": {"a": np.float32(1)}},
        "data.builder.a is np.float32(1.0), a float32; expected",
    ),
    ({"data__builder": {"a": (0, [math.nan])}}, "data.builder.a[1][0] is nan; expected a finite"),
    ({"data__builder": {"seed": 10**5000}}, "data.builder.seed is a whole number of more than 64"),
    ({"meta__clip_norm": 10**400}, "meta.clip_norm is a whole number of more than 64 bits"),
    (
        {"meta__optimizer": optimizer("adam", learning_rate=0.1, eps="x").to_dict()},
        "optimizer: adam cannot be used with the options",
    ),
    (
        {"inner__optimizer": optimizer("sgd", learning_rate=0.1, momentum="nan").to_dict()},
        "optimizer: sgd cannot be used with the options",
    ),
    (
        {"inner__optimizer": optimizer("lbfgs", learning_rate=0.1).to_dict()},
        "optimizer: lbfgs cannot be used with the options",
    ),
    ({"inner__estimator": {"name": "frist_order"}}, "did you mean 'first_order'?"),
    ({"inner__estimator": {"last_steps": 2}}, "expected a field name, one of first_order"),
]


@pytest.mark.parametrize(("changes", "sentence"), MISTAKES)
def test_mistakes_are_reported_in_one_sentence(changes, sentence):
    with pytest.raises(UserError) as caught:
        freeze(**changes)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "new"),
    [
        ("engine", "mixed", "--config.inner.estimator.engine.name=mixed"),
        ("chunk", 4, "--config.inner.estimator.engine.chunk=4"),
        ("last_steps", 2, "estimator(NAME, last_steps=2)"),
        ("switch", 0.5, "estimator(NAME, anneal_at=0.5)"),
        ("anneal_at", 0.5, "--config.inner.estimator.anneal_at=0.5"),
        ("solver_steps", 5, "estimator(NAME, solver_steps=5)"),
        ("multi_step", 0.5, "estimator(NAME, multi_step_until=0.5)"),
        ("multi_step_until", 0.5, "--config.inner.estimator.multi_step_until=0.5"),
        ("estimator", "truncated", "--config.inner.estimator.name=truncated"),
    ],
)
def test_renamed_fields_are_rejected_with_their_new_form(name, value, new):
    with pytest.raises(UserError) as caught:
        freeze(**{f"inner__{name}": value})
    assert new in str(caught.value)


def test_variants_change_only_what_they_name():
    experiment = experiment_from_config(study_all_weights.get_config().to_dict())
    variants = experiment.variants()
    assert set(variants) == set(study_all_weights.get_config().comparison.variants)
    assert variants["exact"].inner.estimator == SecondOrderConfig(engine=EngineConfig("mixed"))
    assert variants["exact, head"].inner.adapt == "head"
    for variant in variants.values():
        assert dataclasses.replace(variant, inner=experiment.inner) == experiment
    small = experiment_from_config(study_meta_gradients.get_config().to_dict()).variants()
    released = experiment_from_config(demo_paper.get_config().to_dict())
    assert small["exact, rates"].inner == released.inner
    changes = {"mine": {"model": {"dim": 32}, "meta": {"steps": 7, "clip_norm": 2.0}}}
    mine = freeze(comparison__variants=changes).variants()["mine"]
    plain = freeze()
    assert mine.model == dataclasses.replace(plain.model, dim=32)
    assert mine.meta == dataclasses.replace(plain.meta, steps=7, clip_norm=2.0)


def test_the_largest_allowed_number_of_mel_bands_has_no_empty_band():
    from dsaml_jax.audio.log_mel import mel_filters

    for rate, window_s in ((16_000, 0.1), (44_100, 0.06), (8_000, 0.02)):
        most = AudioConfig(sample_rate=rate, window_s=window_s, mel_bands=1).most_mel_bands
        full = AudioConfig(sample_rate=rate, window_s=window_s, mel_bands=most)
        assert mel_filters(full).any(axis=1).all()
        with pytest.raises(UserError, match="mel_bands"):
            AudioConfig(sample_rate=rate, window_s=window_s, mel_bands=most + 1)
