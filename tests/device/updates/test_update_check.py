"""What `soundpost doctor` says of updates, with a real repository."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from soundpost.device.bundle import parse_bundle
from soundpost.device.config import load_settings
from soundpost.device.findings import Finding
from soundpost.device.settings import Settings
from soundpost.device.update_check import check_updates
from soundpost.device.updates.model_store import ModelStore
from soundpost.export.repository import folder as _needs_the_operators_side

DEVICE = "porch-pi"
assert _needs_the_operators_side


@pytest.fixture
def operator(memory_path: Path) -> Any:
    made = sys.modules["signed_repository"].Operator(memory_path / "operator")
    made.release("1.3.0")
    return made


@pytest.fixture
def settings(memory_path: Path, operator: Any) -> Settings:
    """Of a repository that is a folder."""
    (memory_path / "root.json").write_bytes(operator.root)
    path = memory_path / "soundpost.toml"
    path.write_text(
        f'device_id = "{DEVICE}"\n[outbox]\npath = "outbox.sqlite3"\n[updates]\n'
        f'repository = "{operator.public}"\nroot = "root.json"\nfolder = "models"\n'
    )
    return load_settings(path, environment={})


def found(settings: Settings, *, right: bool = True) -> list[Finding]:
    return list(check_updates(settings, lambda: right))


def last(settings: Settings, *, right: bool = True) -> tuple[str, str]:
    """State and text of what is said of the repository."""
    finding = found(settings, right=right)[-1]
    assert (finding.remedy == "") == (finding.state == "ok")
    return finding.state, finding.text


def changed(settings: Settings, **values: Any) -> Settings:
    return replace(settings, updates=replace(settings.updates, **values))


def test_nothing_is_said_of_updates_that_are_off(settings: Settings) -> None:
    assert found(changed(settings, repository=None)) == []


def test_what_would_be_installed_is_told_and_nothing_is_changed(
    settings: Settings, memory_path: Path
) -> None:
    space, repository = found(settings)
    assert (space.state, repository.state) == ("ok", "ok")
    assert "tiny-1.3.0.bundle; nothing is installed" in repository.text
    assert not (memory_path / "models").exists()


def test_what_is_installed_is_told(settings: Settings, memory_path: Path) -> None:
    helper = sys.modules["signed_repository"]
    store = ModelStore(memory_path / "models")
    content = helper.bundle_bytes("1.3.0")
    (store.downloads / "x").write_bytes(content)
    store.stage(store.downloads / "x", helper.installed(parse_bundle(content, "x")))
    store.switch()
    told = [finding.text for finding in found(settings)]
    assert told[0] == "installed: tiny 1.3.0, on probation"
    assert "tiny-1.3.0.bundle, which is installed" in told[-1]
    store.confirm()
    assert found(settings)[0].text == "installed: tiny 1.3.0"
    (memory_path / "models" / "models.json").write_text("[]")
    (damaged,) = found(settings)
    assert (damaged.state, damaged.area) == ("fault", "updates")
    assert "begins with the model of the settings" in damaged.remedy


def test_each_reason_why_none_can_come(
    settings: Settings, operator: Any, memory_path: Path, serve: Callable[..., Any]
) -> None:
    state, text = last(settings, right=False)
    assert state == "warning"
    assert "wait for the clock" in text
    state, text = last(changed(settings, repository="http://127.0.0.1:9/"))
    assert state == "warning"
    state, text = last(changed(settings, channel="canary"))
    assert (state, "channel 'canary' is empty" in text) == ("ok", True)
    state, text = last(changed(settings, root=memory_path / "absent.json"))
    assert state == "fault"
    assert "absent.json: cannot read the repository's root" in text
    other = sys.modules["signed_repository"].Operator(memory_path / "other")
    (memory_path / "root.json").write_bytes(other.root)
    state, text = last(settings)
    assert state == "fault"
    assert "not to be trusted" in text
