"""tinytorch.data.cifar and files: the canonical files, what is refused, and the archive they come in."""

import hashlib
import io
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from misbehaving import Site

from tinytorch import data
from tinytorch.data.cifar import CIFAR10
from tinytorch.ir.errors import FormatError

COUNT, RECORD = 20, 3073
module = sys.modules["tinytorch.data.cifar"]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """CIFAR-10 with 20 pictures in a file: the files by name."""
    monkeypatch.setattr(module, "_COUNT", COUNT)
    rng = np.random.default_rng(0)
    files = {}
    for name in [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]:
        records = rng.integers(0, 256, (COUNT, RECORD), np.uint8)
        records[:, 0] %= 10
        files[name] = records.tobytes()
    return files


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_reads_pictures_channel_by_channel_in_the_order_of_the_files(tmp_path: Path, tiny: dict[str, bytes]) -> None:
    put(tmp_path / "cifar-10-batches-bin", tiny)
    images, labels = data.cifar10("train", root=tmp_path)
    assert images.shape == (5 * COUNT, 3, 32, 32) and images.dtype == np.uint8
    assert labels.shape == (5 * COUNT,) and labels.dtype == np.uint8
    for place in (0, COUNT - 1, COUNT, 5 * COUNT - 1):
        record = tiny[f"data_batch_{place // COUNT + 1}.bin"][place % COUNT * RECORD :][:RECORD]
        assert labels[place] == record[0]
        for channel, row, column in ((0, 0, 0), (1, 2, 3), (2, 31, 31)):
            assert images[place, channel, row, column] == record[1 + channel * 1024 + row * 32 + column]
    assert len(data.cifar10("test", root=tmp_path / "cifar-10-batches-bin")[1]) == COUNT
    assert len(data.CIFAR10_CLASSES) == 10


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda content: content[:-1], r"cut off: expected 61,460 bytes \(20 pictures\), found 61,459"),
        (lambda content: content + b"\0", "too long"),
        (lambda content: b"", "cut off"),
        (lambda content: content[:RECORD] + b"\x0a" + content[RECORD + 1 :], "record 1 has the label 10"),
        (lambda content: content[1:] + b"\0", "has the label"),  # shifted by a byte
    ],
)
def test_refuses_files_that_are_not_whole_and_sound(tmp_path: Path, tiny: dict[str, bytes], change, problem) -> None:
    put(tmp_path / "x", {"test_batch.bin": change(tiny["test_batch.bin"])})
    with pytest.raises(FormatError, match=f"(?s)test_batch.bin: .*{problem}.*try: .*download=True"):
        data.cifar10("test", root=tmp_path / "x")


def test_absent_set_says_what_to_do(nowhere: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"(?s)test_batch.bin is not in.*user/cifar-10.*170 MB.*TINYTORCH_DATA"):
        data.cifar10("test")
    with pytest.raises(ValueError, match="no split 'valid'"):
        data.cifar10("valid")  # type: ignore[arg-type]


def test_full_set(full_data: Path) -> None:
    images, labels = data.cifar10("train", root=full_data)
    assert images.shape == (50_000, 3, 32, 32) and (np.bincount(labels) == 5000).all()
    np.testing.assert_allclose(images.mean((0, 2, 3)) / 255, [0.4914, 0.4822, 0.4465], atol=1e-4)
    images, labels = data.cifar10("test", root=full_data)
    assert images.shape == (10_000, 3, 32, 32) and (np.bincount(labels) == 1000).all()


# --- the archive


def tar(files: dict[str, bytes], **links: str) -> bytes:
    """A gzipped tar file of these files, by their whole names, and of symbolic links."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in links.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return buffer.getvalue()


def offer(site: Site, monkeypatch: pytest.MonkeyPatch, archive: bytes) -> None:
    site.files[f"/{CIFAR10.archive}"] = archive
    digest = {CIFAR10.archive: hashlib.sha256(archive).hexdigest()}
    monkeypatch.setattr(module, "CIFAR10", replace(CIFAR10, mirrors=(f"{site.url}/",), sha256=digest))


@pytest.mark.parametrize("faults", [[], ["break off"], ["break off", "ignore range"], ["corrupt"], ["no length"]])
def test_downloads_once_and_keeps_only_the_files(
    site: Site, nowhere: Path, monkeypatch: pytest.MonkeyPatch, tiny: dict[str, bytes], faults: list[str]
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    offer(site, monkeypatch, tar({f"cifar-10-batches-bin/{name}": content for name, content in tiny.items()}))
    site.faults = list(faults)
    assert len(data.cifar10("test", download=True)[1]) == COUNT
    requests = len(site.requests)
    assert len(data.cifar10("train", download=True)[1]) == 5 * COUNT and len(site.requests) == requests
    assert {path.name for path in nowhere.iterdir()} == {"cifar-10-batches-bin", ".lock"}
    assert {path.name for path in (nowhere / "cifar-10-batches-bin").iterdir()} == {*tiny, ".lock"}


def test_nothing_leaves_the_folder_whatever_the_archive_says(tmp_path: Path) -> None:
    inside = "cifar-10-batches-bin"
    evil = ["../evil", f"{inside}/../evil", "/evil", f"{tmp_path}/evil", f"{inside}/sub/evil", f"{inside}\\evil",
            "evil", f"{inside}/..", f"{inside}/"]  # fmt: skip
    archive = tmp_path / "archive.tar.gz"
    files = {**dict.fromkeys(evil, b"evil"), f"./{inside}/good": b"good", f"{inside}/also": b"also"}
    archive.write_bytes(tar(files, link="/etc/passwd"))
    folder = tmp_path / "home" / inside
    folder.mkdir(parents=True)
    data.unpack(archive, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"good": b"good", "also": b"also"}
    assert {path.name for path in tmp_path.rglob("*")} == {"archive.tar.gz", "home", inside, "good", "also"}


def test_no_damaged_archive_is_taken_for_whole(tmp_path: Path, tiny: dict[str, bytes]) -> None:
    whole = tar({"cifar-10-batches-bin/test_batch.bin": tiny["test_batch.bin"]})
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for content in (b"", b"<html>", whole[: len(whole) // 2], whole[:5000] + bytes(100) + whole[5100:]):
        (tmp_path / "archive.tar.gz").write_bytes(content)
        with pytest.raises(FormatError, match=r"(?s)archive.tar.gz: it is damaged or cut off.*try: "):
            data.unpack(tmp_path / "archive.tar.gz", folder)
        assert not list(folder.iterdir())


def test_an_archive_that_lacks_a_file_says_so(
    site: Site, nowhere: Path, monkeypatch: pytest.MonkeyPatch, tiny: dict[str, bytes]
) -> None:
    offer(site, monkeypatch, tar({"cifar-10-batches-bin/test_batch.bin": tiny["test_batch.bin"]}))
    with pytest.raises(FileNotFoundError, match="data_batch_5.bin are not in"):
        data.cifar10("train", download=True)
