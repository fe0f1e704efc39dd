import errno
import io
import math
import os
import stat
import threading
import time
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import archives
from helpers.archives import Archive, ArchiveError, write_zip

PARTS = st.text("abcXYZ09 _-é", min_size=1, max_size=8).filter(lambda part: part.strip(". "))
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
MEMBERS = st.dictionaries(NAMES, st.binary(max_size=60), max_size=6)


def zip_of(path, *members):
    """A zip made by hand, as an attacker would: members are (ZipInfo or name, bytes)."""
    with zipfile.ZipFile(path, "w") as target:
        for member, data in members:
            target.writestr(member, data)
    return path


@given(members=MEMBERS)
def test_what_is_written_is_read_again(members, tmp_path_factory):
    path = write_zip(tmp_path_factory.mktemp("zip") / "a.zip", members.items())
    with Archive(path) as archive:
        assert archive.names == sorted(members)
        assert {name: archive.read(name) for name in members} == members


def test_a_folder_that_cannot_be_listed_is_an_error_and_no_empty_folder(tmp_path, monkeypatch):
    for folder in ("night", ".Trashes"):
        (tmp_path / folder).mkdir()
    listed = os.scandir

    def scandir(path):
        if os.fspath(path).endswith(forbidden):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    forbidden = ".Trashes"
    assert Archive(tmp_path).names == []
    forbidden = "night"
    with pytest.raises(ArchiveError, match=r"night cannot be listed \(Permission denied\): give the right to read it"):
        Archive(tmp_path)


def test_a_file_without_the_right_to_read_it_is_not_called_damaged(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").touch()

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(archives, "_ordinary", refused)
    with pytest.raises(ArchiveError, match=r"'a\.jpg' may not be read: give the right to read it"):
        Archive(tmp_path).read("a.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes among its files")
def test_a_pipe_in_a_folder_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    archive = Archive(tmp_path)
    with pytest.raises(ArchiveError, match=r"'a\.jpg' is no ordinary file: leave it out"):
        archive.read("a.jpg")
    assert len(archive.digest()) == 64


@pytest.mark.parametrize(("offset", "byte"), [(6, 255), (46, 0xFF)])  # the version that is needed; the name's first
def test_a_zip_of_another_version_or_with_a_name_that_is_none_is_refused(tmp_path, offset, byte):
    path = zip_of(tmp_path / "a.zip", ("é.jpg", b"1"))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + offset] = byte
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="is not a zip archive, or only a part of one"):
        Archive(path)


def test_a_member_whose_own_header_is_no_utf8_costs_that_member_alone(tmp_path):
    path = zip_of(tmp_path / "a.zip", ("é.jpg", b"1"), ("b.jpg", b"2"))
    data = bytearray(path.read_bytes())
    data[data.index("é".encode())] = 0xFF  # the first is the local header's
    path.write_bytes(data)
    with Archive(path) as archive:
        assert archive.read("b.jpg") == b"2"
        with pytest.raises(ArchiveError, match="is damaged"):
            archive.read("é.jpg")


def test_what_a_killed_run_left_is_cleared_away_after_a_day(tmp_path):
    old, fresh = (tmp_path / f".helpers-{name}.unfinished.zip" for name in ("old", "fresh"))
    for file, age_seconds in ((old, 90_000), (fresh, 60)):
        file.touch()
        os.utime(file, (time.time() - age_seconds,) * 2)
    write_zip(tmp_path / "a.zip", [])
    assert {file.name for file in tmp_path.iterdir()} == {"a.zip", fresh.name}


def test_a_full_disk_is_named_with_the_file(tmp_path):
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.zip'"), archives.atomic(tmp_path / "a.zip"):
        raise OSError(errno.ENOSPC, "No space left on device")


@given(members=MEMBERS)
def test_the_same_members_give_the_same_bytes(members, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zip")
    first, second = (write_zip(folder / name, members.items()) for name in ("a.zip", "b.zip"))
    assert first.read_bytes() == second.read_bytes()


def test_a_folder_reads_like_the_zip_of_it(tmp_path):
    (tmp_path / "set" / "red").mkdir(parents=True)
    (tmp_path / "set" / "red" / "a.jpg").write_bytes(b"photo")
    archive = Archive(tmp_path / "set")
    assert archive.names == ["red/a.jpg"]
    assert archive.read("red/a.jpg") == b"photo"
    digest = archive.digest()
    (tmp_path / "set" / "red" / "a.jpg").write_bytes(b"photO")
    assert (changed := archive.digest()) != digest
    (tmp_path / "set" / "red" / "a.jpg").rename(tmp_path / "set" / "red" / "b.jpg")
    assert Archive(tmp_path / "set").digest() not in (digest, changed)


def test_what_systems_leave_behind_is_no_part_of_an_archive(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.jpg").write_bytes(b"photo")
    digest = Archive(tmp_path).digest()
    junk = [".DS_Store", "cat/._1.jpg", "cat/Thumbs.db", "desktop.ini", "__MACOSX/cat/1.jpg", ".git/objects/1.jpg"]
    for name in junk:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"?")
    assert Archive(tmp_path).names == ["cat/1.jpg"]
    assert Archive(tmp_path).digest() == digest
    packed = write_zip(tmp_path / "set.zip", [(name, b"?") for name in ["cat/1.jpg", *junk]])
    with Archive(packed) as archive:
        assert archive.names == ["cat/1.jpg"]


def test_a_write_that_fails_leaves_the_earlier_archive_and_nothing_else(tmp_path):
    path = write_zip(tmp_path / "a.zip", [("kept", b"1")])
    before = path.read_bytes()

    def breaks_off():
        yield "new", b"2"
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_zip(path, breaks_off())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]


def test_the_entry_of_the_packed_folder_itself_is_passed_over(tmp_path):
    packed = zip_of(tmp_path / "a.zip", ("./", b""), ("./damaged/", b""), ("./damaged/1.txt", b"one"))
    with Archive(packed) as archive:
        assert [(name, archive.read(name)) for name in archive.names] == [("./damaged/1.txt", b"one")]


RELATIVE = "has an unsafe path: pack the archive with relative paths"
UNSAFE = dict.fromkeys(["../up.txt", "a/../../up.txt", "/etc/passwd", "C:/windows.txt", "a\\..\\b.txt"], RELATIVE)
UNSAFE["Icon\r"] = "holds control characters: rename it or leave it out"


@pytest.mark.parametrize(("name", "reason"), UNSAFE.items())
def test_a_path_that_could_leave_the_archive_is_refused_by_name(name, reason, tmp_path):
    hostile = zip_of(tmp_path / "a.zip", ("good.txt", b""), (zipfile.ZipInfo(name), b"bad"))
    with pytest.raises(ArchiveError, match=reason) as refusal:
        Archive(hostile)
    assert repr(name) in str(refusal.value)


@pytest.mark.parametrize(("name", "reason"), UNSAFE.items())
def test_no_archive_of_ours_holds_such_a_path(name, reason, tmp_path):
    with pytest.raises(ArchiveError, match=reason):
        write_zip(tmp_path / "a.zip", [(name, b"")])
    assert list(tmp_path.iterdir()) == []


def test_a_time_in_a_folders_name_is_no_drive(tmp_path):
    assert Archive(zip_of(tmp_path / "a.zip", ("10:30/a.txt", b"good"))).names == ["10:30/a.txt"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_are_refused_by_name(kind, tmp_path):
    member = zipfile.ZipInfo("link.jpg")
    member.external_attr = (kind | 0o777) << 16
    with pytest.raises(ArchiveError, match=r"'link\.jpg' is a link or a device, not a file: leave it out"):
        Archive(zip_of(tmp_path / "a.zip", (member, b"/etc/passwd")))


def test_two_members_of_one_name_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = zip_of(tmp_path / "a.zip", ("a.jpg", b"1"), ("a.jpg", b"2"))
    with pytest.raises(ArchiveError, match=r"'a\.jpg' comes twice"):
        Archive(twice)
    with pytest.raises(ArchiveError, match=r"'a\.jpg' comes twice"):
        write_zip(tmp_path / "b.zip", [("a.jpg", b"1"), ("a.jpg", b"2")])


def test_an_encrypted_member_is_refused(tmp_path):
    data = bytearray(zip_of(tmp_path / "a.zip", ("a.jpg", b"1")).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag of encryption in the central directory
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ArchiveError, match=r"'a\.jpg' is encrypted: pack the archive without a password"):
        Archive(tmp_path / "a.zip")


def test_too_large_a_member_is_refused_before_it_is_read(tmp_path, monkeypatch):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("zeros.jpg", bytes(3 * 2**20))
    (tmp_path / "a.zip").write_bytes(bomb.getvalue())
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 2 * 2**20)
    with pytest.raises(ArchiveError, match=r"'zeros\.jpg' has 3 MiB, over the limit of 2 MiB"):
        Archive(tmp_path / "a.zip")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "zeros.jpg").write_bytes(bytes(3 * 2**20))
    with pytest.raises(ArchiveError, match=r"'zeros\.jpg' has 3 MiB"):
        Archive(tmp_path / "folder").read("zeros.jpg")


def test_many_members_that_are_too_large_together_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 2**30)
    data = bytearray(zip_of(tmp_path / "a.zip", ("a", b""), ("b", b""), ("c", b"")).read_bytes())
    at = -1
    while (at := data.find(b"PK\x01\x02", at + 1)) > 0:
        data[at + 24 : at + 28] = (2**29).to_bytes(4, "little")  # each member declares half a GiB
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ArchiveError, match="unpacks to 2 GiB, over the limit of 1"):
        Archive(tmp_path / "a.zip")


def test_a_declared_size_that_is_a_lie_is_found_when_it_is_read(tmp_path):
    data = bytearray(zip_of(tmp_path / "a.zip", ("a.jpg", b"12345678")).read_bytes())
    central = data.index(b"PK\x01\x02")
    data[central + 24] = 4  # the declared size: half of what is there
    (tmp_path / "a.zip").write_bytes(data)
    with Archive(tmp_path / "a.zip") as archive, pytest.raises(ArchiveError, match=r"'a\.jpg' is damaged"):
        archive.read("a.jpg")


def test_a_damaged_member_is_named(tmp_path):
    path = write_zip(tmp_path / "a.zip", [("a.jpg", b"the photo"), ("b.jpg", b"another")])
    path.write_bytes(path.read_bytes().replace(b"the photo", b"tHe photo"))
    with Archive(path) as archive:
        assert archive.read("b.jpg") == b"another"
        with pytest.raises(ArchiveError, match=r"'a\.jpg' is damaged .*: make the archive again"):
            archive.read("a.jpg")


def test_a_file_that_is_no_zip_or_half_of_one_says_so(tmp_path):
    path = write_zip(tmp_path / "a.zip", [("a.jpg", b"x" * 100)])
    path.write_bytes(path.read_bytes()[:80])
    with pytest.raises(ArchiveError, match="is not a zip archive, or only a part of one: copy or download it again"):
        Archive(path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.zip is missing: give the path of a zip archive or of a folder"):
        Archive(tmp_path / "no.zip")
    with Archive(write_zip(tmp_path / "a.zip", [])) as archive, pytest.raises(ArchiveError, match=r"holds no 'b\.jpg'"):
        archive.read("b.jpg")


def test_a_folder_with_names_of_another_system_has_a_digest(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"gr\xfcn.jpg")).write_bytes(b"photo")  # Latin-1, which is no UTF-8
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert len(Archive(tmp_path).digest()) == 64


@pytest.mark.parametrize(("encoding", "name"), [("utf-8", "gr\u00fcn.txt"), ("cp437", "gr\u00fcn.txt")])
def test_names_are_read_in_utf8_where_they_are_and_else_as_old_zips_have_them(tmp_path, encoding, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("?" * len(name.encode(encoding)), b"x")
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(b"?" * len(name.encode(encoding)), name.encode(encoding)))
    with Archive(tmp_path / "a.zip") as archive:
        assert archive.names == [name]
        assert archive.read(name) == b"x"


def test_a_damaged_member_costs_only_itself_whatever_its_compression(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.txt", bytes(range(256)) * 40)
        archive.writestr("b.txt", b"whole")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    start = data.index(b"a.txt") + len("a.txt") + 9
    data[start : start + 40] = b"\xff" * 40
    (tmp_path / "a.zip").write_bytes(data)
    with Archive(tmp_path / "a.zip") as archive:
        with pytest.raises(ArchiveError, match=r"'a\.txt' is damaged"):
            archive.read("a.txt")
        assert archive.read("b.txt") == b"whole"


def test_a_link_to_a_folder_is_named_not_passed_over(tmp_path):
    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "set" / "b").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArchiveError, match="b is a link to a folder, which is not followed: put the folder there"):
        Archive(tmp_path / "set")


def test_a_link_to_nothing_is_listed_and_named_when_it_is_read(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"1")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "gone.jpg")
    archive = Archive(tmp_path)
    assert archive.names == ["a.jpg", "b.jpg"]
    with pytest.raises(ArchiveError, match=r": 'b\.jpg' is a link to nothing"):
        archive.read("b.jpg")
    before = archive.digest()
    (tmp_path / "a.jpg").write_bytes(b"2")
    assert archive.digest() != before


def test_a_zip_with_backslashes_is_told_what_to_do(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/b.txt", b"x")
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(b"a/b.txt", b"a\\b.txt"))
    with pytest.raises(ArchiveError, match="between its folders: pack it with a tool that writes /"):
        Archive(tmp_path / "a.zip")


@pytest.mark.parametrize(("worth_a_thread", "in_threads"), [(0.0, 98), (math.inf, 0)])
def test_results_keep_their_order_run_only_a_little_ahead_and_take_threads_where_tasks_are_long(
    monkeypatch, worth_a_thread, in_threads
):
    monkeypatch.setattr(archives, "_AHEAD", 5)
    monkeypatch.setattr(archives, "_TRIED", 2)
    monkeypatch.setattr(archives, "_WORTH_A_THREAD", worth_a_thread)
    places = []

    def work(number):
        places.append(threading.current_thread())
        return number * number

    results = archives.threaded(work, range(100))
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(places) <= 2 + 5 + 2
    assert list(results) == [number * number for number in range(3, 100)]
    assert sum(place is not threading.main_thread() for place in places) == in_threads


def test_tasks_with_nothing_to_do_do_not_keep_the_others_out_of_threads():
    places = {}

    def work(number):
        places[number] = threading.current_thread()
        if number % 2:
            time.sleep(0.005)

    list(archives.threaded(work, range(20)))
    assert {places[number] for number in range(16)} == {threading.main_thread()}
    assert all(places[number] is not threading.main_thread() for number in range(16, 20))


def test_what_is_unpacked_elsewhere_can_be_read(tmp_path):
    with zipfile.ZipFile(write_zip(tmp_path / "a.zip", [("a", b"1")])) as archive:
        assert archive.getinfo("a").external_attr >> 16 == 0o644


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(archives.os, "fsync", synced.append)
    write_zip(tmp_path / "a.zip", [])
    assert len(synced) == 1


@pytest.mark.parametrize("pack", [True, False])
def test_a_file_that_is_larger_than_its_reader_wants_is_not_read(tmp_path, pack):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.jpg").write_bytes(bytes(3 * 2**20))
    path = zip_of(tmp_path / "a.zip", ("a.jpg", bytes(3 * 2**20))) if pack else tmp_path / "folder"
    with Archive(path) as archive:
        assert len(archive.read("a.jpg", 3 * 2**20)) == 3 * 2**20
        with pytest.raises(ArchiveError, match=r"'a\.jpg' has 3 MiB, over the limit of 2 MiB: leave it out"):
            archive.read("a.jpg", 2 * 2**20)


def test_what_systems_keep_on_a_disk_is_no_part_of_its_root(tmp_path):
    for name in ("a.jpg", "$RECYCLE.BIN/b.jpg", "lost+found/c.jpg", "day/@eaDir/d.jpg", "day/e.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    with Archive(tmp_path) as archive:
        assert archive.names == ["a.jpg", "day/e.jpg"]
