"""A page on this machine that shows what is heard now: picture, energy map, meters.

Served on 127.0.0.1 alone and with nothing from elsewhere. Other names for this machine are refused,
so that no page of the web can have a browser read it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, Final

from soundpost.device.errors import UsageError

DEFAULT_PORT: Final = 8_642
_HOSTS: Final = ("127.0.0.1", "localhost", "[::1]")
_PICTURE_WIDTH: Final = 640


class LivePage:
    """Serves the page from `start` to `close`; its port is taken before.

    port : 0 for any that is free
    state : returns what /state.json says
    picture : returns the last picture as av.VideoFrame, or None

    Raises UsageError where the port is taken.
    """

    def __init__(
        self,
        port: int,
        state: Callable[[], dict[str, Any]],
        picture: Callable[[], Any],
    ) -> None:
        page = files("soundpost.device.session").joinpath("live_page.html").read_bytes()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host = self.headers.get("Host", "").rsplit(":", 1)[0]
                if host not in _HOSTS:
                    self.send_error(403, "this page is for this machine alone")
                elif self.path == "/":
                    self._send(page, "text/html; charset=utf-8")
                elif self.path == "/state.json":
                    self._send(json.dumps(state()).encode(), "application/json")
                elif self.path.partition("?")[0] == "/picture.jpg":
                    latest = picture()
                    if latest is None:
                        self.send_error(404, "no picture")
                    else:
                        self._send(jpeg(latest), "image/jpeg")
                else:
                    self.send_error(404)

            def _send(self, content: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Cache-Control", "no-store")
                self.send_header("Content-Security-Policy", "default-src 'self' 'unsafe-inline'")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"--page {port}: cannot be served: {error}; give another port, or 0 for any"
            ) from error
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Answer from now on."""
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Serve no more."""
        if self._thread is not None:
            self._server.shutdown()
        self._server.server_close()


def jpeg(picture: Any) -> bytes:
    """A JPEG of an av.VideoFrame, at most 640 pixels wide."""
    import av
    from av.video.reformatter import ColorRange, VideoReformatter

    width = min(_PICTURE_WIDTH, picture.width // 2 * 2)
    height = max(2, round(picture.height * width / picture.width / 2) * 2)
    encoder: Any = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
    encoder.time_base = Fraction(1, 30)
    encoder.qmin = encoder.qmax = 4
    # Not picture.reformat: its scaler is the picture's own, and pages ask in threads of their own.
    scaler = VideoReformatter()
    frame = scaler.reformat(picture, width, height, "yuvj420p", dst_color_range=ColorRange.JPEG)
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
