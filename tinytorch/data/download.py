"""Fetch a file once, and be sure that it is the right one: `fetch(urls, path, sha256=...)`.

What arrives is collected in `path.part` and becomes `path` in one step, once its checksum is right; so `path` is
never half a file. A connection that breaks off is taken up where it broke, now or in a later process. A file that
arrives wrong is thrown away, and the next mirror is asked.
"""

import gzip
import hashlib
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from http.client import HTTPResponse

_CHUNK = 1 << 16
_TIMEOUT = 30.0  # seconds without a byte

Report = Callable[[int, int | None], None]  # bytes so far, bytes in all if the server tells


class _Failed(Exception):
    """What one attempt at one mirror ended with, in words; `final` where asking that mirror again is no use."""

    def __init__(self, why: str, *, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


def fetch(
    urls: Sequence[str],
    path: str | Path,
    *,
    sha256: str,
    attempts: int = 3,
    pause: float = 1.0,
    progress: bool = True,
) -> Path:
    """Download `path` from the first of `urls` that delivers it; nothing happens where it is there already.

    `sha256` is the checksum of the content; for a name in `.gz` (but `.tar.gz`), of what is gzipped. Every mirror is
    asked up to `attempts` times, with `pause` seconds, doubled each round, in between. A progress bar is shown on a
    terminal.
    Raises `ConnectionError`, telling what went wrong with each mirror, and `OSError` where the file cannot be written.

    >>> _ = Path("words.txt").write_text("here already")
    >>> fetch(["https://example.org/words.txt"], "words.txt", sha256="...").name
    'words.txt'
    """
    path = Path(path)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.parent), _bar(path.name, progress) as report:
        if path.exists():  # another process was faster
            return path
        return _from_mirrors(list(urls), path, sha256, attempts, pause, report)


def _from_mirrors(urls: list[str], path: Path, sha256: str, attempts: int, pause: float, report: Report) -> Path:
    part = path.with_name(path.name + ".part")
    failures: dict[str, str] = {}
    for attempt in range(attempts):
        for url in list(urls):
            try:
                _transfer(url, part, report)
                _check(part, sha256, zipped=path.suffix == ".gz" and not path.name.endswith(".tar.gz"))
            except _Failed as failure:
                failures[url] = str(failure)
                if failure.final:
                    urls.remove(url)
                continue
            os.replace(part, path)
            return path
        if not urls:
            break
        if attempt < attempts - 1:
            time.sleep(pause * 2**attempt)
    tried = "\n".join(f"  {url}: {why}" for url, why in failures.items())
    raise ConnectionError(
        f"{path.name} could not be downloaded:\n{tried}\n"
        f"try: look at the network, or get the file elsewhere and put it at {path}"
    )


def _transfer(url: str, part: Path, report: Report) -> None:
    """Bring `part` to its full length, from where it stands."""
    import http.client  # with urllib, a tenth of a second of import that only a download needs
    import ssl
    import urllib.error
    import urllib.request

    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "tinytorch"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    broken = (http.client.HTTPException, urllib.error.URLError, ConnectionError, TimeoutError, ssl.SSLError)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # nothing beyond what is here: it is whole, or it is not the same file
            return
        final = 400 <= error.code < 500 and error.code not in (408, 429)
        raise _Failed(f"the server says {error.code} {error.reason}", final=final) from None
    except broken as error:
        raise _Failed(f"no connection ({error})") from None
    with response:
        start, total = _resumed(response, start)
        with part.open("r+b" if start else "wb") as file:
            file.truncate(start)
            file.seek(start)
            try:
                for piece in iter(lambda: response.read(_CHUNK), b""):
                    file.write(piece)
                    start += len(piece)
                    report(start, total)
            except broken as error:
                raise _Failed(f"the connection broke off after {start:,} bytes ({error})") from None
    if total is not None and start < total:
        raise _Failed(f"the connection broke off after {start:,} of {total:,} bytes")


def _resumed(response: "HTTPResponse", start: int) -> tuple[int, int | None]:
    """Where the body of the answer begins, and how long the whole file is. A server may ignore a range and send all."""
    length = response.headers.get("Content-Length")
    if response.status != 206:
        start = 0
    elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        raise _Failed("the server sent another part of the file than was asked for", final=True)
    return start, start + int(length) if length and length.isdigit() else None


def _check(part: Path, sha256: str, *, zipped: bool) -> None:
    """Throw away what arrived wrong."""
    try:
        with gzip.open(part) if zipped else part.open("rb") as file:
            found = _digest(file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        found = f"no whole gzip file ({error})"
    if found != sha256:
        part.unlink(missing_ok=True)
        raise _Failed(f"what arrived is wrong: expected sha256 {sha256}, found {found}")


def _digest(file: BinaryIO | gzip.GzipFile) -> str:
    digest = hashlib.sha256()
    for piece in iter(lambda: file.read(_CHUNK), b""):
        digest.update(piece)
    return digest.hexdigest()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait while another process fetches into the same folder. The lock dies with its process.

    Where there is no flock, two processes may spoil each other's `.part`, which the checksum then finds out.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _bar(name: str, progress: bool) -> Iterator[Report]:
    """Something to call with (bytes so far, bytes in all): a bar on stderr, or nothing where that is no terminal."""
    if not progress:
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
