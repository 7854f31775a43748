"""What the machine tells of itself: heat, throttling, supply, clock governor, memory, load.

All of it is read from /proc, /sys and, on a Raspberry Pi, its firmware; a machine that does not
tell gives None.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Bits of the firmware's get_throttled (Raspberry Pi documentation, vcgencmd): now, since the start.
_UNDER_VOLTAGE: Final = (0, 16)
_CAPPED: Final = (1, 17)
_THROTTLED: Final = (2, 18)
_SOFT_LIMIT: Final = (3, 19)


@dataclass(frozen=True)
class Throttling:
    """What a Raspberry Pi's firmware reports, now and at any time since the start."""

    under_voltage: bool
    under_voltage_before: bool
    throttled: bool
    throttled_before: bool

    @classmethod
    def of(cls, bits: int) -> Throttling:
        """From the firmware's word of bits; a frequency that is capped counts as throttled."""

        def any_of(index: int, *pairs: tuple[int, int]) -> bool:
            return any(bits >> pair[index] & 1 for pair in pairs)

        slow = (_CAPPED, _THROTTLED, _SOFT_LIMIT)
        return cls(
            any_of(0, _UNDER_VOLTAGE), any_of(1, _UNDER_VOLTAGE), any_of(0, *slow), any_of(1, *slow)
        )


def processor_time_s() -> float:
    """Processor time used by this process so far, and by those below it that live.

    It falls back where one of those has ended.
    """
    return time.process_time() + sum(_used_s(pid) for pid in _children(os.getpid()))


def _children(pid: int) -> set[int]:
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= {int(child) for child in path.read_text(encoding="ascii").split()}
    return found


def _used_s(pid: int) -> float:
    """User and system time of a process, fields 14 and 15 of proc(5); 0 where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    user, system = fields.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


class Board:
    """This machine, or the one whose /sys and /proc lie below root."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def _text(self, path: str) -> str | None:
        try:
            # The device tree ends its texts with a zero byte.
            return (self._root / path).read_text("utf-8", "replace").strip("\0\n ")
        except OSError:
            return None

    @property
    def name(self) -> str:
        """Model of the board, or of the processor."""
        model = self._text("sys/firmware/devicetree/base/model")
        if model:
            return model
        for line in (self._text("proc/cpuinfo") or "").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
        return os.uname().machine

    @property
    def temperature_c(self) -> float | None:
        """Of the hottest thermal zone that makes sense (some report 0 or a sensor's absence)."""
        found = []
        for zone in sorted((self._root / "sys/class/thermal").glob("thermal_zone*")):
            text = self._text(str((zone / "temp").relative_to(self._root)))
            if text is not None and text.lstrip("-").isdigit() and -40_000 < int(text) < 150_000:
                found.append(int(text) / 1000)
        return max(found, default=None)

    @property
    def throttling(self) -> Throttling | None:
        """By the firmware of a Raspberry Pi."""
        text = self._text("sys/devices/platform/soc/soc:firmware/get_throttled")
        if text is None:
            text = self._vcgencmd()
        try:
            return None if text is None else Throttling.of(int(text, 16))
        except ValueError:
            return None

    def _vcgencmd(self) -> str | None:
        if self._root != Path("/"):
            return None
        try:
            told = subprocess.run(
                ["vcgencmd", "get_throttled"],
                capture_output=True,
                text=True,
                check=False,
                timeout=5,
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            return None
        return told.partition("=")[2].strip() or None

    @property
    def governors(self) -> set[str]:
        """Frequency governors of the processor's cores; empty where there are none."""
        folder = self._root / "sys/devices/system/cpu"
        found = set()
        for path in folder.glob("cpu[0-9]*/cpufreq/scaling_governor"):
            text = self._text(str(path.relative_to(self._root)))
            if text:
                found.add(text)
        return found

    @property
    def scales_in_powersave(self) -> bool:
        """Whether `powersave` follows the load all the same, as Intel's and AMD's drivers do."""
        driver = self._text("sys/devices/system/cpu/cpu0/cpufreq/scaling_driver") or ""
        return driver.startswith(("intel_pstate", "amd-pstate"))

    @property
    def memory_available_mb(self) -> float | None:
        """What programs can still have without swapping, in 10^6 bytes."""
        for line in (self._text("proc/meminfo") or "").splitlines():
            key, _, value = line.partition(":")
            if key == "MemAvailable":
                return int(value.split()[0]) * 1024 / 1e6
        return None
