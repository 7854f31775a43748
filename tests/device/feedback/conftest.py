"""Examples that tests write, and sound that makes the tiny student unsure."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
import soundfile

from soundpost.device.events import ModelRef
from soundpost.device.feedback.example import Example
from soundpost.device.identifiers import uuid7

MORNING = datetime(2026, 11, 20, 10, 0, tzinfo=timezone.utc)


def flac(seed: int, length: int = 8_000) -> bytes:
    content = io.BytesIO()
    sound = np.random.default_rng(seed).integers(-9_000, 9_000, length).astype(np.int16)
    soundfile.write(content, sound, 16_000, format="FLAC", subtype="PCM_16")
    return content.getvalue()


@pytest.fixture(scope="session")
def make_example() -> Callable[..., tuple[Example, bytes]]:
    """Function that makes an example and its file; each has another sound."""
    made = 0

    def make(label: str = "clap", **values: Any) -> tuple[Example, bytes]:
        nonlocal made
        made += 1
        content = values.pop("content", None) or flac(made)
        known: dict[str, Any] = {
            "id": uuid7(),
            "device": "porch-pi",
            "source": "mic0",
            "time": MORNING + timedelta(seconds=made),
            "time_synced": True,
            "stream": uuid7(),
            "sample": 16_000 * made,
            "rate_hz": 16_000,
            "length_s": 0.5,
            "label": label,
            "reason": "uncertain",
            "score": 0.45,
            "threshold": 0.5,
            "new_score": None,
            "top": (label, "rain"),
            "model": ModelRef("tiny", "1.0.0", "a" * 64),
            "what": "clips",
            "n_bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "seen": 1,
        }
        return Example(**{**known, **values}), content

    return make
