"""Reading of files of torch.save, without torch and without running code in them."""

import copy
import pickle
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsaml_jax.errors import UserError
from dsaml_jax.interop.torch_file import pick_state_dict, read_torch_file
from tests import torch_files
from tests.torch_files import Call, Tensor


def rejection(path, **options):
    with pytest.raises(UserError) as caught:
        read_torch_file(path, **options)
    sentence = str(caught.value)
    assert str(path) in sentence and "\n" not in sentence
    return sentence


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("dtype", sorted(torch_files.STORAGES))
def test_every_dtype_is_read_in_both_byte_orders(tmp_path, dtype, byteorder):
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    values = np.array([0, 1, 3, 100, 1, 0], np.float64).astype(dtype)
    tensor = Tensor("0", 0, (2, 3), (3, 1))
    path = torch_files.write(tmp_path / "a.pt", {"w": tensor}, {"0": values}, byteorder)
    array = read_torch_file(path)["w"]
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, values.reshape(2, 3))


@given(
    st.lists(st.integers(1, 4), max_size=4).flatmap(
        lambda shape: st.tuples(st.just(shape), st.permutations(range(len(shape))))
    ),
    st.integers(0, 3),
    st.booleans(),
)
def test_strides_and_offsets_are_applied(tmp_path_factory, shape_and_order, offset, parameter):
    shape, order = shape_and_order
    size = int(np.prod(shape))
    storage = np.arange(size + offset + 2, dtype=np.float32)
    expected = storage[offset : offset + size].reshape(shape).transpose(order)
    strides = tuple(step // 4 for step in expected.strides)
    tensor = Tensor("0", offset, expected.shape, strides, parameter)
    path = tmp_path_factory.mktemp("strides") / "a.pt"
    torch_files.write(path, {"w": tensor}, {"0": storage})
    np.testing.assert_array_equal(read_torch_file(path)["w"], expected)


def test_aliases_share_memory_and_nothing_is_writeable(tmp_path):
    storage = np.arange(6, dtype=np.float32)
    saved = {"a": Tensor("0", 0, (6,), (1,)), "b": Tensor("0", 2, (2, 2), (2, 1))}
    read = read_torch_file(torch_files.write(tmp_path / "a.pt", saved, {"0": storage}))
    assert np.shares_memory(read["a"], read["b"])
    np.testing.assert_array_equal(read["b"], [[2, 3], [4, 5]])
    assert not read["a"].flags.writeable and not read["b"].flags.writeable


def test_empty_scalar_and_expanded_tensors_are_read(tmp_path):
    saved = {
        "empty": Tensor("none", 0, (0, 3), (3, 1)),
        "scalar": Tensor("one", 0, (), ()),
        "expanded": Tensor("one", 0, (2, 3), (0, 0)),
    }
    storages = {"none": np.zeros(0, np.float32), "one": np.full(1, 7, np.int64)}
    read = read_torch_file(torch_files.write(tmp_path / "a.pt", saved, storages))
    assert read["empty"].shape == (0, 3)
    assert read["scalar"].shape == () and read["scalar"] == 7
    np.testing.assert_array_equal(read["expanded"], np.full((2, 3), 7))


def test_nested_contents_are_read_and_weights_picked(tmp_path):
    storage = np.arange(4, dtype=np.float32)
    tensor = Tensor("0", 0, (4,), (1,))
    saved = {"state_dict": {"w": tensor}, "epoch": 3, "rates": [0.1, None, "text"], 5: (1, 2)}
    path = torch_files.write(tmp_path / "a.pt", saved, {"0": storage})
    read = read_torch_file(path)
    np.testing.assert_array_equal(read["state_dict"]["w"], storage)
    assert (read["epoch"], read["rates"], read[5]) == (3, [0.1, None, "text"], (1, 2))
    for inside in (None, "state_dict"):
        assert list(pick_state_dict(read, path, inside)) == ["w"]
    assert list(pick_state_dict(read["state_dict"], path)) == ["w"]
    with pytest.raises(UserError, match=r"no dictionary of weights under 'epoch'.*state_dict"):
        pick_state_dict(read, path, "epoch")
    with pytest.raises(UserError, match="found 2"):
        pick_state_dict({"a": read["state_dict"], "b": read["state_dict"]}, path)


def test_unselected_records_are_not_read(tmp_path):
    storages = {str(i): np.full(3, i, np.float32) for i in range(2)}
    saved = {f"part{i}.w": Tensor(str(i), 0, (3,), (1,)) for i in range(2)}
    path = torch_files.write(tmp_path / "a.pt", saved, storages)
    damage(path, "saved/data/0")
    read = read_torch_file(path, keep=lambda key: key.startswith("part1."))
    assert list(read) == ["part1.w"]
    np.testing.assert_array_equal(read["part1.w"], storages["1"])
    assert "Bad CRC-32" in rejection(path)


@pytest.mark.parametrize(
    "module, name",
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("subprocess", "Popen"),
        ("torch", "load"),
        ("torch.serialization", "load"),
        ("collections", "OrderedDict.__init__"),
        ("collections", "namedtuple"),
        ("dsaml_jax.errors", "UserError"),
        ("numpy", "memmap"),
    ],
)
def test_disallowed_functions_are_named_and_not_called(tmp_path, module, name):
    marker = tmp_path / "marker"
    called = Call(module, name, (f"open({str(marker)!r}, 'w')",))
    path = torch_files.write(tmp_path / "a.pt", {"w": called}, {})
    assert f"{module}.{name}" in rejection(path)
    assert not marker.exists()


def test_a_malicious_call_in_place_of_hooks_is_not_run(tmp_path):
    marker = tmp_path / "marker"
    malicious = Call("os", "system", (f"touch {marker}",))
    nested = Call("collections", "OrderedDict", ([["hook", malicious]],))
    rebuilt = Call("torch._utils", "_rebuild_parameter", (1, True, nested))
    path = torch_files.write(tmp_path / "a.pt", {"w": rebuilt}, {})
    assert "os.system" in rejection(path, keep=lambda key: False)
    assert not marker.exists()


def test_pickled_reduce_methods_are_rejected(tmp_path):
    marker = tmp_path / "marker"

    class Malicious:
        def __reduce__(self):
            return eval, (f"open({str(marker)!r}, 'w')",)

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = tmp_path / f"{protocol}.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("saved/data.pkl", pickle.dumps({"w": Malicious()}, protocol))
        assert rejection(path).count("eval") == 1
    assert not marker.exists()


@pytest.mark.parametrize(
    "module, name",
    [
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch", "Size"),
        ("torch", "FloatStorage"),
        ("collections", "OrderedDict"),
    ],
)
def test_a_pickle_cannot_modify_allowed_functions(tmp_path, module, name):
    function = torch_files.name(module, name)
    state = pickle.dumps({"__call__": 1, "x": 2}, 2)[2:-1]
    for build in (state + b"b", b"N" + state + b"\x86b"):
        path = tmp_path / "a.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("saved/data.pkl", b"\x80\x02" + function + build + b".")
        assert "damaged" in rejection(path)


def test_missing_and_foreign_files_and_folders_are_rejected(tmp_path):
    assert "No such file" in rejection(tmp_path / "none.pt")
    assert "directory" in rejection(tmp_path)
    (tmp_path / "text.pt").write_text("not weights")
    assert "not a file written by torch.save" in rejection(tmp_path / "text.pt")
    (tmp_path / "empty.pt").write_bytes(b"")
    assert "not a file written by torch.save" in rejection(tmp_path / "empty.pt")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "hello")
    assert "without data.pkl" in rejection(tmp_path / "other.zip")


def test_the_format_before_1_6_is_rejected_with_its_conversion(tmp_path):
    path = tmp_path / "old.pt"
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2))
    assert "torch.save(torch.load(" in rejection(path)


def test_truncated_files_are_rejected_in_one_sentence(tmp_path):
    storages = {"0": np.arange(9, dtype=np.float32)}
    whole = torch_files.write(tmp_path / "a.pt", {"w": Tensor("0", 0, (9,), (1,))}, storages)
    content = whole.read_bytes()
    for length in range(0, len(content), 7):
        whole.write_bytes(content[:length])
        rejection(whole)


@given(st.data())
def test_flipped_bytes_raise_a_user_error_or_change_nothing(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flipped") / "a.pt"
    storages = {"0": np.arange(9, dtype=np.float32)}
    torch_files.write(path, {"w": Tensor("0", 0, (9,), (1,))}, storages)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        read = read_torch_file(path)
    except UserError as error:
        assert str(path) in str(error)
    else:  # a byte without effect on the weights, such as one of a date
        np.testing.assert_array_equal(read["w"], storages["0"])


def test_missing_or_short_storages_and_invalid_views_are_rejected(tmp_path):
    path = tmp_path / "a.pt"
    storage = np.arange(4, dtype=np.float32)
    data = torch_files.opcodes({"w": Tensor("0", 0, (4,), (1,))}, {"0": storage})
    for records, sentence in [
        ({}, "data/0 is missing"),
        ({"saved/data/0": b"1234"}, "holds 4 bytes where 16 were expected"),
        ({"saved/data/0": storage.tobytes(), "saved/byteorder": b"middle"}, "byteorder"),
    ]:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("saved/data.pkl", b"\x80\x02" + data + b".")
            for record, content in records.items():
                archive.writestr(record, content)
        assert sentence in rejection(path)
    for shape, strides, offset in [((5,), (1,), 0), ((4,), (1,), 1), ((2, 2), (3, 1), 0)]:
        tensor = Tensor("0", offset, shape, strides)
        torch_files.write(path, {"w": tensor}, {"0": storage})
        assert "past the end" in rejection(path)
    for shape, strides, offset in [((2,), (-1,), 1), ((2,), (1, 1), 0), ((2,), (1,), -1)]:
        tensor = Tensor("0", offset, shape, strides)
        torch_files.write(path, {"w": tensor}, {"0": storage})
        assert "is odd" in rejection(path)


def test_compressed_records_are_rejected(tmp_path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("saved/data.pkl", b"\x80\x02}.")
    assert "compressed" in rejection(path)


def test_recursive_containers_and_bare_tensors_are_rejected(tmp_path):
    path = tmp_path / "a.pt"
    itself: dict = {}
    itself["again"] = itself
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("saved/data.pkl", pickle.dumps(itself, 2))
    assert "contains itself" in rejection(path)
    torch_files.write(path, Tensor("0", 0, (1,), (1,)), {"0": np.zeros(1, np.float32)})
    assert "contains a ndarray" in rejection(path)


def test_a_shared_container_is_visited_once(tmp_path):
    shared: list = []
    for _ in range(60):  # 2^60 paths, if each were visited
        shared = [shared, shared]
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("saved/data.pkl", pickle.dumps({"w": shared}, 2))
    read = read_torch_file(path)["w"]
    assert read[0] is read[1]


def damage(path, record):
    """Flips one byte of a record's content."""
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo(record).header_offset + 30 + len(record)
    content = bytearray(path.read_bytes())
    content[start] ^= 1
    path.write_bytes(content)


def archive_of(path, instructions, records=(), byteorder="little"):
    """Writes an archive around the raw instructions of a pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("saved/data.pkl", instructions)
        archive.writestr("saved/byteorder", byteorder)
        for name, content in records:
            archive.writestr(f"saved/{name}", content)
    return path


MANY = 2**27
NESTED = b"(" + b")\x85" + b"2\x86" * 60  # a tuple of two tuples of two tuples, 60 deep
LARGE = [
    pytest.param(b"\x80\x02]r" + MANY.to_bytes(4, "little") + b"}.", id="memo index"),
    pytest.param(b"]p%d\n}." % MANY, id="memo index as text"),
    pytest.param(b"\x80\x05\x96" + (8 << 30).to_bytes(8, "little") + b".", id="bytearray"),
    pytest.param(b"\x80\x02B" + MANY.to_bytes(4, "little") + b".", id="bytes"),
    pytest.param(b"\x80\x04\x8d" + (8 << 30).to_bytes(8, "little") + b".", id="text"),
    pytest.param(b"\x80\x04\x95" + (1 << 40).to_bytes(8, "little") + b".", id="frame"),
    pytest.param(b"\x80\x02\x8b" + MANY.to_bytes(4, "little") + b".", id="integer"),
    pytest.param(b"\x80\x02}" + NESTED + b"Ns.", id="key: 2^60 steps to hash"),
    pytest.param(b"\x80\x02ctorch\nSize\n" + NESTED + b"\x85R.", id="size: 2^60 steps to print"),
    pytest.param(b"\x80\x02(X\x01\0\0\0w" + NESTED + b"KKKtQ.", id="id: 2^60 steps to print"),
    pytest.param(
        b"\x80\x02](" + b"K\x01" * 1000 + b"eq\x00(" + b"ctorch\nSize\nh\x00\x85R" * 1000 + b"l.",
        id="list copied as often as it is long",
    ),
    pytest.param(
        b"\x80\x02](](K\x01K\x02eeq\x00ccollections\nOrderedDict\nh\x00\x85R.", id="pairs copied"
    ),
]


@pytest.mark.parametrize("instructions", LARGE)
def test_sizes_that_a_pickle_states_are_not_trusted(tmp_path, instructions):
    path = archive_of(tmp_path / "a.pt", instructions)
    tracemalloc.start()
    try:
        try:
            read_torch_file(path)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            assert len(str(error)) < 600
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * 2**20


def test_entries_that_share_bytes_are_rejected(tmp_path):
    """Covers a bomb without compression: many directory entries for one record."""
    path = archive_of(tmp_path / "a.pt", b"\x80\x02}.", [("data/0", bytes(10_000))])
    with zipfile.ZipFile(path, "a") as archive:
        (entry,) = (e for e in archive.infolist() if e.filename == "saved/data/0")
        for number in range(1, 50):
            again = copy.copy(entry)
            again.filename = f"saved/data/{number}"
            archive.filelist.append(again)
        archive._didModify = True
    assert "its records claim" in rejection(path)


def test_tensors_of_one_storage_share_memory_in_either_byte_order(tmp_path):
    storage = np.arange(6, dtype=np.float32)
    saved = {"a": Tensor("0", 0, (6,), (1,)), "b": Tensor("0", 2, (2, 2), (2, 1))}
    path = torch_files.write(tmp_path / "a.pt", saved, {"0": storage}, "big")
    read = read_torch_file(path)
    assert np.shares_memory(read["a"], read["b"])
    np.testing.assert_array_equal(read["b"], [[2, 3], [4, 5]])


def test_attributes_of_a_dictionary_are_ignored(tmp_path):
    """Covers `_metadata`, which a state_dict carries; other attributes could shadow methods."""
    tensor = {"w": Tensor("0", 0, (2,), (1,))}
    storages = {"0": np.ones(2, np.float32)}
    state = torch_files.opcodes({"_metadata": {}, "items": 1}, {})
    instructions = b"\x80\x02" + torch_files.opcodes(tensor, storages) + state + b"b."
    path = archive_of(tmp_path / "a.pt", instructions, [("data/0", storages["0"].tobytes())])
    np.testing.assert_array_equal(read_torch_file(path)["w"], storages["0"])
