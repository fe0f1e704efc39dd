"""Archives: read a zip or a folder safely, write a zip that is whole or absent and the same every time."""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import re
import stat
import time
import uuid
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TypeVar

MAX_MEMBER_BYTES = 3 * 2**30  # the weights of the largest of torchvision's networks take 2.4
MAX_TOTAL_BYTES = 256 * 2**30
_TRIED = 16  # tasks that are done without threads, to see how long one takes
_WORTH_A_THREAD = 0.0007  # s
_MOST_THREADS = 8  # each may hold a photo of MAX_PIXELS
_AHEAD = 2 * _MOST_THREADS  # results that may wait to be taken, and files of any size that may wait for a thread
_JUNK = {"__MACOSX", "Thumbs.db", "desktop.ini", "lost+found", "System Volume Information", "$RECYCLE.BIN", "@eaDir"}
_UNFINISHED = ".helpers-{}.unfinished"
_DAY_SECONDS = 24 * 60 * 60
_ZIP_ERRORS = (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError)  # the last two: odd names and versions
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold: the same input gives the same bytes

Task, Result = TypeVar("Task"), TypeVar("Result")


class ArchiveError(ValueError):
    """An archive that cannot be trusted or read; the message names the archive, the member and the reason."""


class Archive:
    """The files of a zip or of a folder, read in place and by name: nothing is ever unpacked to disk.

    names: the files' relative POSIX paths, sorted, without what systems leave behind: hidden files and previews.
    Raises FileNotFoundError where `path` is missing, and ArchiveError where it is no zip or a member is hostile:
    a path that leaves the archive, a link, an encrypted member, two of one name, or more bytes than allowed. In a
    folder, links to files are followed; links to folders, and folders that cannot be listed, are refused.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path} is missing: give the path of a zip archive or of a folder")
        self._zip = None if self.path.is_dir() else _open_zip(self.path)
        if self._zip is None:
            names = _names_below(self.path)
        else:
            names = (member.filename for member in _checked_members(self._zip, self.path))
        self.names = sorted(name for name in names if not _is_junk(name))

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the zip, if there is one."""
        if self._zip is not None:
            self._zip.close()

    def read(self, name: str, most: int | None = None) -> bytes:
        """All bytes of one file. Raises ArchiveError where it is missing, damaged, or too large.

        most: bytes that it may have; MAX_MEMBER_BYTES, if not given.
        """
        most = most or MAX_MEMBER_BYTES
        try:
            if self._zip is not None:
                _check_size(self.path, name, self._zip.getinfo(name).file_size, most)
                return self._zip.read(name)
            file = _ordinary(self.path, name)
            _check_size(self.path, name, file.stat().st_size, most)
            return file.read_bytes()
        except (KeyError, FileNotFoundError):
            what = f": {name!r} is a link to nothing" if name in self.names else f" holds no {name!r}"
            raise ArchiveError(f"{self.path}{what}") from None
        except PermissionError:
            raise ArchiveError(f"{self.path}: {name!r} may not be read: give the right to read it") from None
        except (*_ZIP_ERRORS, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
            raise ArchiveError(f"{self.path}: {name!r} is damaged ({error}): make the archive again") from error

    def digest(self) -> str:
        """SHA-256 of the zip; of a folder, of its names in order and what can be read of it."""
        if self._zip is not None:
            return sha256(self.path)
        total = hashlib.sha256()
        for name in self.names:
            try:
                own = sha256(_ordinary(self.path, name))
            except (OSError, ArchiveError):  # a link to nothing, a pipe, someone else's: nothing is made of it, either
                own = ""
            total.update(f"{own}  {name}\n".encode(errors="surrogateescape"))  # names of any system
        return total.hexdigest()


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_zip(path: str | Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """Write (name, bytes) pairs, as they come, to a zip: whole and under its name, or not at all.

    Members are stored without compression (photos and weights hardly shrink) and without times, so the same
    members give the same bytes on every machine.
    Raises ArchiveError where a name is unsafe or comes twice.
    """
    path, seen = Path(path), set()
    with atomic(path) as unfinished, zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as target:
        for name, data in members:
            _check_name(path, name, seen)
            member = zipfile.ZipInfo(name, _TIMESTAMP)
            member.external_attr = 0o644 << 16
            target.writestr(member, data)
    return path


def threaded(function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
    """The results in order, computed in threads, which read and decode while others are used: memory stays flat.

    The first tasks are done without, and all of them where these are quick: threads that hand Python to each other more
    often than they work on their own make small pictures take twice as long (docs/log.md).
    """
    tasks, taken = iter(tasks), []
    for task in islice(tasks, _TRIED):
        started = time.perf_counter()
        result = function(task)
        taken.append(time.perf_counter() - started)
        yield result
    # Some may have had nothing to do, as where one photo in two is unrolled, and the longest something to load.
    if not taken or sorted(taken)[3 * len(taken) // 4] < _WORTH_A_THREAD:
        yield from map(function, tasks)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(min(_MOST_THREADS, (os.cpu_count() or 1) + 4)) as pool:
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) == _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Another path to write to, in a folder that is there: it becomes `path` at the end, or is gone after an error.

    What a killed run left there a day ago or earlier is cleared away.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(_UNFINISHED.format("*") + "*"):
        with contextlib.suppress(OSError):  # another run clears away as well, or it is another person's
            if left.stat().st_mtime < time.time() - _DAY_SECONDS:
                left.unlink()
    unfinished = path.with_name(_UNFINISHED.format(uuid.uuid4().hex[:12]) + path.suffix)
    try:
        yield unfinished
        with open(unfinished, "r+b") as written:
            os.fsync(written.fileno())  # or a power cut could leave an empty file under the final name
        os.replace(unfinished, path)
    except OSError as error:
        if error.errno and not error.filename:  # a full disk does not say where
            error.filename = str(path)
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def _names_below(folder: Path) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise ArchiveError(f"{error.filename} cannot be listed ({error.strerror}): give the right to read it")

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not _is_junk(name)]  # what systems leave on a stick
        for name in folders:
            if (linked := Path(parent, name)).is_symlink():
                raise ArchiveError(f"{linked} is a link to a folder, which is not followed: put the folder there")
        yield from (Path(parent, name).relative_to(folder).as_posix() for name in files)


def _is_junk(name: str) -> bool:
    return any(part.startswith(".") or part in _JUNK for part in PurePosixPath(name).parts)


def _ordinary(folder: Path, name: str) -> Path:
    file = folder / name
    if not stat.S_ISREG(file.stat().st_mode):  # a pipe would be waited for, a device never ends
        raise ArchiveError(f"{folder}: {name!r} is no ordinary file: leave it out")
    return file


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        try:
            return zipfile.ZipFile(path, metadata_encoding="utf-8")  # a Mac's zips do not say that they are
        except UnicodeDecodeError:
            return zipfile.ZipFile(path)
    except _ZIP_ERRORS:
        raise ArchiveError(f"{path} is not a zip archive, or only a part of one: copy or download it again") from None


def _checked_members(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    """The members that are files, each checked: an archive from outside is hostile until then."""
    total, seen, files = 0, set(), []
    for member in archive.infolist():
        if member.filename == "./":  # the folder that was packed, as tar writes it
            continue
        _check_name(path, member.filename, seen)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ArchiveError(f"{path}: {member.filename!r} is a link or a device, not a file: leave it out")
        if member.flag_bits & 1:
            raise ArchiveError(f"{path}: {member.filename!r} is encrypted: pack the archive without a password")
        _check_size(path, member.filename, member.file_size, MAX_MEMBER_BYTES)
        total += member.file_size
        if not member.is_dir():
            files.append(member)
    if total > MAX_TOTAL_BYTES:
        raise ArchiveError(f"{path} unpacks to {total / 2**30:.0f} GiB, over the limit of {MAX_TOTAL_BYTES // 2**30}")
    return files


def _check_name(path: Path, name: str, seen: set[str]) -> None:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0] == "/" or ".." in parts or re.match("[A-Za-z]:", parts[0]):
        raise ArchiveError(f"{path}: member {name!r} has an unsafe path: pack the archive with relative paths")
    if any(ord(character) < 32 for character in name):
        raise ArchiveError(f"{path}: the name of member {name!r} holds control characters: rename it or leave it out")
    if "\\" in name:
        raise ArchiveError(f"{path}: member {name!r} has \\ between its folders: pack it with a tool that writes /")
    if name in seen:
        raise ArchiveError(f"{path}: member {name!r} comes twice: pack the archive again")
    seen.add(name)


def _check_size(path: Path, name: str, size: int, most: int) -> None:
    if size > most:
        limit = most // 2**20
        raise ArchiveError(f"{path}: {name!r} has {size / 2**20:.0f} MiB, over the limit of {limit} MiB: leave it out")
