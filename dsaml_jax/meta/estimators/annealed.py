"""First order, then exact: MAML++'s derivative-order annealing (Antoniou et al. 2019)."""

from __future__ import annotations

import dataclasses

import jax

from dsaml_jax.meta.adapt import InnerLoop, MetaParams
from dsaml_jax.meta.engines import ENGINES, Engine
from dsaml_jax.meta.estimators.unrolled import Unrolled
from dsaml_jax.meta.problem import Problem, Task, TaskResult


@dataclasses.dataclass(frozen=True)
class Annealed:
    """`Unrolled` with no exact step before `anneal_at`, a share of meta-training, and all after it.

    Both are branches of one program, of which one runs: nothing is compiled again at the switch,
    and the steps before it cost what first order costs. `progress` must be the same for all tasks
    (not mapped by `jax.vmap`), which otherwise computes both branches.
    """

    anneal_at: float
    engine: Engine = ENGINES["remat"]
    multi_step_until: float = 0.0

    def __call__(
        self,
        problem: Problem,
        inner: InnerLoop,
        meta_params: MetaParams,
        task: Task,
        key: jax.Array,
        progress: jax.Array | float = 1.0,
    ) -> tuple[TaskResult, MetaParams]:
        """The task's outcome and its meta-gradient at this progress of training."""

        def branch(exact_steps: int | None):
            estimator = Unrolled(exact_steps, self.engine, self.multi_step_until)
            return lambda *arguments: estimator(problem, inner, *arguments)

        return jax.lax.cond(
            progress >= self.anneal_at, branch(None), branch(0), meta_params, task, key, progress
        )
