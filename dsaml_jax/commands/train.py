"""--mode=train: data, training, evaluation, figures."""

from __future__ import annotations

from pathlib import Path

from dsaml_jax.commands.evaluate import evaluate_methods, load
from dsaml_jax.config.experiment import Experiment
from dsaml_jax.evaluation.results import Results
from dsaml_jax.training import stages
from dsaml_jax.training.devices import task_layout, task_mesh


def train(experiment: Experiment, workdir: Path, profile_steps: int = 0) -> dict[str, Results]:
    """Trains what the experiment asks for and evaluates it on the test split.

    Args:
      experiment: the config.
      workdir: gets checkpoints, metrics, figures, and results.
      profile_steps: meta-steps of each stage to trace into `workdir/profile/`; 0 for none.

    Returns:
      The results by protocol, see `evaluate_methods`.

    Raises:
      UserError: the config, the devices, or the data do not allow it.
    """
    tasks = experiment.tasks
    stages.check_patterns(experiment)
    task_layout(tasks.meta_batch, tasks.tasks_per_device, task_mesh())
    # The test sets are made first, so that what they refuse is known before training.
    corpora, tests = load(experiment)
    scaling = corpora["train"].scaling
    assert scaling is not None  # `load_corpora` scales every split
    scaling.save(workdir / "embedding_scaling.npz")
    trained = stages.train(experiment, corpora, workdir, profile_steps)
    return evaluate_methods(experiment, corpora, tests, trained, workdir)
