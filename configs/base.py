"""The released experiment: sizes and hyperparameters of Zhang et al., AAAI 2025, and their code.

Every other config is a short change to this one. `python launch.py --config=configs/NAME.py
--config.any.field=value` changes a field for one run.
"""

import dataclasses

from ml_collections import ConfigDict

from dsaml_jax import DSAMLConfig
from dsaml_jax.audio.config import AudioConfig
from dsaml_jax.datasets.filters import RatingFilter
from dsaml_jax.datasets.splits import SplitRules


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0

    config.data = ConfigDict()
    config.data.name = "synthetic"
    config.data.root = ""
    config.data.prepared = "data/prepared"
    config.data.strict = False
    # Ratings that hardly move, and annotators of 15 songs or fewer, are left out (real data sets).
    config.data.filters = ConfigDict(dataclasses.asdict(RatingFilter()))
    config.data.labels = "personal"
    config.data.split = ConfigDict(dataclasses.asdict(SplitRules()))
    config.data.min_songs = 16
    config.data.validation_min_songs = 2
    config.data.builder = ConfigDict()
    config.data.embedding_weights = ""
    config.data.processes = 0
    config.data.beam_options = ()
    config.data.on_device = True

    # 44.1 kHz, 60 ms windows every 10 ms, 128 bands, 60 segments of 0.5 s.
    config.audio = ConfigDict(dataclasses.asdict(AudioConfig()))

    # D 1024, 16 heads, 3 layers, feed-forward 2048, bands of 5 and 30 segments: 29 M parameters.
    config.model = ConfigDict(dataclasses.asdict(DSAMLConfig()))

    # A meta-step: 16 annotators, each adapted on 1 song and tested on 15.
    config.tasks = ConfigDict({"meta_batch": 16, "support": 1, "query": 15})
    config.tasks.tasks_per_device = 0
    config.tasks.steps_per_call = 1

    # 16 inner steps of SGD over all weights; the release is first order only.
    config.inner = ConfigDict()
    config.inner.steps = 16
    config.inner.adapt = "all"
    config.inner.optimizer = optimizer("sgd", learning_rate=5e-3)
    config.inner.rates = "fixed"
    config.inner.rates_learning_rate = 0.0
    config.inner.proximal = 0.0
    config.inner.estimator = "first_order"
    config.inner.engine = "remat"
    config.inner.chunk = 0
    config.inner.last_steps = 0
    config.inner.anneal_at = 0.0
    config.inner.solver_steps = 10
    config.inner.multi_step_until = 0.0

    # The population model: trained on the same tasks' query songs without adapting.
    config.population = ConfigDict()
    config.population.steps = 2000
    config.population.optimizer = optimizer("adam", learning_rate=5e-5)
    config.population.clip_norm = 0.0
    config.population.decay = "constant"
    config.population.validate_every = 100
    config.population.checkpoint_every = 100
    config.population.skip_at_most = 10

    config.meta = ConfigDict()
    config.meta.steps = 2000
    config.meta.optimizer = optimizer("adam", learning_rate=5e-5)
    config.meta.clip_norm = 0.0
    config.meta.decay = "constant"
    config.meta.validate_every = 100
    config.meta.checkpoint_every = 100
    config.meta.skip_at_most = 10
    config.meta_from_population = False

    # Songs longer than a clip: windows every 5 (arousal) and every 1 (valence) segments.
    config.evaluation = ConfigDict()
    config.evaluation.protocols = ("cross_song",)
    config.evaluation.whole_songs = True
    config.evaluation.hops = (5, 1)
    config.evaluation.episodes = 4
    config.evaluation.query = 15
    config.evaluation.chunk = 4
    config.evaluation.resamples = 10_000
    config.evaluation.figures = 4

    config.diagnostics = ConfigDict({"every": 0, "batches": 4, "iterations": 10})
    config.comparison = ConfigDict({"variants": {}, "seeds": (0,), "cost_steps": ()})
    return config


def optimizer(name: str, **options) -> ConfigDict:
    """An optimizer by the name of its function in optax."""
    return ConfigDict({"name": name, "options": ConfigDict(options)})
