"""Reading of `.npz` files: whole or rejected, without running code or trusting sizes."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from dsaml_jax.errors import UserError
from dsaml_jax.runtime.arrays import read_arrays


def read(path, *names):
    return read_arrays(path, *names, remedy="fix it")


def header(shape, descr="<f4"):
    """Returns the header of an array's record, stating a shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def archive(path, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("w.npy", content)
    return path


def test_arrays_written_by_numpy_are_read(tmp_path):
    arrays = {
        "numbers": np.arange(6, dtype=np.float16).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "text": np.array("a text"),
        "none": np.zeros((0, 4)),
    }
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    result = read(path)
    assert list(result) == list(arrays)
    for name, array in arrays.items():
        assert result[name].dtype == array.dtype
        np.testing.assert_array_equal(result[name], array)
    assert list(read(path, "none")) == ["none"]


class Malicious:
    def __reduce__(self):
        return print, ("run",)


def test_bad_files_raise_one_sentence_and_take_little_memory(tmp_path, capsys):
    path = tmp_path / "a.npz"
    huge = archive(tmp_path / "huge.npz", header((1 << 40,)))
    zeros = archive(tmp_path / "zeros.npz", header((10**7,)) + bytes(4 * 10**7), zipfile.ZIP_LZMA)
    objects = tmp_path / "objects.npz"
    np.savez(objects, w=np.array([Malicious()], dtype=object))  # pyright: ignore[reportArgumentType]
    np.savez(path, w=np.arange(99.0))
    whole = path.read_bytes()
    cut, flipped = tmp_path / "cut.npz", tmp_path / "flipped.npz"
    cut.write_bytes(whole[: len(whole) // 2])
    flipped.write_bytes(whole[:400] + bytes([whole[400] ^ 1]) + whole[401:])
    negative = archive(tmp_path / "negative.npz", header((-1, 4)) + bytes(16))
    cases = {
        huge: "bytes where shape",
        zeros: "compressed",
        objects: "Python objects",
        cut: "not a zip file",
        flipped: "CRC",
        negative: "cannot be read",
        tmp_path / "none.npz": "No such file",
        tmp_path: "directory",
    }
    tracemalloc.start()
    for file, reason in cases.items():
        with pytest.raises(UserError, match=rf"(?s){file}.*{reason}.*; fix it\.$") as caught:
            read(file)
        assert "\n" not in str(caught.value)
    assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
    tracemalloc.stop()
    with pytest.raises(UserError, match="has no array 'v'; fix it"):
        read(path, "v")
    assert capsys.readouterr().out == ""
