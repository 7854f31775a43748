"""`soundpost record`: sound of all microphones and a camera's pictures into a session."""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from soundpost.device.array.geometry_files import ArrayDescription, read_array
from soundpost.device.capture import BlockSource, open_source
from soundpost.device.command import Command
from soundpost.device.errors import InputError, UsageError
from soundpost.device.interrupt import StopRequests
from soundpost.device.session.camera import Camera, open_camera
from soundpost.device.session.level_meters import MeterReader
from soundpost.device.session.live_page import DEFAULT_PORT, LivePage
from soundpost.device.session.live_state import LiveState
from soundpost.device.session.record_screen import plain_line, record_rows
from soundpost.device.session.record_settings import KEEP_FREE_BYTES, RecordSettings
from soundpost.device.session.recorder import STOPPED, Recorder
from soundpost.device.session.session_inputs import read_calibration_bytes
from soundpost.device.session.session_json import SessionDescription
from soundpost.device.terminal import Screen, is_terminal, print_anything

_DESCRIPTION = """\
Records a session: every channel of a source as 24-bit WAV files of one minute, a camera's pictures
as video.mkv, and in video.csv at which sample each picture was taken. Shows meters meanwhile; q or
Ctrl-C ends it. What a kill or a power cut leaves lacks a second at most, and `soundpost session
check --repair` makes it whole.

examples:
  soundpost record --source mic: --out hall                        all channels of a microphone
  soundpost record --source rtp:array.sdp --array array.json --camera v4l2:/dev/video0 --out hall
  soundpost record --source rtp:array.sdp --camera 'gst:nvarguscamerasrc ! nvvidconv ! nvjpegenc' \\
      --seconds 600 --out hall                                     a CSI camera of a Jetson
  soundpost record --source rtp:array.sdp --array array.json --camera picamera2: --page --out hall
  soundpost record --source street.wav --camera street.mp4 --fast --out street     what was recorded

cameras:
  v4l2:DEVICE[?size=640x480&fps=30]   file:VIDEO   gst:PIPELINE (without a sink)
  picamera2:[NUMBER][?size=640x480&fps=30]         pipe:COMMAND (writes video to its output)
"""
_DRAW_S = 0.2
_PLAIN_S = 10.0


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source", required=True, metavar="URL", help="mic:, rtp:, file: or a path"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new folder")
    parser.add_argument("--camera", metavar="URL", help="see below the examples")
    parser.add_argument("--array", type=Path, metavar="FILE", help="array.json of the microphones")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="calibration.json of it")
    parser.add_argument("--seconds", type=float, metavar="N", help="end after so much sound")
    parser.add_argument(
        "--device", metavar="ID", help="name of this sensor; default: the machine's"
    )
    parser.add_argument("--temperature", type=float, metavar="C", help="of the air, Celsius")
    parser.add_argument("--notes", default="", metavar="TEXT", help="kept in session.json")
    parser.add_argument(
        "--keep-free",
        type=float,
        default=KEEP_FREE_BYTES / 1e6,
        metavar="MB",
        help=f"end before the disk has less (default {KEEP_FREE_BYTES / 1e6:.0f})",
    )
    parser.add_argument(
        "--fast", action="store_true", help="files only: as fast as they are read, for a take-over"
    )
    parser.add_argument(
        "--page",
        type=int,
        nargs="?",
        const=DEFAULT_PORT,
        metavar="PORT",
        help=f"serve picture, energy map and meters on this machine (default port {DEFAULT_PORT})",
    )
    parser.add_argument("--plain", action="store_true", help="a line every ten seconds, no drawing")
    parser.add_argument("--quiet", action="store_true", help="nothing but errors")


def _settings(arguments: argparse.Namespace, array: ArrayDescription | None) -> RecordSettings:
    seconds = arguments.seconds
    if seconds is not None and not 0 < seconds < 1e7:
        raise UsageError(f"--seconds {seconds:g}: expected more than 0 and less than 10,000,000")
    if not 0 <= arguments.keep_free < 1e9:
        raise UsageError(f"--keep-free {arguments.keep_free:g}: expected megabytes, 0 or more")
    if arguments.temperature is not None and not -60 <= arguments.temperature <= 70:
        raise UsageError(f"--temperature {arguments.temperature:g}: expected -60 to 70 Celsius")
    calibration = None
    if arguments.calibration is not None:
        calibration = read_calibration_bytes(arguments.calibration, array)
    # What a terminal of another encoding makes of a letter cannot be written down.
    notes = arguments.notes.encode("utf-8", "replace").decode()
    # As the sensor of this machine is called (config.py).
    host = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname()) or "soundpost"
    return RecordSettings(
        device=arguments.device or host,
        source=arguments.source,
        camera=arguments.camera,
        array=array,
        calibration=calibration,
        temperature_c=arguments.temperature,
        notes=notes,
        seconds=seconds,
        keep_free_bytes=round(arguments.keep_free * 1e6),
    )


def _open_source(url: str, fast: bool) -> BlockSource:
    if not fast:
        return open_source(url)
    if re.match(r"(?!file:)[a-z][a-z0-9+.-]*:", url) and not Path(url).exists():
        raise UsageError(f"--fast: is for files; {url[:60]!r} comes as time passes")
    return open_source(url, realtime=False, block_s=0.5)


def _run(arguments: argparse.Namespace) -> int:
    array = None if arguments.array is None else read_array(arguments.array)
    settings = _settings(arguments, array)
    # From before anything is opened until all of it is closed.
    with StopRequests(signal.SIGTERM, signal.SIGINT) as requests:
        return _record(arguments, settings, requests)


def _record(arguments: argparse.Namespace, settings: RecordSettings, requests: StopRequests) -> int:
    def camera_again() -> Camera:
        return open_camera(settings.camera or "", paced=not arguments.fast)

    with contextlib.ExitStack() as stack:
        # First, for a camera may take seconds to open, and a source does not wait.
        camera = None if settings.camera is None else camera_again()
        if camera is not None:
            stack.callback(camera.close)
        requests.check()
        source = stack.enter_context(_open_source(arguments.source, arguments.fast))
        requests.check()
        recorder = Recorder(arguments.out, source, settings, camera, camera_again)
        page: LivePage | None = None
        if arguments.page is not None:
            live = LiveState(recorder, settings, source.rate_hz)
            stack.callback(live.close)
            page = LivePage(arguments.page, live.state, live.picture)
            stack.callback(page.close)
        # What there is from here on ends by `finish`.
        requests.urgent = False
        requests.check()
        recorder.start()
        try:
            if page is not None:
                page.start()
                print(f"soundpost record: {page.url} on this machine", file=sys.stderr)
            _watch(recorder, settings, arguments, requests)
        finally:
            done = recorder.finish()
    if not recorder.kept:
        return _nothing(recorder, done.end or "", arguments, requests)
    if not arguments.quiet:
        _print_end(recorder, done, arguments.out)
    if recorder.failure is not None:
        raise recorder.failure
    if not recorder.ended_well:
        raise InputError(f"{arguments.out}: {done.end}; what came before is kept")
    return 0


def _nothing(
    recorder: Recorder, end: str, arguments: argparse.Namespace, requests: StopRequests
) -> int:
    """How a recording without a sample ends."""
    if recorder.failure is not None:
        raise recorder.failure
    requests.check()
    text = f"{arguments.out}: {end}; nothing was recorded, and nothing is left"
    if not recorder.ended_well or end != STOPPED:
        raise InputError(text)
    if not arguments.quiet:
        print(text, file=sys.stderr)
    return 0


def _print_end(recorder: Recorder, done: SessionDescription, out: Path) -> None:
    rate_hz, n_samples = done.rate_hz, done.n_samples or 0
    status = recorder.status(recorder.meters.reader())
    pictures = "" if done.video is None else f", {status.frames} pictures"
    print(
        f"{out}: {n_samples / rate_hz:.3f} s, {done.n_channels} channels, "
        f"{status.n_gaps} gaps ({status.lost / rate_hz:.3f} s){pictures}; {done.end}",
        file=sys.stderr,
    )


def _watch(
    recorder: Recorder,
    settings: RecordSettings,
    arguments: argparse.Namespace,
    requests: StopRequests,
) -> None:
    """Until it has ended, or somebody ends it."""
    meters = recorder.meters.reader()
    drawn = not arguments.plain and not arguments.quiet and is_terminal(sys.stdout)
    if drawn:
        print_anything()
        with Screen() as screen:
            _loop(recorder, requests, _DRAW_S, lambda: _draw(screen, recorder, meters, settings))
    elif arguments.quiet:
        _loop(recorder, requests, _PLAIN_S, lambda: True)
    else:
        _loop(recorder, requests, _PLAIN_S, lambda: _log(recorder, meters, settings))


def _loop(
    recorder: Recorder, requests: StopRequests, every_s: float, show: Callable[[], bool]
) -> None:
    next_s = time.monotonic() + every_s
    while not recorder.wait(min(_DRAW_S, every_s)):
        recorder.tick()
        going = True
        if time.monotonic() >= next_s:
            next_s += every_s
            going = show()
        if requests.asked or not going:
            recorder.stop()
            return


def _draw(
    screen: Screen, recorder: Recorder, meters: MeterReader, settings: RecordSettings
) -> bool:
    screen.show(record_rows(recorder.status(meters), settings, *screen.size))
    return screen.key() not in ("q", "Q")


def _log(recorder: Recorder, meters: MeterReader, settings: RecordSettings) -> bool:
    print(plain_line(recorder.status(meters), settings), flush=True)
    return True


COMMAND = Command("record microphones and a camera into a session", _DESCRIPTION, _add, _run)
