"""Test protocols: which sequences of a split are tested, and what is adapted on first."""

from __future__ import annotations

import dataclasses

import numpy as np

from dsaml_jax.config.experiment import EvaluationConfig, Experiment
from dsaml_jax.data.corpus import Corpus
from dsaml_jax.data.tasks import Episodes, check_support, fixed_episodes, same_song_episodes
from dsaml_jax.evaluation.sequences import Sequences, episode_sequences, song_sequences
from dsaml_jax.evaluation.windows import (
    Clips,
    WindowInputs,
    WindowPlan,
    Windows,
    window_inputs,
    window_plan,
)


@dataclasses.dataclass(frozen=True)
class EvalSet:
    """Everything that is evaluated on one split by one protocol.

    Attributes:
      corpus: the split.
      episodes: the annotators to adapt to, and on which ratings; None for consensus labels.
      sequences: the tested ratings.
      inputs: the audio features.
      plan: the windows in which the sequences are read.
    """

    corpus: Corpus
    episodes: Episodes | None
    sequences: Sequences
    inputs: WindowInputs
    plan: WindowPlan

    @property
    def windows(self) -> Windows:
        """The windows of the plan."""
        return Windows(self.plan.at, self.plan.row, self.corpus.segments)

    def clips(self, windows: np.ndarray) -> Clips:
        """Gathers the model's inputs for windows [...], on the device that holds the features."""
        at, row = self.plan.at[windows], self.plan.row[windows]
        return self.inputs.clips(at, row, self.corpus.segments)


def make_eval_set(
    corpus: Corpus,
    evaluation: EvaluationConfig,
    *,
    support: int,
    seed: int,
    source: str,
    protocol: str = "cross_song",
    active_only: bool = False,
) -> EvalSet:
    """Makes the evaluation set of one split.

    With consensus labels every song is tested once, whatever the protocol. With personal labels:
      "cross_song": adapt on the first clip of each support song, test on other songs.
      "same_song": adapt on the first clip of a long song, test on the rest of that song.

    Args:
      corpus: the split.
      evaluation: its episodes, query and hops apply.
      support: songs to adapt on, cross-song.
      seed: of the choice of support, query and control.
      source: name of the split, for error messages.
      protocol: "cross_song" or "same_song".
      active_only: whether annotators with too few songs are left out, instead of being an error.

    Raises:
      UserError: the split has too few songs or annotators for the protocol.
    """
    episodes: Episodes | None
    if corpus.is_consensus:
        episodes, sequences = None, song_sequences(corpus)
    elif protocol == "same_song":
        episodes = same_song_episodes(corpus, seed=seed)
        sequences = episode_sequences(corpus, episodes, first=corpus.segments)
    else:
        if not active_only:
            check_support(corpus, support=support, source=source)
        episodes = fixed_episodes(
            corpus,
            support=support,
            episodes=evaluation.episodes,
            query=evaluation.query,
            seed=seed,
        )
        sequences = episode_sequences(corpus, episodes)
    plan = window_plan(corpus, sequences, evaluation.hops)
    return EvalSet(corpus, episodes, sequences, window_inputs(corpus), plan)


def validation_set(experiment: Experiment, corpus: Corpus) -> EvalSet:
    """Makes the evaluation set of the validation split, which is always cross-song."""
    return make_eval_set(
        corpus,
        experiment.evaluation,
        support=experiment.tasks.support,
        seed=experiment.seed,
        source="validation",
    )
