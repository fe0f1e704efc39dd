import hashlib
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from helpers import sources
from helpers.archives import Archive, write_zip


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


@pytest.fixture
def content(tmp_path):
    return write_zip(tmp_path / "served.zip", [("red/a.jpg", b"photo" * 1000)]).read_bytes()


@pytest.fixture
def address(content):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, content))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def digest(data):
    return hashlib.sha256(data).hexdigest()


def test_a_download_with_the_right_checksum_is_kept_and_fetched_once(address, content, tmp_path):
    folder = tmp_path / "downloads"
    path = sources.download(f"{address}/set.zip", digest(content).upper(), folder)
    assert path.read_bytes() == content
    elsewhere = "http://127.0.0.1:1/set.zip"  # nobody answers there, and nobody is asked
    assert sources.download(elsewhere, digest(content), folder) == path


@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket")  # requests drops a broken connection unclosed
@pytest.mark.parametrize(
    ("page", "checksum"),
    [("missing.zip", None), ("half.zip", None), ("set.zip", "0" * 64)],
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


def test_an_address_without_a_checksum_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs its SHA-256: a download is only as good as its checksum"):
        sources.obtain("https://example.org/set.zip", "", tmp_path, seed=0)


def test_a_path_is_taken_as_it_is(tmp_path):
    (tmp_path / "photos").mkdir()
    assert sources.obtain(str(tmp_path / "photos"), "", tmp_path, seed=0) == tmp_path / "photos"
    with pytest.raises(
        FileNotFoundError, match='is missing: give the path of a zip or folder, an address, or "sample"'
    ):
        sources.obtain(str(tmp_path / "no.zip"), "", tmp_path, seed=0)


def test_the_sample_has_its_items_and_a_fifth_of_them_annotated(tmp_path):
    path = sources.obtain("sample", "", tmp_path, seed=1, sample_items=10)
    with Archive(path) as archive:
        names = archive.names
    photos = [name for name in names if name.endswith(".png")]
    assert len(photos) == 20
    assert sum(name.startswith("annotated/") for name in photos) == 4
