"""`soundpost soundscapes`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from soundpost.device.command import Command
from soundpost.device.interrupt import interrupts_wait
from soundpost.train.ours import path_of_ours

_DESCRIPTION = """\
Makes soundscapes with exact labels out of a folder of labelled clips.

SETTINGS is a TOML file, or the name of one of ours (esc50_scenes). DIR holds clips.csv with the
columns filename,label,fold (and, if you have them, group,licence,attribution), or ESC-50 as
published. Events of the clips are found by their energy and laid onto backgrounds, some of them in
a simulated room. Clips of the test fold are heard in the test recordings alone.

examples:
  soundpost soundscapes esc50_scenes --data esc50 --out scenes
  soundpost soundscapes esc50_scenes --data esc50 --out few counts.train=50 counts.test=20
  soundpost soundscapes my.toml --data clips --out scenes room.share=0 'snr_db=[0, 12]'

OUT is then in DESED's layout (audio/, metadata/), with the settings in soundscapes.json and the
authors of the clips in attribution.csv. The same settings and clips give the same bytes; a killed
run goes on where it stopped when the same command is given again.
"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("settings", metavar="SETTINGS", help="TOML file, or the name of ours")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="changes to the settings")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="labelled clips")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder to fill")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _run(arguments: argparse.Namespace) -> int:
    path = path_of_ours(arguments.settings, "soundpost.train.sed", "settings")
    with interrupts_wait():
        from soundpost.train.sed.soundscape_settings import load_soundscape_settings
        from soundpost.train.sed.soundscape_writer import write_soundscapes

    settings = load_soundscape_settings(path, arguments.changes)
    made = write_soundscapes(settings, arguments.data, arguments.out, quiet=arguments.quiet)
    if arguments.json:
        print(json.dumps(made))
    else:
        print(", ".join(f"{part} {count}" for part, count in made.items()), "recordings")
        print(f"credits: {arguments.out / 'attribution.csv'}")
    return 0


COMMAND = Command(
    "make soundscapes with exact labels out of labelled clips",
    _DESCRIPTION,
    _add_arguments,
    _run,
    intermixed=True,
)
