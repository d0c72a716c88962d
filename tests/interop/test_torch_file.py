"""Files of torch.save are read without torch, and nothing in them is run."""

import pickle
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


def refusal(path, **options):
    with pytest.raises(UserError) as caught:
        read_torch_file(path, **options)
    sentence = str(caught.value)
    assert str(path) in sentence and "\n" not in sentence
    return sentence


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("dtype", sorted(torch_files.STORAGES))
def test_every_dtype_in_both_byte_orders(tmp_path, dtype, byteorder):
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
def test_strides_and_offsets(tmp_path_factory, shape_and_order, offset, parameter):
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


def test_empty_scalar_and_expanded_tensors(tmp_path):
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


def test_nested_contents_come_back_as_they_were(tmp_path):
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


def test_what_is_not_kept_is_not_read(tmp_path):
    storages = {str(i): np.full(3, i, np.float32) for i in range(2)}
    saved = {f"part{i}.w": Tensor(str(i), 0, (3,), (1,)) for i in range(2)}
    path = torch_files.write(tmp_path / "a.pt", saved, storages)
    damage(path, "saved/data/0")
    read = read_torch_file(path, keep=lambda key: key.startswith("part1."))
    assert list(read) == ["part1.w"]
    np.testing.assert_array_equal(read["part1.w"], storages["1"])
    assert "Bad CRC-32" in refusal(path)


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
def test_other_names_are_refused_by_name_and_not_called(tmp_path, module, name):
    marker = tmp_path / "marker"
    called = Call(module, name, (f"open({str(marker)!r}, 'w')",))
    path = torch_files.write(tmp_path / "a.pt", {"w": called}, {})
    assert f"{module}.{name}" in refusal(path)
    assert not marker.exists()


def test_a_hostile_call_nested_where_hooks_belong_is_not_run(tmp_path):
    marker = tmp_path / "marker"
    hostile = Call("os", "system", (f"touch {marker}",))
    nested = Call("collections", "OrderedDict", ([["hook", hostile]],))
    rebuilt = Call("torch._utils", "_rebuild_parameter", (1, True, nested))
    path = torch_files.write(tmp_path / "a.pt", {"w": rebuilt}, {})
    assert "os.system" in refusal(path, keep=lambda key: False)
    assert not marker.exists()


def test_pythons_own_reduce_is_refused(tmp_path):
    marker = tmp_path / "marker"

    class Hostile:
        def __reduce__(self):
            return eval, (f"open({str(marker)!r}, 'w')",)

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = tmp_path / f"{protocol}.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("saved/data.pkl", pickle.dumps({"w": Hostile()}, protocol))
        assert refusal(path).count("eval") == 1
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
def test_a_pickle_cannot_change_what_its_names_stand_for(tmp_path, module, name):
    function = torch_files.name(module, name)
    state = pickle.dumps({"__call__": 1, "x": 2}, 2)[2:-1]
    for build in (state + b"b", b"N" + state + b"\x86b"):
        path = tmp_path / "a.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("saved/data.pkl", b"\x80\x02" + function + build + b".")
        assert "damaged" in refusal(path)


def test_missing_directory_and_foreign_files(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.pt")
    assert "directory" in refusal(tmp_path)
    (tmp_path / "text.pt").write_text("not weights")
    assert "not a file written by torch.save" in refusal(tmp_path / "text.pt")
    (tmp_path / "empty.pt").write_bytes(b"")
    assert "not a file written by torch.save" in refusal(tmp_path / "empty.pt")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "hello")
    assert "without data.pkl" in refusal(tmp_path / "other.zip")


def test_the_format_before_1_6_says_how_to_save_again(tmp_path):
    path = tmp_path / "old.pt"
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2))
    assert "torch.save(torch.load(" in refusal(path)


def test_a_file_cut_anywhere_is_one_sentence(tmp_path):
    storages = {"0": np.arange(9, dtype=np.float32)}
    whole = torch_files.write(tmp_path / "a.pt", {"w": Tensor("0", 0, (9,), (1,))}, storages)
    content = whole.read_bytes()
    for length in range(0, len(content), 7):
        whole.write_bytes(content[:length])
        refusal(whole)


@given(st.data())
def test_flipped_bytes_never_escape_as_another_error(tmp_path_factory, data):
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
    else:  # a byte that says nothing, such as a date: the weights are whole
        np.testing.assert_array_equal(read["w"], storages["0"])


def test_missing_and_short_storages_and_views_past_the_end(tmp_path):
    path = tmp_path / "a.pt"
    storage = np.arange(4, dtype=np.float32)
    data = torch_files.opcodes({"w": Tensor("0", 0, (4,), (1,))}, {"0": storage})
    for records, said in [
        ({}, "data/0 is missing"),
        ({"saved/data/0": b"1234"}, "holds 4 bytes where 16 were expected"),
        ({"saved/data/0": storage.tobytes(), "saved/byteorder": b"middle"}, "byteorder"),
    ]:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("saved/data.pkl", b"\x80\x02" + data + b".")
            for record, content in records.items():
                archive.writestr(record, content)
        assert said in refusal(path)
    for shape, strides, offset in [((5,), (1,), 0), ((4,), (1,), 1), ((2, 2), (3, 1), 0)]:
        tensor = Tensor("0", offset, shape, strides)
        torch_files.write(path, {"w": tensor}, {"0": storage})
        assert "past the end" in refusal(path)
    for shape, strides, offset in [((2,), (-1,), 1), ((2,), (1, 1), 0), ((2,), (1,), -1)]:
        tensor = Tensor("0", offset, shape, strides)
        torch_files.write(path, {"w": tensor}, {"0": storage})
        assert "is odd" in refusal(path)


def test_compressed_records_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("saved/data.pkl", b"\x80\x02}.")
    assert "compressed" in refusal(path)


def test_containers_that_hold_themselves_and_bare_tensors_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    itself: dict = {}
    itself["again"] = itself
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("saved/data.pkl", pickle.dumps(itself, 2))
    assert "contains itself" in refusal(path)
    torch_files.write(path, Tensor("0", 0, (1,), (1,)), {"0": np.zeros(1, np.float32)})
    assert "contains a ndarray" in refusal(path)


def test_one_container_in_many_places_is_walked_once(tmp_path):
    shared: list = []
    for _ in range(60):  # 2^60 places, were each walked
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
