"""What `soundpost calibrate` can be asked for: its actions, their options and their help."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

DESCRIPTION = """\
Measures what a sensor's microphones and camera are like, and writes it into calibration.json.

level      pascals per unit, from an acoustic calibrator: 94 or 114 dB at 1 kHz. Also writes the
           profile of a sensor with one microphone.
response   what microphones add at each frequency, from their makers' tables.
positions  where the microphones are, from 12 or more chirps or clicks at places that need not be
           known, all around in front of the array.
array      gain, delay and polarity of each microphone, and which are dead, noisy, clipped or on
           each other's channel; from noise or sweeps at known places.
sync       how late the audio is behind the video, from flashes with a click.
camera     which pixel of the video lies in which direction, from a lamp with a buzzer that is held
           still all over the picture.
import     gains from Acoular's <Calib> XML; export writes one.

A RECORDING is a sound file, or the folder of a session that `soundpost record` made; a session with
a camera is also its own VIDEO. What a session lacks is left out, and said. With a session, its own
array.json and temperature are used where none are given.

An action writes its own section of --out (calibration.json) and leaves the others; --array is the
array it is for (array.json), and --report also makes a page with plots. Where several are to be
done, do them in the order above: array takes delays from the positions and gains without the
response, camera uses all of them. Only where microphones are dead comes array first, which names
them, and again after positions. What is poor evidence is refused, with what to do about it. Places
are in metres from the camera: x right, y up, z towards the scene.
"""
EXAMPLES = """\
examples:
  soundpost calibrate level tone.wav --level 94 --profile porch.toml
  soundpost calibrate level tone.wav --level 114 --response maker.txt --array array.json
  soundpost calibrate response maker.txt --microphone 3 spare.txt
  soundpost calibrate positions chirps.wav --report positions.html
  soundpost calibrate positions chirps-1 chirps-2
  soundpost calibrate array --take left.wav -0.8 0.1 1.5 --take right.wav 0.8 0.1 1.5 \\
      --take above.wav 0 0.9 1.5 --report array.html
  soundpost calibrate sync flashes.mp4 flashes.wav --distance 2
  soundpost calibrate sync flashes
  soundpost calibrate camera target.mp4 target.wav
  soundpost calibrate camera target
  soundpost calibrate import calib.xml
  soundpost calibrate export calib.xml
"""
_SYNC_DISTANCE_M = 1.0
_ARRAY_HELP = {
    "level": "the array; without it, and without --profile, that of the session",
    **dict.fromkeys(
        ("positions", "array", "sync", "camera"), "the array (that of the session, else array.json)"
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the actions, each with its options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    level = _action(actions, "level", "pascals per unit from a calibrator", air=False)
    level.add_argument("recording", type=Path, metavar="RECORDING", help="of the calibrator's tone")
    level.add_argument(
        "--level", type=float, required=True, metavar="DB", help="of the calibrator: 94 or 114"
    )
    level.add_argument("--channel", type=int, metavar="N", help="from 0; else the loudest at 1 kHz")
    level.add_argument(
        "--response", type=Path, metavar="FILE", help="the maker's table of frequency and dB"
    )
    level.add_argument(
        "--profile", type=Path, metavar="FILE.toml", help="microphone profile to write"
    )
    level.add_argument(
        "--uncertainty", type=float, default=0.3, metavar="DB", help="of the calibrator (0.3)"
    )
    response = _action(actions, "response", "what microphones add at each frequency", air=False)
    response.add_argument(
        "table",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="the maker's table of frequency and dB, for all that have none of their own",
    )
    response.add_argument(
        "--microphone",
        nargs=2,
        action="append",
        default=[],
        metavar=("N", "FILE"),
        help="the table of one microphone, counted from 0 as in array.json; may be repeated",
    )
    positions = _action(actions, "positions", "where the microphones are")
    positions.add_argument("recordings", type=Path, nargs="+", metavar="RECORDING")
    positions.add_argument(
        "--spread-mm",
        type=float,
        default=5.0,
        metavar="MM",
        help="how far from the drawing the microphones may be, along each axis (5)",
    )
    array = _action(actions, "array", "gains, delays, polarity and faults")
    array.add_argument(
        "--take",
        nargs=4,
        action="append",
        required=True,
        metavar=("RECORDING", "X", "Y", "Z"),
        help="a recording, and the place of its source in metres; give several",
    )
    sync = _action(actions, "sync", "how late the audio is")
    camera = _action(actions, "camera", "which pixel is in which direction")
    for video in (sync, camera):
        video.add_argument("video", type=Path, metavar="VIDEO", help="or a session with a camera")
        video.add_argument(
            "recording", type=Path, nargs="?", metavar="RECORDING", help="not with a session"
        )
        video.add_argument("--quiet", action="store_true", help="no progress bar")
    sync.add_argument(
        "--distance",
        type=float,
        default=_SYNC_DISTANCE_M,
        metavar="M",
        help=f"from the flashes to the microphones ({_SYNC_DISTANCE_M:g})",
    )
    sync.add_argument("--channel", type=int, metavar="N", help="from 0; else one of middling level")
    for name, help_text in (
        ("import", "gains from Acoular's <Calib> XML"),
        ("export", "write Acoular's <Calib> XML"),
    ):
        xml = _action(actions, name, help_text, air=False, measures=False)
        xml.add_argument("xml", type=Path, metavar="FILE.xml")


def _action(
    actions: Any, name: str, help_text: str, *, air: bool = True, measures: bool = True
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name,
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}.",
        epilog=_examples_of(name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--array",
        type=Path,
        metavar="FILE",
        help=_ARRAY_HELP.get(name, "the array (array.json)"),
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("calibration.json"),
        metavar="FILE",
        help="made or changed (calibration.json)",
    )
    if measures:
        parser.add_argument("--report", type=Path, metavar="FILE.html", help="page to write")
        parser.add_argument("--json", action="store_true", help="print the section as JSON")
    if air:
        parser.add_argument(
            "--temperature",
            type=float,
            metavar="C",
            help="of the air, in degrees Celsius (that of the session, else 20)",
        )
    return parser


def _examples_of(action: str) -> str:
    """The examples of one action, with the lines that continue them."""
    heading, *rest = EXAMPLES.replace("\\\n", "\\\0").splitlines()
    own = [line for line in rest if line.startswith(f"  soundpost calibrate {action} ")]
    return "\n".join([heading, *own]).replace("\0", "\n")
