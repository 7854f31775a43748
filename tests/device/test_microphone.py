"""Microphone profiles: what is right is read as it stands, what is wrong is one line."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import ConfigError, InputError, SoundpostError
from soundpost.device.microphone import MicrophoneProfile, load_profile

SCHEMA = 'schema = "soundpost.microphone/1"\n'
FULL = (
    SCHEMA
    + 'name = "porch"\nsensitivity_dbfs = -26\nresponse = [[20, -3.5], [1000, 0.5], [10_000, 4]]\n'
)


def write(folder: Path, text: str, name: str = "porch.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_every_value_is_read(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, FULL))
    assert profile == MicrophoneProfile(
        "porch", -26.0, ((20.0, -3.5), (1000.0, 0.5), (10_000.0, 4.0))
    )
    assert profile.calibrated
    assert profile.offset_db == 120.0


def test_the_response_is_relative_to_1_kilohertz_and_stays_beyond_its_ends(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, FULL))
    frequency_hz = np.array([0.0, 5.0, 20.0, 1000.0, np.sqrt(1e7), 10_000.0, 96_000.0])
    expected_db = [-4.0, -4.0, -4.0, 0.0, 1.75, 3.5, 3.5]
    assert profile.response_db(frequency_hz) == pytest.approx(expected_db)
    assert profile.correction_db(frequency_hz) == pytest.approx([-db for db in expected_db])


def test_without_a_sensitivity_it_is_not_calibrated(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, SCHEMA))
    assert (profile.name, profile.calibrated, profile.offset_db) == ("porch", False, 0.0)
    assert not profile.response_db(np.array([0.0, 50.0])).any()


@pytest.mark.parametrize(
    "table",
    [
        "20,-1.0\n1000,0\n20000,2\n",
        '"Sens Factor =-18.1dB, SERNO: 7001234"\n20.0\t-1.0\t12\n1000\t0\t0\n20000\t2\t-9\n',
        "frequency_hz;response_db\r\n20; -1.0\r\n\r\n1e3; 0\r\n2e4; 2\r\n",
        "\ufeff* made on 2026-11-20\n# Hz dB\n20 -1.0\n1000 0\n20000 2\n",
    ],
)
def test_makers_tables_are_read(tmp_path: Path, table: str) -> None:
    expected = ((20.0, -1.0), (1000.0, 0.0), (20_000.0, 2.0))
    alone = load_profile(write(tmp_path, table, "umik.csv"))
    assert alone == MicrophoneProfile("umik", None, expected)
    named = write(tmp_path, SCHEMA + 'response_file = "umik.csv"\nsensitivity_dbfs = -18.1\n')
    assert load_profile(named) == MicrophoneProfile("porch", -18.1, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "porch.toml: schema: found None, expected 'soundpost.microphone/1'"),
        ('schema = "soundpost.microphone/2"', "schema: found 'soundpost.microphone/2', expected"),
        (SCHEMA + "sensitivty_dbfs = -26", "unknown key; did you mean sensitivity_dbfs?"),
        (SCHEMA + "gain = 3", "gain: unknown key; known: schema, name, sensitivity_dbfs"),
        (SCHEMA + 'sensitivity_dbfs = "-26"', "found '-26', expected a number in dBFS"),
        (SCHEMA + "sensitivity_dbfs = true", "found True, expected a number in dBFS"),
        (SCHEMA + f"sensitivity_dbfs = {10**400}", "expected a number in dBFS"),
        (SCHEMA + "sensitivity_dbfs = 94", "found 94, expected -120 to 20 dBFS at 94 dB SPL"),
        (SCHEMA + "sensitivity_dbfs = nan", "found nan, expected -120 to 20 dBFS"),
        (SCHEMA + "name = 3", "name: found 3, expected a text in quotes"),
        (SCHEMA + "response = 3", "response: found 3, expected pairs"),
        (
            SCHEMA + "response = [[20, 0], [1000]]",
            "response, point 2: found [1000], expected pairs",
        ),
        (
            SCHEMA + "response = [[20, 0], [1000, '0']]",
            "point 2: found [1000, '0'], expected pairs",
        ),
        (SCHEMA + "response = [[1000, 0]]", "found 1 points, expected 2 to 10000"),
        (
            SCHEMA + "response = [[20, 0], [20, 1]]",
            "point 2: found 20 Hz after 20 Hz, expected ris",
        ),
        (SCHEMA + "response = [[0, 0], [2000, 1]]", "point 1: found 0 Hz, expected 0.1 Hz to"),
        (SCHEMA + "response = [[20, 0], [2000, 99]]", "point 2: found 99 dB, expected -60 to 60"),
        (SCHEMA + "response = [[20, 0], [2000, nan]]", "point 2: found nan dB, expected"),
        (
            SCHEMA + "response = [[20, 0], [900, 1]]",
            "found 20 to 900 Hz, expected a range with 1000",
        ),
        (
            SCHEMA + 'response = []\nresponse_file = "a.csv"',
            "response_file: is set beside response",
        ),
        ("schema = ", "not TOML"),
        (SCHEMA + f"sensitivity_dbfs = {'9' * 5_000}", "not TOML: Exceeds the limit"),
        (SCHEMA + f"response = {'[' * 5_000}", "not TOML: "),
        (SCHEMA + f"sensitivity_dbfs = 0x{'f' * 5_000}", "found a number of thousands of digits"),
        (SCHEMA + f"{'a' * 5_000} = 1", "aaa...: unknown key"),
    ],
)
def test_a_mistake_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        load_profile(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < len(str(path)) + 300


def test_a_line_of_a_table_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "Hz,dB\n20,0\n1000,zero\n", "umik.csv")
    with pytest.raises(ConfigError, match=r"umik\.csv:3: found '1000,zero', expected a frequency"):
        load_profile(path)
    with pytest.raises(ConfigError, match="no lines of frequency"):
        load_profile(write(tmp_path, "Hz,dB\n", "umik.csv"))


def test_files_that_are_no_profile(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the microphone profile: No such file"):
        load_profile(tmp_path / "absent.toml")
    sound = tmp_path / "clip.csv"
    sound.write_bytes(b"RIFF\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_profile(sound)
    sound.write_bytes(b"1" * 1_000_001)
    with pytest.raises(ConfigError, match="larger than"):
        load_profile(sound)


@given(st.binary(max_size=200), st.sampled_from(["a.toml", "a.csv"]))
def test_anything_is_a_profile_or_one_line(content: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        message = "read"
        try:
            load_profile(path)
        except SoundpostError as error:
            message = str(error)
    assert len(message.splitlines()) == 1
