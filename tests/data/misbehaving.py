"""A local HTTP server that breaks off, corrupts, ignores ranges, and answers with errors."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """A local HTTP server. `faults` are used up, one a request; then it behaves."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range


@contextmanager
def served() -> Iterator[Site]:
    """A site that answers until the block ends."""
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
