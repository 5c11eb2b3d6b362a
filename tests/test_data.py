"""tinytorch.data: what ships, what is looked up where, and what becomes of files damaged or half downloaded."""

import gzip
import hashlib
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tinytorch import data
from tinytorch.data.mnist import FILES, SHA256, SMALL, Split
from tinytorch.ir.errors import FormatError

# --- the digits that ship


def test_small_set_is_balanced_and_small() -> None:
    counts: dict[Split, int] = {"train": 5000, "test": 1000}
    for split, count in counts.items():
        images, labels = data.mnist(split, small=True)
        assert images.shape == (count, 28, 28) and images.dtype == np.uint8
        assert labels.shape == (count,) and labels.dtype == np.uint8
        assert (np.bincount(labels) == count // 10).all()
        assert 30 < images.mean() < 36  # the full set: 33.3 and 33.8
    assert sum(path.stat().st_size for path in SMALL.iterdir()) < 3_000_000
    assert "CC BY-SA 3.0" in (SMALL / "LICENSE.md").read_text()


def test_splits_do_not_overlap() -> None:
    train, test = ({image.tobytes() for image in data.mnist(split, small=True)[0]} for split in FILES)
    assert len(train) == 5000 and len(test) == 1000 and not train & test


@pytest.mark.parametrize("split", ["train", "test"])
def test_small_set_is_the_first_of_each_digit(split: Split, full_data: Path) -> None:
    images, labels = data.mnist(split, root=full_data)
    assert len(images) == {"train": 60_000, "test": 10_000}[split]
    small_images, small_labels = data.mnist(split, small=True)
    count = len(small_labels) // 10
    pick = np.sort(np.concatenate([np.flatnonzero(labels == digit)[:count] for digit in range(10)]))
    np.testing.assert_array_equal(small_images, images[pick])
    np.testing.assert_array_equal(small_labels, labels[pick])


def test_full_set_has_the_checksums_that_downloads_are_held_to(full_data: Path) -> None:
    for name, expected in SHA256.items():
        assert hashlib.sha256(gzip.decompress((full_data / "mnist" / name).read_bytes())).hexdigest() == expected


# --- where the full set is looked for


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No data set anywhere; the folder returned is the user's data folder."""
    monkeypatch.delenv("TINYTORCH_DATA", raising=False)
    monkeypatch.setattr("platformdirs.user_data_path", lambda *args, **kwargs: tmp_path / "user")
    return tmp_path / "user"


def put_small_set(folder: Path, *, unzipped: bool = False) -> None:
    folder.mkdir(parents=True)
    for name in (name for names in FILES.values() for name in names):
        content = (SMALL / name).read_bytes()
        if unzipped:
            name, content = name.removesuffix(".gz"), gzip.decompress(content)
        (folder / name).write_bytes(content)


def test_absent_set_says_what_to_do(nowhere: Path) -> None:
    way_out = r"(?s)train-images.*user/mnist.*download=True.*TINYTORCH_DATA.*small=True"
    with pytest.raises(FileNotFoundError, match=way_out):
        data.mnist("train")
    assert len(data.mnist("test", small=None)[1]) == 1000  # falls back to what ships


@pytest.mark.parametrize("unzipped", [False, True])
@pytest.mark.parametrize("inside", ["mnist", "."])
def test_finds_files_zipped_or_not_in_the_folder_or_in_mnist(tmp_path: Path, inside: str, unzipped: bool) -> None:
    put_small_set(tmp_path / "root" / inside, unzipped=unzipped)
    assert len(data.mnist("train", root=tmp_path / "root")[1]) == 5000


def test_root_goes_before_environment_before_user_folder(
    nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_small_set(nowhere / "mnist")
    assert len(data.mnist("train")[1]) == 5000
    monkeypatch.setenv("TINYTORCH_DATA", str(tmp_path / "empty"))
    assert len(data.mnist("train")[1]) == 5000
    put_small_set(tmp_path / "named" / "mnist")
    monkeypatch.setenv("TINYTORCH_DATA", str(tmp_path / "named"))
    (tmp_path / "named/mnist/train-labels-idx1-ubyte.gz").write_bytes(b"not idx")
    with pytest.raises(ValueError, match="named/mnist/train-labels"):
        data.mnist("train")
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        data.mnist("train", root=tmp_path / "elsewhere")


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="'train' or 'test'"):
        data.mnist("valid")  # type: ignore[arg-type]
    images, labels = data.mnist("test", small=True)
    with pytest.raises(ValueError, match="1000 images but 999 labels"):
        data.mnist_batches(images, labels[1:])
    with pytest.raises(ValueError, match="at least 1"):
        data.mnist_batches(images, labels, 0)


def test_images_and_labels_that_are_no_pair(tmp_path: Path) -> None:
    put_small_set(tmp_path / "mnist")
    labels = tmp_path / "mnist" / FILES["test"][1]
    labels.write_bytes((SMALL / FILES["train"][1]).read_bytes())
    with pytest.raises(ValueError, match="1000 images.*5000 labels"):
        data.mnist("test", root=tmp_path)
    labels.write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 1000) + bytes([11] * 1000))
    with pytest.raises(ValueError, match="label 11"):
        data.mnist("test", root=tmp_path)


# --- batches


def test_batches_cover_every_digit_once_in_an_order_that_the_seed_fixes() -> None:
    images, labels = data.mnist("test", small=True)
    batches = list(data.mnist_batches(images, labels, 64, seed=3))
    assert [len(y) for _, y in batches] == [64] * 15 + [40]
    assert all(x.shape == (len(y), 784) and x.dtype == np.float32 and y.dtype == np.int64 for x, y in batches)
    x, y = (np.concatenate(parts) for parts in zip(*batches))
    assert 0 <= x.min() and x.max() == 1
    assert not np.array_equal(y, labels) and np.array_equal(np.bincount(y), np.bincount(labels))
    lookup = {image.tobytes(): label for image, label in zip(images, labels)}
    assert all(lookup[np.rint(row * 255).astype(np.uint8).tobytes()] == label for row, label in zip(x, y))
    again = np.concatenate([y for _, y in data.mnist_batches(images, labels, 64, seed=3)])
    other = np.concatenate([y for _, y in data.mnist_batches(images, labels, 64, seed=4)])
    assert np.array_equal(y, again) and not np.array_equal(y, other)


def test_batches_without_seed_keep_the_order_and_drop_last_drops() -> None:
    images, labels = data.mnist("test", small=True)
    batches = list(data.mnist_batches(images, labels, 300, seed=None, drop_last=True))
    assert np.array_equal(np.concatenate([y for _, y in batches]), labels[:900])


# --- the reader


def idx(array: np.ndarray, code: int) -> bytes:
    header = struct.pack(f">4B{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (0, 3)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_reads_every_type_and_rank(
    tmp_path: Path, kind: str, shape: tuple[int, ...], pack: Callable[[bytes], bytes]
) -> None:
    array = (np.arange(np.prod(shape, dtype=int)) * 37 - 11).astype(kind).reshape(shape)
    path = tmp_path / "array"
    path.write_bytes(pack(idx(array, CODES[kind])))
    read = data.read_idx(path)
    assert read.dtype == array.dtype and read.dtype.isnative and read.flags.writeable
    np.testing.assert_array_equal(read, array)


WHOLE = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), 0x08)
ZIPPED = gzip.compress(WHOLE)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty"),
        (b"\0\0", "no IDX file"),
        (b"<!DOCTYPE html><html>", "no IDX file"),
        (b"\0\0\x07\x01" + WHOLE[4:], "no IDX file"),
        (WHOLE[:9], "header of 16 bytes"),
        (WHOLE[:-1], "expected 24 bytes.*found 23"),
        (WHOLE + b"\0", "more data"),
        (b"\0\0\x08\x03" + b"\xff" * 4 + WHOLE[8:], "cut off"),  # announces 51 GB
        (ZIPPED[:-9], "damaged or cut off"),
        (ZIPPED[:30] + bytes([ZIPPED[30] ^ 0xFF]) + ZIPPED[31:], "damaged or cut off"),
        (ZIPPED[:-8] + b"\0\0\0\0" + ZIPPED[-4:], "damaged or cut off"),  # checksum
        (gzip.compress(b"hello"), "no IDX file"),
        (idx(np.zeros((2, 3, 4), np.float32), 0x0D), "holds float32, expected uint8"),
        (idx(np.zeros((2, 3, 5), np.uint8), 0x08), r"shape \(2, 3, 5\), expected \(n, 3, 4\)"),
        (idx(np.zeros(2, np.uint8), 0x08), r"shape \(2\), expected \(n, 3, 4\)"),
    ],
    ids=range(15),
)
def test_refuses_what_is_not_whole_and_sound(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=f"(?s)images.gz.*{problem}.*try: "):
        data.read_idx(path, shape=(None, 3, 4), dtype=np.uint8)


def test_no_damaged_byte_goes_unnoticed_in_a_gzip_file(tmp_path: Path) -> None:
    path, harmless = tmp_path / "images.gz", 0
    for place in range(10, len(ZIPPED)):  # behind the header of gzip, whose bytes say nothing about the content
        path.write_bytes(ZIPPED[:place] + bytes([ZIPPED[place] ^ 0x10]) + ZIPPED[place + 1 :])
        try:
            assert data.read_idx(path).tobytes() == WHOLE[16:]
            harmless += 1
        except ValueError as error:
            assert "images.gz" in str(error) and "try: " in str(error)
    assert harmless <= 1  # the bits that fill the last byte of the stream


# --- downloads, from a server that misbehaves


@dataclass
class Site:
    """A local HTTP server. `faults` are used up, one a request; then it behaves."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            site.requests.append((self.path, wanted))
            fault = site.faults.pop(0) if site.faults else ""
            body = site.files.get(self.path)
            if body is None or fault.isdigit():
                self.send_error(int(fault or 404))
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and fault != "ignore range" else 0
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                first = start + 1 if fault == "wrong range" else start
                self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            if fault != "no length":
                self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            if fault == "corrupt":
                body = body[:-20] + bytes(20)
            self.wfile.write(body[start : len(body) // 2 if fault == "break off" else None])

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


PLAIN = bytes(np.random.default_rng(0).integers(0, 256, 300_000, np.uint8))
ARCHIVE = gzip.compress(PLAIN)
DIGEST = hashlib.sha256(PLAIN).hexdigest()


@pytest.mark.parametrize("name", ["file.gz", "file.bin"])
@pytest.mark.parametrize(
    ("faults", "requests"),
    [
        ([], 1),
        (["break off"], 2),
        (["corrupt"], 2),
        (["503"], 2),
        (["429", "408"], 3),
        (["no length"], 1),
        (["break off", "ignore range"], 2),
        (["break off", "corrupt"], 3),
    ],
)
def test_fetch_survives(site: Site, tmp_path: Path, faults: list[str], requests: int, name: str) -> None:
    content = ARCHIVE if name.endswith(".gz") else PLAIN
    site.files[f"/{name}"], site.faults = content, list(faults)
    path = data.fetch([f"{site.url}/{name}"], tmp_path / "new" / name, sha256=DIGEST, pause=0)
    assert path.read_bytes() == content
    assert len(site.requests) == requests
    assert {entry.name for entry in path.parent.iterdir()} <= {name, ".lock"}
    if faults and faults[0] == "break off":
        assert site.requests[1][1] == f"bytes={len(content) // 2}-"  # resumed, not begun anew
    assert data.fetch([f"{site.url}/{name}"], path, sha256=DIGEST) == path
    assert len(site.requests) == requests  # it is there: nothing is asked


def test_fetch_resumes_what_an_earlier_process_left(site: Site, tmp_path: Path) -> None:
    site.files["/file.gz"] = ARCHIVE
    for left in (ARCHIVE[:1000], ARCHIVE, b"something else", ARCHIVE + b"and more"):
        path = tmp_path / "file.gz"
        path.unlink(missing_ok=True)
        (tmp_path / "file.gz.part").write_bytes(left)
        assert data.fetch([f"{site.url}/file.gz"], path, sha256=DIGEST, pause=0).read_bytes() == ARCHIVE
        assert not (tmp_path / "file.gz.part").exists()


def test_fetch_goes_on_to_the_next_mirror(site: Site, tmp_path: Path) -> None:
    site.files["/b/file.gz"] = ARCHIVE
    mirrors = ["http://127.0.0.1:9/", f"{site.url}/a/", f"{site.url}/b/"]
    data.fetch([mirror + "file.gz" for mirror in mirrors], tmp_path / "file.gz", sha256=DIGEST, pause=0)
    assert [path for path, _ in site.requests] == ["/a/file.gz", "/b/file.gz"]


def test_fetch_gives_up_saying_why(site: Site, tmp_path: Path) -> None:
    site.files["/wrong.gz"] = gzip.compress(b"a page of the hotel's wireless network")
    urls = [f"{site.url}/absent.gz", f"{site.url}/wrong.gz", "http://127.0.0.1:9/file.gz"]
    with pytest.raises(ConnectionError) as caught:
        data.fetch(urls, tmp_path / "file.gz", sha256=DIGEST, attempts=2, pause=0)
    text = str(caught.value)
    assert "absent.gz: the server says 404" in text and "wrong.gz: what arrived is wrong" in text
    assert "127.0.0.1:9/file.gz: no connection" in text
    assert str(tmp_path / "file.gz") in text
    assert [path for path, _ in site.requests] == ["/absent.gz", "/wrong.gz", "/wrong.gz"]  # 404 is not asked again
    assert [entry.name for entry in tmp_path.iterdir()] == [".lock"]


def test_fetch_refuses_another_part_than_it_asked_for(site: Site, tmp_path: Path) -> None:
    site.files["/file.gz"], site.faults = ARCHIVE, ["break off", "wrong range"]
    with pytest.raises(ConnectionError, match="another part"):
        data.fetch([f"{site.url}/file.gz"], tmp_path / "file.gz", sha256=DIGEST, pause=0)
    assert not (tmp_path / "file.gz").exists()


def test_fetch_by_many_at_once_gives_one_sound_file(site: Site, tmp_path: Path) -> None:
    site.files["/file.gz"], site.faults = ARCHIVE, ["break off"]
    results: list[Path] = []

    def go() -> None:
        results.append(data.fetch([f"{site.url}/file.gz"], tmp_path / "file.gz", sha256=DIGEST, pause=0))

    threads = [threading.Thread(target=go) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert results == [tmp_path / "file.gz"] * 6
    assert results[0].read_bytes() == ARCHIVE and len(site.requests) == 2


def test_fetch_where_one_may_not_write_is_an_oserror_about_the_place(site: Site, tmp_path: Path) -> None:
    site.files["/file.gz"] = ARCHIVE
    (tmp_path / "taken").write_text("a file, no folder")
    with pytest.raises(OSError, match="taken"):
        data.fetch([f"{site.url}/file.gz"], tmp_path / "taken" / "file.gz", sha256=DIGEST)
    assert not site.requests


def test_mnist_downloads_once_and_finds_it_again(site: Site, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["tinytorch.data.mnist"]  # data.mnist is the function
    for name in FILES["test"]:
        site.files[f"/mnist/{name}"] = (SMALL / name).read_bytes()
    digests = {name: hashlib.sha256(gzip.decompress((SMALL / name).read_bytes())).hexdigest() for name in FILES["test"]}
    monkeypatch.setattr(module, "SHA256", digests)
    monkeypatch.setattr(module, "MIRRORS", ("http://127.0.0.1:9/", f"{site.url}/mnist/"))
    site.faults = ["break off"]
    images, _ = data.mnist("test", download=True)
    assert len(images) == 1000 and (nowhere / "mnist" / FILES["test"][0]).is_file()
    requests = len(site.requests)
    assert len(data.mnist("test", small=None)[0]) == 1000 and len(site.requests) == requests
