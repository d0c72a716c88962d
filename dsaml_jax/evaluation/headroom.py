"""How much of what adapting could gain at best was gained: one number.

On simulated data the gain of an ideal method bounds what the support reveals about a listener. The
share is

    mean(adapted - baseline) / mean(ideal_adapted - ideal_population)

in CCC, over annotators. The baseline is the strongest method on VALIDATION that predicts the same
for everybody, so that neither a weak baseline nor a choice on test counts as gain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from dsaml_jax.evaluation.bootstrap import Interval, bootstrap_columns, bootstrap_ratio


@dataclasses.dataclass(frozen=True)
class Headroom:
    """The gain of adapting beside the gain of the ideal method, in CCC.

    Attributes:
      baseline: the method from which `adapted` is measured.
      gained: adapted minus baseline.
      available: ideal_adapted minus ideal_population.
      share: gained / available; its `mean` is the ratio of the means.
    """

    baseline: str
    gained: Interval
    available: Interval
    share: Interval


def headroom(
    ccc: Mapping[str, np.ndarray], baseline: str, seed: int, resamples: int
) -> Headroom | None:
    """Computes the share of the headroom that was gained; None without ideal methods.

    Args:
      ccc: {method: [A]}, by annotator.
      baseline: the strongest method for everybody on validation.
      seed: of the bootstrap.
      resamples: number of bootstrap draws.
    """
    if not {"adapted", baseline, "ideal_adapted", "ideal_population"} <= set(ccc):
        return None
    gained = ccc["adapted"] - ccc[baseline]
    available = ccc["ideal_adapted"] - ccc["ideal_population"]
    intervals = bootstrap_columns(np.stack([gained, available], axis=1), seed, resamples)
    share = bootstrap_ratio(gained, available, seed, resamples)
    return Headroom(baseline, gained=intervals[0], available=intervals[1], share=share)
