"""Damaged tables, names and links: faults are reported, and every row is accounted for."""

import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from dsaml_jax.datasets import catalog, filters, folder_builder, report, tree
from dsaml_jax.datasets.deam import parse as deam
from dsaml_jax.datasets.filters import FilterCounts, RatingFilter
from dsaml_jax.datasets.ids import plain_id
from dsaml_jax.datasets.journal import ReadOptions
from dsaml_jax.datasets.merp import parse as merp
from dsaml_jax.datasets.pmemo import parse as pmemo
from dsaml_jax.datasets.schema import EVERYONE, encode
from dsaml_jax.datasets.vgmidi import parse as vgmidi
from dsaml_jax.errors import UserError
from tests import data_folders

DIMENSIONS = ("arousal", "valence")
LABELS = ReadOptions(require_audio=False)
STRICT = ReadOptions(require_audio=False, strict=True)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return data_folders.deam(tmp_path_factory.mktemp("deam"))


@pytest.fixture
def root(original, tmp_path):
    return shutil.copytree(original, tmp_path / "deam", symlinks=True)


def rewrite(root, song_id, change, dimensions=DIMENSIONS):
    for dimension in dimensions:
        path = data_folders.deam_file(root, dimension, song_id)
        path.write_text(change(path.read_text()))


def annotators(songs):
    return {s.song_id: [r.annotator_id for r in s.ratings] for s in songs}


def balance(findings):
    """Returns the rows used and left out, which must add up to the rows read."""
    assert findings.rows_read == findings.rows_used + findings.rows_left_out
    return findings.rows_used, findings.rows_left_out


def only_problem(findings, kind):
    """Returns the text of the one problem of a kind."""
    (problem,) = [problem for problem in findings.problems if problem.kind == kind]
    return f"{problem.where}: {problem.what}"


def test_every_row_is_used_or_reported(original, tmp_path):
    songs, findings = deam.read(original, LABELS)
    # 10 averaged rows; w1, w2, w1 and w1, w3 twice; w2 twice and w4 once; 2 + 2 anonymous ones.
    assert findings.rows_read == 10 + 6 + 4 + 3 + 4
    curves = sum(len(song.ratings) for song in songs)
    assert balance(findings) == (2 * curves, 2 + 1 + 4)
    assert balance(pmemo.read(data_folders.pmemo(tmp_path / "p"))[1]) == (46, 0)
    assert balance(pmemo.read(data_folders.pmemo_2018(tmp_path / "q"))[1]) == (4, 0)
    assert balance(vgmidi.read(data_folders.vgmidi(tmp_path / "v"), LABELS)[1]) == (4, 4)


def test_a_label_behind_a_link_is_hashed(tmp_path):
    root = data_folders.pmemo(tmp_path / "pmemo")
    (root / "annotations").rename(tmp_path / "away")
    (root / "annotations").symlink_to(tmp_path / "away")
    before = tree.digest(root)
    path = tmp_path / "away" / "dynamic_annotations.csv"
    stat = path.stat()
    path.write_text(path.read_text().replace("1,15.5,0.5,", "1,15.5,0.6,", 1))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size and time
    assert tree.digest(root) != before
    assert tree.digest(root) == tree.digest(root)


@pytest.mark.parametrize("target", [".", "chorus"])
def test_a_cycle_of_links_is_refused(tmp_path, target):
    root = data_folders.pmemo(tmp_path / "pmemo")
    (root / "chorus" / "again").symlink_to(root / target)
    with pytest.raises(UserError, match=r"again is a link to .* that contains it; remove the link"):
        folder_builder.config_of(root, LABELS, "PMEmo")
    with pytest.raises(UserError, match="remove the link"):
        pmemo.read(root)


def test_a_folder_with_two_links_is_entered_once(tmp_path):
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "root" / "a" / "1.csv").write_text("x")
    (tmp_path / "root" / "b").symlink_to(tmp_path / "root" / "a")
    names = [entry.path.name for entry in tree.walk(tmp_path / "root")]
    assert names == ["a", "b", "1.csv"]


def test_an_unclosed_quotation_mark_affects_one_row(tmp_path):
    root = data_folders.pmemo(tmp_path)
    path = root / pmemo.AVERAGED
    path.write_text(path.read_text().replace("\n4,15.5,", '\n4,15.5,"', 1))
    songs, findings = pmemo.read(root)
    assert {s.song_id: len(s.ratings[0].curve) for s in songs} == {"1": 34, "4": 1}
    assert songs[1].ratings_start_s == 15.5  # the remaining row keeps its time
    assert "dynamic_annotations.csv, row 36: not CSV" in only_problem(findings, "not CSV")
    assert balance(findings) == (45, 1)


@pytest.mark.parametrize(
    ("delimiter", "point"), [(";", ","), (";", "."), ("\t", ","), ("\t", "."), ("|", ".")]
)
def test_exports_of_spreadsheets_are_read(root, original, delimiter, point):
    for song_id in (None, 1001):
        rewrite(root, song_id, lambda text: text.replace(", ", delimiter).replace(".", point))
    songs, findings = deam.read(root)
    for song, expected in zip(songs, deam.read(original)[0], strict=True):
        for rating, other in zip(song.ratings, expected.ratings, strict=True):
            np.testing.assert_array_equal(rating.curve, other.curve)
    assert "not CSV" not in findings.problem_counts()


def test_decimal_commas_among_commas_are_reported(root):
    rewrite(root, 1002, lambda text: text.replace("0.", "0,"))
    songs, findings = deam.read(root)
    assert annotators(songs)["1002"] == [EVERYONE]
    assert findings.problem_counts()["not CSV"] == 4
    assert "decimal commas among commas" in findings.text()
    balance(findings)


def test_annotator_ids_are_normalized_and_missing_ones_are_reported(root):
    rewrite(root, 1001, lambda text: text.replace("w1", "7").replace("w2", "nan"))
    rewrite(root, 1002, lambda text: text.replace("w1", "7.0"))
    rewrite(root, None, lambda text: text.replace("\n1002,", "\n1002.0,"))
    songs, findings = deam.read(root)
    assert annotators(songs)["1001"] == ["7", EVERYONE]
    assert annotators(songs)["1002"] == ["7", "w3", EVERYONE]
    assert findings.problem_counts()["no annotator"] == 2
    balance(findings)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(
            (7, "7"),
            (7.0, "7"),
            ("007.00", "7"),
            (" 7. ", "7"),
            ("0", "0"),
            ("9" * 5000, "9" * 5000),
            ('="7"', "7"),
            ('="w1"', "w1"),
        ),
        *(("7.5", "7.5"), ("w7", "w7"), ("12e4", "12e4"), (b"w7", "w7"), ("cafe\u0301", "café")),
        *((None, ""), (float("nan"), ""), ("NaN", ""), ("<NA>", ""), ("", ""), ({}, "")),
        *(("a\ud800", ""), ("a\0", ""), (b"\xe9", "")),
    ],
)
def test_ids_are_canonical(value, expected):
    assert plain_id(value) == expected


def test_songs_above_1000_must_identify_their_raters(root):
    rewrite(root, 1001, lambda text: text.replace("WorkerId", "who"))
    songs, findings = deam.read(root)
    assert annotators(songs)["1001"] == [EVERYONE]
    assert findings.dropped()["the file does not identify its raters"] == 2  # those of song 2
    assert findings.problem_counts()["a table that cannot be used"] == 2
    assert "has no column WorkerId, as those of songs above 1000 have" in findings.text()
    balance(findings)


TABLES = {
    "is empty": b"",
    "is UTF-16 text; save it as UTF-8": "WorkerId, sample_15000ms\n".encode("utf-16"),
    "is NUL": "WorkerId\n".encode("utf-16-le"),
    "is not UTF-8 text (byte 0)": b"\xe9,",
    "has no column sample_15000ms": b"a,b\n1,2\n",
    "by 500 ms": b"WorkerId,sample_15000ms,sample_99999ms\nw1,0,0\n",
    "has the column worker_id twice": b"worker_id,WorkerId,sample_15000ms\nw1,w2,0\n",
    "has an invalid header": b'WorkerId,"sample',
}


@pytest.mark.parametrize("sentence", TABLES)
def test_an_unusable_table_sets_its_song_aside(root, sentence):
    data_folders.deam_file(root, "arousal", 1002).write_bytes(TABLES[sentence])
    songs, findings = deam.read(root)
    assert annotators(songs)["1002"] == [EVERYONE]
    assert annotators(songs)["1001"] == ["w1", "w2", EVERYONE]
    problem = only_problem(findings, "a table that cannot be used")
    assert sentence in problem and "/1002.csv: " in problem
    assert findings.dropped()["the table of the other dimension cannot be used"] == 2
    balance(findings)
    with pytest.raises(UserError) as caught:
        deam.read(root, STRICT)
    assert str(caught.value).startswith(problem)


def test_a_latin_1_file_name_is_reported(root, tmp_path):
    notes = os.fsencode(root) + b"/caf\xe9 notes.txt"
    open(notes, "w").close()
    shutil.copy(root / "DEAM_audio/MEMD_audio/9.mp3", os.fsencode(root) + b"/DEAM_audio/\xe9.mp3")
    songs, findings = deam.read(root)
    assert len(songs) == 4 and findings.problem_counts()["a name that is not UTF-8"] == 2
    assert "\\udce9.mp3: the name is not UTF-8" in findings.text()
    findings.save(tmp_path)
    assert report.load(tmp_path) == findings and findings.text().encode()
    assert folder_builder.config_of(root, LABELS, "DEAM").name
    with pytest.raises(UserError, match="the name is not UTF-8; it is left out"):
        deam.read(root, STRICT)


def damaged_vgmidi(part, key, **fields):
    content = data_folders.vgmidi_set()
    content[part][key] |= fields
    return content


def test_a_lone_surrogate_in_a_title_is_left_out(tmp_path):
    root = data_folders.vgmidi(tmp_path, damaged_vgmidi("pieces", "piece0", name="A \ud800"))
    songs, findings = vgmidi.read(root, LABELS)
    assert [song.title for song in songs] == ["", "Another"]
    assert "song 1_piece0, title: 'A \\ud800' has a lone" in findings.text()
    assert [encode(song)["title"].encode() for song in songs]
    with pytest.raises(UserError, match="has a lone surrogate"):
        vgmidi.read(root, STRICT)


@pytest.mark.parametrize(
    "duration", [float("inf"), float("nan"), 10**400, True, 6000, 0.1, [[]], -1, None]
)
def test_an_invalid_duration_sets_its_piece_aside(tmp_path, duration):
    root = data_folders.vgmidi(tmp_path, damaged_vgmidi("pieces", "piece0", duration=duration))
    songs, findings = vgmidi.read(root, LABELS)
    assert [song.song_id for song in songs] == ["1_piece1"]
    assert "expected seconds, from 0.8 to 240" in only_problem(findings, "no duration")
    balance(findings)


@pytest.mark.parametrize("measures", [-4, 0, float("inf")])
def test_an_impossible_number_of_bars_sets_its_piece_aside(tmp_path, measures):
    root = data_folders.vgmidi(tmp_path, damaged_vgmidi("pieces", "piece0", measures=measures))
    _, findings = vgmidi.read(root, LABELS)
    assert "expected a number of bars, at least 1" in only_problem(findings, "no duration")
    balance(findings)


def test_deeply_nested_json_sets_its_set_aside(tmp_path):
    root = data_folders.vgmidi(tmp_path)
    second = root / "labeled" / "annotations" / "vgmidi_raw_2.json"
    second.write_text("[" * 100_000)
    songs, findings = vgmidi.read(root, LABELS)
    assert len(songs) == 2
    assert "nested too deeply" in only_problem(findings, "a file that cannot be used")
    content = damaged_vgmidi("annotations", "piece0_1", country=[[["US"]]], arousal=[10**400] * 4)
    second.write_text(json.dumps(content))
    balance(vgmidi.read(root, LABELS)[1])


def test_a_time_before_the_sound_sets_its_song_aside(tmp_path):
    root = data_folders.pmemo(tmp_path)
    path = root / pmemo.AVERAGED
    path.write_text(path.read_text().replace("4,15.5,", "4,0.0,").replace("4,16.0,", "4,0.5,"))
    assert "starts before the sound" in only_problem(pmemo.read(root)[1], "a time before the sound")
    path.write_text(path.read_text().replace("4,0.0,", "4,nan,"))
    songs, findings = pmemo.read(root)
    assert [song.song_id for song in songs] == ["1"]
    assert "'nan' is not a number" in only_problem(findings, "not a number")
    balance(findings)


@pytest.mark.parametrize(
    ("change", "clue"),
    [
        ("m4a", r"found 5 \.m4a files in DEAM_audio/MEMD_audio \(convert them to \.mp3"),
        ("zip", r"found DEAM_audio\.zip \(unpack it\)"),
        ("twice", r"found 5 \.mp3 files in DEAM_audio/MEMD_audio/MEMD_audio \(move them\)"),
        ("names", r"found files named .*x1001.* where the rated songs are named 1001, "),
    ],
)
def test_missing_audio_is_reported_with_what_was_found(root, change, clue):
    clips = root / "DEAM_audio" / "MEMD_audio"
    if change == "zip":
        shutil.rmtree(root / "DEAM_audio")
        (root / "DEAM_audio.zip").write_bytes(b"PK")
    elif change == "twice":
        clips.rename(root / "x")
        clips.mkdir()
        (root / "x").rename(clips / "MEMD_audio")
    else:
        for path in clips.glob("[0-9]*"):
            path.rename(path.with_suffix(".m4a") if change == "m4a" else clips / f"x{path.name}")
    with pytest.raises(UserError, match="no song has both.*" + clue):
        deam.read(root)


def test_audio_named_by_a_decimal_id_is_found(root):
    for path in (root / "DEAM_audio" / "MEMD_audio").glob("[0-9]*"):
        path.rename(path.with_name(f"{path.stem}.0.mp3"))
    assert len(deam.read(root)[0]) == 4


def test_merp_ids_are_normalized_and_another_scale_is_reported(tmp_path):
    columns = {
        "song_id": [1.0, 2.0, 1.0, None, 2.0],
        "rater_id": [7.0, 7.0, float("nan"), 8.0, None],
        "valence": [[0.1] * 10] * 5,
        "arousal": [[0.2] * 10] * 5,
    }
    path = tmp_path / "annotations_filtered.parquet"
    parquet.write_table(pa.table(columns), path)
    songs, findings = merp.read(tmp_path, merp.MerpOptions(require_audio=False))
    assert annotators(songs) == {"1": ["7", EVERYONE], "2": ["7", EVERYONE]}
    assert findings.problem_counts() == {"no annotator": 2, "no song": 1}
    assert balance(findings) == (2, 3)
    columns["valence"] = [[1.0, 9.0] * 5] * 5
    columns["arousal"] = [[1.0] * 10] * 2 + [[5.0] * 10] * 3  # some lie inside -1 to 1
    parquet.write_table(pa.table(columns), path)
    with pytest.raises(UserError, match=r"values from 1 to 9, 8 of 10 curves .*'low': 1, 'high'"):
        merp.read(tmp_path)
    options = merp.MerpOptions(require_audio=False, low=1, high=9)
    np.testing.assert_allclose(merp.read(tmp_path, options)[0][0].ratings[0].curve[0], [-1, -0.2])


def test_filters_that_drop_everything_are_reported():
    removed = [FilterCounts(3, 4, 2, 1), FilterCounts(1, 0, 1, 1)]
    sentence = str(filters.nothing_passes(RatingFilter(), removed, "here"))
    assert "4 change by less than data.filters.least_deviation=0.01" in sentence
    assert "4 are by annotators who rated data.filters.more_songs_than=15" in sentence


@pytest.mark.parametrize(("dimension", "last"), [("arousal", float("nan")), ("valence", None)])
def test_bars_missing_at_the_end_do_not_stretch_the_others(tmp_path, dimension, last):
    content = data_folders.vgmidi_set()
    values = content["annotations"]["piece0_1"][dimension]
    values[3:] = [] if last is None else [last]
    short = vgmidi.read(data_folders.vgmidi(tmp_path / "short", content), LABELS)
    whole = vgmidi.read(data_folders.vgmidi(tmp_path / "whole"), LABELS)
    curve, expected = (songs[0].ratings[0].curve for songs, _ in (short, whole))
    np.testing.assert_allclose(curve, expected[:9], atol=1e-6)  # 3 of 4 bars of 1.5 s
    balance(short[1])


def test_a_repeated_name_in_json_is_rejected(tmp_path):
    root = data_folders.vgmidi(tmp_path)
    path = root / "labeled" / "annotations" / "vgmidi_raw_1.json"
    path.write_text(path.read_text().replace('"piece0_2"', '"piece0_1"'))
    with pytest.raises(UserError, match="an object has 'piece0_1' twice"):
        vgmidi.read(root, LABELS)


def test_json_with_a_byte_order_mark_is_read_and_1_equals_1_0(tmp_path):
    content = data_folders.vgmidi_set()
    content["annotations"]["piece0_1"]["musicianship"] = 1.0
    root = data_folders.vgmidi(tmp_path, content)
    path = root / "labeled" / "annotations" / "vgmidi_raw_1.json"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    songs, _ = vgmidi.read(root, LABELS)
    people = [[rating.annotator_id for rating in song.ratings] for song in songs]
    assert people[0] == people[1]


@pytest.mark.parametrize(
    ("name", "fields", "sentence"),
    [
        ("deam", {"require_audio": "no"}, "data.builder.require_audio is 'no'; expected True or"),
        ("deam", {"name": "x"}, "deam has no option 'name'"),
        ("merp", {"rater_column": 3}, "data.builder.rater_column is 3; expected a string"),
        ("merp", {"low": None}, "data.builder.low is None; expected a number"),
        ("pmemo", {"release": 2020}, "release is '2020'; expected one of auto, 2018, 2019"),
    ],
)
def test_options_of_the_wrong_type_are_rejected(name, fields, sentence):
    with pytest.raises(UserError, match=sentence):
        catalog.options_of(name, **fields)
    assert catalog.options_of("pmemo", release=2019) == pmemo.PmemoOptions(release="2019")


def test_a_repeated_column_is_rejected(tmp_path):
    path = data_folders.pmemo(tmp_path) / pmemo.AVERAGED
    header, *rows = path.read_text().splitlines()
    changed = [f"{header},Valence(mean)", *(f"{row},0.1" for row in rows)]
    path.write_text("\n".join(changed))
    with pytest.raises(UserError, match=r"has the column Valence\(mean\) twice; remove"):
        pmemo.read(tmp_path)
