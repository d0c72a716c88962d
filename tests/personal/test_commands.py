"""The modes personalize, predict and export, from the command line's options on."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from absl import flags as absl_flags

from dsaml_jax import cli
from dsaml_jax.commands import predict as predicting
from dsaml_jax.commands.export import export
from dsaml_jax.commands.options import ListenerOptions, audio_files
from dsaml_jax.commands.personalize import personalize
from dsaml_jax.commands.predict import predict
from dsaml_jax.errors import UserError
from dsaml_jax.personal import Listener, write_rating
from dsaml_jax.runtime.files import read_json_object
from tests.conftest import CACHE
from tests.personal.conftest import tone

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ratings(finished, tmp_path_factory):
    """Returns the support of the first episode as files: its song, and the rating as a CSV."""
    ((song, rating),) = finished.support(0)
    path = tmp_path_factory.mktemp("ratings") / "rating.csv"
    write_rating(path, rating)
    return song, str(path)


@pytest.fixture(scope="module")
def published(finished, tmp_path_factory):
    """Returns an exported folder, and what was printed."""
    folder = tmp_path_factory.mktemp("published") / "model"
    text = export(ListenerOptions(checkpoint=str(finished.workdir), workdir=str(folder)))
    return folder, text


@pytest.fixture(scope="module")
def me(finished, ratings, tmp_path_factory):
    """Returns the folder of a listener, and what was printed."""
    folder = tmp_path_factory.mktemp("me") / "me"
    song, rated = ratings
    text = personalize(
        ListenerOptions(
            checkpoint=str(finished.workdir),
            audio=(song,),
            ratings=(rated,),
            workdir=str(folder),
        )
    )
    return folder, text


@pytest.fixture
def sketches(monkeypatch):
    """Writes figures without drawing them, for tests of other things."""
    monkeypatch.setattr(predicting, "song_figure", lambda path, *_: path.write_bytes(b"drawn"))


def read_csv(path):
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def test_personalize_saves_a_listener_and_says_what_it_used(finished, me):
    folder, text = me
    assert "6 s of 7.0 s are rated, in arousal and valence" in text and "1 clips" in text
    assert "(the fit, not a test)" in text
    listener = finished.listener.adapt(finished.support(0))
    assert Listener.open(folder).hash == listener.hash
    assert (folder / "personal-1.png").read_bytes().startswith(b"\x89PNG")
    content = read_json_object(folder / "personal.json")
    assert content["shared"]["hash"] == finished.listener.shared.hash


def test_predict_writes_a_csv_and_a_figure_of_each_song_and_json_of_all(finished, me, tmp_path):
    options = ListenerOptions(
        checkpoint=str(me[0]), audio=(str(Path(finished.audio[0]).parent),), workdir=str(tmp_path)
    )
    text = predict(options)
    assert f"{len(finished.audio)} songs predicted, 0 were done before" in text
    listener = finished.listener.adapt(finished.support(0))
    content = json.loads((tmp_path / "curves.json").read_text())
    assert content["model"] == listener.hash and set(content["songs"]) == set(finished.audio)
    for path in finished.audio:
        curves = listener.predict(path)
        columns = read_csv(tmp_path / f"{Path(path).stem}.csv")
        assert (tmp_path / f"{Path(path).stem}.png").read_bytes().startswith(b"\x89PNG")
        np.testing.assert_array_equal(columns["time_s"], curves.time_s)
        for i, name in enumerate(("arousal", "valence")):
            np.testing.assert_allclose(columns[name], curves.personal[:, i], atol=1e-7)
            population = columns[f"population_{name}"]
            np.testing.assert_allclose(population, curves.population[:, i], atol=1e-7)
            np.testing.assert_array_equal(content["songs"][path][name], columns[name])


def test_a_run_gives_the_population_only(finished, tmp_path):
    song = tone(tmp_path / "$a_{song.wav")  # no formula for the figure's title
    text = predict(
        ListenerOptions(
            checkpoint=str(finished.workdir), audio=(song,), workdir=str(tmp_path / "o")
        )
    )
    assert "; the population's curves are in" in text
    columns = read_csv(tmp_path / "o" / "$a_{song.csv")
    np.testing.assert_array_equal(columns["arousal"], columns["population_arousal"])


def test_what_is_done_is_not_done_again(finished, me, tmp_path, monkeypatch, sketches):
    songs = sorted(shutil.copy(path, tmp_path) for path in finished.audio)
    out = tmp_path / "out"
    options = ListenerOptions(checkpoint=str(me[0]), audio=(str(tmp_path),), workdir=str(out))
    predict(options)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.csv")}
    stems = [Path(song).stem for song in songs]
    shutil.copy(tone(tmp_path / "tone.txt", format="WAV"), songs[0])  # another sound, same name
    (out / f"{stems[1]}.csv").write_text("damaged")
    (out / f"{stems[2]}.png").unlink()
    with (out / "predicted.jsonl").open("a") as file:
        file.write('{"key": "cut o')
    (out / "killed.partial").write_text("half wri")
    assert "3 songs predicted, 1 were done before" in predict(options)
    assert not list(out.glob("*.partial"))
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.csv")}
    assert set(after) == set(before)
    changed = {Path(name).stem for name in after if after[name] != before[name]}
    assert changed == set(stems[:3])
    monkeypatch.setattr(predicting, "whole_span", None)
    assert "0 songs predicted, 4 were done before" in predict(options)
    with pytest.raises(UserError, match="holds curves of another model"):
        predict(ListenerOptions(str(finished.workdir), str(out), (str(tmp_path),)))


def test_an_interrupted_prediction_continues(finished, me, tmp_path, monkeypatch, sketches):
    options = ListenerOptions(str(me[0]), str(tmp_path), tuple(finished.audio))
    draw, drawn = predicting.song_figure, []

    def interrupted(*arguments):
        if drawn:
            raise KeyboardInterrupt
        drawn.append(draw(*arguments))

    with monkeypatch.context() as patched:
        patched.setattr(predicting, "song_figure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            predict(options)
    assert f"{len(finished.audio) - 1} songs predicted, 1 were done before" in predict(options)
    assert len(json.loads((tmp_path / "curves.json").read_text())["songs"]) == len(finished.audio)


def test_songs_of_the_same_name_get_files_of_their_own(me, tmp_path, sketches):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        tone(tmp_path / folder / "song.wav", seconds=1 + len(folder))
    tone(tmp_path / "b" / "song.flac")
    audio = tuple(str(tmp_path / pattern) for pattern in ("a/*", "b/song.*"))
    predict(ListenerOptions(str(me[0]), str(tmp_path / "out"), audio))
    names = {path.name for path in (tmp_path / "out").glob("*.csv")}
    assert names == {"song.csv", "song-2.csv", "song-3.csv"}


def test_unusable_songs_are_reported_and_the_others_predicted(me, tmp_path, sketches):
    tone(tmp_path / "good.wav")
    soundfile.write(tmp_path / "silent.wav", np.zeros(9000), 8000)
    soundfile.write(tmp_path / "faint.wav", 1e-7 * np.sin(np.arange(9000)), 8000, subtype="FLOAT")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.mp3").write_text("no sound " * 99)
    with pytest.raises(UserError) as caught:
        predict(ListenerOptions(str(me[0]), str(tmp_path / "out"), (str(tmp_path),)))
    text = str(caught.value)
    assert text.startswith("4 of 5 songs could not be predicted; 1 songs predicted")
    for sentence in (
        "empty.wav is empty",
        "silent.wav is silent throughout",
        "text.mp3 cannot be decoded",
        "faint.wav, its channels averaged, is silent",
    ):
        assert sentence in text
    assert [path.name for path in (tmp_path / "out").glob("*.csv")] == ["good.csv"]
    assert list(json.loads((tmp_path / "out" / "curves.json").read_text())["songs"]) == [
        str(tmp_path / "good.wav")
    ]


def test_an_export_needs_nothing_of_the_run(finished, published, me, tmp_path):
    folder, text = published
    assert "adapts to listeners" in text
    assert {path.name for path in folder.iterdir()} == {
        "model.json",
        "weights.npz",
        "embedding_scaling.npz",
        "versions.json",
    }
    opened = Listener.open(folder)
    assert opened.hash == finished.listener.hash
    np.testing.assert_array_equal(
        opened.predict(finished.audio[0]).population,
        finished.listener.predict(finished.audio[0]).population,
    )
    assert opened.adapt(finished.support(0)).hash == Listener.open(me[0]).hash
    assert Listener.open(me[0], shared=folder).hash == Listener.open(me[0]).hash
    again = tmp_path / "again"
    export(ListenerOptions(checkpoint=str(folder), workdir=str(again)))
    for name in ("model.json", "weights.npz", "embedding_scaling.npz"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    with pytest.raises(UserError, match="is not empty; choose another --workdir"):
        export(ListenerOptions(checkpoint=str(finished.workdir), workdir=str(folder)))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("file", "damage", "sentence"),
    [
        ("embedding_scaling.npz", None, "lacks embedding_scaling.npz"),
        ("weights.npz", None, "weights.npz cannot be read"),
        ("weights.npz", b"PK", "weights.npz cannot be read"),
        ("model.json", b"{", "model.json cannot be read"),
        ("model.json", b'{"format": "dsaml_jax model 9"}', "has the format 'dsaml_jax model 9'"),
        ("model.json", ("dim", 16), "weights.npz does not fit its settings"),
        ("model.json", ("hops", [1, 1]), "has changed since it was exported"),
    ],
)
def test_a_damaged_export_is_refused(published, tmp_path, file, damage, sentence):
    folder = tmp_path / "published"
    shutil.copytree(published[0], folder)
    if damage is None:
        (folder / file).unlink()
    elif isinstance(damage, bytes):
        (folder / file).write_bytes(damage)
    else:
        content = json.loads((folder / file).read_text())
        name, value = damage
        (content["model"] if name in content["model"] else content)[name] = value
        (folder / file).write_text(json.dumps(content))
    with pytest.raises(UserError, match=sentence) as caught:
        Listener.open(folder)
    assert "\n" not in str(caught.value)


def test_a_run_that_is_not_finished_or_lacks_its_scaling_is_refused(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished.workdir, run)
    (run / "embedding_scaling.npz").rename(tmp_path / "scaling")
    with pytest.raises(UserError, match=r"lacks embedding_scaling.npz, .* run --mode=train"):
        Listener.open(run)
    shutil.rmtree(run / "checkpoints" / "meta" / "4")
    with pytest.raises(UserError, match=r"is not finished \(stage meta is at step 2 of 4\)"):
        Listener.open(run)
    shutil.rmtree(run / "checkpoints" / "meta")
    with pytest.raises(UserError, match=r"is not finished \(stage meta has not begun\)"):
        Listener.open(run)
    (run / "config.json").write_text("[")
    with pytest.raises(UserError, match=r"config.json cannot be read"):
        Listener.open(run)
    for path, sentence in ((tmp_path / "no", "does not exist"), (tmp_path, "holds no model")):
        with pytest.raises(UserError, match=sentence):
            Listener.open(path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"checkpoint": ""}, "--checkpoint is missing; --mode=personalize needs it"),
        ({"audio": ()}, "--audio is missing"),
        ({"ratings": ("a", "b")}, "--audio is given 1 times and --ratings 2 times"),
        ({"dimension": ("arousal", "valence")}, "--dimension is given 2 times for 1 files"),
        ({"scale": "1..9"}, "states the scale -1 to 1, but --scale is 1..9"),
        ({"ratings": "long"}, r"goes to 30 s, but .* lasts 7.00 s; is it the rating of another"),
        ({"ratings": "brief"}, "rates 2 s of .*; expected at least 5 s"),
        ({"ratings": "flat"}, "is constant in every half second"),
        ({"audio": "silent"}, "is silent throughout"),
        ({"audio": "second"}, "goes to 7 s, but .* lasts 1.00 s"),
        ({"shared": "elsewhere"}, "is no listener's folder, so --shared=elsewhere has no meaning"),
    ],
)
def test_bad_input_writes_nothing(published, ratings, tmp_path, changes, sentence):
    song, rated = ratings
    given = {"checkpoint": str(published[0]), "audio": (song,), "ratings": (rated,)}
    files = {
        "long": "# scale: -1 to 1\ntime_s,arousal\n0,0.1\n"
        + "".join(f"{t},{t / 30}\n" for t in range(1, 30)),
        "brief": "# scale: -1 to 1\ntime_s,arousal\n0,0.1\n0.5,0.2\n1,0.3\n1.5,0.2\n",
        # 10 Hz, alternating: every half second has the same mean.
        "flat": "# scale: -1 to 1\ntime_s,arousal\n"
        + "".join(f"{t / 4},{(-1) ** t * 0.5}\n" for t in range(24)),
    }
    for name, value in changes.items():
        if value in files:
            path = tmp_path / f"{value}.csv"
            path.write_text(files[value])
            value = (str(path),)
        elif name == "audio" and value:
            path = tmp_path / "a.wav"
            if value == "second":
                tone(path, 1)
            else:
                soundfile.write(path, np.zeros(60_000), 8000)
            value = (str(path),)
        given[name] = value
    with pytest.raises(UserError, match=sentence) as caught:
        personalize(ListenerOptions(**given, workdir=str(tmp_path / "me")))
    assert "\n" not in str(caught.value) and not (tmp_path / "me").exists()


def test_a_folder_with_other_files_is_not_written(finished, ratings, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    song, rated = ratings
    with pytest.raises(UserError, match="holds something else than a listener"):
        personalize(ListenerOptions(str(finished.workdir), str(tmp_path), (song,), (rated,)))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_ratings_that_look_like_those_of_another_song_are_marked(published, ratings, tmp_path):
    song, _ = ratings
    path = tmp_path / "rating.csv"
    rows = "".join(f"{t / 2},{0.97 + 0.002 * (t % 15)},{-1 + 0.002 * t}\n" for t in range(15))
    path.write_text(f"# scale: -1 to 1\n# media: other.mp3\ntime_s,arousal,valence\n{rows}")
    text = personalize(
        ListenerOptions(str(published[0]), str(tmp_path / "me"), (song,), (str(path),))
    )
    assert "CHECK: the rating names the file 'other.mp3', not this one" in text
    assert "0.5 s after the end of the song are left out" in text


def test_the_command_line_needs_no_config(published, ratings, tmp_path):
    song, rated = ratings
    flags = [f"--checkpoint={published[0]}", f"--audio={song}", f"--ratings={rated}"]
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "dsaml_jax", "--mode=personalize", "--workdir=me", *flags),
            f"--compile_cache={CACHE}",  # compiled by other tests, with the same flags of XLA
        ],
        cwd=tmp_path,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert "The listener is in me/" in ran.stdout
    assert Listener.open(tmp_path / "me").is_adapted


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--mode=personalise",), "did you mean|should be one of"),
        (("--mode=predict", "--start_s=nan"), "--start_s is nan; expected a finite number"),
        (("--mode=predict", "--start_s=-1"), "start_s=-1"),
        (("--mode=personalize", "--dimension=mood"), "mood"),
    ],
)
def test_mistakes_in_flags_are_one_sentence(flags, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        cli.parse(["program", *flags], absl_flags.FlagValues())
    assert "\n" not in str(caught.value)


def test_patterns_that_name_no_song_are_refused(tmp_path):
    for pattern, sentence in ((f"{tmp_path}/*.mp3", "names no file"), (tmp_path, "holds no audio")):
        with pytest.raises(UserError, match=sentence):
            audio_files((str(pattern),))
