"""What a machine tells, from files as boards have them (a Raspberry Pi, a laptop, a container)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.board import Board, Throttling, processor_time_s


def lay(root: Path, files: dict[str, str]) -> Board:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Board(root)


def test_a_raspberry_pi(tmp_path: Path) -> None:
    board = lay(
        tmp_path,
        {
            "sys/firmware/devicetree/base/model": "Raspberry Pi 4 Model B Rev 1.4\0",
            "sys/class/thermal/thermal_zone0/temp": "51121\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "ondemand\n",
            "proc/meminfo": "MemTotal:  3884376 kB\nMemAvailable:    3000000 kB\n",
        },
    )
    assert board.name == "Raspberry Pi 4 Model B Rev 1.4"
    assert board.temperature_c == 51.121
    assert board.throttling == Throttling(True, True, True, True)
    assert board.governors == {"ondemand"}
    assert not board.scales_in_powersave
    assert board.memory_available_mb == 3072


def test_a_laptop_whose_zones_do_not_all_make_sense(tmp_path: Path) -> None:
    board = lay(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone0/temp": "-274000\n",
            "sys/class/thermal/thermal_zone1/temp": "61000\n",
            "sys/class/thermal/thermal_zone2/temp": "48000\n",
            "sys/class/thermal/thermal_zone3/temp": "none\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver": "intel_pstate\n",
            "proc/cpuinfo": "processor : 0\nmodel name\t: A Processor @ 2.0 GHz\n",
        },
    )
    assert board.name == "A Processor @ 2.0 GHz"
    assert board.temperature_c == 61.0
    assert board.scales_in_powersave


def test_a_container_tells_nothing(tmp_path: Path) -> None:
    board = Board(tmp_path)
    assert board.name
    assert board.temperature_c is None
    assert board.throttling is None
    assert board.governors == set()
    assert board.memory_available_mb is None


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        # The examples of the Raspberry Pi documentation of vcgencmd get_throttled.
        (0x0, Throttling(False, False, False, False)),
        (0x50000, Throttling(False, True, False, True)),
        (0x50005, Throttling(True, True, True, True)),
        (0x80008, Throttling(False, False, True, True)),
        (0x20002, Throttling(False, False, True, True)),
    ],
)
def test_the_firmwares_bits(bits: int, expected: Throttling) -> None:
    assert Throttling.of(bits) == expected


@given(st.integers(0, 2**32 - 1))
def test_each_flag_hangs_on_its_own_bits(bits: int) -> None:
    found = Throttling.of(bits)
    assert found.under_voltage == bool(bits & 0x1)
    assert found.under_voltage_before == bool(bits & 0x1_0000)
    assert found.throttled == bool(bits & 0xE)
    assert found.throttled_before == bool(bits & 0xE_0000)


@pytest.mark.parametrize("text", ["", "soon\n", "0x\n"])
def test_nonsense_of_the_firmware_is_nothing(tmp_path: Path, text: str) -> None:
    name = "sys/devices/platform/soc/soc:firmware/get_throttled"
    assert lay(tmp_path, {name: text}).throttling is None


def test_processor_time_counts_the_processes_below_too() -> None:
    before_s = processor_time_s()
    burn = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()"
    child = subprocess.Popen(
        [sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        assert processor_time_s() - before_s >= 0.45
        # One that has ended counts no more, and is no error.
        child.kill()
        child.wait()
        assert processor_time_s() - before_s < 0.45
