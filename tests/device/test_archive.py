"""The canonical zip: any zip program reads it, and nothing but it is read."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.archive import read_archive, write_archive
from soundpost.device.errors import BundleError

NAMES = ("a.bin", "b.txt")
MEMBERS = {"a.bin": bytes(range(256)) * 3, "b.txt": b"text"}
LIMIT = 10_000


def read(raw: bytes) -> dict[str, bytes]:
    return read_archive(raw, NAMES, LIMIT, "x.bundle")


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_what_is_written_is_read_by_us_and_by_zipfile(a: bytes, b: bytes) -> None:
    members = {"a.bin": a, "b.txt": b}
    raw = write_archive(members)
    assert read(raw) == members
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == members


def test_order_of_members_does_not_matter() -> None:
    assert write_archive(dict(reversed(MEMBERS.items()))) == write_archive(MEMBERS)


def test_bytes_are_frozen() -> None:
    crc = "ac2a93d8"
    sizes = "0200000002000000"
    # Version 2.0, no flags, stored, 00:00, 1 January 1980, CRC-32, sizes, length of the name.
    common = f"1400 0000 0000 0000 2100 {crc} {sizes} 0100 0000"
    local = f"504b0304 {common} 61 6869"
    # Made by version 2.0 on Unix; no comment, disk 0, a regular file of mode 644, at offset 0.
    central = f"504b0102 1403 {common} 0000 0000 0000 0000a481 00000000 61"
    end = "504b0506 0000 0000 0100 0100 2f000000 21000000 0000"
    expected = f"{local} {central} {end}".replace(" ", "")
    assert write_archive({"a": b"hi"}).hex() == expected


@given(st.data())
def test_any_changed_byte_is_refused(data: st.DataObject) -> None:
    raw = bytearray(write_archive(MEMBERS))
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BundleError):
        read(bytes(raw))


def test_every_single_bit_of_the_headers_counts() -> None:
    raw = write_archive({"a.bin": b"", "b.txt": b""})
    for position in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[position] ^= 1 << bit
            with pytest.raises(BundleError):
                read(bytes(changed))


def test_cut_short_anywhere_is_refused() -> None:
    raw = write_archive(MEMBERS)
    for length in range(len(raw)):
        with pytest.raises(BundleError):
            read(raw[:length])


@given(st.binary(max_size=200))
def test_anything_else_is_refused(raw: bytes) -> None:
    with pytest.raises(BundleError, match=r"x\.bundle"):
        read(raw)


@given(st.binary(min_size=1, max_size=50))
def test_bytes_before_or_after_are_refused(extra: bytes) -> None:
    for raw in (extra + write_archive(MEMBERS), write_archive(MEMBERS) + extra):
        with pytest.raises(BundleError):
            read(raw)


def zipped(fill: Callable[[zipfile.ZipFile], None], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        fill(archive)
    return file.getvalue()


def both(archive: zipfile.ZipFile) -> None:
    for name, content in MEMBERS.items():
        archive.writestr(name, content)


@pytest.mark.parametrize(
    "name", ["../a.bin", "/etc/passwd", "x/../../a.bin", "..\\a.bin", "C:\\..\\a.bin"]
)
def test_names_that_escape_are_refused(name: str) -> None:
    with pytest.raises(BundleError, match="escapes"):
        read(zipped(lambda archive: (both(archive), archive.writestr(name, b""))[0]))


def test_other_members_are_refused() -> None:
    with pytest.raises(BundleError, match=r"unknown member 'c\.so'.*a\.bin, b\.txt"):
        read(zipped(lambda archive: (both(archive), archive.writestr("c.so", b""))[0]))
    with pytest.raises(BundleError, match=r"b\.txt is missing"):
        read(zipped(lambda archive: archive.writestr("a.bin", b"")))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_twice_is_refused() -> None:
    with pytest.raises(BundleError, match=r"b\.txt is there more than once"):
        read(zipped(lambda archive: (both(archive), archive.writestr("b.txt", b"other"))[0]))


def test_a_link_is_refused() -> None:
    def fill(archive: zipfile.ZipFile) -> None:
        archive.writestr("a.bin", b"")
        link = zipfile.ZipInfo("b.txt")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")

    with pytest.raises(BundleError, match=r"b\.txt is a symbolic link"):
        read(zipped(fill))


def test_a_zip_bomb_is_refused_unexpanded() -> None:
    def fill(archive: zipfile.ZipFile) -> None:
        archive.writestr("a.bin", bytes(50_000_000))
        archive.writestr("b.txt", b"")

    raw = zipped(fill, zipfile.ZIP_DEFLATED)
    with pytest.raises(BundleError, match="expands to 50000000 bytes"):
        read_archive(raw, NAMES, 1_000_000, "x.bundle")
    # One that lies about its size within the bound is not expanded either.
    with pytest.raises(BundleError, match="compressed"):
        read_archive(raw, NAMES, 64_000_000, "x.bundle")


def test_a_large_file_is_refused() -> None:
    with pytest.raises(BundleError, match="at most 10000"):
        read(bytes(10_001))


def test_a_repacked_zip_is_refused() -> None:
    with pytest.raises(BundleError, match="differ from those that soundpost writes"):
        read(zipped(both))
