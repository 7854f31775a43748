"""`soundpost images`: acoustic images, of a session as numbers, pictures or videos, or of now."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from soundpost.device.array.colours import COLOUR_MAPS
from soundpost.device.command import Command
from soundpost.device.errors import UsageError
from soundpost.device.interrupt import interrupts_wait
from soundpost.device.session.live_page import DEFAULT_PORT

if TYPE_CHECKING:
    from soundpost.device.array.camera_sections import CameraSection
    from soundpost.device.array.map_overlay import OverlayStyle
    from soundpost.device.session.session_images import SessionImages

_DESCRIPTION = """\
Makes acoustic images of a recorded session: how loud it is in each direction, 12 times a second.
With --live it shows them of what is heard now, and records nothing: in the terminal, or with
--page in a browser, over the picture of a --camera. A session is then replayed.

Without --picture or --video, writes HDF5: MFCC and the energy of a band in each pixel, or what
--kind says (mfcc, log_mel, power, energy). A run that was stopped or killed goes on where it was
when it is started again. Images of which sound is missing are NaN, and marked.

--picture lays the energy map over the camera's picture of that time, --video over all of them, with
the sound of one channel. Where the camera has not been calibrated, its edges are taken for those of
the acoustic image (--view). --acoular hands the sound to Acoular (pip install acoular), for methods
beyond delay-and-sum: base, eig, orth, functional, mvdr, music, clean, clean-sc, damas.

examples:
  soundpost images porch                                 porch/acoustic_images.h5
  soundpost images porch --kind energy --out maps.h5 --from 60 --to 120 --workers 4
  soundpost images porch --grid 72x96 --near 1.5 --kind energy --out near.h5
  soundpost images porch --picture dog.png --at 12.5 --colours viridis --range 9
  soundpost images porch --video dog.mp4 --from 10 --to 20 --channel 3
  soundpost images porch --picture clean.png --at 12.5 --acoular clean-sc --frequency 2000
  soundpost images --live rtp:array.sdp --array array.json --camera v4l2:/dev/video0 --page
  soundpost images --live mic: --array array.json         in the terminal; q or Ctrl-C ends it
  soundpost images --live porch                           a session, as it was heard and seen

From Python: soundpost.device.array.image_file.read_images("porch/acoustic_images.h5").
"""


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "session", metavar="SESSION", help="folder of a session; with --live a source as well"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.h5")
    parser.add_argument("--kind", default="mfcc,energy", metavar="KIND,...")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="threads (default 1)")
    parser.add_argument("--json", action="store_true", help="print what was made as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    part = parser.add_argument_group("what of the session")
    part.add_argument("--from", dest="begin", type=float, metavar="S")
    part.add_argument("--to", dest="end", type=float, metavar="S")
    part.add_argument(
        "--dead", action="append", default=[], metavar="N,...", help="microphones to leave out"
    )
    image = parser.add_argument_group("the images; by default as array.json says")
    image.add_argument("--grid", metavar="RxC", help="rows and columns, such as 36x48")
    image.add_argument(
        "--view", nargs=2, type=float, metavar="DEG", help="half width and half height"
    )
    image.add_argument("--surface", choices=("sphere", "plane"))
    image.add_argument("--near", type=float, metavar="M", help="distance; below 2 m it matters")
    image.add_argument(
        "--rate", type=int, default=12_288, metavar="HZ", help="sample rate (default 12288)"
    )
    image.add_argument(
        "--length", type=int, default=1_024, metavar="N", help="samples of one image"
    )
    image.add_argument(
        "--band", nargs=2, type=float, default=(900.0, 6_400.0), metavar="HZ", help="of energy"
    )
    image.add_argument("--temperature", type=float, metavar="C", help="default: the session's")
    image.add_argument(
        "--remove-diagonal", action="store_true", help="take away the microphones' own noise"
    )
    seen = parser.add_argument_group("pictures and videos")
    seen.add_argument("--picture", type=Path, metavar="FILE.png")
    seen.add_argument("--at", type=float, metavar="S", help="time of the picture")
    seen.add_argument("--video", type=Path, metavar="FILE.mp4")
    seen.add_argument("--channel", default="0", metavar="N", help="of the sound, or none")
    seen.add_argument("--colours", choices=COLOUR_MAPS, default="inferno")
    seen.add_argument("--range", type=float, default=12.0, metavar="DB", help="default 12")
    seen.add_argument("--top", type=float, metavar="DB", help="default: the loudest shown")
    seen.add_argument("--smooth", type=float, default=0.15, metavar="S", help="default 0.15")
    seen.add_argument("--acoular", metavar="METHOD", help="for --picture")
    seen.add_argument("--frequency", type=float, default=2_000.0, metavar="HZ", help="third octave")
    seen.add_argument("--average", type=float, default=0.25, metavar="S", help="of --picture")
    _add_live(parser)


def _add_live(parser: argparse.ArgumentParser) -> None:
    live = parser.add_argument_group("live, of a source or of a session that is replayed")
    live.add_argument("--live", action="store_true", help="show maps of what is heard now")
    live.add_argument("--array", type=Path, metavar="FILE", help="array.json of the microphones")
    live.add_argument("--calibration", type=Path, metavar="FILE", help="calibration.json of it")
    live.add_argument("--camera", metavar="URL", help="as of `soundpost record`; seen on the page")
    live.add_argument(
        "--page",
        type=int,
        nargs="?",
        const=DEFAULT_PORT,
        metavar="PORT",
        help=f"serve map, picture and meters on this machine (default port {DEFAULT_PORT})",
    )
    live.add_argument("--seconds", type=float, metavar="N", help="end after so long")
    live.add_argument("--plain", action="store_true", help="a line a second, no drawing")


def _run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    with interrupts_wait():
        from soundpost.device.session.image_request import build_images, dead_numbers
        from soundpost.device.session.session_reader import open_session

        arguments.dead = dead_numbers(arguments.dead)
    if arguments.live:
        with interrupts_wait():
            from soundpost.device.session.live_images_command import run_live
        return run_live(arguments)
    arguments.session = Path(arguments.session)
    if not 0 < arguments.rate < math.inf:
        raise UsageError(f"--rate {arguments.rate:g}: expected samples per second")
    if arguments.picture is not None and arguments.begin is None and arguments.end is None:
        half_s = max(arguments.average, 2 * arguments.length / arguments.rate) / 2
        arguments.begin = max(0.0, arguments.at - half_s)
        arguments.end = arguments.at + half_s
    with open_session(arguments.session) as session:
        images, camera = build_images(session, arguments)
        if arguments.picture is not None:
            return _picture(arguments, images, camera)
        if arguments.video is not None:
            return _video(arguments, images, camera)
        return _numbers(arguments, images)


def _check(arguments: argparse.Namespace) -> None:
    if arguments.workers < 1:
        raise UsageError(f"--workers {arguments.workers}: expected 1 or more")
    asked = [name for name in ("out", "picture", "video") if getattr(arguments, name) is not None]
    if len(asked) > 1:
        raise UsageError(f"--{asked[0]} and --{asked[1]}: expected one of them at a time")
    if arguments.live:
        if asked:
            raise UsageError(f"--live and --{asked[0]}: expected one of them at a time")
        return
    for name in ("array", "calibration", "camera", "page", "seconds"):
        if getattr(arguments, name) is not None:
            raise UsageError(f"--{name}: is for --live; give that as well")
    picture: Path | None = arguments.picture
    if picture is not None:
        if picture.suffix.lower() != ".png":
            raise UsageError(f"--picture {picture}: expected a name that ends in .png")
        if arguments.at is None:
            raise UsageError("--picture: expected --at SECONDS as well: the time that it shows")
        if not 0 < arguments.average <= 60:
            raise UsageError(f"--average {arguments.average:g}: expected more than 0, at most 60 s")
    elif arguments.acoular is not None:
        raise UsageError(f"--acoular {arguments.acoular}: is for --picture; give that as well")


def _bar(arguments: argparse.Namespace, total: int, **more: object) -> tqdm[None]:
    quiet = arguments.quiet or not sys.stderr.isatty()
    return tqdm(total=total, desc="images", unit="image", disable=quiet, **more)


def _numbers(arguments: argparse.Namespace, images: SessionImages) -> int:
    from soundpost.device.array.image_file import ImageWriter
    from soundpost.device.session.image_request import parse_kinds
    from soundpost.device.session.session_images import CHUNK_IMAGES

    kinds = parse_kinds(arguments.kind)
    out: Path = arguments.out or arguments.session / "acoustic_images.h5"
    settings = {"kinds": list(kinds), **images.settings}
    writer = ImageWriter(out, images.shapes(kinds), settings, images.samples, CHUNK_IMAGES)
    before = int(np.count_nonzero(writer.done))
    left = np.flatnonzero(~writer.done).tolist()
    with _bar(
        arguments, images.n_images, initial=min(before * CHUNK_IMAGES, images.n_images)
    ) as bar:
        for chunk in images.make(kinds, left, arguments.workers):
            writer.write(chunk.number, chunk.images, chunk.valid)
            bar.update(len(chunk.valid))
    was_there = writer.finished
    writer.finish()
    missing = int(np.count_nonzero(~images.valid()))
    if arguments.json:
        note = {"out": str(out), "n_images": images.n_images, "not_valid": missing}
        print(json.dumps(note | {"made": sum(_length(images, number) for number in left)}))
        return 0
    state = " (was complete already)" if was_there else ""
    gaps = f", {missing} of them without all their sound" if missing else ""
    print(f"{out}: {images.n_images} images of {', '.join(kinds)}{gaps}{state}")
    return 0


def _length(images: SessionImages, chunk: int) -> int:
    from soundpost.device.session.session_images import CHUNK_IMAGES

    return min(CHUNK_IMAGES, images.n_images - chunk * CHUNK_IMAGES)


def _energies(arguments: argparse.Namespace, images: SessionImages) -> NDArray[np.float32]:
    grid = images.imager.grid
    energies = np.empty((images.n_images, grid.rows, grid.columns), np.float32)
    position = 0
    with _bar(arguments, images.n_images) as bar:
        for chunk in images.make(("energy",), workers=arguments.workers):
            some = chunk.images["energy"]
            energies[position : position + len(some)] = some
            position += len(some)
            bar.update(len(some))
    return energies


def _style(arguments: argparse.Namespace) -> OverlayStyle:
    from soundpost.device.array.map_overlay import OverlayStyle

    return OverlayStyle(
        colours=arguments.colours,
        range_db=arguments.range,
        top_db=arguments.top,
        smoothing_s=arguments.smooth,
    )


def _picture(
    arguments: argparse.Namespace, images: SessionImages, camera: CameraSection | None
) -> int:
    from soundpost.device.array.geometry import direction_in_words
    from soundpost.device.png import write_png
    from soundpost.device.session.session_overlay import draw_at

    session, grid, style = images.session, images.imager.grid, _style(arguments)
    if arguments.acoular is not None:
        energy = images.acoular(arguments.acoular, arguments.frequency)
        of = f"{arguments.acoular} at {arguments.frequency:g} Hz"
    else:
        energies = _energies(arguments, images)
        valid = images.valid()
        if not valid.any():
            raise UsageError(f"--at {arguments.at:g}: sound is missing there; choose another time")
        energy = energies[valid].mean(axis=0)
        of = "energy from {:g} to {:g} Hz".format(*arguments.band)
    write_png(
        arguments.picture,
        draw_at(session, energy, arguments.at * session.rate_hz, grid, camera, style),
    )
    row, column = divmod(int(energy.argmax()), grid.columns)
    where = direction_in_words(grid.directions()[row * grid.columns + column], 1)
    print(
        f"{arguments.picture}: {of}, loudest {where}, "
        f"{10 * np.log10(max(float(energy.max()), 1e-30)):.1f} dB"
    )
    return 0


def _video(
    arguments: argparse.Namespace, images: SessionImages, camera: CameraSection | None
) -> int:
    from soundpost.device.session.session_overlay import n_pictures, write_overlay_video

    text = arguments.channel
    if text != "none" and not text.isdecimal():
        raise UsageError(f"--channel {text}: expected a number from 0, or none")
    energies = _energies(arguments, images)
    session = images.session
    last = images.first + images.n_images * images.image_samples
    total = n_pictures(session, images.first, last, images.image_samples)
    quiet = arguments.quiet or not sys.stderr.isatty()
    with tqdm(total=total, desc="video", unit="picture", disable=quiet) as bar:
        write_overlay_video(
            arguments.video,
            session,
            energies,
            images.samples,
            images.imager.grid,
            camera,
            _style(arguments),
            channel=None if text == "none" else int(text),
            progress=lambda _: bar.update(),
        )
    print(f"{arguments.video}: {total} pictures, {images.n_images} acoustic images")
    return 0


COMMAND = Command(
    summary="acoustic images of a session: numbers, pictures, videos; or live",
    description=_DESCRIPTION,
    add_arguments=_add,
    run=_run,
)
