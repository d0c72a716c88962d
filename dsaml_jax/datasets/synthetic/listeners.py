"""Simulated annotators: how a listener perceives a song's cues, and how they rate it.

In a song with cues z_c(t), a listener perceives for each dimension d (arousal, valence):

    x_d(t) = sum_c w_dc z_c(t)                   the listener's own weights of the cues
    dy_d/dt = (x_d(t - lag) - y_d(t)) / inertia  a reaction lag, then leaky integration
    p_d(t) = tanh(offset_d + gain_d y_d(t))      noise-free

and rates every half second:

    r_d(t) = clip(p_d(t) + level error + drift_d(t), -1, 1)

with one level error per rating and dimension, and a drift that is a stationary first-order
autoregression, scaled by the listener's gain. Leaky integration and a lag of a few seconds fit
continuous ratings (Schubert 2004); cues act linearly (Eerola, Friberg and Bresin 2013).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from dsaml_jax.constraints import NonNegativeFloat, PositiveFloat, check_fields
from dsaml_jax.datasets.schema import RATING_HZ
from dsaml_jax.datasets.synthetic.music import CUE_HZ, CUES

# Effect of one standard deviation of a cue, rows as `CUES`, columns (arousal, valence). Signs and
# magnitudes follow Gabrielsson and Lindström (2010), Eerola et al. (2013) and Schubert (2004):
# arousal depends on tempo, loudness, brightness and density; valence on mode, then tempo and
# register. They are scaled so that the standard deviation over songs is 0.27 in arousal and 0.21 in
# valence, as in DEAM's averaged labels.
AVERAGE_WEIGHTS = {
    "tempo": (0.165, 0.105),
    "loudness": (0.18, 0.0),
    "brightness": (0.12, 0.05),
    "mode": (0.015, 0.185),
    "register": (0.015, 0.075),
    "density": (0.13, 0.05),
}

_INTEGRATION_HZ = 10.0


@dataclasses.dataclass(frozen=True)
class Listener:
    """A listener: the parameters that stay the same from song to song.

    Attributes:
      weights: [6, 2] effect of a standard deviation of each cue on (arousal, valence).
      offset: [2] position on the scale when all cues are 0.
      gain: [2] width of the listener's responses, 1 for the average one.
      lag_s: Reaction time in seconds.
      inertia_s: Time constant of the leaky integration in seconds.
    """

    weights: np.ndarray
    offset: np.ndarray
    gain: np.ndarray
    lag_s: float
    inertia_s: float


@dataclasses.dataclass(frozen=True)
class ListenerSpread:
    """How listeners differ, and how noisy they are. Pairs are (arousal, valence).

    The defaults are fitted to real ratings; `tests/datasets/test_synthetic.py` compares both. Real
    ratings without audio cannot show how much of a listener's repeatable deviation from the others
    the cues explain. The noise level follows retests: about a third of the variance between raters
    is not repeatable (Schubert 2013). The cues are assumed to explain the rest, as they explain
    most of mean ratings (Eerola, Friberg and Bresin 2013); `weight_sd` gives the raters' total
    spread.

    Attributes:
      offset_sd: Personal offsets; small, because the level of one song hardly predicts the next.
      log_gain_sd: Personal gains, log-normal with mean 1; large, because response widths persist.
      weight_sd: Deviation of each cue's weight from the average listener's.
      lag_s: Mean over listeners; each listener's is uniform within 50 % of it.
      inertia_s: Mean over listeners; each listener's is uniform within 50 % of it.
      level_error_sd: Constant error of one rating, drawn anew for every song.
      drift_sd: Stationary standard deviation of a rating's drift for a listener of gain 1.
      drift_time_s: Correlation time of the drift in seconds.
    """

    offset_sd: tuple[NonNegativeFloat, NonNegativeFloat] = (0.13, 0.09)
    log_gain_sd: tuple[NonNegativeFloat, NonNegativeFloat] = (0.38, 0.24)
    weight_sd: tuple[NonNegativeFloat, NonNegativeFloat] = (0.095, 0.095)
    lag_s: NonNegativeFloat = 1.5
    inertia_s: NonNegativeFloat = 1.0
    level_error_sd: tuple[NonNegativeFloat, NonNegativeFloat] = (0.15, 0.15)
    drift_sd: tuple[NonNegativeFloat, NonNegativeFloat] = (0.10, 0.10)
    drift_time_s: PositiveFloat = 6.0

    def __post_init__(self) -> None:
        check_fields(self, "data.builder.spread")


def average_listener(spread: ListenerSpread) -> Listener:
    """Returns the listener with the mean of every parameter, who perceives the population curve."""
    return Listener(
        weights=np.array([AVERAGE_WEIGHTS[cue] for cue in CUES]),
        offset=np.zeros(2),
        gain=np.ones(2),
        lag_s=spread.lag_s,
        inertia_s=spread.inertia_s,
    )


def draw_listener(rng: np.random.Generator, spread: ListenerSpread) -> Listener:
    """Draws one listener from the population."""
    average = average_listener(spread)
    log_gain_sd = np.asarray(spread.log_gain_sd)
    return Listener(
        weights=average.weights + rng.standard_normal((len(CUES), 2)) * spread.weight_sd,
        offset=rng.standard_normal(2) * spread.offset_sd,
        gain=np.exp(log_gain_sd * rng.standard_normal(2) - log_gain_sd**2 / 2),
        lag_s=spread.lag_s * rng.uniform(0.5, 1.5),
        inertia_s=spread.inertia_s * rng.uniform(0.5, 1.5),
    )


def perceive(
    listener: Listener, cues: np.ndarray, ratings_start_s: float, ratings: int
) -> np.ndarray:
    """Returns what the listener perceives of a song, without noise (the equations above).

    Args:
      listener: The listener.
      cues: [steps, 6] standardized cues at `CUE_HZ` from the start of the sound, held constant
        before the first and after the last step.
      ratings_start_s: Time of the first rating.
      ratings: Number of ratings, `RATING_HZ` per second.

    Returns:
      [ratings, 2] float32 in (-1, 1).
    """
    fine_s = fine_times(ratings_start_s, ratings)
    integrated = integrate(cues @ listener.weights, fine_s, listener.lag_s, listener.inertia_s)
    perceived = np.tanh(listener.offset + listener.gain * integrated)
    return at_ratings(perceived, fine_s, ratings_start_s, ratings).astype(np.float32)


def fine_times(ratings_start_s: float, ratings: int) -> np.ndarray:
    """Returns the times of the integration's steps, from 0 s to the last rating: [F]."""
    return np.arange(0, ratings_start_s + ratings / RATING_HZ, 1 / _INTEGRATION_HZ)


def integrate(
    responses: np.ndarray, fine_s: np.ndarray, lag_s: float, inertia_s: float
) -> np.ndarray:
    """Computes y(t) of dy/dt = (x(t - lag) - y(t)) / inertia for each of n signals x: [F, n].

    Args:
      responses: [steps, n], x at `CUE_HZ`, held constant before the first and after the last step.
      fine_s: [F], of `fine_times`. At the first of them y equals the delayed x.
      lag_s: Reaction time in seconds.
      inertia_s: Time constant in seconds; 0 for none.
    """
    knots_s = np.arange(len(responses)) / CUE_HZ + lag_s
    leak = 1 - np.exp(-1 / (_INTEGRATION_HZ * inertia_s)) if inertia_s else 1.0
    integrated = np.empty((len(fine_s), responses.shape[1]))
    for i in range(responses.shape[1]):
        delayed = np.interp(fine_s, knots_s, responses[:, i])
        integrated[:, i] = _autoregression(1 - leak, leak * delayed, start=delayed[0])
    return integrated


def at_ratings(
    values: np.ndarray, fine_s: np.ndarray, ratings_start_s: float, ratings: int
) -> np.ndarray:
    """Interpolates signals [F, n] at the times of the ratings: [ratings, n]."""
    times_s = ratings_start_s + np.arange(ratings) / RATING_HZ
    columns = [np.interp(times_s, fine_s, values[:, i]) for i in range(values.shape[1])]
    return np.stack(columns, axis=-1)


def rate(
    rng: np.random.Generator, listener: Listener, perceived: np.ndarray, spread: ListenerSpread
) -> np.ndarray:
    """Returns one noisy rating of what was perceived: [ratings, 2] float32 in [-1, 1]."""
    level = rng.standard_normal(2) * spread.level_error_sd
    keep = drift_correlation(spread)
    shocks = rng.standard_normal((len(perceived), 2))
    drift = np.stack(
        [
            _autoregression(keep, np.sqrt(1 - keep**2) * shocks[:, d], start=shocks[0, d])
            for d in range(2)
        ],
        axis=-1,
    )
    noise = level + drift * listener.gain * spread.drift_sd
    return np.clip(perceived + noise, -1, 1).astype(np.float32)


def drift_correlation(spread: ListenerSpread) -> float:
    """Returns the correlation of the drift from one rating to the next."""
    return float(np.exp(-1 / (RATING_HZ * spread.drift_time_s)))


def _autoregression(keep: float, drive: np.ndarray, start: float) -> np.ndarray:
    """Computes y_0 = start, y_t = keep y_{t-1} + drive_t."""
    out = np.empty(len(drive))
    value = start
    for t, push in enumerate(drive.tolist()):
        value = start if t == 0 else keep * value + push
        out[t] = value
    return out
