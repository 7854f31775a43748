"""Files of Torch 7 (`.t7`), in which SoundNet is published.

Reads the binary form on a 64-bit little-endian machine, as documented with Torch's `File` class
("serialization"): numbers, strings, booleans, tables, tensors and the fields of other objects.
Nothing in a file is run: Lua functions are passed over. Every length is checked against what the
file holds.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import InputError

_NIL, _NUMBER, _STRING, _TABLE, _OBJECT, _BOOLEAN = range(6)
_FUNCTION, _OLD_CLOSURE, _CLOSURE = 6, 7, 8

_ELEMENTS: dict[str, np.dtype[Any]] = {
    "Byte": np.dtype("u1"),
    "Char": np.dtype("i1"),
    "Short": np.dtype("<i2"),
    "Int": np.dtype("<i4"),
    "Long": np.dtype("<i8"),
    "Float": np.dtype("<f4"),
    "Double": np.dtype("<f8"),
    "Cuda": np.dtype("<f4"),
}
# Of tensors; networks have up to five.
_MAX_DIMENSIONS = 16


@dataclass
class Torch7Object:
    """An object of a class that is not a tensor: a layer, with what it holds."""

    class_name: str
    fields: dict[Any, Any] = field(default_factory=dict)


def read_torch7(content: bytes) -> Any:
    """The one object of a file.

    Tables become dicts (whole numbers as int), tensors arrays, other objects Torch7Object.

    Raises InputError, without the file's name, where the content is damaged or something else.
    """
    try:
        return _Reader(content).read()
    except RecursionError as error:
        raise InputError("is not a readable Torch 7 file: nested too deeply") from error


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = memoryview(content)
        self._at = 0
        # An object that is met twice is written once.
        self._known: dict[int, Any] = {}

    def _take(self, n_bytes: int) -> memoryview:
        end = self._at + n_bytes
        if n_bytes < 0 or end > len(self._content):
            raise InputError(
                f"is not a readable Torch 7 file: byte {self._at} promises {n_bytes} more, "
                f"the file ends at {len(self._content)}"
            )
        taken = self._content[self._at : end]
        self._at = end
        return taken

    def _int(self) -> int:
        return int(struct.unpack("<i", self._take(4))[0])

    def _text(self) -> str:
        return bytes(self._take(self._int())).decode("utf-8", "replace")

    def _longs(self, n: int) -> list[int]:
        return list(struct.unpack(f"<{n}q", self._take(8 * n)))

    def read(self) -> Any:
        kind = self._int()
        if kind == _NIL:
            return None
        if kind == _NUMBER:
            number = float(struct.unpack("<d", self._take(8))[0])
            return int(number) if number.is_integer() else number
        if kind == _STRING:
            return self._text()
        if kind == _BOOLEAN:
            return self._int() == 1
        if kind == _FUNCTION:
            return self._function()
        if kind not in (_TABLE, _OBJECT, _OLD_CLOSURE, _CLOSURE):
            raise InputError(
                f"is not a readable Torch 7 file: kind {kind} at byte {self._at - 4}, expected 0-8"
            )
        index = self._int()
        if index in self._known:
            return self._known[index]
        if kind == _TABLE:
            return self._table(index)
        if kind == _OBJECT:
            return self._object(index)
        self._known[index] = None
        return self._function()

    def _function(self) -> None:
        self._take(self._int())
        self.read()

    def _table(self, index: int) -> dict[Any, Any]:
        table: dict[Any, Any] = {}
        self._known[index] = table
        for _ in range(self._int()):
            key = self.read()
            value = self.read()
            try:
                table[key] = value
            except TypeError as error:
                raise InputError("is not a readable Torch 7 file: a table is a key") from error
        return table

    def _object(self, index: int) -> Any:
        name = self._text()
        # Files of before version numbers start with the class.
        if name.startswith("V "):
            name = self._text()
        element = _ELEMENTS.get(name.removeprefix("torch.").removesuffix("Storage"))
        if name.endswith("Storage") and element is not None:
            (length,) = self._longs(1)
            stored = np.frombuffer(self._take(length * element.itemsize), element)
            self._known[index] = stored
            return stored
        element = _ELEMENTS.get(name.removeprefix("torch.").removesuffix("Tensor"))
        if name.endswith("Tensor") and element is not None:
            tensor = self._tensor(name, element)
            self._known[index] = tensor
            return tensor
        # Known before its fields: one of them may point back.
        layer = Torch7Object(name)
        self._known[index] = layer
        content = self.read()
        if isinstance(content, dict):
            layer.fields = content
        return layer

    def _tensor(self, name: str, element: np.dtype[Any]) -> NDArray[Any]:
        n_dimensions = self._int()
        if not 0 <= n_dimensions <= _MAX_DIMENSIONS:
            raise InputError(f"is not a readable Torch 7 file: {name} of {n_dimensions} dimensions")
        sizes, strides = self._longs(n_dimensions), self._longs(n_dimensions)
        (offset,) = self._longs(1)
        storage = self.read()
        if storage is None or n_dimensions == 0 or 0 in sizes:
            return np.empty(sizes if 0 in sizes else (0,), element)
        last = offset - 1 + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
        inside = (
            isinstance(storage, np.ndarray)
            and offset >= 1
            and min(sizes) >= 0
            and min(strides) >= 0
            and last < len(storage)
            # Strides of zero could make a tensor of any size from one number.
            and math.prod(sizes) <= len(storage)
        )
        if not inside:
            raise InputError(
                f"is not a readable Torch 7 file: {name} {sizes} reaches beyond its storage"
            )
        bytes_apart = [s * element.itemsize for s in strides]
        view = np.lib.stride_tricks.as_strided(storage[offset - 1 :], sizes, bytes_apart)
        return np.array(view)
