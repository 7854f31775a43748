"""calibration.json: what was found out about one array, in sections that are measured one by one.

    {
     "schema": "soundpost.calibration/1",
     "array": {"name": "vogel-128", "sha256": "...", "n_mics": 128},
     "microphones": {
      "date": "2026-11-29T10:00:00.000000Z",
      "temperature_c": 21.5,
      "method": "...",
      "residuals": {"snr_db": 24.1, ...},
      "gain": [1.02, ...],
      ...
     },
     "positions": null,
     "level": {...},
     "response": {...},
     "camera": {...},
     "sync": {...}
    }

It belongs to the array whose positions have this hash, and to no other: array.json stays as it was
drawn, and what is measured stands here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from soundpost.device.array.calibration_sections import (
    LevelSection,
    MicrophoneSection,
    PositionSection,
    ResponseSection,
)
from soundpost.device.array.camera_sections import CameraSection, SyncSection
from soundpost.device.array.geometry import ArrayGeometry
from soundpost.device.array.geometry_files import ArrayDescription
from soundpost.device.errors import InputError
from soundpost.device.files import write_atomically
from soundpost.device.records import Fields, check_schema, check_writable, parse_object

CALIBRATION_SCHEMA: Final = "soundpost.calibration/1"
Section = (
    MicrophoneSection
    | PositionSection
    | LevelSection
    | ResponseSection
    | CameraSection
    | SyncSection
)
# By the field's name, in the file's order.
_SECTIONS: dict[str, Any] = {
    "microphones": MicrophoneSection,
    "positions": PositionSection,
    "level": LevelSection,
    "response": ResponseSection,
    "camera": CameraSection,
    "sync": SyncSection,
}
# A thousand microphones with all digits take 200 kB; responses of 128 of them, at a thousand
# frequencies each, 4 MB.
_MAX_BYTES = 10_000_000


@dataclass(frozen=True)
class Calibration:
    """What calibration.json says; a section is None until it has been measured.

    array_name, array_sha256, n_mics : the array it belongs to
    extra, extra_array : fields of later versions, kept as they came

    Raises InputError for sections of another number of microphones.
    """

    array_name: str
    array_sha256: str
    n_mics: int
    microphones: MicrophoneSection | None = None
    positions: PositionSection | None = None
    level: LevelSection | None = None
    response: ResponseSection | None = None
    camera: CameraSection | None = None
    sync: SyncSection | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    extra_array: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = []
        if self.microphones is not None:
            counts.append(("microphones", len(self.microphones.gain)))
        if self.positions is not None:
            counts.append(("positions", len(self.positions.positions_m)))
        for name, count in counts:
            if count != self.n_mics:
                raise InputError(
                    f"calibration: section {name} has {count} microphones; expected {self.n_mics}"
                )
        for mic in () if self.response is None else self.response.by_microphone:
            if not 0 <= mic < self.n_mics:
                raise InputError(
                    f"calibration: section response has microphone {mic}; expected 0 to "
                    f"{self.n_mics - 1}"
                )

    @classmethod
    def of(cls, geometry: ArrayGeometry) -> Calibration:
        """One in which nothing has been measured yet."""
        return cls(geometry.name, geometry.hash(), geometry.n_mics)

    def with_section(self, section: Section) -> Calibration:
        """The same with one section in place of what stood there."""
        (name,) = (name for name, kind in _SECTIONS.items() if isinstance(section, kind))
        changed: dict[str, Any] = {name: section}
        return replace(self, **changed)

    def check_belongs(self, geometry: ArrayGeometry, where: str = "calibration") -> None:
        """Raise InputError for an array that is not the one this was measured on."""
        found = geometry.hash()
        if found != self.array_sha256:
            raise InputError(
                f"{where}: belongs to array {self.array_name[:60]!r} ({self.array_sha256[:12]}), "
                f"not to {geometry.name[:60]!r} ({found[:12]}); calibrate this array, or take the "
                "array.json that it was made with"
            )

    def geometry(self, array: ArrayDescription) -> ArrayGeometry:
        """The array's positions as measured, or as drawn where they have not been."""
        self.check_belongs(array.geometry)
        if self.positions is None:
            return array.geometry
        return ArrayGeometry(self.positions.positions_m, array.geometry.name)

    def to_json(self) -> str:
        """The file's text, a line for each field of a section."""
        known = {"name": self.array_name, "sha256": self.array_sha256, "n_mics": self.n_mics}
        parts = {
            "schema": _json(CALIBRATION_SCHEMA),
            "array": _json(known | dict(self.extra_array)),
        }
        for name in _SECTIONS:
            section: Section | None = getattr(self, name)
            parts[name] = "null" if section is None else _lines(section.to_dict())
        parts |= {name: _json(value) for name, value in self.extra.items()}
        lines = ",\n".join(f" {_json(name)}: {text}" for name, text in parts.items())
        return f"{{\n{lines}\n}}\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "calibration.json") -> Calibration:
        """Read the file's text; raises InputError naming `where` and the field."""
        data = parse_object(text, where, _MAX_BYTES)
        check_writable(data, where)
        fields = Fields(data, where)
        check_schema(fields, CALIBRATION_SCHEMA)
        inner = Fields(fields.table("array"), f"{where}, field 'array'")
        array = inner.text("name"), inner.text("sha256"), inner.integer("n_mics")
        try:
            sections = {name: _section(fields, name, where) for name in _SECTIONS}
            return cls(*array, **sections, extra=fields.rest(), extra_array=inner.rest())
        except InputError as error:
            if str(error).startswith(where):
                raise
            raise InputError(f"{where}: {error}") from error


def _section(fields: Fields, name: str, where: str) -> Any:
    table = fields.optional_table(name)
    if table is None:
        return None
    at = f"{where}, field {name!r}"
    try:
        return _SECTIONS[name].take(Fields(table, at))
    except InputError as error:
        raise error if str(error).startswith(where) else InputError(f"{at}: {error}") from error


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _lines(section: Mapping[str, Any]) -> str:
    lines = ",\n".join(f"  {_json(name)}: {_json(value)}" for name, value in section.items())
    return f"{{\n{lines}\n }}"


def read_calibration(path: Path, geometry: ArrayGeometry | None = None) -> Calibration:
    """Read a calibration.json.

    geometry : the array it is for, as drawn; None: whichever it says

    Raises InputError naming the file and the field, and where it belongs to another array.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; check the path") from error
    calibration = Calibration.from_json(raw, str(path))
    if geometry is not None:
        calibration.check_belongs(geometry, str(path))
    return calibration


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration.json; raises InputError where that cannot be done, or nobody reads it."""
    content = calibration.to_json().encode()
    if len(content) > _MAX_BYTES:
        raise InputError(
            f"{path}: would have {len(content)} bytes; expected {_MAX_BYTES} at most: give "
            "responses at fewer frequencies"
        )
    write_atomically(path, content)


def same_positions(calibration: Calibration, array: ArrayDescription) -> bool:
    """Whether the delays were found out with the positions that the calibration now has."""
    microphones = calibration.microphones
    if microphones is None:
        return True
    return calibration.geometry(array).hash() == microphones.positions_sha256
