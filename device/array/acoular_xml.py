"""Acoular's XML as far as it is plain: bounded, UTF-8, without document types or entities."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from soundpost.device.errors import InputError

_MAX_BYTES = 1_000_000


def read_plain_xml(path: Path, tag: str) -> ElementTree.Element:
    """The root of a file, which must be called `tag`; raises InputError naming the file."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; check the path") from error
    if len(raw) > _MAX_BYTES:
        raise InputError(f"{path}: has more than {_MAX_BYTES} bytes; expected a <{tag}>")
    # Acoular writes neither, and an entity can stand for more text than there is memory. They are
    # looked for in the bytes: in UTF-16 they would hide.
    if b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
        raise InputError(f"{path}: has a document type or an entity; expected a plain <{tag}>")
    if b"\0" in raw:
        raise InputError(f"{path}: is not UTF-8; expected a <{tag}> as Acoular writes it")
    try:
        root = ElementTree.fromstring(raw)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise InputError(f"{path}: is not XML: {error}; export it from Acoular again") from error
    if root.tag != tag:
        raise InputError(f"{path}: is a <{root.tag}>; expected a <{tag}> as Acoular writes it")
    return root
