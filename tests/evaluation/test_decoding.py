"""Linear decoding of cues: ridge regression in closed form, by song and within songs."""

import numpy as np
import pytest

from dsaml_jax.evaluation import decoding
from dsaml_jax.reports.conclusion import decoding_table


def draw(rows, columns, seed):
    return np.random.default_rng(seed).normal(size=(rows, columns))


def test_a_decoder_is_ridge_regression_on_standardized_features():
    x, y = 3 + 2 * draw(60, 5, 0), draw(60, 2, 1)
    new_x, new_y = 3 + 2 * draw(30, 5, 2), draw(30, 2, 3)
    z = (x - x.mean(0)) / x.std(0)
    root = np.sqrt(decoding._PENALTY * len(x)) * np.eye(5)
    rows = np.concatenate([z, root]), np.concatenate([y - y.mean(0), np.zeros((5, 2))])
    weights = np.linalg.lstsq(*rows, rcond=None)[0]
    decoded = (new_x - x.mean(0)) / x.std(0) @ weights + y.mean(0)
    expected = 1 - ((new_y - decoded) ** 2).sum(0) / ((new_y - new_y.mean(0)) ** 2).sum(0)
    found = decoding.decoding_r_squared(x, y, new_x, new_y)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_what_is_in_the_features_is_decoded_and_noise_is_not():
    x, new_x = draw(500, 4, 0), draw(200, 4, 1)
    mix, noise = draw(4, 1, 2), draw(700, 1, 3)
    y = np.concatenate([x @ mix, noise[:500], np.ones((500, 1))], axis=1)
    new_y = np.concatenate([new_x @ mix, noise[500:], np.ones((200, 1))], axis=1)
    constant = np.full((500, 1), 7.0)
    heard, unheard, flat = decoding.decoding_r_squared(
        np.concatenate([x, constant], 1), y, np.concatenate([new_x, constant[:200]], 1), new_y
    )
    assert heard > 0.99 and unheard < 0.05 and np.isnan(flat)


def test_songs_and_segments_are_decoded_apart():
    # The features hold the mean of the cue, and nothing of how it moves within a song.
    level, movement = draw(80, 1, 0)[:, None], draw(80 * 20, 6, 1).reshape(80, 20, 6)
    cues = level + movement - movement.mean(1, keepdims=True)
    features = np.concatenate([np.broadcast_to(level, (80, 20, 1)), cues[..., :1] * 0], -1)
    scores = {
        level: decoding._r_squared(level, features[:60], cues[:60], features[60:], cues[60:])
        for level in decoding.LEVELS
    }
    assert min(scores["song"].values()) > 0.99
    assert max(map(abs, scores["within"].values())) < 1e-9
    lines = decoding_table({"inputs": scores}).splitlines()
    assert len(lines) == 4 and lines[2].count("1.00") == 6 and lines[3].count("0.00") == 6


@pytest.mark.parametrize("level", decoding.LEVELS)
def test_a_cue_that_does_not_vary_has_no_score(level):
    features, cues = draw(40, 3, 0).reshape(10, 4, 3), np.zeros((10, 4, 6))
    assert set(decoding._r_squared(level, features, cues, features, cues).values()) == {None}
