"""tinytorch.data.mnist: what ships, what is looked up where, and the full sets."""

import gzip
import hashlib
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from misbehaving import Site

from tinytorch import data
from tinytorch.data.files import SMALL
from tinytorch.data.mnist import FASHION_MNIST, FILES, MNIST, Split

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


def test_full_sets_have_the_checksums_that_downloads_are_held_to(full_data: Path) -> None:
    for home in (MNIST, FASHION_MNIST):
        for name, expected in home.sha256.items():
            content = gzip.decompress((full_data / home.folder / name).read_bytes())
            assert hashlib.sha256(content).hexdigest() == expected


# --- where the full set is looked for


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
    with pytest.raises(ValueError, match="fashion_mnist: there is no split 'all'"):
        data.fashion_mnist("all")  # type: ignore[arg-type]
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


def test_clothes_are_not_taken_for_digits(nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sets have files of the same names: only the folder tells them apart."""
    put_small_set(tmp_path / "named")
    monkeypatch.setenv("TINYTORCH_DATA", str(tmp_path / "named"))
    for read in (data.mnist, data.fashion_mnist):
        with pytest.raises(FileNotFoundError, match=read.__name__):
            read("train")
        assert len(read("train", root=tmp_path / "named")[1]) == 5000  # where the caller says so
    put_small_set(tmp_path / "named" / "fashion-mnist")
    assert len(data.fashion_mnist("test")[1]) == 1000
    with pytest.raises(FileNotFoundError, match=r"(?s)user/mnist.*12 MB"):
        data.mnist("test")


def test_full_clothes(full_data: Path) -> None:
    for split, count in (("train", 60_000), ("test", 10_000)):
        images, labels = data.fashion_mnist(split, root=full_data)
        assert images.shape == (count, 28, 28) and (np.bincount(labels) == count // 10).all()
        if split == "train":
            assert abs(images.mean() / 255 - 0.2860) < 1e-4 and abs(images.std() / 255 - 0.3530) < 1e-4
    assert len(data.FASHION_MNIST_CLASSES) == 10


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


# --- downloads


def test_mnist_downloads_once_and_finds_it_again(site: Site, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FILES["test"]:
        site.files[f"/mnist/{name}"] = (SMALL / name).read_bytes()
    digests = {name: hashlib.sha256(gzip.decompress((SMALL / name).read_bytes())).hexdigest() for name in FILES["test"]}
    home = replace(MNIST, sha256=digests, mirrors=("http://127.0.0.1:9/", f"{site.url}/mnist/"))
    module = sys.modules["tinytorch.data.mnist"]  # data.mnist is the function
    monkeypatch.setattr(module, "MNIST", home)
    site.faults = ["break off"]
    images, _ = data.mnist("test", download=True)
    assert len(images) == 1000 and (nowhere / "mnist" / FILES["test"][0]).is_file()
    requests = len(site.requests)
    assert len(data.mnist("test", small=None)[0]) == 1000 and len(site.requests) == requests
