import gc
import hashlib
import io
import tarfile
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath

import numpy as np
import pytest
from PIL import Image

from helpers import sources
from helpers.archives import Archive, ArchiveError, write_zip

pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket")  # requests leaves broken ones unclosed


class Server(BaseHTTPRequestHandler):
    """Gives what it is made with; breaks off after half of it where the path asks for that."""

    def __init__(self, content, *arguments):
        self.content = content
        super().__init__(*arguments)

    def do_GET(self):
        if self.path == "/missing.zip":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content[: len(self.content) // 2] if self.path == "/half.zip" else self.content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return write_zip(tmp_path_factory.mktemp("served") / "served.zip", [("red/a.jpg", b"photo" * 1000)]).read_bytes()


@pytest.fixture(scope="module")
def address(content):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, content))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # seconds until it sees that it shall end
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
    gc.collect()  # sockets that are found later fail another test


def digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_a_download_with_the_right_checksum_is_kept_and_fetched_once(address, content, tmp_path):
    folder = tmp_path / "downloads"
    path = sources.download(f"{address}/set.zip", digest(content), folder)
    assert path.read_bytes() == content
    elsewhere = "http://127.0.0.1:1/set.zip"  # nobody answers there, and nobody is asked
    assert sources.download(elsewhere, digest(content), folder) == path


@pytest.mark.parametrize(
    ("page", "checksum"),
    [("missing.zip", None), ("half.zip", None), ("set.zip", "sha256:" + "0" * 64)],
    ids=["refused", "broken off", "altered"],
)
def test_a_download_that_fails_says_so_and_leaves_nothing(page, checksum, address, content, tmp_path):
    folder = tmp_path / "downloads"
    with pytest.raises(ConnectionError, match=r"could not be fetched whole .* Nothing was kept") as failure:
        sources.download(f"{address}/{page}", checksum or digest(content), folder)
    assert f"{address}/{page}" in str(failure.value)
    assert "give the path of the file" in str(failure.value)
    assert list(folder.iterdir()) == []


def test_nobody_there_says_so(tmp_path):
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1/set\.zip could not be fetched whole"):
        sources.download("http://127.0.0.1:1/set.zip", "0" * 64, tmp_path)


def test_an_address_with_its_checksum_in_any_case_is_fetched(address, content, tmp_path):
    checksum = digest(content).removeprefix("sha256:").upper()
    path = sources.obtain(f"{address}/set.zip", checksum, tmp_path, seed=0)
    assert path == tmp_path / "downloads" / "set.zip"


def test_a_file_with_another_checksum_is_refused(content, tmp_path):
    (tmp_path / "own.zip").write_bytes(content)
    checksum = digest(content).removeprefix("sha256:").upper()
    assert sources.obtain(str(tmp_path / "own.zip"), checksum, tmp_path, seed=0) == tmp_path / "own.zip"
    for path in (tmp_path / "own.zip", tmp_path):
        with pytest.raises(ArchiveError, match="is not the file with the SHA-256 0000"):
            sources.obtain(str(path), "0" * 64, tmp_path, seed=0)


def test_a_sample_has_items(tmp_path):
    with pytest.raises(ValueError, match="sample_items=0 must be 1 or more"):
        sources.obtain("sample", "", tmp_path, seed=0, sample_items=0)
    assert list(tmp_path.iterdir()) == []


def test_only_a_path_is_read_in_place(tmp_path):
    assert [sources.local(name) for name in ("sample", "trashnet", "https://example.org/a.zip")] == [[], [], []]
    assert sources.local(str(tmp_path)) == [tmp_path]


@pytest.mark.parametrize("where", ["https://example.org/a.zip", "HTTP://example.org/a.zip"])
def test_an_address_is_told_from_a_path(where):
    assert sources.is_address(where)
    assert not sources.is_address("photos/http://")


def test_an_address_without_a_checksum_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs its SHA-256: a download is only as good as its checksum"):
        sources.obtain("https://example.org/set.zip", "", tmp_path, seed=0)


def test_a_path_is_taken_as_it_is(tmp_path):
    (tmp_path / "photos").mkdir()
    assert sources.obtain(str(tmp_path / "photos"), "", tmp_path, seed=0) == tmp_path / "photos"
    remedy = 'is missing: give raw_data as the path of a zip or folder, an address, or one of "sample", "caltech-101"'
    with pytest.raises(FileNotFoundError, match=remedy):
        sources.obtain(str(tmp_path / "no.zip"), "", tmp_path, seed=0)


@pytest.fixture
def published(monkeypatch, address, content):
    """A set that is published at two addresses, of which the first has nothing, and that has to be unpacked."""

    def unpack(path):
        with Archive(path) as archive:
            yield from ((f"set/{name}", archive.read(name)) for name in archive.names)

    entry = sources._Published((f"{address}/missing.zip", f"{address}/set.zip"), digest(content), unpack)
    monkeypatch.setitem(sources.PUBLISHED, "reds", entry)
    return entry


def test_a_published_set_comes_from_its_next_address_and_is_unpacked_once(published, tmp_path, monkeypatch):
    path = sources.obtain("reds", "", tmp_path, seed=0)
    with Archive(path) as archive:
        assert archive.names == ["set/red/a.jpg"]
    again = published._replace(unpack=lambda path: pytest.fail("unpacked again"))
    monkeypatch.setitem(sources.PUBLISHED, "reds", again)
    assert sources.obtain("reds", "", tmp_path, seed=0) == path


@pytest.mark.parametrize("name", [name for name, entry in sources.PUBLISHED.items() if entry.unpack])
def test_what_is_unpacked_does_not_take_the_place_of_what_was_fetched(name, tmp_path, monkeypatch):
    def fetched(address, checksum, folder):
        path = folder / PurePosixPath(address).name
        write_zip(path, [("raw", b"")])
        return path

    entry = sources.PUBLISHED[name]._replace(unpack=lambda path: [("ant/1.jpg", path.read_bytes())])
    monkeypatch.setitem(sources.PUBLISHED, name, entry)
    monkeypatch.setattr(sources, "download", fetched)
    monkeypatch.setattr(sources.pooch.hashes, "hash_matches", lambda path, checksum: True)
    with Archive(sources.obtain(name, "", tmp_path, seed=0)) as archive:
        assert archive.names == ["ant/1.jpg"]


def test_a_published_set_that_cannot_be_had_names_every_address(published, tmp_path, monkeypatch):
    addresses = (published.addresses[0], published.addresses[0].replace("missing", "half"))
    monkeypatch.setitem(sources.PUBLISHED, "reds", published._replace(addresses=addresses))
    with pytest.raises(ConnectionError) as failure:
        sources.obtain("reds", "", tmp_path, seed=0)
    assert all(address in str(failure.value) for address in addresses)
    assert list((tmp_path / "downloads").iterdir()) == []


def test_a_published_file_got_by_hand_is_unpacked_if_it_is_whole(published, content, tmp_path):
    by_hand = tmp_path / "missing.zip"  # the name that it has at its first address
    by_hand.write_bytes(content[:-1])
    with pytest.raises(ArchiveError, match="is not the published file of reds, or a part of it: download it again"):
        sources.obtain(str(by_hand), "", tmp_path, seed=0)
    by_hand.write_bytes(content)
    assert sources.obtain(str(by_hand), "", tmp_path, seed=0) == tmp_path / "downloads" / "reds-photos.zip"


def test_a_set_of_ones_own_is_not_taken_for_the_published_file_that_it_is_called_like(published, content, tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "reds-photos.zip").write_bytes(content)  # of the published one, from an earlier run
    own = write_zip(tmp_path / "missing.zip", [("green/1.jpg", b"one"), ("blue/1.jpg", b"two")])
    assert sources.obtain(str(own), "", tmp_path, seed=0) == own


def tar(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def test_caltech_is_an_archive_of_photos_within_an_archive(tmp_path):
    photos = {"101_ObjectCategories/ant/image_0001.jpg": b"ant", "101_ObjectCategories/notes.txt": b"?"}
    inner = tar(photos)
    path = write_zip(tmp_path / "caltech-101.zip", [("caltech-101/101_ObjectCategories.tar.gz", inner)])
    assert list(sources._caltech(path)) == [("101_ObjectCategories/ant/image_0001.jpg", b"ant")]


def test_cifar_records_are_a_label_and_three_planes_of_color(tmp_path):
    planes = np.fromfunction(lambda color, row, column: 60 * color + row + 32 * (column > 15), (3, 32, 32))
    record = bytes([1]) + planes.astype(np.uint8).tobytes()
    files = {f"cifar-10-batches-bin/data_batch_{number}.bin": record for number in range(1, 6)}
    files |= {"cifar-10-batches-bin/test_batch.bin": record * 2, "cifar-10-batches-bin/batches.meta.txt": b"cat\ndog\n"}
    (tmp_path / "cifar.tar.gz").write_bytes(tar(files))
    members = dict(sources._cifar(tmp_path / "cifar.tar.gz"))
    assert [name for name in members if name.startswith("test")] == ["test/dog/00000.png", "test/dog/00001.png"]
    assert len(members) == 7
    pixels = np.asarray(Image.open(io.BytesIO(members["train/dog/00000.png"])))
    assert pixels.shape == (32, 32, 3)
    assert pixels[5, 7].tolist() == [5, 65, 125]
    assert pixels[7, 20].tolist() == [39, 99, 159]


def test_photos_come_from_a_file_a_folder_a_zip_or_an_address(address, content, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"a")
    for name in (".DS_Store", "Thumbs.db", "a.xml", "b.heic"):
        (folder / name).write_bytes(b"?")
    assert list(sources.photos("")) == []
    assert list(sources.photos(str(folder / "a.jpg"))) == [("a.jpg", b"a")]
    first, (name, reason) = sources.photos(str(folder))
    assert (first, name, str(reason)) == (
        ("a.jpg", b"a"),
        "b.heic",
        "no photo by its name ('.heic'): save it as JPEG or PNG, if it is one",
    )
    assert list(sources.photos(f"{address}/set.zip")) == [("red/a.jpg", b"photo" * 1000)]
    with pytest.raises(FileNotFoundError, match="is missing"):
        list(sources.photos(str(tmp_path / "no.jpg")))


def test_a_damaged_member_is_handed_on_with_the_reason_and_the_others_come(tmp_path):
    path = write_zip(tmp_path / "set.zip", [("a.jpg", b"first photo"), ("b.jpg", b"second photo")])
    path.write_bytes(path.read_bytes().replace(b"first", b"fi\x00st", 1))
    (first, reason), second = sources.photos(str(path))
    assert (first, second) == ("a.jpg", ("b.jpg", b"second photo"))
    assert "'a.jpg' is damaged (Bad CRC-32" in str(reason)


def test_the_sample_has_its_items_and_a_fifth_of_them_annotated(tmp_path):
    found = []
    for seed in (1, 2):
        with Archive(sources.obtain("sample", "", tmp_path, seed=seed, sample_items=20)) as archive:
            found.append((archive.digest(), [name for name in archive.names if name.endswith(".png")]))
    (first, photos), (other, _) = found
    assert len(photos) == 40
    assert sum(name.startswith("annotated/") for name in photos) == 8
    assert first != other


def test_a_part_of_a_zip_is_no_photo_and_a_photo_needs_no_extension(tmp_path):
    whole = tmp_path / "whole.zip"
    write_zip(whole, [("a.jpg", b"1" * 500), ("b.jpg", b"2" * 500)])
    (tmp_path / "part.zip").write_bytes(whole.read_bytes()[:700])
    with pytest.raises(ArchiveError, match=r"part\.zip is no photo and no whole zip: save"):
        list(sources.photos(str(tmp_path / "part.zip")))
    (tmp_path / "photo").write_bytes(b"a photo")
    assert list(sources.photos(str(tmp_path / "photo"))) == [("photo", b"a photo")]


def test_photos_of_a_path_that_is_not_there_are_missed_before_any_work(tmp_path):
    (tmp_path / "a.jpg").touch()
    for where in ("", str(tmp_path), str(tmp_path / "a.jpg"), "https://example.org/a.jpg"):
        assert sources.locate(where) == where
    with pytest.raises(FileNotFoundError, match=r"b\.jpg is missing: give the path of a photo, a folder or a zip"):
        sources.locate(str(tmp_path / "b.jpg"))
    with pytest.raises(FileNotFoundError, match="trashnet is missing"):
        sources.locate("trashnet")  # a name of raw data, not of photos to answer
