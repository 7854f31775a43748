"""Files about an array: array.json, which is ours, and the `<MicArray>` XML of Acoular.

array.json holds geometry only; what calibration finds out stands in a file of its own, which names
this one by the hash of its positions. Fields that this version does not know are kept and written
back.

    {
     "schema": "soundpost.array/1",
     "name": "vogel-128",
     "axes": "x right, y up, z towards the scene",
     "origin": "camera",
     "positions_m": [
      [0.0141, 0.0, 0.0],
      ...
     ],
     "channels": [0, 1, ...],
     "image": {"rows": 36, "columns": 48, "half_width_deg": 45.0, "half_height_deg": 32.0,
               "surface": "sphere", "distance_m": null}
    }
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import quoteattr

import numpy as np

from soundpost.device.array.acoular_xml import read_plain_xml
from soundpost.device.array.geometry import ArrayGeometry, Floats, ImageGrid
from soundpost.device.errors import InputError
from soundpost.device.files import write_atomically
from soundpost.device.records import Fields, check_schema, check_writable, parse_object

ARRAY_SCHEMA: Final = "soundpost.array/1"
AXES: Final = "x right, y up, z towards the scene"
ORIGIN: Final = "camera"
# A thousand microphones with all digits take 80 kB.
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class ArrayDescription:
    """What array.json says.

    channels : (n_mics,) channel of the stream that each microphone is; by default in order
    image : pixels of its acoustic images
    extra, extra_image : fields of later versions, kept as they came

    Raises InputError where a channel is negative or stands for two microphones.
    """

    geometry: ArrayGeometry
    channels: tuple[int, ...] = ()
    image: ImageGrid = field(default_factory=ImageGrid)
    extra: Mapping[str, Any] = field(default_factory=dict)
    extra_image: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.channels:
            object.__setattr__(self, "channels", tuple(range(self.geometry.n_mics)))
        if len(self.channels) != self.geometry.n_mics:
            raise InputError(
                f"array: {len(self.channels)} channels for {self.geometry.n_mics} microphones; "
                "expected one for each"
            )
        if min(self.channels) < 0 or len(set(self.channels)) < len(self.channels):
            raise InputError(
                "array: a channel is negative or stands for two microphones; expected another "
                "channel, counted from 0, for each"
            )

    def to_json(self) -> str:
        """The file's text, a line for each microphone."""
        positions = ",\n".join(f"  {json.dumps(place)}" for place in _listed(self.geometry))
        grid = self.image
        image = {
            "rows": grid.rows,
            "columns": grid.columns,
            "half_width_deg": grid.half_width_deg,
            "half_height_deg": grid.half_height_deg,
            "surface": grid.surface,
            "distance_m": grid.distance_m,
            **self.extra_image,
        }
        parts = {
            "schema": _json(ARRAY_SCHEMA),
            "name": _json(self.geometry.name),
            "axes": _json(AXES),
            "origin": _json(ORIGIN),
            "positions_m": f"[\n{positions}\n ]",
            "channels": _json(list(self.channels)),
            "image": _json(image),
            **{name: _json(value) for name, value in self.extra.items()},
        }
        lines = ",\n".join(f" {_json(name)}: {text}" for name, text in parts.items())
        return f"{{\n{lines}\n}}\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "array.json") -> ArrayDescription:
        """Read the file's text; raises InputError naming `where` and the field."""
        data = parse_object(text, where, _MAX_BYTES)
        check_writable(data, where)
        fields = Fields(data, where)
        check_schema(fields, ARRAY_SCHEMA)
        name = fields.text("name")
        for field_name, meaning in (("axes", AXES), ("origin", ORIGIN)):
            found = fields.text(field_name)
            if found != meaning:
                raise fields.fail(field_name, f"{meaning!r}, the only ones there are", found)
        positions = _positions(fields)
        channels = fields.take("channels")
        if not isinstance(channels, list) or any(type(channel) is not int for channel in channels):
            raise fields.fail("channels", "a list of whole numbers", channels)
        inner = Fields(fields.table("image"), f"{where}, field 'image'")
        grid = _image(inner, where)
        try:
            geometry = ArrayGeometry(positions, name)
            if len(channels) != geometry.n_mics:
                raise fields.fail("channels", f"{geometry.n_mics} channels", channels)
            return cls(geometry, tuple(channels), grid, fields.rest(), inner.rest())
        except InputError as error:
            raise _at(where, error) from error


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _listed(geometry: ArrayGeometry) -> list[list[float]]:
    listed: list[list[float]] = geometry.positions_m.tolist()
    return listed


def _at(where: str, error: InputError) -> InputError:
    return error if str(error).startswith(where) else InputError(f"{where}: {error}")


def _positions(fields: Fields) -> Floats:
    found = fields.take("positions_m")
    expected = "a list of [x, y, z] in metres"
    if not isinstance(found, list):
        raise fields.fail("positions_m", expected, found)
    for place in found:
        numbers = isinstance(place, list) and len(place) == 3
        if not numbers or any(type(value) not in (int, float) for value in place):
            raise fields.fail("positions_m", expected, place)
    try:
        return np.array(found, np.float64)
    except OverflowError as error:
        raise fields.fail("positions_m", expected, found) from error


def _image(fields: Fields, where: str) -> ImageGrid:
    surface = fields.text("surface")
    try:
        return ImageGrid(
            fields.integer("rows"),
            fields.integer("columns"),
            fields.number("half_width_deg"),
            fields.number("half_height_deg"),
            surface,  # type: ignore[arg-type]  # ImageGrid refuses any other
            fields.optional_number("distance_m"),
        )
    except InputError as error:
        raise _at(where, error) from error


def read_array(path: Path) -> ArrayDescription:
    """Read an array.json; raises InputError naming the file and the field."""
    return ArrayDescription.from_json(_read(path), str(path))


def write_array(path: Path, array: ArrayDescription) -> None:
    """Write an array.json; raises InputError where that cannot be done."""
    write_atomically(path, array.to_json().encode())


def read_acoular_xml(path: Path) -> ArrayGeometry:
    """Read the positions of Acoular's `<MicArray>` XML, in the order in which they stand.

    Coordinates stay as they are: Acoular's x and y are ours, and its scenes may lie at either side
    of the plane z = 0, ours at positive z.

    Raises InputError naming the file and the microphone.
    """
    root = read_plain_xml(path, "MicArray")
    positions = []
    for number, element in enumerate(root.iter("pos")):
        try:
            positions.append([float(element.attrib[axis]) for axis in "xyz"])
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{path}: <pos> {number}: found {element.attrib}; expected numbers x, y and z in "
                "metres"
            ) from error
    try:
        return ArrayGeometry(np.array(positions).reshape(-1, 3), root.get("name") or path.stem)
    except InputError as error:
        raise _at(str(path), error) from error


def write_acoular_xml(path: Path, geometry: ArrayGeometry) -> None:
    """Write the `<MicArray>` XML that Acoular reads; raises InputError where it cannot."""
    lines = [
        f'  <pos Name="Point {number}" x="{x!r}" y="{y!r}" z="{z!r}"/>'
        for number, (x, y, z) in enumerate(_listed(geometry), 1)
    ]
    name = quoteattr(geometry.name)
    head = f'<?xml version="1.0" encoding="utf-8"?>\n<MicArray name={name}>'
    write_atomically(path, "\n".join([head, *lines, "</MicArray>", ""]).encode())


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; check the path") from error
    if len(raw) > _MAX_BYTES:
        raise InputError(
            f"{path}: has more than {_MAX_BYTES} bytes; expected a file about an array"
        )
    return raw
