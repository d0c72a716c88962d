"""Figures: PNGs of README size, drawn from complete and incomplete data."""

import dataclasses
import warnings

import numpy as np
import pytest
from matplotlib.image import imread

from dsaml_jax.evaluation.bootstrap import Interval
from dsaml_jax.evaluation.songs_curve import SongsCurve
from dsaml_jax.reports import style
from dsaml_jax.reports.data_set import data_figure
from dsaml_jax.reports.learning import inner_loop_figure, learning_curves, smooth
from dsaml_jax.reports.listeners import ListenerCurves, listener_figure
from dsaml_jax.reports.songs_curve import songs_curve_figure, songs_curve_table


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def check(path):
    """Checks for a PNG 1000 pixels wide and under 200 KB; returns its pixels [H, W, 3]."""
    assert path.stat().st_size < 200_000
    pixels = imread(path, format="png")[..., :3]
    assert pixels.shape[1] == 1000
    return pixels


def shows(pixels, color):
    """Returns whether any pixel has this color."""
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return bool((np.abs(pixels - wanted).max(axis=-1) < 2 / 255).any())


def listener(seed, length=60, **more):
    rng = np.random.default_rng(seed)
    rating, population, adapted, control = np.cumsum(rng.normal(0, 0.05, (4, length, 2)), axis=1)
    return ListenerCurves(
        **{"listener_id": f"{seed}", "song_id": "2001", "rating": rating, "population": population}
        | {"adapted": adapted, "control": control}
        | more
    )


@pytest.mark.parametrize("count", [1, 3, 4])
def test_the_listener_figure_draws_every_curve(tmp_path, count):
    path = tmp_path / "listeners.png"
    listener_figure(path, [listener(seed) for seed in range(count)])
    pixels = check(path)
    for color in (style.BLACK, style.SKY, style.ORANGE, style.GREEN):
        assert shows(pixels, color)


def test_the_listener_figure_accepts_gaps_flat_ratings_and_missing_controls(tmp_path):
    valid = np.arange(600) % 100 > 9
    curves = listener(0, 600, control=None, valid=valid, listener_id="a rater described at length")
    curves.rating[~valid] = np.nan
    flat = listener(1, 60, rating=np.full((60, 2), 0.2), control=None)
    path = tmp_path / "listeners.png"
    listener_figure(path, [curves, flat])
    assert not shows(check(path), style.GREEN)


def test_the_listener_figure_omits_missing_adapted_curves(tmp_path):
    path = tmp_path / "songs.png"
    listener_figure(path, [listener(0, adapted=None, control=None)])
    pixels = check(path)
    assert shows(pixels, style.SKY) and not shows(pixels, style.ORANGE)


def test_learning_curves_are_drawn_from_a_log_with_gaps(tmp_path):
    history = [{"step": i, "train/loss": 2 - i / 100, "train/score": i / 100} for i in range(100)]
    history += [
        {
            "step": i,
            "validation/adapted/ccc": i / 100,
            "validation/constant/ccc": None,
            "seconds": 3,
        }
        for i in range(0, 100, 25)
    ]
    history += [{"step": 50, "validation/my own row/ccc": 0.2, "validation/adapted/rmse": 0.1}]
    path = tmp_path / "learning.png"
    learning_curves(path, history)
    pixels = check(path)
    assert shows(pixels, style.ORANGE) and shows(pixels, style.BLUE)


def test_learning_curves_of_an_almost_empty_log_are_drawn(tmp_path):
    for number, history in enumerate([[], [{"step": 0, "train/loss": 1.0}]]):
        path = tmp_path / f"{number}.png"
        learning_curves(path, history)
        check(path)


def test_smoothing_keeps_constants_and_interior_straight_lines():
    np.testing.assert_allclose(smooth(np.full(100, 0.3)), 0.3)
    line = np.arange(100.0)
    np.testing.assert_allclose(smooth(line)[10:-10], line[10:-10])
    assert len(smooth(np.zeros(0))) == 0


def test_the_inner_loop_figure_draws_optional_second_losses(tmp_path):
    losses = np.exp(-np.arange(9) / 3) * np.random.default_rng(0).uniform(0.5, 1.5, (20, 1))
    path = tmp_path / "inner.png"
    inner_loop_figure(path, losses)
    assert not shows(check(path), style.ORANGE)
    inner_loop_figure(path, losses, losses + 0.4)
    assert shows(check(path), style.ORANGE)


def test_the_same_curves_give_the_same_file(tmp_path):
    paths = [tmp_path / name for name in ("a.png", "b.png")]
    for path in paths:
        listener_figure(path, [listener(0)])
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_data_figure_draws_only_existing_ratings(tmp_path):
    rng = np.random.default_rng(0)
    values = {"people": rng.uniform(-1, 1, (500, 2)), "average": rng.uniform(-0.3, 0.3, (90, 2))}
    path = tmp_path / "data.png"
    data_figure(path, values, [3, 4, 4, 9], [1, 2, 300])
    pixels = check(path)
    assert all(shows(pixels, color) for color in (style.BLUE, style.ORANGE, style.GREEN))
    nobody = {"people": np.zeros((0, 2)), "average": values["average"]}
    data_figure(path, nobody, [], [])
    pixels = check(path)
    assert shows(pixels, style.ORANGE)
    assert not shows(pixels, style.BLUE) and not shows(pixels, style.GREEN)


def test_the_gain_by_number_of_songs_is_drawn_with_and_without_the_ideal(tmp_path):
    gains = tuple(Interval(m, m - 0.01, m + 0.01) for m in (0.05, 0.08, 0.11))
    curve = SongsCurve((1, 2, 10), gains, gains, gains, "population_widened", 95, 700)
    path = tmp_path / "songs.png"
    songs_curve_figure(path, curve)
    assert shows(check(path), style.ORANGE) and shows(check(path), style.BLUE)
    lines = songs_curve_table(curve).splitlines()
    assert lines[0].split(" | ")[1].strip() == "adapted − population_widened, CCC"
    assert lines[4].startswith("| 10    | +0.110 [+0.100, +0.120] *")
    unknown = Interval(0.05, None, None)
    real = dataclasses.replace(curve, adapted=(unknown, *gains[1:]), ideal=(), share=())
    songs_curve_figure(path, real)
    assert shows(check(path), style.ORANGE) and not shows(check(path), style.BLUE)
    assert "ideal" not in songs_curve_table(real)
