"""Every data set round-trips from its folder through TFDS."""

import dataclasses
import shutil

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from dsaml_jax.datasets import catalog, folder_builder, report, schema
from dsaml_jax.datasets.journal import ReadOptions
from dsaml_jax.errors import UserError
from tests import data_folders


def merp(root):
    columns = {
        "song_id": ["00_35", "00_35"],
        "rater_id": ["r1", "r2"],
        "valence": [[0.1] * 30, [0.2] * 28],
        "arousal": [[0.3] * 30, [0.4] * 30],
    }
    parquet.write_table(pa.table(columns), root / "annotations_filtered.parquet")
    data_folders.audio(root / "audio" / "00_35.wav", 3.0)
    return root


WRITERS = {
    "deam": data_folders.deam,
    "pmemo": data_folders.pmemo,
    "merp": merp,
    "vgmidi": data_folders.vgmidi,
}
SPLITS = {"deam": {"train": 3, "test": 1}, "pmemo": {"train": 2}}


@pytest.fixture(scope="module", params=WRITERS)
def prepared(request, tmp_path_factory):
    root = WRITERS[request.param](tmp_path_factory.mktemp(request.param))
    data_dir = tmp_path_factory.mktemp("prepared")
    return request.param, root, data_dir, catalog.build(request.param, root, data_dir)


def test_builders_have_features_splits_and_unique_keys(prepared):
    name, _, _, builder = prepared
    assert (builder.name, str(builder.version)) == (name, "1.1.0")
    assert builder.info.features.to_json() == schema.features().to_json()
    assert builder.info.description and builder.info.citation
    sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
    assert sizes == SPLITS.get(name, {"train": 1})
    songs = folder_builder.songs_of(builder)
    assert len({song.song_id for song in songs}) == len(songs) == sum(sizes.values())


def test_songs_round_trip_through_tfds(prepared):
    name, root, _, builder = prepared
    read, findings = type(builder).read(root, catalog.options_of(name))
    again = folder_builder.songs_of(builder)
    assert [song.song_id for song in again] == [song.song_id for song in read]
    for song, source in zip(again, read, strict=True):
        source = dataclasses.replace(source, duration_s=float(np.float32(source.duration_s)))
        np.testing.assert_equal(vars(song) | {"ratings": 0}, vars(source) | {"ratings": 0})
        for rating, expected in zip(song.ratings, source.ratings, strict=True):
            np.testing.assert_equal(vars(rating), vars(expected))
            assert rating.curve.dtype == np.float32 and np.abs(rating.curve).max() <= 1
        assert (root / song.audio).is_file()
    assert folder_builder.findings_of(builder) == findings


def test_preparing_twice_reads_once(prepared, monkeypatch):
    name, root, data_dir, builder = prepared
    monkeypatch.setattr(type(builder), "read", None)
    again = catalog.build(name, root, data_dir)
    assert again.data_path == builder.data_path
    assert len(again.as_data_source(split="all")) == builder.info.splits.total_num_examples


def test_roots_options_and_contents_have_separate_folders(tmp_path):
    root = data_folders.pmemo(tmp_path / "one")
    copy = shutil.copytree(root, tmp_path / "two" / "one")
    options = catalog.options_of("pmemo")
    other = catalog.options_of("pmemo", require_audio=False)

    def name(folder, read_options):
        return folder_builder.config_of(folder, read_options, "PMEmo").name

    first = name(root, options)
    assert first == name(str(root), options) and first.startswith("one-")
    names = [first, name(copy, options), name(root, other)]
    with (root / "annotations" / "dynamic_annotations.csv").open("a") as file:
        file.write("1,32.5,0.5,0.5\n")
    names.append(name(root, options))
    (root / "chorus" / "4.mp3").unlink()
    names.append(name(root, options))
    assert len(set(names)) == 5


def test_a_failed_preparation_is_not_taken_for_a_finished_one(tmp_path):
    root = data_folders.pmemo(tmp_path / "pmemo")
    path = root / "annotations" / "dynamic_annotations.csv"
    text = path.read_text()
    path.write_text(text.replace("frameTime", "time"))
    with pytest.raises(UserError, match="no column frameTime"):
        catalog.build("pmemo", root, tmp_path / "prepared")
    assert not list((tmp_path / "prepared").rglob(report.FILE_NAME))
    path.write_text(text)
    builder = catalog.build("pmemo", root, tmp_path / "prepared")
    assert folder_builder.findings_of(builder).songs == 2


def test_preparing_into_the_data_sets_folder_is_rejected(tmp_path):
    root = data_folders.pmemo(tmp_path)
    with pytest.raises(UserError, match="is inside the data set's folder"):
        catalog.build("pmemo", root, root / "prepared")


def test_unknown_names_and_options_are_rejected():
    with pytest.raises(UserError, match="did you mean 'deam'"):
        catalog.build("daem", ".", ".")
    with pytest.raises(UserError, match=r"no option 'strickt'; did you mean 'strict'\?"):
        catalog.options_of("deam", strickt=True)
    assert catalog.options_of("deam", strict=True) == ReadOptions(strict=True)
    with pytest.raises(UserError, match=r"does not exist; data\.root must be"):
        catalog.build("deam", "no/such/folder", ".")
