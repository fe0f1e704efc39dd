import errno

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import arrays

SHAPE = (7, 2, 3)


def rows():
    return torch.arange(42, dtype=torch.float16).view(SHAPE)


def parts(values):
    yield from (values[:3], values[3:3], values[3:])


def test_what_fits_stays_in_memory_and_no_file_is_written(tmp_path):
    array = arrays.collect(parts(rows()), SHAPE, np.float16, tmp_path / "a.npy", memory_bytes=84)
    assert isinstance(array, torch.Tensor)
    assert torch.equal(array, rows())
    assert list(tmp_path.iterdir()) == []


@given(chosen=st.lists(st.integers(0, 6), max_size=9))
def test_a_file_gives_the_rows_that_memory_would(chosen, tmp_path_factory):
    file = tmp_path_factory.mktemp("arrays") / "folder" / "a.npy"
    array = arrays.collect(parts(rows()), SHAPE, np.float16, file, memory_bytes=83)
    assert (len(array), array.shape, array.dtype, array.nbytes) == (7, SHAPE, torch.float16, 84)
    for index in (np.array(chosen, int), torch.tensor(chosen, dtype=torch.long), slice(2, 5)):
        assert torch.equal(array[index], rows()[index])
    assert [entry.name for entry in file.parent.iterdir()] == ["a.npy"]


def test_a_file_is_found_again_and_nothing_is_computed(tmp_path):
    arrays.collect(parts(rows()), SHAPE, np.float16, tmp_path / "a.npy", memory_bytes=0)
    computed = []
    again = arrays.collect((computed.append(1) for _ in "x"), SHAPE, np.float16, tmp_path / "a.npy", memory_bytes=0)
    assert torch.equal(again[:], rows())
    assert computed == []


@pytest.mark.parametrize("left", [b"", b"\0" * 200, "half"])
def test_a_file_that_broke_is_made_anew(left, tmp_path):
    file = tmp_path / "a.npy"
    arrays.collect(parts(rows()), SHAPE, np.float16, file, memory_bytes=0)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if left == "half" else left)
    assert torch.equal(arrays.collect(parts(rows()), SHAPE, np.float16, file, memory_bytes=0)[:], rows())
    assert file.read_bytes() == whole


@pytest.mark.parametrize("memory_bytes", [0, 10**6])
def test_parts_that_do_not_add_up_leave_nothing(memory_bytes, tmp_path):
    with pytest.raises(ValueError, match="6 rows came where 7 were announced"):
        arrays.collect(parts(rows()[:6]), SHAPE, np.float16, tmp_path / "a.npy", memory_bytes)
    with pytest.raises(ValueError, match="14 rows came where 7 were announced"):
        arrays.collect(parts(torch.cat([rows(), rows()])), SHAPE, np.float16, tmp_path / "a.npy", memory_bytes)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_breaks_off_leaves_nothing(tmp_path):
    def breaks_off():
        yield rows()[:3]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        arrays.collect(breaks_off(), SHAPE, np.float16, tmp_path / "a.npy", memory_bytes=0)
    assert list(tmp_path.iterdir()) == []


def test_where_no_file_can_be_written_it_says_how_memory_could_hold_it(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(arrays, "_write", refused)
    with pytest.raises(
        OSError, match=r"cannot be written to \(Permission denied\).*84 bytes.* a larger HELPERS_MEMORY_BYTES in"
    ):
        arrays.collect(iter([]), SHAPE, np.float16, tmp_path / "cache" / "a.npy", memory_bytes=0)


def test_a_limit_that_is_no_number_is_refused_by_its_name():
    assert arrays._memory_bytes("1024") == 1024
    with pytest.raises(ValueError, match=r"^HELPERS_MEMORY_BYTES=1G in the environment must be a whole number"):
        arrays._memory_bytes("1G")


def test_the_size_is_known_beforehand():
    assert arrays.bytes_of((100_000, 3, 224, 224), np.uint8) == 15_052_800_000
    assert arrays.bytes_of((2, 5), np.float16) == 20


@pytest.mark.parametrize(("device", "needed", "fits"), [("cuda", 100, True), ("cuda", 101, False), ("cpu", 101, True)])
def test_data_take_a_quarter_of_what_is_free_on_a_gpu_and_never_more_than_the_limit(device, needed, fits, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (400, 1000))
    monkeypatch.setattr(arrays, "MEMORY_BYTES", 500)
    assert arrays.fits_on(torch.device(device), needed) == fits
    monkeypatch.setattr(arrays, "MEMORY_BYTES", 99)
    assert not arrays.fits_on(torch.device(device), needed)
