"""Settings of a simulated scene: a TOML file to a `Scene`.

array = "array.json"          # relative to this file
seconds = 5.0
rate_hz = 48000
temperature_c = 20.0
gain_db = 0.0                 # of all sound of the sources
seed = 0

[room]                        # without it: free field
size_m = [6.0, 3.0, 5.0]      # width (x), height (y), depth (z)
camera_m = [3.0, 1.2, 0.3]    # from the corner with the smallest x, y and z
rt60_s = 0.3

[[source]]
label = "dog"
file = "dog.wav"              # or tone_hz = 1000, chirp_hz = [200, 6000], noise = true
start_s = 1.0
level_dbfs = -20.0            # root mean square at 1 m; a file's own without it
position_m = [0.5, 0.0, 2.0]  # or path = [[0.0, -1.0, 0.0, 2.0], [5.0, 1.0, 0.0, 2.0]]

[[noise]]
kind = "diffuse"              # or wind, self
snr_db = 20.0                 # or level_dbfs

[microphones]
gain_db = 1.0
dead = 1
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from soundpost.calibration.microphones import Microphones, MicrophoneSettings
from soundpost.calibration.noise import Wind
from soundpost.calibration.propagation import PointSource
from soundpost.calibration.rooms import Room
from soundpost.calibration.scene import Noise, Scene
from soundpost.calibration.scene_tables import (
    MICROPHONES,
    NOISE,
    ROOM,
    SIGNALS,
    SOURCE,
    TOP,
    WIND_KEYS,
)
from soundpost.calibration.signals import at_level, chirp, tone, white_noise
from soundpost.calibration.trajectory import Trajectory
from soundpost.device.audio import FloatArray, read_clip
from soundpost.device.config import parse_override
from soundpost.device.errors import ConfigError, UsageError
from soundpost.device.files import expand_home
from soundpost.device.kinds import FilePath, Table
from soundpost.device.settings import nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Of what is made here, where no level is given.
_LEVEL_DBFS = -20.0
_SECONDS = 1.0
# Third part of a seed: scene.py has the first two.
_SIGNAL = 3


@dataclass(frozen=True)
class SourceSettings:
    """One source: what sounds (tone_hz, chirp_hz, noise or a file), where, when and how loud."""

    place: Trajectory
    label: str = ""
    file: Path | None = None
    tone_hz: float | None = None
    chirp_hz: tuple[float, float] | None = None
    noise: bool = False
    from_s: float = 0.0
    seconds: float | None = None
    start_s: float = 0.0
    level_dbfs: float | None = None


@dataclass(frozen=True)
class SceneSettings:
    """A scene as its file describes it.

    array : None where the file names none, which then is a Vogel spiral
    """

    array: Path | None = None
    seconds: float = 5.0
    rate_hz: int = 48_000
    temperature_c: float = 20.0
    gain_db: float = 0.0
    seed: int = 0
    room: Room | None = None
    sources: tuple[SourceSettings, ...] = ()
    noises: tuple[Noise, ...] = ()
    microphones: MicrophoneSettings | None = None


def load_scene_settings(path: Path, changes: Iterable[str] = ()) -> SceneSettings:
    """Read settings and apply changes such as "room.rt60_s=0.5".

    Raises ConfigError naming the file, the key, what was found and what is expected.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise ConfigError(f"{path}: cannot be read as TOML: {reason}") from error
    for change in changes:
        _apply(change, raw)
    tables = {name: raw.pop(name, None) for name in ("room", "microphones")}
    lists = {name: raw.pop(name, []) for name in ("source", "noise")}
    known = [*TOP.kinds, *tables, *lists]
    where = str(path)
    top = _read(where, raw, TOP, path.parent, known)
    for name, table in (("room", ROOM), ("microphones", MICROPHONES)):
        if tables[name] is not None:
            top[name] = _record(f"{where}: {name}", tables[name], table, path.parent)
    for name in lists:
        if not isinstance(lists[name], list) or not all(isinstance(of, dict) for of in lists[name]):
            raise ConfigError(f"{where}: {name} is no list of tables; expected [[{name}]]")
    top["sources"] = tuple(
        _source(f"{where}: source {index}", values, path.parent)
        for index, values in enumerate(lists["source"])
    )
    top["noises"] = tuple(
        _noise(f"{where}: noise {index}", values, path.parent)
        for index, values in enumerate(lists["noise"])
    )
    return SceneSettings(**top)


def _apply(change: str, raw: dict[str, Any]) -> None:
    key, value = parse_override(change)
    *parents, last = key.split(".")
    table = raw
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"'{change}': {parent} is not one table; change it in the file")
    table[last] = value


def _read(
    where: str,
    given: Mapping[str, object],
    table: Table,
    folder: Path,
    known: list[str] | None = None,
) -> dict[str, Any]:
    """Checked values; paths are taken from the settings file's folder."""
    values = {}
    for key, value in given.items():
        kind = table.kinds.get(key)
        if kind is None:
            raise ConfigError(f"{where}: unknown key {key}{nearest(key, known or [*table.kinds])}")
        try:
            read = kind.read(value)
        except UsageError as error:
            raise ConfigError(f"{where}: {key}: {error}") from error
        if read is None:
            raise ConfigError(f"{where}: {key} is {str(value)[:60]}; expected {kind.expected}")
        values[key] = folder / expand_home(read) if isinstance(kind, FilePath) else read
    return values


def _record(where: str, given: object, table: Table, folder: Path) -> Any:
    if not isinstance(given, dict):
        raise ConfigError(f"{where} is {str(given)[:60]}; expected a table")
    values = _read(where, given, table, folder)
    for of in fields(table.record) if table.record is not None else ():
        if of.default is MISSING and of.name not in values:
            raise ConfigError(f"{where}: lacks {of.name}: {table.kinds[of.name].about}")
    try:
        return table.build(values)
    except UsageError as error:
        # It begins with what the table is called.
        raise ConfigError(f"{where.rpartition(': ')[0]}: {error}") from error


def _source(where: str, given: Mapping[str, object], folder: Path) -> SourceSettings:
    values = _read(where, given, SOURCE, folder)
    place, path = values.pop("position_m", None), values.pop("path", None)
    if (place is None) == (path is None):
        raise ConfigError(f"{where}: expected one of position_m and path")
    signals = [name for name in SIGNALS if values.get(name)]
    if len(signals) != 1:
        raise ConfigError(f"{where}: expected one of {', '.join(SIGNALS)}")
    if values.get("chirp_hz") and values["chirp_hz"][0] >= values["chirp_hz"][1]:
        raise ConfigError(f"{where}: chirp_hz is {list(values['chirp_hz'])}; expected it to rise")
    return SourceSettings(place=path or Trajectory.at_rest(place), **values)


def _noise(where: str, given: Mapping[str, object], folder: Path) -> Noise:
    values = _read(where, given, NOISE, folder)
    if "kind" not in values:
        raise ConfigError(f"{where}: lacks kind: {NOISE.kinds['kind'].expected}")
    wind = {key: values.pop(key) for key in WIND_KEYS & set(values)}
    for kind, keys in (("wind", set(wind)), ("diffuse", {"slope_db_per_octave"} & set(values))):
        if keys and values["kind"] != kind:
            raise ConfigError(f"{where}: {min(keys)} is only of kind {kind}; leave it out")
    try:
        return Noise(wind=Wind(**wind), **values)
    except UsageError as error:
        raise ConfigError(f"{where}: {error}") from error


def build_scene(settings: SceneSettings, n_mics: int) -> Scene:
    """The scene for an array of so many microphones, with its sounds read or made.

    Raises InputError for a sound file that cannot be used, ConfigError for a frequency that the
    sample rate does not hold.
    """
    sources = tuple(
        PointSource(_signal(of, settings, index), of.place, of.start_s, of.label)
        for index, of in enumerate(settings.sources)
    )
    faults = settings.microphones
    return Scene(
        sources=sources,
        n_samples=max(round(settings.seconds * settings.rate_hz), 1),
        rate_hz=settings.rate_hz,
        temperature_c=settings.temperature_c,
        room=settings.room,
        noises=settings.noises,
        microphones=None if faults is None else Microphones.draw(n_mics, faults, settings.seed),
        gain_db=settings.gain_db,
        seed=settings.seed,
    )


def _signal(source: SourceSettings, settings: SceneSettings, index: int) -> FloatArray:
    rate_hz = settings.rate_hz
    highest_hz = max(source.tone_hz or 0, *(source.chirp_hz or (0,)))
    if highest_hz >= rate_hz / 2:
        raise ConfigError(
            f"source {index}: {highest_hz:g} Hz; expected below half of rate_hz ({rate_hz})"
        )
    if source.file is not None:
        samples = read_clip(source.file, rate_hz)[round(source.from_s * rate_hz) :]
        if source.seconds is not None:
            samples = samples[: max(round(source.seconds * rate_hz), 1)]
        if not len(samples):
            raise ConfigError(
                f"source {index}: from_s is {source.from_s:g}; expected a time within {source.file}"
            )
        level = source.level_dbfs
        return samples if level is None else at_level(samples, level)
    seconds = source.seconds or _SECONDS
    if source.tone_hz is not None:
        made = tone(source.tone_hz, seconds, rate_hz)
    elif source.chirp_hz is not None:
        made = chirp(*source.chirp_hz, seconds, rate_hz)
    else:
        made = white_noise(seconds, rate_hz, np.random.default_rng([settings.seed, _SIGNAL, index]))
    return at_level(made, _LEVEL_DBFS if source.level_dbfs is None else source.level_dbfs)
