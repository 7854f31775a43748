"""A bad model is found out by a process of its own, whatever it does there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from soundpost.device.bundle import Golden, pack_bundle, starter_bundle_path
from soundpost.device.errors import BundleError
from soundpost.device.updates.comparison import NEGLIGIBLE_SHARE
from soundpost.device.updates.self_test import SelfTestResult, _read, run_self_test
from soundpost.device.updates.self_test_process import try_bundle
from soundpost.device.updates.update_settings import UpdateSettings

LIMITS = UpdateSettings()
Make = Callable[..., Path]


@pytest.fixture
def make(tiny: ModuleType, tmp_path: Path) -> Make:
    """Function that writes a bundle of a tiny student, its model file or golden vector changed."""

    def bundle(
        model: Callable[[bytes], bytes] = lambda content: content,
        golden: Callable[[Golden], Golden] = lambda found: found,
        **how: Any,
    ) -> Path:
        student = tiny.tiny_student(**how)
        manifest = tiny.tiny_manifest(quantised=how.get("quantised", True))
        vector = golden(tiny.tiny_golden(student, manifest))
        path = tmp_path / "made.bundle"
        path.write_bytes(pack_bundle(manifest, model(student.model), vector, "# tiny\n"))
        return path

    return bundle


def tried(path: Path, limits: UpdateSettings = LIMITS, **more: Any) -> SelfTestResult:
    """In this process, of whose memory other tests have had their part: the other one's start
    takes a second."""
    try:
        return try_bundle(
            path,
            limits.latency_share,
            limits.slowdown,
            1e6,
            more.get("reference"),
            "auto",
            1,
        )
    except BundleError as error:
        return SelfTestResult(False, str(error))


def test_a_good_model_passes_with_its_figures(make: Make) -> None:
    path = make()
    result = run_self_test(path, LIMITS, reference=path)
    assert result.passed, result.reason
    assert result.window_ms is not None
    assert 0 < result.window_ms < 1_000
    assert result.memory_mb is not None
    assert 0 <= result.memory_mb < LIMITS.memory_mb
    assert result.slower is not None


def not_a_number(model: bytes) -> bytes:
    """With weights that are none: its first matrix begins with them."""
    content = bytearray(model)
    steps = np.random.default_rng(7).integers(-20, 21, (3, 640)).astype(np.int8)
    weights = (steps.astype(np.float64) * 0.001).astype(np.float32).tobytes()
    at = content.find(weights)
    assert at >= 0
    content[at : at + 4] = np.float32("nan").tobytes()
    return bytes(content)


def test_scores_that_are_no_numbers(make: Make) -> None:
    result = tried(make(not_a_number, quantised=False))
    assert not result.passed
    assert "have scores that are no numbers" in result.reason


def test_scores_that_never_change(make: Make) -> None:
    result = tried(make(zero=True))
    assert not result.passed
    assert "the same for silence, noise and alarms" in result.reason


def test_a_golden_vector_that_is_not_reproduced(make: Make) -> None:
    path = make(golden=lambda found: replace(found, logits=found.logits[:, ::-1].copy()))
    result = tried(path)
    assert not result.passed
    assert "golden vector: scores differ" in result.reason


def test_a_model_that_is_much_slower_than_the_present_one(make: Make) -> None:
    """The starter beside the tiny student."""
    slower = tried(starter_bundle_path(), reference=make()).slower
    assert slower is not None
    assert slower > 1.0
    result = tried(starter_bundle_path(), replace(LIMITS, slowdown=slower / 3), reference=make())
    assert result.share is not None
    if result.share > NEGLIGIBLE_SHARE:
        assert not result.passed
        assert "times as long as the present model: expected at most" in result.reason
    # The other way round it is a relief.
    assert tried(make(), reference=starter_bundle_path()).passed


def test_a_model_that_takes_longer_than_there_is_time(make: Make) -> None:
    result = tried(starter_bundle_path(), replace(LIMITS, latency_share=1e-5))
    assert not result.passed
    assert "of the time between two: expected at most 0%" in result.reason


def test_a_model_that_takes_more_memory_than_it_may() -> None:
    result = run_self_test(starter_bundle_path(), replace(LIMITS, memory_mb=1.0))
    assert not result.passed
    assert "MB of memory: expected at most 1" in result.reason


def test_where_a_sandbox_forbids_the_bounds_it_is_tried_all_the_same(make: Make) -> None:
    """As older units of systemd do: setpriority(2) and setrlimit(2) fail there."""
    program = (
        "import os, resource, runpy, sys\n"
        "def refuse(*_): raise PermissionError(1, 'Operation not permitted')\n"
        "os.nice = resource.setrlimit = refuse\n"
        "runpy.run_module('soundpost.device.updates.self_test_process', run_name='__main__')\n"
    )
    given = [str(make()), f"--parent={os.getpid()}", "--latency-share=0.5", "--slowdown=4"]
    given += ["--memory-mb=256", "--runtime=auto", "--threads=1"]
    ended = subprocess.run(
        [sys.executable, "-c", program, *given],
        capture_output=True,
        check=True,
    )
    assert json.loads(ended.stdout.splitlines()[-1])["passed"]


def test_one_that_hangs_is_ended(make: Make) -> None:
    result = run_self_test(make(), LIMITS, timeout_s=0.0)
    assert (result.passed, result.broken_off) == (False, False)
    assert "did not end within 0 s" in result.reason


def test_a_sensor_that_ends_does_not_wait_for_it(make: Make) -> None:
    assert run_self_test(make(), LIMITS, ending=lambda: True).broken_off


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_model_file_is_a_result(make: Make, seed: int) -> None:
    """Whether its runtime refuses it, computes nonsense or crashes."""
    rng = np.random.default_rng(seed)

    def damaged(model: bytes) -> bytes:
        content = bytearray(model)
        for place in rng.integers(8, len(content), 200):
            content[place] = rng.integers(256)
        return bytes(content)

    result = run_self_test(make(damaged), LIMITS)
    assert not result.passed
    assert result.reason
    assert "\n" not in result.reason


@pytest.mark.parametrize(
    ("code", "told", "expected"),
    [
        (-11, b"", "ends its process (SIGSEGV)"),
        (-9, b'{"passed": true, "reason": "a lie"}', "ends its process (SIGKILL)"),
        (1, b"", "ends with 1 and says nothing"),
        (0, b"{", "ends with 0 and says nothing"),
    ],
)
def test_every_end_of_the_process_is_told(code: int, told: bytes, expected: str) -> None:
    result = _read(code, told)
    assert not result.passed
    assert expected in result.reason
