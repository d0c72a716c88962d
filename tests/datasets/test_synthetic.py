"""Simulated songs and listeners: audio conveys the cues, and listeners resemble real ones."""

import dataclasses

import librosa
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from dsaml_jax.datasets import schema, synthetic
from dsaml_jax.datasets.synthetic import listeners, music, simulation
from dsaml_jax.errors import UserError

TINY = {
    "train_songs": 4,
    "validation_songs": 3,
    "test_songs": 3,
    "train_annotators": 5,
    "validation_annotators": 2,
    "test_annotators": 3,
    "minimum_songs": 2,
    "duration_s": 6.0,
}


def constant_cues(duration_s=12.0, **levels):
    cues = np.zeros((int(duration_s * music.CUE_HZ) + 1, len(music.CUES)))
    for name, level in levels.items():
        cues[:, music.CUES.index(name)] = level
    return cues


# ---- audio -----------------------------------------------------------------------------------


def play(**levels):
    sound = music.render(np.random.default_rng(3), constant_cues(**levels), 12.0, 16_000)
    return sound.astype(np.float32) / 32_768


def spectrum(sound):
    return np.abs(np.fft.rfft(sound)) ** 2, np.fft.rfftfreq(len(sound), 1 / 16_000)


def test_loudness_is_five_decibels_per_standard_deviation():
    quiet, loud = (np.sqrt(np.mean(play(loudness=z) ** 2)) for z in (-1, 1))
    assert 20 * np.log10(loud / quiet) == pytest.approx(10, abs=0.5)


@pytest.mark.parametrize("cue", ["brightness", "register"])
def test_brightness_and_register_raise_the_spectral_centroid(cue):
    def centroid(z):
        power, frequency = spectrum(play(**{cue: z}))
        tonal = frequency > 150  # above the drum's thump
        return np.sum((power * frequency)[tonal]) / np.sum(power[tonal])

    assert centroid(1.5) > 1.2 * centroid(0)
    assert centroid(0) > 1.1 * centroid(-1.5)


def test_mode_selects_the_major_or_minor_third():
    def third(z, hertz):
        power, frequency = spectrum(play(mode=z))
        return np.sum(power[np.abs(frequency - hertz) < 4])

    e_flat, e = 311.1, 329.6
    assert third(2, e) > 5 * third(2, e_flat)
    assert third(-2, e_flat) > 5 * third(-2, e)


def test_tempo_sets_the_interval_between_drum_beats():
    cues = constant_cues(tempo=1.0, density=-2.0)
    sound = music.render(np.random.default_rng(0), cues, 12.0, 16_000)
    power = np.square(sound[: 16_000 * 12].astype(float)).reshape(-1, 160).mean(-1)  # 10 ms frames
    onset = np.maximum(np.diff(power), 0)
    repeats = np.correlate(onset, onset, mode="full")[len(onset) - 1 :]
    lag = 20 + np.argmax(repeats[20:80])
    assert lag / 100 == pytest.approx(60 / (105 * 1.25), abs=0.011)


def test_density_adds_onsets():
    def onsets(z):
        strength = librosa.onset.onset_strength(y=play(density=z), sr=16_000)
        return len(scipy.signal.find_peaks(strength, prominence=0.1 * strength.max())[0])

    assert onsets(2) > 1.3 * onsets(-2)


@given(
    st.floats(0.5, 4.0),
    st.sampled_from([8_000, 16_000, 44_100]),
    st.lists(st.floats(-3.5, 3.5), min_size=6, max_size=6),
)
@settings(max_examples=20)
def test_any_cues_can_be_rendered(duration_s, sample_rate, levels):
    cues = constant_cues(duration_s, **dict(zip(music.CUES, levels, strict=True)))
    sound = music.render(np.random.default_rng(0), cues, duration_s, sample_rate)
    assert sound.dtype == np.int16 and sound.shape == (round(duration_s * sample_rate),)
    assert 0 < np.abs(sound.astype(int)).max() <= 32_000


def segment_statistics(song, mels=64, hz=50):
    """Returns [60, F] statistics of log-mel and onset strength, over the last 4 s and the song."""
    rate = song.sample_rate
    power = librosa.feature.melspectrogram(
        y=song.waveform.astype(np.float32) / 32_768,
        sr=rate,
        n_fft=int(0.06 * rate),
        hop_length=rate // hz,
        n_mels=mels,
        htk=True,
        norm=None,
    )
    log_mel = np.log(power + 1e-6)
    onset = np.maximum(np.diff(log_mel, prepend=log_mel[:, :1]), 0).mean(0)
    first, size = int(song.ratings_start_s * hz), hz // 2
    rows = []
    for begin in range(first, first + 60 * size, size):
        segment, rise = log_mel[:, begin : begin + size], onset[begin : begin + size]
        rows.append(np.r_[segment.mean(1), segment.std(1), rise.mean(), rise.std(), rise.max()])
    rows = np.array(rows)
    recent = np.array([rows[max(0, t - 8) : t + 1].mean(0) for t in range(60)])
    return np.concatenate([recent, np.broadcast_to(rows.mean(0), rows.shape)], axis=1)


def test_audio_predicts_the_population_curve():
    """Ridge regression trained on 60 songs and tested on 20; R² is relative to the mean."""
    config = synthetic.SyntheticSettings(
        train_songs=60, test_songs=20, train_annotators=1, test_annotators=1
    )
    parts = {}
    for split in ("train", "test"):
        drawn = list(simulation.songs(config, split))
        parts[split] = (
            np.stack([segment_statistics(song) for song in drawn]),
            np.stack([song.population[:60] for song in drawn]).astype(float),
        )
    x, y = parts["train"]
    center, scale, mean = x.mean((0, 1)), x.std((0, 1)) + 1e-6, y.mean((0, 1))
    flat = ((x - center) / scale).reshape(-1, x.shape[-1])
    ridge = flat.T @ flat + 300 * np.eye(flat.shape[1])
    slopes = np.linalg.solve(ridge, flat.T @ (y - mean).reshape(-1, 2))
    x, y = parts["test"]
    predicted = ((x - center) / scale) @ slopes + mean
    r2 = 1 - ((predicted - y) ** 2).sum((0, 1)) / ((mean - y) ** 2).sum((0, 1))
    moves, moved = (a - a.mean(1, keepdims=True) for a in (predicted, y))
    within = (moves * moved).sum(1) / np.sqrt((moves**2).sum(1) * (moved**2).sum(1))
    print(
        f"\nfrom audio, held-out songs: R² {r2.round(2)}, r within a song {within.mean(0).round(2)}"
    )
    assert (r2 > [0.85, 0.6]).all()
    assert (within.mean(0) > [0.6, 0.25]).all()


# ---- listeners -------------------------------------------------------------------------------

SPREAD = listeners.ListenerSpread()
AVERAGE = listeners.average_listener(SPREAD)
pairs = st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(np.array)


@given(pairs, pairs, st.floats(-2, 2), st.sampled_from(music.CUES))
def test_constant_music_is_perceived_without_delay(offset, gain, level, cue):
    """Constant cues z give p = tanh(offset + gain wᵀz) for any lag and inertia."""
    listener = dataclasses.replace(AVERAGE, offset=offset, gain=gain)
    perceived = listeners.perceive(listener, constant_cues(**{cue: level}), 2.0, 9)
    response = np.array(listeners.AVERAGE_WEIGHTS[cue]) * level
    expected = np.broadcast_to(np.tanh(offset + gain * response), (9, 2))
    np.testing.assert_allclose(perceived, expected, atol=1e-6)


def test_the_step_response_has_the_lag_and_inertia():
    """y(t) = step (1 - exp(-(t - lag) / inertia)); the cue rises within half a second."""
    cues = constant_cues(20.0)
    cues[11:, 0] = 1.0  # linear from 5.0 s to 5.5 s
    listener = dataclasses.replace(AVERAGE, lag_s=2.0, inertia_s=1.5)
    response = np.arctanh(listeners.perceive(listener, cues, 0.0, 40).astype(float))
    response /= listeners.AVERAGE_WEIGHTS["tempo"]
    times = np.arange(40) / 2
    assert np.abs(response[times <= 7.0]).max() < 1e-9
    later = times >= 8
    # The mean of 1 - exp(-(t - 7 - u) / 1.5) over u in [0, 0.5]; 0.1 s is the integration's step.
    ramp = 1 - np.exp(-(times - 7) / 1.5) * 1.5 / 0.5 * (np.exp(0.5 / 1.5) - 1)
    np.testing.assert_allclose(response[later], np.stack([ramp, ramp], -1)[later], atol=0.03)


def test_half_a_second_of_lag_shifts_the_curve_by_one_rating():
    cues = music.cue_trajectories(np.random.default_rng(0), 60)
    early, late = (
        listeners.perceive(dataclasses.replace(AVERAGE, lag_s=lag), cues, 6.0, 40)
        for lag in (1.0, 1.5)
    )
    np.testing.assert_allclose(late[1:], early[:-1], atol=2e-4)  # the initial state is 6 s back


def test_a_rating_without_noise_is_the_perceived_curve():
    silent = dataclasses.replace(SPREAD, level_error_sd=(0.0, 0.0), drift_sd=(0.0, 0.0))
    perceived = np.random.default_rng(0).uniform(-1, 1, (30, 2)).astype(np.float32)
    rating = listeners.rate(np.random.default_rng(1), AVERAGE, perceived, silent)
    np.testing.assert_array_equal(rating, perceived)


def test_rating_noise_has_the_stated_spread_and_correlation_time():
    noise = np.stack(
        [
            listeners.rate(np.random.default_rng(i), AVERAGE, np.zeros((61, 2)), SPREAD)
            for i in range(2000)
        ]
    )
    total = np.sqrt(np.square(SPREAD.level_error_sd) + np.square(SPREAD.drift_sd))
    np.testing.assert_allclose(noise.std(0), np.broadcast_to(total, (61, 2)), rtol=0.1)
    change = noise[:, 12] - noise[:, 0]  # 6 s apart: one correlation time
    expected = np.sqrt(2 * (1 - np.exp(-1))) * np.array(SPREAD.drift_sd)
    np.testing.assert_allclose(change.std(0), expected, rtol=0.1)


def test_the_average_listener_is_the_mean_of_listeners():
    drawn = [listeners.draw_listener(np.random.default_rng(i), SPREAD) for i in range(4000)]
    for name, tolerance in (("weights", 0.006), ("offset", 0.008), ("gain", 0.03)):
        mean = np.mean([getattr(listener, name) for listener in drawn], axis=0)
        np.testing.assert_allclose(mean, getattr(AVERAGE, name), atol=tolerance)


# ---- comparison with real listeners ----------------------------------------------------------

# name: (real arousal, real valence, source, lowest, highest allowed for the simulation).
# "30 s" means windows of half a minute, the length of the simulated ratings. Schubert (2013) gives
# a test-retest distance of 8 % of the scale, taken here as a mean absolute difference, and a
# standard deviation over raters of 12.2 %: Gaussian noise then has the share
# (0.08² π / 2) / 2 / 0.122² = 0.34 of the variance.
REAL = {
    "averaged label, sd between songs": (0.27, 0.21, "DEAM", (0.22, 0.17), (0.32, 0.26)),
    "averaged label, sd within 60 ratings": (
        0.072,
        0.042,
        "DEAM, songs 2001 to 2058, its 30 s excerpts 0.037, 0.032; Korhonen, means of 10 raters "
        "in 30 s: 0.097, 0.085",
        (0.060, 0.045),
        (0.097, 0.085),
    ),
    "averaged label, lag-1 autocorrelation": (
        0.945,
        0.933,
        "DEAM, first 60 ratings, pooled; 0.985 over whole long songs",
        (0.92, 0.90),
        (0.985, 0.985),
    ),
    "between raters, sd a frame": (
        0.34,
        0.31,
        "DEAM, songs up to 1000; Korhonen 0.30, 0.31; VGMIDI 0.39",
        (0.26, 0.26),
        (0.39, 0.39),
    ),
    "one rating, sd within 60 ratings": (
        0.145,
        0.140,
        "Korhonen, 30 s; above DEAM's averages of 10",
        (0.09, 0.09),
        (0.145, 0.140),
    ),
    "one rater against the others, r over time": (
        0.44,
        0.32,
        "Korhonen, 30 s; whole pieces 0.59, 0.52",
        (0.35, 0.30),
        (0.59, 0.52),
    ),
    "level error, song to song r": (
        0.32,
        0.09,
        "Korhonen; VGMIDI -0.03 to 0.05, 0.06 to 0.08",
        (0.00, 0.03),
        (0.32, 0.17),
    ),
    "log sd over time, song to song r": (
        0.46,
        0.39,
        "Korhonen; VGMIDI 0.38 to 0.46, 0.39",
        (0.36, 0.28),
        (0.54, 0.48),
    ),
    "share of raters' variance that is noise": (
        0.34,
        0.34,
        "Schubert 2013, from retests",
        (0.30, 0.30),
        (0.55, 0.55),
    ),
}


@pytest.fixture(scope="module")
def simulated():
    """Returns the statistics of `REAL` for 60 annotators who all rate the same 96 songs."""
    config = synthetic.SyntheticSettings(test_songs=96, test_annotators=60)
    people = [listener for _, listener in simulation.draw_annotators(config, "test")]
    ratings = np.empty((96, 60, 60, 2))  # song, annotator, time, dimension
    perceived = np.empty_like(ratings)
    for i in range(96):
        cues = simulation.draw_cues(config, "test", i)
        for j, listener in enumerate(people):
            curve = listeners.perceive(listener, cues, config.ratings_start_s, 60)
            perceived[i, j] = curve
            ratings[i, j] = listeners.rate(np.random.default_rng([i, j]), listener, curve, SPREAD)
    # Ten raters per song, as in DEAM.
    raters = np.argsort(np.random.default_rng(0).random((96, 60)))[:, :10]
    averaged = np.take_along_axis(ratings, raters[..., None, None], axis=1).mean(1)
    others = (ratings.sum(1, keepdims=True) - ratings) / 59
    centered = [a - a.mean(2, keepdims=True) for a in (ratings, others)]
    moving = ratings.std(2) > 1e-3  # a curve that stays at an end of the scale has no correlation
    assert moving.mean() > 0.999
    agreement = (centered[0] * centered[1]).mean(2) / (ratings.std(2) * others.std(2) + 1e-9)
    still = averaged - averaged.mean(1, keepdims=True)
    return {
        "averaged label, sd between songs": averaged.mean(1).std(0),
        "averaged label, sd within 60 ratings": averaged.std(1).mean(0),
        "averaged label, lag-1 autocorrelation": (still[:, :-1] * still[:, 1:]).mean((0, 1))
        / (still**2).mean((0, 1)),
        "between raters, sd a frame": ratings.std(1).mean((0, 1)),
        "one rating, sd within 60 ratings": ratings.std(2).mean((0, 1)),
        "one rater against the others, r over time": agreement.mean((0, 1), where=moving),
        "level error, song to song r": song_to_song(ratings.mean(2) - others.mean(2)),
        "log sd over time, song to song r": song_to_song(np.log(ratings.std(2) + 1e-3)),
        "share of raters' variance that is noise": np.square(ratings - perceived).mean((0, 1, 2))
        / ratings.var(1).mean((0, 1)),
    }


def song_to_song(value):
    """Returns the correlation over annotators of value [song, annotator, 2], averaged over pairs.

    The pairs are those of different songs.
    """
    pair = np.triu_indices(len(value), 1)
    return np.array([np.corrcoef(value[..., d])[pair].mean() for d in range(2)])


@pytest.mark.parametrize("name", REAL)
def test_simulated_listeners_resemble_real_ones(simulated, name):
    arousal, valence, source, low, high = REAL[name]
    print(
        f"\n{name}: simulated {simulated[name].round(3)}, real {arousal} {valence} ({source})",
        end="",
    )
    assert (simulated[name] >= low).all() and (simulated[name] <= high).all()


# ---- data set --------------------------------------------------------------------------------


def same(left: schema.Song, right: schema.Song) -> bool:
    return all(
        np.array_equal(a.curve, b.curve) and np.array_equal(a.noise_free, b.noise_free)
        for a, b in zip(left.ratings, right.ratings, strict=True)
    ) and all(
        np.array_equal(getattr(left, name), getattr(right, name))
        for name in ("song_id", "waveform", "population", "duration_s", "sample_rate")
    )


def test_prepared_songs_equal_the_simulated_ones_bit_for_bit(tmp_path, capfd):
    config = synthetic.builder_config("tiny", **TINY)
    builder = synthetic.build(tmp_path, config)
    assert "it/s" not in capfd.readouterr().err, "progress bars outside a terminal"
    for split in ("train", "validation", "test"):
        stored = {s.song_id: s for s in map(schema.decode, builder.as_data_source(split=split))}
        drawn = list(simulation.songs(config.settings, split))
        assert len(stored) == len(drawn) == TINY[f"{split}_songs"]
        assert all(same(song, stored[song.song_id]) for song in drawn)


def test_songs_do_not_depend_on_the_number_of_processes():
    settings = synthetic.SyntheticSettings(**TINY)
    alone, shared = (simulation.songs(settings, "train", processes) for processes in (1, 2))
    assert all(same(left, right) for left, right in zip(alone, shared, strict=True))


def test_a_song_does_not_change_with_the_number_of_songs():
    few = synthetic.SyntheticSettings(**TINY)
    many = dataclasses.replace(few, train_songs=6, train_annotators=8)
    for left, right in zip(
        simulation.songs(few, "train"), simulation.songs(many, "train"), strict=False
    ):
        np.testing.assert_array_equal(left.waveform, right.waveform)
        np.testing.assert_array_equal(left.population, right.population)
        again = {rating.annotator_id: rating for rating in right.ratings}
        both = [rating for rating in left.ratings if rating.annotator_id in again]
        assert both
        for rating in both:
            np.testing.assert_array_equal(rating.curve, again[rating.annotator_id].curve)


def test_another_seed_or_split_gives_other_songs():
    config = synthetic.SyntheticSettings(**TINY)
    other = dataclasses.replace(config, seed=1)
    first = next(simulation.songs(config, "train"))
    for song in (next(simulation.songs(other, "train")), next(simulation.songs(config, "test"))):
        assert not np.array_equal(first.waveform, song.waveform)
        assert np.abs(first.population - song.population).max() > 0.01


def test_splits_are_disjoint_and_every_annotator_rates_the_minimum():
    config = synthetic.SyntheticSettings(**TINY)
    songs, people = {}, {}
    for split in ("train", "validation", "test"):
        drawn = list(simulation.songs(config, split))
        songs[split] = {song.song_id for song in drawn}
        names = [rating.annotator_id for song in drawn for rating in song.ratings]
        people[split] = set(names)
        assert min(names.count(name) for name in people[split]) >= TINY["minimum_songs"]
        assert len(people[split]) == TINY[f"{split}_annotators"]
        for song in drawn:
            assert song.population.shape == (8, 2)  # 2 s to 6 s, two per second
            for rating in song.ratings:
                assert rating.curve.shape == rating.noise_free.shape == (8, 2)
                assert np.abs(rating.curve).max() <= 1
    for group in (songs, people):
        assert len(set().union(*group.values())) == sum(map(len, group.values()))


def test_a_few_annotators_rate_much_more_than_most():
    rated = simulation.draw_assignment(synthetic.SyntheticSettings(), "train")
    counts = np.sort(rated.sum(1))
    assert counts[0] == 5 and counts[-1] > 5 * np.median(counts)
    assert 8 <= rated.sum(0).mean() <= 16  # ratings per song; DEAM has about 10
    assert rated.sum(0).min() >= 1


@given(
    st.sampled_from(
        [f.name for f in dataclasses.fields(synthetic.SyntheticSettings) if f.name != "spread"]
    )
)
def test_different_settings_never_share_a_folder(field):
    plain = synthetic.builder_config("run")
    value = getattr(plain.settings, field)
    changed = synthetic.builder_config("run", **{field: value + 1})
    assert plain.name != changed.name
    assert plain.name == synthetic.builder_config("run", **{field: value}).name
    noisier = dataclasses.replace(SPREAD, drift_time_s=7.0)
    assert plain.name != synthetic.builder_config("run", spread=noisier).name


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"train_song": 3}, "no setting 'train_song'"),
        ({"train_songs": 3}, "train_songs is 3"),
        ({"test_annotators": 0}, "test_annotators is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"minimum_songs": 0}, "minimum_songs is 0"),
        ({"sample_rate": 4000}, "sample_rate is 4000"),
        ({"duration_s": 2.0}, "duration_s = 2.0"),
        ({"seed": "x"}, "data.builder.seed is 'x'; expected an integer"),
        ({"seed": True}, "data.builder.seed is True; expected an integer"),
        ({"train_songs": 7.5}, "data.builder.train_songs is 7.5; expected an integer"),
        ({"duration_s": float("nan")}, "data.builder.duration_s is nan; expected a finite"),
        ({"duration_s": 1e12}, "data.builder.duration_s is 1000000000000.0; expected above 0"),
        ({"activity_exponent": "x"}, "data.builder.activity_exponent is 'x'; expected a number"),
        ({"name": "x"}, "no setting 'name'"),
        ({"spread": 3}, "data.builder.spread is 3; expected some of offset_sd"),
        ({"spread": {"x": 1}}, r"data\.builder\.spread has no setting 'x'"),
        ({"spread": {"lag_s": "x"}}, "data.builder.spread.lag_s is 'x'; expected a number"),
        ({"spread": {"drift_sd": [1]}}, r"data.builder.spread.drift_sd is \(1,\); expected"),
    ],
)
def test_invalid_settings_are_rejected(fields, sentence):
    with pytest.raises(UserError, match=sentence):
        synthetic.builder_config(**fields)


def test_the_spread_of_listeners_may_be_a_mapping():
    spread = synthetic.builder_config(spread={"drift_sd": [0.2, 0.1]}).settings.spread
    assert spread == dataclasses.replace(SPREAD, drift_sd=(0.2, 0.1))
