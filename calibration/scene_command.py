"""`soundpost scene render`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from soundpost.device.command import Command
from soundpost.device.errors import UsageError
from soundpost.device.interrupt import interrupts_wait

_DESCRIPTION = """\
Renders simulated sound around an array of microphones into one WAV with all channels.

SETTINGS is a TOML file: the array, sources at rest or moving, a room or the free field, noise, and
faults of the microphones. Files that it names are looked for beside it.

  array = "array.json"            leave it out for 128 microphones on a disc of 0.45 m
  seconds = 5.0
  rate_hz = 48000

  [room]                          leave it out for the free field
  size_m = [6.0, 3.0, 5.0]
  camera_m = [3.0, 1.2, 0.3]
  rt60_s = 0.3

  [[source]]
  label = "dog"
  file = "dog.wav"                or tone_hz = 1000, chirp_hz = [200, 6000], noise = true
  start_s = 1.0
  position_m = [0.5, 0.0, 2.0]    or path = [[0.0, -1.0, 0.0, 2.0], [5.0, 1.0, 0.0, 2.0]]

  [[noise]]
  kind = "diffuse"                or wind, self
  snr_db = 20.0                   or level_dbfs

  [microphones]
  gain_db = 1.0
  dead = 1

examples:
  soundpost scene render scene.toml --out scene.wav
  soundpost scene render scene.toml --out loud.wav --float gain_db=40
  soundpost scene render scene.toml --out other.wav seed=2 room.rt60_s=0.5 --array my_array.json

scene.json then lies beside scene.wav: where each source is, when it is heard first and last, the
array, and what each microphone does wrong. The same settings and sounds give the same bytes. A room
needs the train extra.
"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("render",))
    parser.add_argument("settings", metavar="SETTINGS", type=Path, help="TOML file")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="changes to the settings")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.wav", help="what to write")
    parser.add_argument(
        "--array", type=Path, metavar="FILE", help="array.json, in place of the settings' array"
    )
    parser.add_argument(
        "--float", action="store_true", dest="as_float", help="32-bit float in place of 24-bit"
    )
    parser.add_argument("--json", action="store_true", help="print what the JSON file says")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _run(arguments: argparse.Namespace) -> int:
    with interrupts_wait():
        from tqdm import tqdm

        from soundpost.calibration.scene import n_steps, render
        from soundpost.calibration.scene_files import check_size, json_path, write_scene
        from soundpost.calibration.scene_settings import build_scene, load_scene_settings
        from soundpost.device.array.geometry import vogel_spiral
        from soundpost.device.array.geometry_files import ArrayDescription, read_array

    out: Path = arguments.out
    if out.suffix.lower() != ".wav":
        raise UsageError(f"--out {out}: expected a name that ends in .wav")
    settings = load_scene_settings(arguments.settings, arguments.changes)
    where = arguments.array or settings.array
    array = read_array(where) if where else ArrayDescription(vogel_spiral())
    check_size(round(settings.seconds * settings.rate_hz), array)
    scene = build_scene(settings, array.geometry.n_mics)
    with tqdm(total=n_steps(scene), desc="scene", unit="part", disable=arguments.quiet) as bar:
        rendering = render(scene, array.geometry.positions_m, progress=bar.update)
    note = write_scene(out, scene, rendering, array, as_float=arguments.as_float)
    if arguments.json:
        print(json.dumps(note))
        return 0
    print(
        f"{out}: {settings.seconds:g} s, {array.geometry.n_mics} microphones at "
        f"{settings.rate_hz} Hz, peak {note['peak']:.3f}"
    )
    for source in note["sources"]:
        print(f"  {source['label'] or 'source':<20} {source['onset_s']:8.3f} s to ", end="")
        print(f"{source['offset_s']:.3f} s")
    print(f"what is heard when and from where: {json_path(out)}")
    return 0


COMMAND = Command(
    "render simulated sound around an array of microphones",
    _DESCRIPTION,
    _add_arguments,
    _run,
    intermixed=True,
)
