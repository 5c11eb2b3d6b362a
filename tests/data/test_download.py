"""tinytorch.data.download: what becomes of files half downloaded, or downloaded wrong."""

import gzip
import hashlib
import threading
from pathlib import Path

import numpy as np
import pytest
from misbehaving import Site

from tinytorch import data

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
