"""Meta-learning problems with quadratic losses, whose solutions have a closed form."""

import dataclasses

import jax
import numpy as np
import optax

from dsaml_jax.meta import InnerLoop, MetaParams, Problem, Task

SIZE, RATE = 5, 0.07


def loss(params, batch, key):
    """Returns (θ-c)ᵀA(θ-c)/2 for a batch (A, c)."""
    matrix, center = batch
    difference = params - center
    return difference @ matrix @ difference / 2


PROBLEM = Problem(loss, lambda *arguments: (loss(*arguments), None))


@dataclasses.dataclass(frozen=True)
class Quadratic:
    """Support (θ-a)ᵀA(θ-a)/2, query (θ-b)ᵀB(θ-b)/2 with A, B positive definite, and θ_0."""

    A: np.ndarray
    a: np.ndarray
    B: np.ndarray
    b: np.ndarray
    start: np.ndarray

    @classmethod
    def random(cls, seed: int):
        rng = np.random.default_rng(seed)
        factor_a, factor_b = rng.normal(size=(2, SIZE, SIZE)) / np.sqrt(SIZE)
        a, b, start = rng.normal(size=(3, SIZE))
        return cls(factor_a @ factor_a.T, a, factor_b @ factor_b.T, b, start)

    @property
    def task(self) -> Task:
        return Task((self.A, self.a), (self.B, self.b))

    def shrink(self, steps: int) -> np.ndarray:
        """Returns M = (I - αA)^K, so that θ_K - a = M (θ_0 - a)."""
        return np.linalg.matrix_power(np.eye(SIZE) - RATE * self.A, steps)

    def after(self, steps: int) -> np.ndarray:
        """Returns θ_K."""
        return self.a + self.shrink(steps) @ (self.start - self.a)

    def query_gradient(self, steps: int) -> np.ndarray:
        """Returns B (θ_K - b)."""
        return self.B @ (self.after(steps) - self.b)


def estimate(estimator, quadratic: Quadratic, steps: int, progress=1.0, rate=RATE, **inner):
    """Returns (result, meta-gradient) with an inner SGD and multipliers of 1."""
    loop = InnerLoop(steps, optax.sgd(rate), **inner)
    meta_params = MetaParams(quadratic.start, loop.initial_rates(quadratic.start))
    key = jax.random.key(0)
    return estimator(PROBLEM, loop, meta_params, quadratic.task, key, progress)
