"""Where the files of a data set lie: `locate(home, files, root, download)` finds them, or fetches them if asked to.

They are looked for in `root`, where given, and else under the folder that `TINYTORCH_DATA` names and the user's data
folder, each time in the folder that bears the data set's name there. What is read is checked; `explained` puts the
name of the file and the way out into whatever is found wrong.
"""

import gzip
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from tinytorch.ir.errors import FormatError

SMALL = Path(__file__).parent / "small"  # what ships with the package
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Home:
    """A data set as files.

    Attributes:
        name: the function that reads it, for messages.
        folder: what the folder with its files is called.
        mirrors: addresses that, with the name of a file (or of the archive) behind, give that file.
        sha256: a checksum for each name that is downloaded, as `fetch` takes it.
        weight: what a download brings over the line, for messages.
        archive: the tar file that holds all files, where they are not published one by one.
    """

    name: str
    folder: str
    mirrors: tuple[str, ...]
    sha256: Mapping[str, str]
    weight: str
    archive: str = ""


def locate(
    home: Home, files: Sequence[str], root: str | Path | None, download: bool, otherwise: str = ""
) -> list[Path]:
    """The paths of `files`, gzipped or not, from the first folder that has them all.

    Raises `FileNotFoundError`, telling where it looked and what to do (`otherwise` is one thing more), and what
    `fetch` raises.
    """
    roots = [Path(root).expanduser()] if root is not None else _roots()
    for place in [folder / home.folder for folder in roots] + (roots if root is not None else []):
        if found := _all(place, files):
            return found
    if download:
        return _download(home, files, roots[0])
    places = "\n".join(f"  {folder / home.folder}" for folder in roots)
    raise FileNotFoundError(
        f"{home.name}: {' and '.join(files)} {'is' if len(files) == 1 else 'are'} not in\n{places}\n"
        f"try: {home.name}(..., download=True) to fetch the data once ({home.weight}),\n"
        f"     or TINYTORCH_DATA=FOLDER where FOLDER/{home.folder} holds the files{otherwise}"
    )


def _roots() -> list[Path]:
    """Where data sets may lie, and the first is where a download goes: TINYTORCH_DATA, then the user's data folder."""
    from platformdirs import user_data_path

    named = os.environ.get("TINYTORCH_DATA")
    return [*([Path(named).expanduser()] if named else []), user_data_path("tinytorch", appauthor=False)]


def _all(folder: Path, files: Sequence[str]) -> list[Path] | None:
    paths = [_either(folder / name) for name in files]
    return [path for path in paths if path] if all(paths) else None


def _either(path: Path) -> Path | None:
    names = (path, path.with_suffix("")) if path.suffix == ".gz" else (path,)
    return next((name for name in names if name.is_file()), None)


def _download(home: Home, files: Sequence[str], root: Path) -> list[Path]:
    from .download import alone, fetch  # what only a download needs

    folder = root / home.folder
    if not home.archive:
        return [fetch([m + name for m in home.mirrors], folder / name, sha256=home.sha256[name]) for name in files]
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        if not _all(folder, files):  # or another process was faster
            urls = [mirror + home.archive for mirror in home.mirrors]
            archive = fetch(urls, root / home.archive, sha256=home.sha256[home.archive])
            unpack(archive, folder)
            archive.unlink()
    return _all(folder, files) or locate(home, files, root, download=False)


def unpack(archive: str | Path, folder: str | Path) -> None:
    """Take the files out of a gzipped tar archive that lie in its folder `folder.name`, and put them into `folder`.

    Only plain files directly in that folder are taken, so nothing lands elsewhere, whatever the archive says. They get
    their names when all are whole. Raises `FormatError` for an archive that is damaged or cut off.

    >>> Path("letters").mkdir(); _ = Path("letters/a.txt").write_text("A")
    >>> with tarfile.open("letters.tar.gz", "w:gz") as tar:
    ...     tar.add("letters/a.txt")
    >>> unpack("letters.tar.gz", "elsewhere/letters")
    >>> Path("elsewhere/letters/a.txt").read_text()
    'A'
    """
    archive, folder = Path(archive), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[Path, Path] = {}
    try:
        with explained(archive), gzip.open(archive) as stream:
            for name, source in _members(cast(IO[bytes], stream), folder.name):
                part = parts[folder / name] = folder / f"{name}.part"
                with part.open("wb") as target:
                    shutil.copyfileobj(source, target, _CHUNK)
            while stream.read(_CHUNK):  # the checksum stands at the end
                pass
        for path, part in parts.items():
            os.replace(part, path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def _members(stream: IO[bytes], folder: str) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of the plain files that lie directly in a folder of a tar stream."""
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            above, _, name = member.name.removeprefix("./").rpartition("/")
            sound = above == folder and name not in ("", ".", "..") and "\\" not in name
            if sound and member.isfile() and (source := tar.extractfile(member)):
                with source:
                    yield name, source


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Name the file and the remedy in whatever is found wrong inside, as a `FormatError`."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError) as error:
        problem: str | Exception = f"it is damaged or cut off ({error})"
    except FormatError as error:
        problem = error
    else:
        return
    raise FormatError(f"{path}: {problem}\ntry: remove the file and get it anew, e.g. with download=True")
