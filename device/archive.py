"""Zip files in one canonical form: the same members give the same bytes, and nothing else is read.

Members are stored, not compressed, without dates, owners or comments. A reader that accepts only
this form has no expansion to fear and notices a change of any byte, also where a zip's own checksum
does not reach. The headers are written here, not by zipfile, whose output is its own affair and may
change with Python's version (format: PKWARE APPNOTE 6.3, sections 4.3.7, 4.3.12 and 4.3.16).
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence

from soundpost.device.errors import BundleError

# Version 2.0, no flags, stored, and the first time that a zip can state: 1980-01-01 00:00.
_VERSION, _FLAGS, _STORED, _TIME, _DATE = 20, 0, 0, 0, 0x21
_MADE_BY_UNIX = (3 << 8) | _VERSION
_MODE = (stat.S_IFREG | 0o644) << 16

_ENCRYPTED = 0x1


def write_archive(members: Mapping[str, bytes]) -> bytes:
    """Zip file of the members in the order of their names (ASCII, less than 4 GiB together)."""
    body, directory = bytearray(), bytearray()
    for name in sorted(members):
        content, encoded = members[name], name.encode("ascii")
        sizes = (zlib.crc32(content), len(content), len(content), len(encoded), 0)
        common = struct.pack(
            "<HHHHHIIIHH", _VERSION, _FLAGS, _STORED, _TIME, _DATE, *sizes
        )  # fmt: skip
        directory += struct.pack("<4sH", b"PK\x01\x02", _MADE_BY_UNIX) + common
        directory += struct.pack("<HHHII", 0, 0, 0, _MODE, len(body)) + encoded
        body += b"PK\x03\x04" + common + encoded + content
    count = len(members)
    end = struct.pack(
        "<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, len(directory), len(body), 0
    )  # fmt: skip
    return bytes(body + directory + end)


def read_archive(raw: bytes, names: Sequence[str], max_bytes: int, where: str) -> dict[str, bytes]:
    """Members of a zip file in canonical form.

    Parameters
    ----------
    raw : the file
    names : the members it must have, no more and no fewer
    max_bytes : bound on the file and on its expanded members together
    where : the file's name, for messages

    Raises
    ------
    BundleError
        Not a zip, cut short, damaged, unsafe, too large, or packed by something else.
    """
    if len(raw) > max_bytes:
        raise BundleError(f"{where}: has {len(raw)} bytes: expected at most {max_bytes}")
    damaged = f"{where}: is damaged or no bundle"
    again = "fetch the file again"
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            entries = archive.infolist()
            _check_entries(entries, names, max_bytes, where)
            members = {entry.filename: archive.read(entry) for entry in entries}
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        ValueError,
        EOFError,
        OSError,
        struct.error,
        zlib.error,
    ) as error:
        # zipfile quotes whatever stands where a name should be.
        raise BundleError(f"{damaged} ({str(error)[:100]}); {again}") from error
    if write_archive(members) != raw:
        raise BundleError(f"{damaged} (bytes differ from those that soundpost writes); {again}")
    return members


def _check_entries(
    entries: Sequence[zipfile.ZipInfo], names: Sequence[str], max_bytes: int, where: str
) -> None:
    remedy = "take it from a source you trust, or export it again with `soundpost export`"
    expanded = sum(entry.file_size for entry in entries)
    if expanded > max_bytes:
        raise BundleError(
            f"{where}: expands to {expanded} bytes: expected at most {max_bytes}; {remedy}"
        )
    found = [entry.filename for entry in entries]
    for entry in entries:
        name = entry.filename
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
            raise BundleError(f"{where}: member {name!r} escapes its folder; {remedy}")
        if name not in names:
            raise BundleError(
                f"{where}: unknown member {name!r}: expected {', '.join(names)}; {remedy}"
            )
        if found.count(name) > 1:
            raise BundleError(f"{where}: member {name} is there more than once; {remedy}")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise BundleError(f"{where}: member {name} is a symbolic link; {remedy}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED:
            raise BundleError(
                f"{where}: member {name} is compressed or encrypted: expected it as it is; {remedy}"
            )
    missing = [name for name in names if name not in found]
    if missing:
        raise BundleError(f"{where}: member {missing[0]} is missing; {remedy}")
