"""Shape annotations of the meta-learning library, checked at run time."""

import importlib

import jax
import jax.numpy as jnp
import optax
import pytest
from jaxtyping import Array, Float, TypeCheckError

from dsaml_jax.meta import (
    Annealed,
    Implicit,
    InnerLoop,
    MetaParams,
    Reptile,
    Unrolled,
    adapt,
    problem,
    rates,
    schedules,
)
from dsaml_jax.meta.diagnostics import diagnosis, hessian, noise, path, similarity
from dsaml_jax.meta.estimators import annealed, base, implicit, reptile, unrolled
from tests.quadratics import PROBLEM, RATE, Quadratic
from tests.shapes import check_fields, checked, checked_modules

STEPS = 3


def test_annotations_of_the_library_hold():
    modules = (
        importlib.import_module("dsaml_jax.meta.adapt"),  # `meta.adapt` is the function
        annealed,
        base,
        diagnosis,
        hessian,
        implicit,
        noise,
        path,
        problem,
        rates,
        reptile,
        schedules,
        similarity,
        unrolled,
    )
    task = jax.tree.map(jnp.asarray, Quadratic.random(0).task)
    params = jnp.asarray(Quadratic.random(0).start)
    inner = InnerLoop(STEPS, optax.sgd(RATE), rates="per_weight")
    fixed = InnerLoop(STEPS, optax.sgd(RATE), proximal=1.0)
    key = jax.random.key(0)
    with checked_modules(*modules) as uncalled:
        for estimator, loop in (
            (Unrolled(multi_step_until=1.0), inner),
            (Annealed(0.5), inner),
            (Reptile(), fixed),
            (Implicit(), fixed),
        ):
            start = MetaParams(params, loop.initial_rates(params))
            result, _ = jax.eval_shape(
                lambda start, e=estimator, loop=loop: e(PROBLEM, loop, start, task, key, 0.3),
                start,
            )
            assert result.losses.shape == (STEPS,)
        rates.summary(start.params)
        tasks = jax.tree.map(lambda x: jnp.stack([x, x]), task)
        diagnosed = diagnosis.diagnose(
            PROBLEM, fixed, MetaParams(params, {}), tasks, jax.random.split(key), iterations=2
        )
        check_fields(diagnosed)
        check_fields(diagnosed.noise)
        assert diagnosed.noise.scale.shape == ()
        diagnosis.scalars(diagnosed)
        result, _ = Unrolled()(PROBLEM, fixed, MetaParams(params, {}), task, key)
        check_fields(result)
    uncalled.discard("dsaml_jax.meta.estimators.base.Estimator.__call__")  # a protocol
    uncalled.discard("dsaml_jax.meta.estimators.base.EpisodeEstimator.estimate")  # abstract
    assert uncalled == set()


def test_wrong_annotations_are_detected():
    checked(schedules.multi_step_weights)(0.5, STEPS, 1.0)
    with pytest.raises(TypeCheckError):
        wrong = {"return": Float[Array, "steps 2"]}
        checked(schedules.multi_step_weights, **wrong)(0.5, STEPS, 1.0)
    result = adapt(
        PROBLEM,
        InnerLoop(STEPS, optax.sgd(RATE)),
        MetaParams(jnp.asarray(Quadratic.random(0).start), {}),
        jax.tree.map(jnp.asarray, Quadratic.random(0).task.support),
        jax.random.key(0),
    )
    check_fields(result)
    with pytest.raises(Exception, match="Float"):
        check_fields(result._replace(losses=result.losses[None]))
