"""Adapting and predicting: the numbers of evaluation, alone or among other songs."""

import dataclasses
import shutil

import numpy as np
import pytest

from dsaml_jax.errors import UserError
from dsaml_jax.evaluation.methods import personal_methods
from dsaml_jax.evaluation.widening import Widening
from dsaml_jax.personal import Listener, Rating, saved
from dsaml_jax.personal.rating import joined
from tests.personal.conftest import tone


@pytest.fixture(scope="module")
def adapted(finished):
    """Returns the listener of the first episode."""
    return finished.listener.adapt(finished.support(0))


def ramp(seconds=7.0, start_s=0.0, hz=4.0, arousal=(-0.5, 0.7), valence=(0.2, -0.4)):
    times = start_s + np.arange(int((seconds - start_s) * hz)) / hz
    return Rating(times, np.linspace(*arousal, len(times)), np.linspace(*valence, len(times)))


def test_curves_are_those_of_evaluation(finished):
    experiment, test, trained = finished.experiment, finished.test, finished.trained
    row = personal_methods(
        experiment.model,
        experiment.inner,
        finished.corpora["train"],
        test,
        trained.population,
        trained.meta,
        chunk=experiment.evaluation.chunk,
        widening=Widening((1.0, 1.0), {}),
    )
    for episode in range(len(test.episodes.support)):
        listener = finished.listener.adapt(finished.support(episode))
        np.testing.assert_allclose(listener.losses, row.losses[episode], atol=1e-6)
        own = np.flatnonzero(test.sequences.episode == episode)
        songs = [finished.audio[song] for song in test.sequences.song[own]]
        for i, curves in zip(own, listener.predict(songs, start_s=finished.start_s), strict=True):
            for name, found in (("adapted", curves.personal), ("population", curves.population)):
                np.testing.assert_allclose(found, row.curves[name][i], atol=1e-6)
            assert np.abs(curves.personal - curves.population).max() > 1e-3


def test_a_song_alone_and_among_others_has_the_same_curves(finished, adapted):
    together = adapted.predict([*finished.audio, finished.audio[0]])
    for path, among in zip(finished.audio, together, strict=False):
        alone = adapted.predict(path)
        np.testing.assert_array_equal(alone.personal, among.personal)
        np.testing.assert_array_equal(alone.population, among.population)
    np.testing.assert_array_equal(together[-1].personal, together[0].personal)


def test_adapting_is_pure_and_starts_from_the_shared_weights(finished, adapted):
    assert not finished.listener.is_adapted and adapted.is_adapted
    before = finished.listener.predict(finished.audio[1])
    assert before.personal is None
    again = adapted.adapt(finished.support(0))
    assert again.hash == adapted.hash != finished.listener.hash
    other = adapted.adapt(finished.support(1))
    assert other.hash != adapted.hash
    after = finished.listener.predict(finished.audio[1])
    np.testing.assert_array_equal(before.population, after.population)


def test_a_saved_listener_gives_the_same_curves(finished, adapted, tmp_path):
    adapted.save(tmp_path / "me")
    opened = Listener.open(tmp_path / "me")
    assert (opened.hash, opened.songs, opened.losses) == (
        adapted.hash,
        adapted.songs,
        adapted.losses,
    )
    expected = adapted.predict(finished.audio[2])
    np.testing.assert_array_equal(opened.predict(finished.audio[2]).personal, expected.personal)
    size = sum(file.stat().st_size for file in (tmp_path / "me").iterdir())
    whole = sum(f.stat().st_size for f in (finished.workdir / "checkpoints").rglob("*"))
    assert size < whole / 10
    other = finished.listener.adapt(finished.support(1))
    other.save(tmp_path / "me")  # replaces the first
    assert Listener.open(tmp_path / "me").hash == other.hash
    assert len(list((tmp_path / "me").iterdir())) == 2


def test_a_saved_listener_refuses_another_shared_model(finished, adapted, tmp_path):
    adapted.save(tmp_path / "me")
    run = tmp_path / "run"
    shutil.copytree(finished.workdir, run)
    assert Listener.open(tmp_path / "me", shared=run).hash == adapted.hash
    shutil.rmtree(run / "checkpoints" / "meta")
    shutil.copytree(run / "checkpoints" / "population", run / "checkpoints" / "meta")
    with pytest.raises(UserError, match="checkpoints/meta"):
        Listener.open(tmp_path / "me", shared=run)
    changed = finished.listener.shared
    changed = dataclasses.replace(changed, hops=(1, 1))
    assert changed.hash != finished.listener.shared.hash
    with pytest.raises(UserError, match=r"does not exist; say where it is now with --shared"):
        Listener.open(tmp_path / "me", shared=tmp_path / "gone")
    (weights,) = (tmp_path / "me").glob("*.npz")
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match="run --mode=personalize again"):
        Listener.open(tmp_path / "me")


def test_an_interrupted_save_leaves_the_listener_before(finished, adapted, tmp_path, monkeypatch):
    adapted.save(tmp_path)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(saved, "write_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finished.listener.adapt(finished.support(1)).save(tmp_path)
    assert Listener.open(tmp_path).hash == adapted.hash


def test_more_songs_and_longer_ratings_give_more_clips(finished, tmp_path):
    long = tone(tmp_path / "long.wav", seconds=20)
    song = finished.audio[0]
    listener = finished.listener.adapt([(long, ramp(20)), (song, ramp(7, start_s=1))])
    assert [rated.clips for rated in listener.songs] == [3, 1]  # of 6 s each
    assert "2 s of rating are left out: too short for a clip" in listener.songs[0].notes
    longer = finished.listener.adapt([(tone(tmp_path / "longer.wav", seconds=23.5), ramp(23.5))])
    assert longer.songs[0].clips == 4  # the last ends with the rating
    one = finished.listener.adapt([(long, ramp(20))], clips=1)
    assert one.songs[0].clips == 1
    assert any("after 1 clips are left out" in note for note in one.songs[0].notes)
    short = finished.listener.adapt([(long, ramp(7, start_s=1))])
    assert one.hash != short.hash


def test_one_dimension_alone_leaves_the_other_unlearned(finished):
    """The gradient of an unrated dimension is zero, so its predictions keep their weights."""
    song = finished.audio[0]
    both = ramp(7, start_s=1)
    nothing = np.full(len(both.time_s), np.nan)
    arousal = dataclasses.replace(both, valence=nothing)
    valence = dataclasses.replace(both, arousal=nothing)
    alone = finished.listener.adapt([(song, arousal)])
    assert "rated, in arousal" in " ".join(alone.songs[0].notes)
    apart = finished.listener.adapt([(song, arousal), (song, valence)])
    assert apart.hash == finished.listener.adapt([(song, joined([arousal, valence]))]).hash
    np.testing.assert_allclose(
        apart.losses, finished.listener.adapt([(song, both)]).losses, atol=1e-6
    )
    start = finished.trained.meta.params["predictor"]["output"]
    for one, column in ((alone, 0), (finished.listener.adapt([(song, valence)]), 1)):
        moved = one.weights.params["predictor"]["output"]["kernel"] - np.asarray(start["kernel"])
        assert np.abs(moved[:, column]).max() > 1e-6
        np.testing.assert_array_equal(moved[:, 1 - column], 0)


@pytest.mark.parametrize("seconds", [0.3, 1.0, 3.0, 13.2])
def test_songs_of_any_length_have_a_value_for_each_half_second(adapted, tmp_path, seconds):
    curves = adapted.predict(tone(tmp_path / "a.wav", seconds))
    assert len(curves.time_s) == np.ceil(seconds * 2)
    np.testing.assert_array_equal(curves.time_s, np.arange(len(curves.time_s)) / 2)
    for curve in (curves.personal, curves.population):
        assert curve.shape == (len(curves.time_s), 2) and np.isfinite(curve).all()


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [("a.wav", 8_000, 1), ("a.flac", 96_000, 2), ("a.mp3", 44_100, 2), ("a.ogg", 48_000, 1)],
)
def test_other_formats_rates_and_channels_are_resampled(adapted, tmp_path, name, rate, channels):
    reference = adapted.predict(tone(tmp_path / "reference.wav", 3, 16_000, subtype="FLOAT"))
    curves = adapted.predict(tone(tmp_path / name, 3, rate, channels=channels))
    assert abs(len(curves.time_s) - 6) <= 1  # mp3 holds whole blocks
    assert np.abs(curves.personal[:6] - reference.personal).max() < 0.3
    assert np.isfinite(curves.personal).all()


def test_progress_ends_at_one(finished, adapted):
    told = []
    finished.listener.adapt(finished.support(0), progress=lambda *now: told.append(now))
    adapted.predict(finished.audio[:2], progress=lambda *now: told.append(now))
    shares = [share for share, _ in told]
    assert shares.count(1.0) == 2 and min(shares) >= 0


def test_features_are_kept_in_a_cache(finished, tmp_path, monkeypatch):
    listener = dataclasses.replace(finished.listener, cache=str(tmp_path / "kept"))
    first = listener.predict(finished.audio[0])
    monkeypatch.setattr("dsaml_jax.personal.sound.extract", None)
    np.testing.assert_array_equal(listener.predict(finished.audio[0]).population, first.population)
