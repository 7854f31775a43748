"""The Unix socket of a sensor on which others of its machine watch it: lines out, nothing in.

A watcher that does not read gets fewer lines, never half a line, and holds up nobody.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import selectors
import socket
import stat
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

MONITOR_SCHEMA: Final = "soundpost.monitor/1"
INTERVAL_S: Final = 0.5
# A line of eight sources with fifty labels each has about 40 kB.
MAX_LINE_BYTES: Final = 1_000_000
_MAX_WATCHERS: Final = 16
# sockaddr_un.sun_path has 108 bytes with its final NUL (unix(7)).
_MAX_PATH_BYTES: Final = 107
# Where a service of systemd has it, with RuntimeDirectory=soundpost.
_OF_SERVICE: Final = Path("/run/soundpost")


# --- where it lies ------------------------------------------------------------------------------


def runtime_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Folder of our sockets: systemd's, else the user's, else one of our own in the temporary one.

    It need not exist yet.
    """
    environment = os.environ if environment is None else environment
    given = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    of_user = Path(environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    if of_user.is_dir() and os.access(of_user, os.W_OK):
        return of_user / "soundpost"
    # Not tempfile.gettempdir(): it writes a file to try the folder.
    return Path(environment.get("TMPDIR") or "/tmp") / f"soundpost-{os.getuid()}"


def folders(environment: Mapping[str, str] | None = None) -> list[Path]:
    """Where sensors of this machine may have their sockets, this user's and the service's."""
    return list(dict.fromkeys([runtime_folder(environment), _OF_SERVICE]))


def socket_path(folder: Path, device_id: str) -> Path:
    """Socket of a sensor; its name is a hash where the id is too long for an address."""
    path = folder / f"{device_id}.sock"
    if len(os.fsencode(path)) <= _MAX_PATH_BYTES:
        return path
    return folder / f"{hashlib.sha256(device_id.encode()).hexdigest()[:16]}.sock"


# --- serving ------------------------------------------------------------------------------------


class _Watcher:
    """One connection: the rest of a line that it has not taken yet."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.rest = b""

    def send(self, line: bytes = b"") -> bool:
        """Send what it takes at once; a new line only behind whole ones. False: it is gone."""
        self.rest = self.rest or line
        try:
            if self.rest:
                self.rest = self.rest[self.connection.send(self.rest) :]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True


class MonitorServer:
    """Sends a line to each watcher when it connects, and every `INTERVAL_S` from then on.

    path : of the socket; one that a dead sensor left is replaced
    mode : its permissions
    on_watched : told whether anybody watches, when that changes
    make_line : a line with its end; called only while somebody watches

    Both are called in the server's thread. Raises OSError where the socket cannot be made, or a
    living sensor serves it (EADDRINUSE).
    """

    def __init__(
        self,
        path: Path,
        mode: int,
        on_watched: Callable[[bool], None],
        make_line: Callable[[], bytes],
    ) -> None:
        self.path = path
        self._on_watched = on_watched
        self._make_line = make_line
        self._watchers: dict[int, _Watcher] = {}
        self._stopping, self._stop = socket.socketpair()
        self._listening = _listen(path, mode)
        self._inode = path.stat().st_ino
        self._thread = threading.Thread(target=self._serve, name="monitor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it, and remove the socket."""
        self._stop.close()
        self._thread.join()
        self._stopping.close()
        with contextlib.suppress(OSError):
            # A sensor that was started meanwhile may have put its own there.
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()

    def _serve(self) -> None:
        try:
            with selectors.DefaultSelector() as selector, self._listening:
                selector.register(self._listening, selectors.EVENT_READ)
                selector.register(self._stopping, selectors.EVENT_READ)
                self._loop(selector)
        except Exception:  # A fault of ours must not end the sensor.
            logger.exception("soundpost top can no longer watch this sensor")
        finally:
            for watcher in self._watchers.values():
                watcher.connection.close()
            self._watchers.clear()
            self._on_watched(False)

    def _loop(self, selector: selectors.BaseSelector) -> None:
        due_s = 0.0
        while True:
            wait_s = max(0.0, due_s - time.monotonic()) if self._watchers else None
            for key, mask in selector.select(wait_s):
                if key.fileobj is self._stopping:
                    return
                if key.fileobj is self._listening:
                    self._accept(selector)
                    due_s = 0.0
                elif not self._tend(self._watchers[key.fd], mask):
                    self._drop(selector, self._watchers[key.fd])
            if self._watchers and time.monotonic() >= due_s:
                line = self._make_line()
                for watcher in list(self._watchers.values()):
                    if not watcher.send(line):
                        self._drop(selector, watcher)
                due_s = time.monotonic() + INTERVAL_S
            for watcher in self._watchers.values():
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if watcher.rest else 0)
                selector.modify(watcher.connection, wanted)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            connection, _ = self._listening.accept()
        except OSError as error:
            # Out of file handles, or it went away again.
            logger.debug("a watcher could not be accepted: %s", error)
            return
        if len(self._watchers) >= _MAX_WATCHERS:
            connection.close()
            return
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ)
        self._watchers[connection.fileno()] = _Watcher(connection)
        if len(self._watchers) == 1:
            self._on_watched(True)

    def _tend(self, watcher: _Watcher, mask: int) -> bool:
        """Whether it is still there; what it says is thrown away."""
        if mask & selectors.EVENT_READ:
            try:
                if not watcher.connection.recv(4096):
                    return False
            except BlockingIOError:
                pass
            except OSError:
                return False
        return watcher.send()

    def _drop(self, selector: selectors.BaseSelector, watcher: _Watcher) -> None:
        selector.unregister(watcher.connection)
        del self._watchers[watcher.connection.fileno()]
        watcher.connection.close()
        if not self._watchers:
            self._on_watched(False)


def _listen(path: Path, mode: int) -> socket.socket:
    folder = path.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    # In a folder that everybody may write, somebody else may have made it before us.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.getuid(), 0):
        raise PermissionError(errno.EPERM, "its folder belongs to another user", str(folder))
    if _answers(path):
        raise OSError(errno.EADDRINUSE, "another sensor of this name runs", str(path))
    listening = socket.socket(socket.AF_UNIX)
    try:
        # One that a dead sensor left.
        path.unlink(missing_ok=True)
        listening.bind(os.fspath(path))
        # Nobody can connect before it listens.
        path.chmod(mode)
        listening.listen(_MAX_WATCHERS)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        # A living one has room for a connection, or keeps us waiting for it.
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except TimeoutError:
            pass
        return True


# --- watching -----------------------------------------------------------------------------------


def watch(path: Path, silence_s: float = 10.0) -> Generator[bytes, None, None]:
    """Lines of the sensor at a socket, as they come, without their ends.

    Ends when the sensor closes the connection. Raises OSError where the connection cannot be made
    or fails, TimeoutError where nothing comes for so many seconds.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(silence_s)
        connection.connect(os.fspath(path))
        rest = b""
        while received := connection.recv(65_536):
            *lines, rest = (rest + received).split(b"\n")
            yield from lines
            if len(rest) > MAX_LINE_BYTES:
                raise OSError(errno.EMSGSIZE, "a line is too long: this is no sensor", str(path))


def sockets(places: Iterable[Path]) -> list[Path]:
    """Sockets in these folders, also of sensors that no longer run; in the order of names.

    A folder that may not be read stands for the sockets in it.
    """
    found: list[Path] = []
    for folder in places:
        try:
            paths = sorted(folder.iterdir())
        except PermissionError:
            found.append(folder)
        except OSError:
            continue
        else:
            found += [path for path in paths if path.name.endswith(".sock")]
    return found
