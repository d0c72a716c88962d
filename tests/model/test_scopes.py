"""A compiled meta-gradient names its parts, which a profile then shows."""

import dataclasses

import jax
import optax
import pytest

from dsaml_jax.meta import ENGINES, InnerLoop, MetaParams, Task, Unrolled
from dsaml_jax.model import initialize
from dsaml_jax.model.objective import dsaml_problem
from tests.model.test_meta_model import IMAGE, TINY, random_batch


def lowered(adapt: tuple[str, ...]) -> str:
    config = dataclasses.replace(TINY, dtype="float32", param_dtype="float32")
    params = jax.eval_shape(
        lambda key: initialize(config, key, IMAGE, TINY.dim), jax.random.key(0)
    )["params"]
    batch = random_batch(jax.random.key(0), 1, {})
    task, inner = Task(batch, batch), InnerLoop(2, optax.sgd(0.1), adapt=adapt)
    estimator = Unrolled(engine=ENGINES["mixed"])

    def meta_gradient(params, key):
        problem = dsaml_problem(config, train=True)
        return estimator(problem, inner, MetaParams(params, {}), task, key)

    return jax.jit(meta_gradient).lower(params, jax.random.key(0)).as_text(debug_info=True)


@pytest.mark.parametrize("adapt", [("*",), ("predictor",)])
def test_scopes_name_the_parts_of_a_meta_gradient(adapt):
    names = lowered(adapt)
    for scope in ("inner_step", "support_loss", "query_loss"):
        assert scope in names, scope
    # Only a frozen encoder is run before the loop.
    assert ("precompute" in names) == (adapt == ("predictor",))
    for module in ("adapter", "fusion", "transformer", "predictor"):
        assert f"/{module}/" in names, module
