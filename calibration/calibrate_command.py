"""`soundpost calibrate`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soundpost.calibration.calibrate_arguments import DESCRIPTION, EXAMPLES, add_arguments
from soundpost.device.command import Command
from soundpost.device.errors import InputError, UsageError
from soundpost.device.interrupt import interrupts_wait

if TYPE_CHECKING:
    from soundpost.calibration.calibrate_outcome import Outcome
    from soundpost.device.array.calibration_file import Calibration
    from soundpost.device.array.geometry_files import ArrayDescription

_ARRAY_FILE = Path("array.json")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.action == "level":
        return _level(arguments)
    temperature_c = getattr(arguments, "temperature", None)
    if temperature_c is not None and not -40 <= temperature_c <= 60:
        raise UsageError(f"--temperature {temperature_c:g}; expected -40 to 60 degrees")
    if arguments.action in ("sync", "camera"):
        _check_video(arguments)
    array_path = arguments.array or _session_array(_recordings(arguments)) or _ARRAY_FILE
    if arguments.action in ("import", "export"):
        return _acoular(arguments, array_path)
    array, calibration = _read(array_path, arguments.out)
    outcome = _outcome(arguments, array, calibration)
    _write(arguments, outcome)
    _tell(arguments, outcome, arguments.out, arguments.report)
    return 0


def _recordings(arguments: argparse.Namespace) -> list[Path]:
    """Those that may be sessions."""
    if arguments.action == "array":
        return [Path(take[0]) for take in arguments.take]
    if arguments.action == "positions":
        return list(arguments.recordings)
    return [arguments.video] if arguments.action in ("sync", "camera") else []


def _session_array(recordings: Sequence[Path]) -> Path | None:
    """The array.json of the first session that has one."""
    for path in recordings:
        if path.is_dir() and (path / _ARRAY_FILE).is_file():
            return path / _ARRAY_FILE
    return None


def _read(
    array_path: Path, out: Path, *, must_exist: bool = False
) -> tuple[ArrayDescription, Calibration]:
    with interrupts_wait():
        from soundpost.device.array.calibration_file import Calibration, read_calibration
        from soundpost.device.array.geometry_files import read_array

    array = read_array(array_path)
    if out.exists() or must_exist:
        return array, read_calibration(out, array.geometry)
    return array, Calibration.of(array.geometry)


def _outcome(
    arguments: argparse.Namespace, array: ArrayDescription, calibration: Calibration
) -> Outcome:
    with interrupts_wait():
        from soundpost.calibration.calibrate_array import run_array, run_positions
        from soundpost.calibration.calibrate_level import run_response
        from soundpost.calibration.calibrate_video import run_camera, run_sync
        from soundpost.device.microphone import load_profile

    if arguments.action == "response":
        if arguments.table is None and not arguments.microphone:
            raise UsageError("nothing to read: give a FILE for all microphones, or --microphone")
        common = None if arguments.table is None else load_profile(arguments.table)
        single = {_number(name): load_profile(Path(path)) for name, path in arguments.microphone}
        return run_response(common, single, calibration)
    temperature_c = arguments.temperature
    if arguments.action == "array":
        takes = [_take(*take) for take in arguments.take]
        return run_array(takes, array, calibration, temperature_c)
    if arguments.action == "positions":
        if not 0.1 <= arguments.spread_mm <= 100:
            raise UsageError(f"--spread-mm {arguments.spread_mm:g}; expected 0.1 to 100")
        spread_m = arguments.spread_mm / 1e3
        return run_positions(arguments.recordings, array, calibration, temperature_c, spread_m)
    video, quiet = arguments.video, arguments.quiet
    sound = arguments.recording or video
    if arguments.action == "camera":
        return run_camera(video, sound, array, calibration, temperature_c, quiet=quiet)
    if not 0 <= arguments.distance <= 100:
        raise UsageError(f"--distance {arguments.distance:g}; expected 0 to 100 m")
    channel, distance_m = arguments.channel, arguments.distance
    return run_sync(video, sound, calibration, temperature_c, distance_m, channel, quiet=quiet)


def _check_video(arguments: argparse.Namespace) -> None:
    """A session is both; anything else comes in two."""
    video, sound = arguments.video, arguments.recording
    if video.is_dir() and sound is not None:
        raise UsageError(f"{video} {sound}: a session brings its own sound; give it alone")
    if not video.is_dir() and sound is None:
        raise UsageError(f"{video}: give its sound as well: VIDEO RECORDING, or a session's folder")


def _number(name: str) -> int:
    if not (name.isascii() and name.isdecimal()):
        raise UsageError(f"--microphone {name}: expected its number from 0")
    return int(name)


def _take(path: str, *place: str) -> tuple[Path, Any]:
    import numpy as np

    try:
        place_m = np.array([float(value) for value in place])
    except ValueError as error:
        raise UsageError(
            f"--take {path} {' '.join(place)}: expected a file and three numbers in metres"
        ) from error
    if not (np.isfinite(place_m).all() and 0.05 <= np.linalg.norm(place_m) <= 100):
        raise UsageError(f"--take {path} {' '.join(place)}: expected a place 0.05 to 100 m away")
    return Path(path), place_m


def _level(arguments: argparse.Namespace) -> int:
    with interrupts_wait():
        from soundpost.calibration.calibrate_level import run_level, run_response
        from soundpost.calibration.level import LEVELS_DB, profile_text
        from soundpost.device.files import write_atomically
        from soundpost.device.microphone import load_profile

    array_path = arguments.array
    if array_path is None and arguments.profile is None:
        array_path = _session_array([arguments.recording])
    if array_path is None and arguments.profile is None:
        raise UsageError(
            "nothing to write: give --profile FILE.toml for a sensor with one microphone, or "
            "--array array.json"
        )
    # Calibrators are corrected by some tenths for pressure and volume.
    if not any(abs(arguments.level - of) <= 1.5 for of in LEVELS_DB):
        raise UsageError(f"--level {arguments.level:g}; expected about 94 or 114 dB SPL")
    if not 0 <= arguments.uncertainty <= 5:
        raise UsageError(f"--uncertainty {arguments.uncertainty:g}; expected 0 to 5 dB")
    array, calibration = (None, None) if array_path is None else _read(array_path, arguments.out)
    response = None if arguments.response is None else load_profile(arguments.response)
    mind: tuple[str, ...] = ()
    if response is not None and calibration is not None:
        with_response = run_response(response, {}, calibration)
        calibration, mind = with_response.calibration, with_response.warnings
    outcome, found = run_level(
        arguments.recording,
        arguments.channel,
        arguments.level,
        arguments.uncertainty,
        array,
        calibration,
    )
    outcome = outcome.with_warnings(mind)
    _write(arguments, outcome)
    if arguments.profile is not None:
        points = () if response is None else response.response
        text = profile_text(arguments.profile.stem, found, points)
        write_atomically(arguments.profile, text.encode())
    out = None if array is None else arguments.out
    _tell(arguments, outcome, out, arguments.profile, arguments.report)
    return 0


def _acoular(arguments: argparse.Namespace, array_path: Path) -> int:
    from soundpost.calibration.calibrate_outcome import now
    from soundpost.device.array.acoular_calib import read_acoular_calib, write_acoular_calib
    from soundpost.device.array.calibration_file import write_calibration

    exports = arguments.action == "export"
    array, calibration = _read(array_path, arguments.out, must_exist=exports)
    if exports:
        if calibration.microphones is None and calibration.level is None:
            raise InputError(
                f"{arguments.out}: has neither gains nor a level; run soundpost calibrate array or "
                "level first"
            )
        write_acoular_calib(arguments.xml, array, calibration)
        if calibration.response is not None:
            print(
                "mind: the XML has no room for the response; soundpost images SESSION --picture "
                "FILE.png --acoular METHOD undoes it"
            )
        _written(arguments.xml)
        return 0
    changed = read_acoular_calib(arguments.xml, array, now(), calibration)
    write_calibration(arguments.out, changed)
    if calibration.level is None and changed.level is not None:
        print(f"level: {changed.level.pa_per_unit:g} Pa per unit, as Acoular takes the factors")
    elif calibration.level is not None:
        print("level: stays as it was measured")
    _written(arguments.out)
    return 0


def _write(arguments: argparse.Namespace, outcome: Outcome) -> None:
    from soundpost.device.array.calibration_file import write_calibration

    if outcome.calibration is not None:
        write_calibration(arguments.out, outcome.calibration)
    if arguments.report is not None:
        outcome.report.write(arguments.report)


def _tell(arguments: argparse.Namespace, outcome: Outcome, *paths: Path | None) -> None:
    if arguments.json:
        print(json.dumps(outcome.section.to_dict() | {"warnings": list(outcome.warnings)}))
        return
    for line in outcome.lines:
        print(line)
    for line in outcome.warnings:
        print(f"mind: {line}")
    _written(*paths)


def _written(*paths: Path | None) -> None:
    print(f"written: {', '.join(str(path) for path in paths if path is not None)}")


COMMAND = Command(
    "measure microphones, array, camera and clocks",
    DESCRIPTION + "\n" + EXAMPLES,
    add_arguments,
    _run,
)
