"""A real web server over a folder, which can be told to misbehave."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import SSLContext

Misdeed = Callable[[BaseHTTPRequestHandler], None]


class Web:
    """Serves `folder`; what matches a pattern in `misdeeds` is answered by that function instead.

    requests : (path, Range header) of every request
    ranges : whether parts of files are sent
    """

    def __init__(self, folder: Path, tls: SSLContext | None = None) -> None:
        self.folder = folder
        self.misdeeds: dict[str, Misdeed] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.ranges = True
        self.ending = threading.Event()
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.requests.append((self.path, self.headers.get("Range")))
                try:
                    for pattern, misdeed in web.misdeeds.items():
                        if re.search(pattern, self.path):
                            misdeed(self)
                            return
                    web._serve(self)
                except OSError:
                    # The client went away, as it should from some.
                    self.close_connection = True

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        scheme = "https" if tls else "http"
        name = "localhost" if tls else "127.0.0.1"
        self.address = f"{scheme}://{name}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        path = self.folder / request.path.lstrip("/")
        if not path.is_file():
            request.send_error(404)
            return
        send(request, path.read_bytes(), ranges=self.ranges)

    def close(self) -> None:
        self.ending.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def send(request: BaseHTTPRequestHandler, content: bytes, *, ranges: bool = True) -> None:
    """The whole of a content, or the part that was asked for."""
    wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
    start = int(wanted[1]) if wanted and ranges else 0
    request.send_response(206 if start else 200)
    if start:
        request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    request.send_header("Content-Length", str(len(content) - start))
    request.end_headers()
    request.wfile.write(content[start:])
