"""Prepared data that are damaged: named in one sentence, and never read in part."""

import contextlib
import functools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from dsaml_jax.datasets import catalog, prepared_folder, synthetic
from dsaml_jax.datasets.schema import encode
from dsaml_jax.errors import UserError
from tests import data_folders

SIMULATED = synthetic.builder_config(
    train_songs=2,
    validation_songs=1,
    test_songs=1,
    train_annotators=2,
    validation_annotators=1,
    test_annotators=1,
    minimum_songs=1,
    duration_s=4.0,
    ratings_start_s=1.0,
    sample_rate=8000,
)


@pytest.fixture(scope="module", params=["deam", "synthetic"])
def original(request, tmp_path_factory):
    """Returns build(data_dir) -> builder, the data folder that it has filled, and its songs."""
    if request.param == "synthetic":
        build = functools.partial(synthetic.build, config=SIMULATED)
    else:
        root = data_folders.deam(tmp_path_factory.mktemp("root"))
        build = functools.partial(catalog.build, request.param, root)
    data_dir = tmp_path_factory.mktemp("prepared")
    return build, data_dir, read(build, data_dir)


@pytest.fixture
def prepared(original, tmp_path):
    """Returns build(data_dir) -> builder, a copy of the filled data folder, and the data in it."""
    build, data_dir, _ = original
    shutil.copytree(data_dir, tmp_path / "prepared")
    (info,) = tmp_path.rglob("dataset_info.json")
    return build, tmp_path / "prepared", info.parent


def read(build, data_dir):
    """Returns the songs of each split, which are as many as the builder states."""
    builder = build(data_dir)
    songs = {split: prepared_folder.read_songs(builder, split) for split in builder.info.splits}
    stated = {split: info.num_examples for split, info in builder.info.splits.items()}
    assert {split: len(found) for split, found in songs.items()} == stated
    return {split: [comparable(song) for song in found] for split, found in songs.items()}


def comparable(song):
    return {
        name: value.tobytes() if isinstance(value, np.ndarray) else value
        for name, value in encode(song).items()
    }


def one_shard(folder):
    return min(folder.glob("*-train.array_record-*"))


def change(path, spoil):
    path.write_bytes(spoil(path.read_bytes()))


def flip(content, position):
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def edit(path, spoil):
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))


def song_count(number):
    def spoil(info):
        (train,) = [split for split in info["splits"] if split["name"] == "train"]
        train["shardLengths"] = [number]

    return spoil


def in_place_of(path):
    shutil.rmtree(path)
    path.write_text("")


INFO = "dataset_info.json"
DAMAGES = {
    "shard deleted": (lambda f: one_shard(f).unlink(), "is missing"),
    "shard emptied": (lambda f: change(one_shard(f), lambda c: b""), "at least 64KB"),
    "shard cut": (lambda f: change(one_shard(f), lambda c: c[: len(c) // 2]), "train.array_record"),
    "shard without its last byte": (lambda f: change(one_shard(f), lambda c: c[:-1]), "Riegeli"),
    "shard with more bytes": (lambda f: change(one_shard(f), lambda c: c + b"more"), "chunk"),
    "shard flipped": (lambda f: change(one_shard(f), lambda c: flip(c, 120)), "hash mismatch"),
    "shard of another split": (
        lambda f: shutil.copy(one_shard(f), f / "x-more.array_record-00000-of-00001"),
        "does not state x-more",
    ),
    "shards deleted": (
        lambda f: [path.unlink() for path in f.glob("*.array_record-*")],
        "is missing",
    ),
    "fewer songs stated": (lambda f: edit(f / INFO, song_count("1")), "states 1"),
    "more songs stated": (lambda f: edit(f / INFO, song_count("9")), "states 9"),
    "split not stated": (lambda f: edit(f / INFO, lambda i: i["splits"].pop()), "does not state"),
    "no split stated": (lambda f: edit(f / INFO, lambda i: i.pop("splits")), "states no songs"),
    "of another version": (
        lambda f: edit(f / INFO, lambda i: i.update(version="0.1.0")),
        "version",
    ),
    "in another format": (
        lambda f: edit(f / INFO, lambda i: i.update(fileFormat="tfrecord")),
        "format",
    ),
    "info is a folder": (lambda f: ((f / INFO).unlink(), (f / INFO).mkdir()), "not a file"),
    "folder emptied": (lambda f: (shutil.rmtree(f), f.mkdir()), f"{INFO} is missing"),
    "file in its place": (in_place_of, "is not a folder"),
    "file in place of its config": (lambda f: in_place_of(f.parent), "is not a folder"),
    "file in place of its name": (lambda f: in_place_of(f.parent.parent), "is not a folder"),
    **{
        f"{name} {content}": (
            lambda f, name=name, content=content: (f / name).write_bytes(content),
            name,
        )
        for name in (INFO, "features.json")
        for content in (b"", b"null", b"[]", b"\xff", b"[" * 20_000)
    },
    **{
        f"{name} {what}": (lambda f, name=name, spoil=spoil: spoil(f / name), name)
        for name in (INFO, "features.json")
        for what, spoil in (
            ("deleted", Path.unlink),
            ("cut", lambda path: change(path, lambda content: content[: len(content) // 2])),
        )
    },
    "other features": (
        lambda f: change(f / "features.json", lambda c: c.replace(b"song_id", b"sing_id")),
        "features.json",
    ),
    "no features": (lambda f: (f / "features.json").write_text("{}"), "features.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_folders_are_named_and_prepared_again_once_deleted(original, prepared, damage):
    build, data_dir, folder = prepared
    spoil, words = DAMAGES[damage]
    spoil(folder)
    with pytest.raises(UserError) as raised:
        read(build, data_dir)
    sentence = str(raised.value)
    place = Path(re.split(" is damaged| is not a folder", sentence)[0])
    assert folder.is_relative_to(place)
    assert words in sentence and "\n" not in sentence
    assert sentence.endswith("; delete it and prepare the data set again.")
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    assert read(build, data_dir) == original[2]


def test_a_folder_of_another_version_is_left_alone(original, prepared):
    build, data_dir, folder = prepared
    other = folder.rename(folder.with_name("0.1.0"))
    assert read(build, data_dir) == original[2]
    assert folder.is_dir() and other.is_dir()


def test_a_flipped_bit_is_named_or_changes_no_song(original, prepared):
    build, data_dir, folder = prepared
    path = one_shard(folder)
    content = path.read_bytes()
    for position in (*range(0, 2000, 90), *range(2000, len(content), 10_000)):
        path.write_bytes(flip(content, position))
        with contextlib.suppress(UserError):
            assert read(build, data_dir) == original[2]
