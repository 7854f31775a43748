"""session.json as it is frozen."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from soundpost.device.errors import InputError
from soundpost.device.session.session_json import (
    CameraGap,
    ClockAnchor,
    SessionDescription,
    VideoDescription,
    read_description,
    write_description,
)

# The format as others read it: change it only with the schema's version.
FROZEN = Path(__file__).parents[1] / "examples" / "session-1.json"
BEGAN = datetime(2026, 11, 20, 10, 0, 0, 250_000, timezone.utc)
DESCRIPTION = SessionDescription(
    id="0192f0c4-7a11-7c33-8d44-5566778899aa",
    device="porch-pi",
    created=BEGAN,
    source="rtp:array.sdp",
    rate_hz=48_000,
    n_channels=128,
    segment_samples=2_880_000,
    n_samples=28_800_000,
    state="closed",
    end="asked to stop",
    array_sha256="d2" * 32,
    video=VideoDescription(
        "v4l2:/dev/video0", 640, 480, "h264", 2, (CameraGap(480_000, 96_000, "Süd: unplugged"),)
    ),
    clock=(
        ClockAnchor(0, 1234.5, BEGAN),
        ClockAnchor(28_799_520, 1834.49, BEGAN + timedelta(seconds=599.99)),
    ),
    time_synced=True,
    temperature_c=21.5,
    notes="two people talk in the hall",
)


def test_the_file_is_frozen_byte_for_byte(tmp_path: Path) -> None:
    write_description(tmp_path, DESCRIPTION)
    assert (tmp_path / "session.json").read_bytes() == FROZEN.read_bytes()
    assert read_description(tmp_path) == DESCRIPTION
    json.loads(FROZEN.read_bytes())


def test_unknown_fields_are_kept(tmp_path: Path) -> None:
    data = json.loads(DESCRIPTION.to_json())
    data["wind_m_s"] = 3.5
    data["video"]["exposure_s"] = 0.01
    read = SessionDescription.from_json(json.dumps(data))
    assert (read.extra, read.video and read.video.extra) == (
        {"wind_m_s": 3.5},
        {"exposure_s": 0.01},
    )
    assert json.loads(read.to_json()) == data


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "soundpost.session/2"}, "field 'schema': expected 'soundpost.session/1'"),
        ({"state": "paused"}, "session state: expected 'recording' or 'closed', found 'paused'"),
        ({"state": "recording"}, "session n_samples: expected a number, once it is closed"),
        ({"clock": [{"sample": 0}]}, "field 'clock', an anchor: field 'monotonic_s' is missing"),
        ({"clock": 5}, "field 'clock': expected a list of objects, found 5"),
        ({"created": "yesterday"}, "field 'created': expected RFC 3339"),
        ({"audio": None}, "field 'audio': expected an object"),
    ],
)
def test_what_it_cannot_be_is_refused(change: dict[str, object], said: str) -> None:
    data = json.loads(DESCRIPTION.to_json()) | change
    with pytest.raises(InputError) as caught:
        SessionDescription.from_json(json.dumps(data), "hall/session.json")
    assert str(caught.value).startswith("hall/session.json")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"), [("rate_hz", 0), ("n_channels", 0), ("n_channels", 5_000)]
)
def test_numbers_out_of_range_are_refused(name: str, value: int) -> None:
    with pytest.raises(InputError, match=f"session {name}: expected"):
        dataclasses.replace(DESCRIPTION, **{name: value})
