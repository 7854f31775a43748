"""`soundpost images --live`: acoustic images of what is heard now, in a terminal or on a page."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import signal
import sys
import threading
import time
from pathlib import Path

from soundpost.device.array.calibration_file import Calibration, read_calibration
from soundpost.device.array.geometry_files import ArrayDescription, read_array
from soundpost.device.array.live_images import live_settings
from soundpost.device.capture import BlockSource, open_source
from soundpost.device.errors import InputError, UsageError
from soundpost.device.interrupt import StopRequests
from soundpost.device.session.calibrated_array import calibrated_array
from soundpost.device.session.camera import Camera, CameraLostError, open_camera
from soundpost.device.session.camera_feed import CameraFeed
from soundpost.device.session.image_request import image_grid
from soundpost.device.session.live_camera import LatestPicture
from soundpost.device.session.live_page import LivePage
from soundpost.device.session.live_view import LiveView
from soundpost.device.session.session_json import SESSION_FILE
from soundpost.device.session.session_reader import open_session
from soundpost.device.session.session_replay import replay
from soundpost.device.terminal import Screen, has_256_colours, is_terminal, print_anything

# Twelve maps a second.
_DRAW_S = 1 / 12
_PLAIN_S = 1.0


def run_live(arguments: argparse.Namespace) -> int:
    """Show maps until the source ends, or somebody ends it."""
    if arguments.seconds is not None and not 0 < arguments.seconds < 1e7:
        raise UsageError(f"--seconds {arguments.seconds:g}: expected more than 0")
    with StopRequests(signal.SIGTERM, signal.SIGINT) as requests, contextlib.ExitStack() as stack:
        source, array, calibration, camera, temperature_c = _opened(arguments, stack)
        requests.check()
        if arguments.temperature is not None:
            temperature_c = arguments.temperature
        settings = dataclasses.replace(
            live_settings(source.rate_hz, temperature_c),
            band_low_hz=arguments.band[0],
            band_high_hz=arguments.band[1],
            remove_diagonal=arguments.remove_diagonal,
        )
        grid = image_grid(arguments, array.image)
        found = calibrated_array(array, calibration, grid, settings, arguments.dead)
        pictures = feed = None
        if camera is not None:
            pictures = LatestPicture()
            feed = CameraFeed(camera, lambda: _camera_again(arguments), pictures)
            stack.callback(feed.close)
        view = LiveView(source, found, grid, pictures, feed)
        stack.callback(view.close)
        if arguments.page is not None:
            page = LivePage(arguments.page, view.state, view.picture)
            stack.callback(page.close)
            page.start()
            print(f"soundpost images: {page.url} on this machine", file=sys.stderr, flush=True)
        listener = _Listener(source, view)
        stack.callback(listener.close)
        requests.urgent = False
        _watch(view, listener, feed, arguments, requests)
    if listener.error is not None:
        raise listener.error
    return 0


def _opened(
    arguments: argparse.Namespace, stack: contextlib.ExitStack
) -> tuple[BlockSource, ArrayDescription, Calibration | None, Camera | None, float | None]:
    """Source, array, calibration, camera, and what is known of the air's temperature."""
    array = None if arguments.array is None else read_array(arguments.array)
    calibration = None
    if arguments.calibration is not None:
        if array is None:
            raise UsageError(f"--calibration {arguments.calibration}: give its --array as well")
        calibration = read_calibration(arguments.calibration, array.geometry)
    folder = Path(arguments.session)
    source: BlockSource
    camera: Camera | None = None
    if (folder / SESSION_FILE).is_file():
        session = stack.enter_context(open_session(folder))
        if array is None:
            array, calibration = session.array, session.known
        source, camera = replay(session)
        stack.callback(source.close)
        temperature_c = session.temperature_c
    else:
        temperature_c = None
        if array is None:
            raise UsageError(
                f"images --live {arguments.session}: expected --array array.json as well, which "
                "says where the microphones are; or the folder of a session"
            )
        if arguments.camera is not None:
            opened = open_camera(arguments.camera)
            stack.callback(opened.close)
            camera = opened
        source = stack.enter_context(open_source(arguments.session))
    if array is None:
        raise InputError(
            f"{folder}: has no array.json, so that nobody knows where its microphones are; give "
            "--array"
        )
    if max(array.channels) >= source.n_channels:
        raise InputError(
            f"source {source.name}: {source.n_channels} channels; expected at least "
            f"{max(array.channels) + 1}, on which array {array.geometry.name!r} has its "
            "microphones"
        )
    return source, array, calibration, camera, temperature_c


def _camera_again(arguments: argparse.Namespace) -> Camera:
    if arguments.camera is None:
        raise CameraLostError("the session has no more pictures")
    return open_camera(arguments.camera)


class _Listener:
    """Takes a source's blocks in a thread of its own."""

    def __init__(self, source: BlockSource, view: LiveView) -> None:
        self._source = source
        self._view = view
        self._closing = False
        self.ended = threading.Event()
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for block in self._source.blocks():
                if self._closing:
                    break
                self._view.take(block)
        except Exception as error:
            # What is closed while it is read may raise anything.
            if not self._closing:
                self.error = error
        self.ended.set()

    def close(self) -> None:
        self._closing = True
        self._source.close()
        self._thread.join(5.0)


def _watch(
    view: LiveView,
    listener: _Listener,
    feed: CameraFeed | None,
    arguments: argparse.Namespace,
    requests: StopRequests,
) -> None:
    began_s = time.monotonic()
    until_s = None if arguments.seconds is None else began_s + arguments.seconds
    drawn = not arguments.plain and not arguments.quiet and is_terminal(sys.stdout)
    every_s = _DRAW_S if drawn else _PLAIN_S
    next_s = began_s + every_s
    print_anything()
    with Screen() if drawn else contextlib.nullcontext() as screen:
        # To look is what has maps made.
        view.latest()
        while not listener.ended.wait(min(every_s, 0.1)) and not requests.asked:
            now_s = time.monotonic()
            if until_s is not None and now_s >= until_s:
                return
            if feed is not None:
                feed.watch()
            view.latest()
            if now_s < next_s:
                continue
            # What a slow terminal has missed is not caught up with.
            next_s = max(next_s + every_s, now_s)
            if screen is not None:
                screen.show(
                    view.rows(
                        *screen.size,
                        range_db=arguments.range,
                        colours=arguments.colours if has_256_colours() else None,
                    )
                )
                if screen.key() in ("q", "Q"):
                    return
            elif not arguments.quiet:
                print(", ".join(text for text, _ in view.facts()), flush=True)
