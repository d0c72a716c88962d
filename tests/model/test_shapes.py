"""Shape annotations of the model, checked at run time."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float, TypeCheckError

from dsaml_jax.model import (
    DSAML,
    DSAMLConfig,
    activations,
    adapter,
    convolution,
    decision,
    dsaml,
    fusion,
    initialize,
    likelihood,
    losses,
    objective,
    overlapping,
    phases,
    predictor,
    transformer,
)
from dsaml_jax.model import lstm as lstm_module
from dsaml_jax.model.batch import Batch
from tests.shapes import check_fields, checked, checked_modules

CONFIG = DSAMLConfig(
    dim=6,
    heads=2,
    layers=2,
    feed_forward=7,
    channels=(2, 3),
    lstm_dim=5,
    predictor_dim=4,
)
CLIPS, SEGMENTS, FRAMES, BANDS, EMBEDDING = 3, 4, 5, 8, 9


def batch() -> Batch:
    return Batch(
        log_mel=jnp.ones((CLIPS, SEGMENTS, FRAMES, BANDS)),
        embedding=jnp.ones((CLIPS, EMBEDDING)),
        curve=jnp.ones((CLIPS, SEGMENTS, 2)),
        valid=jnp.ones((CLIPS, SEGMENTS), bool),
        batch_stats={},
    )


def test_annotations_of_the_model_and_its_losses_hold():
    modules = (
        activations,
        adapter,
        convolution,
        decision,
        dsaml,
        fusion,
        likelihood,
        losses,
        lstm_module,
        objective,
        overlapping,
        phases,
        predictor,
        transformer,
    )
    clips = batch()
    with checked_modules(*modules) as uncalled:
        key = jax.random.key(0)
        personal = {"context_dim": 2, "decision": True, "support_loss": "likelihood"}
        for normalization, changes in (("clip", {}), ("running", {}), ("clip", personal)):
            config = dataclasses.replace(CONFIG, normalization=normalization, **changes)
            variables = initialize(config, key, (FRAMES, BANDS), EMBEDDING)
            clips = clips._replace(batch_stats=variables.get("batch_stats", {}))

            def loss(variables, key, config=config, clips=clips):
                params = variables["params"]
                encoded = objective.encode(config, params, clips, key, train=True)
                check_fields(encoded)
                value, auxiliary = objective.dsaml_loss(config, train=True)(params, clips, key)
                check_fields(auxiliary)
                output = DSAML(config).apply(variables, clips.log_mel, clips.embedding)
                check_fields(output)
                agreements = losses.agreement(output.curve, clips.curve, clips.valid)
                check_fields(agreements)
                local = DSAML(config).apply(variables, clips.log_mel, method="describe")
                DSAML(config).apply(variables, local, clips.embedding, method="encode_described")
                windows = local[0], clips.embedding[0], jnp.arange(2), SEGMENTS - 1
                DSAML(config).apply(variables, *windows, method="encode_overlapping")
                if config.decision:
                    loss = objective.dsaml_problem(config, train=False).loss
                    value += loss(params, clips, key)
                    basis = DSAML(config).apply(variables, encoded.features, method="basis")
                    check_fields(DSAML(config).apply(variables, method="noise"))
                    DSAML(config).apply(variables, basis, method="read")
                return value

            jax.eval_shape(loss, variables, key)
        check_fields(clips)
        check_fields(clips._replace(embedding=jnp.ones((CLIPS, SEGMENTS, EMBEDDING))))
    assert uncalled == set()


def test_wrong_annotations_and_arguments_are_detected():
    curves, valid = jnp.ones((CLIPS, SEGMENTS, 2)), jnp.ones((CLIPS, SEGMENTS), bool)
    checked(losses.agreement)(curves, curves, valid)
    wrong = Float[Array, "*batch segments 3"]
    with pytest.raises(TypeCheckError):
        checked(losses.agreement, prediction=wrong)(curves, curves, valid)
    with pytest.raises(TypeCheckError):
        checked(losses.agreement)(curves, curves[:, :-1], valid)
    x = jnp.ones((2, 7))
    checked(activations.gelu)(x)
    with pytest.raises(TypeCheckError):
        checked(activations.gelu, **{"return": Float[Array, "*shape 1"]})(x)
    with pytest.raises(Exception, match="Float"):
        check_fields(batch()._replace(curve=np.ones((CLIPS, SEGMENTS, 3))))
