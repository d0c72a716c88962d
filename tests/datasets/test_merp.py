"""Reading of MERP's Parquet files."""

import os
import sys

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from configs import merp_pdmer
from dsaml_jax.config.experiment import experiment_from_config
from dsaml_jax.data.loading import load_corpora
from dsaml_jax.datasets.merp import parse
from dsaml_jax.datasets.merp.parse import MerpOptions
from dsaml_jax.datasets.schema import EVERYONE
from dsaml_jax.errors import UserError
from tests import data_folders


def rows():
    """Returns (song, rater, valence, arousal) rows; curves of unequal length at 10 Hz."""
    ramp = np.linspace(-0.5, 0.5, 57)
    return [
        ("00_35", "r1", ramp, -ramp),
        ("00_35", "r2", ramp[:50], -ramp[:48]),
        ("00_35", "r1", ramp, ramp),
        ("deam_115", "r2", ramp[:30], ramp[:30]),
        ("00_99", "r3", ramp, ramp),
        ("00_35", "r4", ramp[:3], ramp[:3]),
    ]


def write(root, entries, rater="rater_id", kind="filtered", rename=None):
    columns = dict(
        zip(("song_id", rater, "valence", "arousal"), zip(*entries, strict=True), strict=True)
    )
    names = {(rename or {}).get(name, name): list(values) for name, values in columns.items()}
    parquet.write_table(pa.table(names), root / f"annotations_{kind}.parquet")
    for song_id, seconds in (("00_35", 6.0), ("deam_115", 4.0), ("extra", 1.0)):
        data_folders.audio(root / "audio" / f"{song_id}.wav", seconds)
    return root


def test_curves_at_10_hz_are_averaged_to_2_hz(tmp_path):
    songs, findings = parse.read(write(tmp_path, rows()))
    assert [song.song_id for song in songs] == ["00_35", "deam_115"]
    song = songs[0]
    assert [rating.annotator_id for rating in song.ratings] == ["r1", "r2", EVERYONE]
    assert [len(rating.curve) for rating in song.ratings] == [11, 9, 11]
    ramp = np.linspace(-0.5, 0.5, 57)[:55].reshape(11, 5).mean(1)
    np.testing.assert_allclose(song.ratings[0].curve, np.stack([-ramp, ramp], 1), atol=1e-6)
    assert (song.ratings_start_s, song.duration_s) == (0.0, 6.0)
    assert song.audio == "audio/00_35.wav"
    assert findings.dropped() == {
        "the annotator's second rating of the song": 1,
        "shorter than half a second": 1,
    }
    assert findings.counts["rows of annotations_filtered.parquet"] == 6
    assert findings.counts["curves cut because arousal and valence differ in length"] == 1
    assert findings.counts["songs that are also in DEAM"] == 1
    assert (findings.missing_audio, findings.unlabeled_audio) == (("00_99",), ("extra",))
    assert (findings.annotators, findings.ratings, findings.aggregates) == (2, 3, 2)


@pytest.mark.parametrize("name", ["rater_id", "WorkerID", "participant", "user"])
def test_the_rater_column_is_found_by_name(tmp_path, name):
    assert parse.read(write(tmp_path, rows(), name))[1].annotators == 2


def test_an_unusual_rater_column_must_be_given(tmp_path):
    write(tmp_path, rows(), "who")
    with pytest.raises(UserError, match=r"columns are: song_id, who, .*rater_column"):
        parse.read(tmp_path)
    assert parse.read(tmp_path, MerpOptions(rater_column="who"))[1].annotators == 2
    with pytest.raises(UserError, match="has no column whose"):
        parse.read(tmp_path, MerpOptions(rater_column="whose"))


@pytest.mark.parametrize("column", ["song_id", "valence", "arousal"])
def test_a_missing_column_is_named(tmp_path, column):
    write(tmp_path, rows(), rename={column: "x"})
    with pytest.raises(UserError, match=rf"annotations_filtered\.parquet has no column {column}"):
        parse.read(tmp_path)


def test_raw_annotations_are_mapped_from_their_scale(tmp_path):
    raw = [(song, rater, 50 + 50 * v, 50 + 50 * a) for song, rater, v, a in rows()]
    write(tmp_path, raw, kind="raw")
    with pytest.raises(UserError, match=r"annotations_filtered.parquet"):
        parse.read(tmp_path)
    songs, _ = parse.read(tmp_path, MerpOptions(annotations="raw", low=0, high=100))
    ramp = np.linspace(-0.5, 0.5, 57)[:55].reshape(11, 5).mean(1)
    np.testing.assert_allclose(songs[0].ratings[0].curve[:, 1], ramp, atol=1e-6)
    with pytest.raises(
        UserError, match=r"values from 25 to 75, 12 of 12 curves .*set low and high"
    ):
        parse.read(tmp_path, MerpOptions(annotations="raw"))


def test_invalid_rows_are_named(tmp_path):
    corrupted = rows()
    corrupted[0] = ("00_35", None, *corrupted[0][2:])
    corrupted[1] = ("00_35", "r2", None, corrupted[1][3])
    corrupted[2] = ("00_35", "r1", np.r_[corrupted[2][2][:9], 1.5], corrupted[2][3])
    corrupted[4] = ("00_35", "r3", np.r_[0.1, np.nan, 0.1, [0.1] * 9], corrupted[4][3])
    songs, findings = parse.read(write(tmp_path, corrupted))
    assert [song.song_id for song in songs] == ["deam_115"]
    assert [problem.where for problem in findings.problems] == [
        "annotations_filtered.parquet, row 1",
        "annotations_filtered.parquet, row 2, column valence",
        "annotations_filtered.parquet, row 3, column valence",
    ]
    assert findings.dropped()["a hole between values"] == 1
    with pytest.raises(UserError, match=r"row 1: .*strict"):
        parse.read(tmp_path, MerpOptions(strict=True))


def test_other_files_and_invalid_options_are_rejected(tmp_path):
    (tmp_path / "annotations_filtered.parquet").write_text("song_id,rater\n")
    with pytest.raises(UserError, match="cannot be read as a Parquet file"):
        parse.read(tmp_path)
    with pytest.raises(UserError, match="expected filtered or raw"):
        MerpOptions(annotations="cooked")
    with pytest.raises(UserError, match="low must be lower"):
        MerpOptions(low=1, high=0)


def test_without_pyarrow_the_error_says_what_to_install(tmp_path, monkeypatch):
    write(tmp_path, rows())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"requirements-merp\.txt"):
        parse.read(tmp_path)


def test_the_merp_config_loads_splits_of_several_annotators(tmp_path):
    """Twenty-four raters rate fifteen of twenty songs each."""
    config = merp_pdmer.get_config()
    root = tmp_path / "merp"
    config.data.root, config.data.prepared = str(root), str(tmp_path / "prepared")
    config.audio.segments = 8
    config.evaluation.hops = (8, 8)
    columns = {"song_id": [], "rater_id": [], "valence": [], "arousal": []}
    for rater in range(24):
        for song in range(20):
            if (song + rater) % 4 < 3:
                curve = np.sin(np.arange(60) / 9 + song + rater / 5) / 2
                columns["song_id"].append(f"00_{song}")
                columns["rater_id"].append(f"r{rater}")
                columns["valence"].append(list(curve))
                columns["arousal"].append(list(-curve))
    for song in range(20):
        data_folders.audio(root / "audio" / f"00_{song}.wav", 6.0 + song / 100)
    parquet.write_table(pa.table(columns), root / "annotations_filtered.parquet")
    experiment = experiment_from_config(config.to_dict())
    corpora = load_corpora(experiment)
    assert sum(len(corpus.song_ids) for corpus in corpora.values()) == 20
    for corpus in corpora.values():
        assert len(corpus.annotator_ids) > 1 and np.asarray(corpus.tables.counts).min() >= 2
        assert corpus.tables.curve.shape[1:] == (8, 2)
    assert len(corpora["test"].features) == len(corpora["test"].song_ids)


def test_columns_that_differ_in_case_alone_are_rejected_unless_one_is_named(tmp_path):
    ramp = np.linspace(-0.5, 0.5, 50)
    columns = {
        "song_id": ["a", "a"],
        "rater_id": ["1", "2"],
        "RATER_ID": ["9", "9"],
        "arousal": [ramp] * 2,
        "valence": [-ramp] * 2,
    }
    parquet.write_table(pa.table(columns), tmp_path / "annotations_filtered.parquet")
    with pytest.raises(UserError, match="columns rater_id and RATER_ID; set rater_column"):
        parse.read(tmp_path, MerpOptions(require_audio=False))
    (song,), _ = parse.read(tmp_path, MerpOptions(require_audio=False, rater_column="rater_id"))
    assert [rating.annotator_id for rating in song.ratings] == ["1", "2", EVERYONE]


def test_times_that_python_cannot_hold_and_pipes_are_rejected(tmp_path):
    file = tmp_path / "annotations_filtered.parquet"
    columns = {name: [[0.1] * 50] for name in ("arousal", "valence")} | {"rater_id": ["1"]}
    columns["song_id"] = pa.array([2**62], pa.timestamp("us"))
    parquet.write_table(pa.table(columns), file)
    with pytest.raises(UserError, match="cannot be read as a Parquet file"):
        parse.read(tmp_path, MerpOptions(require_audio=False))
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(UserError, match="is not a file; expected a Parquet file"):
        parse.read(tmp_path, MerpOptions(require_audio=False))
