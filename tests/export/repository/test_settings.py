"""repository.json: read back as written, and refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import ConfigError, InputError
from soundpost.export.repository.settings import (
    Days,
    RepositorySettings,
    read_settings,
    write_settings,
)

NAMES = st.lists(st.from_regex(r"\A[a-z][a-z0-9.-]{0,9}\Z"), max_size=3).map(tuple)


@given(days=st.integers(1, 3_650), channels=NAMES, devices=NAMES, public=st.text(max_size=9))
def test_settings_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    days: int,
    channels: tuple[str, ...],
    devices: tuple[str, ...],
    public: str,
) -> None:
    made = RepositorySettings(public, Days(targets=days), channels, devices)
    folder = tmp_path_factory.getbasetemp()
    (folder / "repository.json").write_bytes(made.to_json())
    assert read_settings(folder) == made


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"chanels": []}, "unknown key 'chanels'; known: public"),
        ({"pubic": "x"}, "unknown key 'pubic'; did you mean public?"),
        ({"days": {"root": 365, "target": 1}}, "unknown key days.'target'; did you mean targets?"),
        ({"days": {"root": 0}}, "days.root is 0: expected 1 to 3650"),
        ({"days": {"root": True}}, "days.root is True: expected 1 to 3650"),
        ({"days": []}, "expected an object"),
        ({"channels": "stable"}, "channels is stable: expected a list of names"),
        ({"channels": ["a b"]}, "channel 'a b': expected up to 64"),
        ({"devices": [1]}, "devices is [1]: expected a list of names"),
        ({"public": 1}, "public is 1: expected the path of a folder"),
        ({"schema": "soundpost.repository/2"}, "expected an object of schema"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, object], told: str) -> None:
    write_settings(tmp_path, RepositorySettings())
    path = tmp_path / "repository.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ConfigError) as error:
        read_settings(tmp_path)
    assert str(error.value).startswith(f"{path}: ")
    assert told in str(error.value)


def test_no_repository_and_no_json_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no repository .*soundpost repo init"):
        read_settings(tmp_path)
    (tmp_path / "repository.json").write_bytes(b"{")
    with pytest.raises(ConfigError, match="is not JSON"):
        read_settings(tmp_path)
