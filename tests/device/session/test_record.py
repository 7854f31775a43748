"""`soundpost record` as a program."""

from __future__ import annotations

import hashlib
import json
import signal
import urllib.request
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from soundpost.device.array.calibration_file import Calibration, write_calibration
from soundpost.device.array.geometry import vogel_spiral
from soundpost.device.array.geometry_files import ArrayDescription, write_array
from soundpost.device.session.session_check import check_session
from soundpost.device.session.session_reader import open_session

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def played(
    recording: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, NDArray[np.float32]]:
    path = tmp_path_factory.mktemp("played") / "noise.wav"
    return path, recording.write_noise(path, 12.0, 4, RATE_HZ)


@pytest.fixture
def array(tmp_path: Path) -> Path:
    path = tmp_path / "array.json"
    write_array(path, ArrayDescription(vogel_spiral(4, 0.2)))
    return path


def calibration_of(path: Path, diameter_m: float) -> Path:
    write_calibration(path, Calibration.of(vogel_spiral(4, diameter_m)))
    return path


def test_a_recording_is_taken_over_with_all_that_belongs_to_it(
    recording: ModuleType, played: tuple[Path, NDArray[np.float32]], array: Path, tmp_path: Path
) -> None:
    calibration = calibration_of(tmp_path / "calibration.json", 0.2)
    done = recording.run(
        *("record", "--source", played[0], "--fast", "--out", tmp_path / "hall"),
        *("--array", array, "--calibration", calibration, "--temperature", "18.5"),
        *("--notes", "two people", "--device", "porch-pi"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        f"{tmp_path / 'hall'}: 12.000 s, 4 channels, 0 gaps (0.000 s); the source has ended\n"
    )
    with open_session(tmp_path / "hall") as session:
        np.testing.assert_array_equal(session.read(0, session.n_samples), played[1])
        assert (session.device, session.notes, session.temperature_c) == (
            *("porch-pi", "two people", 18.5),
        )
        assert session.array is not None
        assert session.calibration is not None
        assert session.description.calibration_sha256 == (
            hashlib.sha256(calibration.read_bytes()).hexdigest()
        )


def test_a_film_is_taken_over_beside_its_sound(
    recording: ModuleType, played: tuple[Path, NDArray[np.float32]], tmp_path: Path
) -> None:
    """As fast as it goes: a picture at t seconds of the film lies at t seconds of the sound."""
    import av

    from soundpost.device.session.video_file import VideoEncoder

    encoder = VideoEncoder(tmp_path / "film.mkv", 64, 48)
    for number in range(150):
        picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        encoder.add(picture, number / 25)
    encoder.close()
    done = recording.run(
        *("record", "--source", played[0], "--camera", tmp_path / "film.mkv", "--fast"),
        *("--out", tmp_path / "hall"),
    )
    assert done.returncode == 0, done.stderr
    with open_session(tmp_path / "hall") as session:
        np.testing.assert_allclose(
            session.frame_table.samples, np.arange(150) / 25 * RATE_HZ, atol=0.1
        )
        assert len(list(session.frames())) == 150


def test_ctrl_c_ends_it_well_and_the_page_shows_it(
    recording: ModuleType, played: tuple[Path, NDArray[np.float32]], array: Path, tmp_path: Path
) -> None:
    process = recording.start(
        *("record", "--source", played[0], "--out", tmp_path / "hall", "--array", array),
        *("--page", "0", "--plain"),
        errors=tmp_path / "log",
    )
    recording.wait_for(lambda: "127.0.0.1" in (tmp_path / "log").read_text())
    url = next(word for word in (tmp_path / "log").read_text().split() if "127" in word)
    states: list[dict[str, object]] = []

    def told() -> bool:
        with urllib.request.urlopen(f"{url}state.json", timeout=10) as answer:
            states.append(json.load(answer))
        return states[-1]["map_db"] is not None

    recording.wait_for(told)
    assert np.shape(states[-1]["map_db"]) == (36, 48)
    # Noise that fills all steps evenly: 1 / sqrt(3) of full scale.
    np.testing.assert_allclose(states[-1]["rms"], [-4.8] * 4, atol=0.15)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert "asked to stop" in (tmp_path / "log").read_text()
    with open_session(tmp_path / "hall") as session:
        assert session.n_samples > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_instant_leaves_a_whole_session_or_nothing(
    recording: ModuleType,
    played: tuple[Path, NDArray[np.float32]],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    """While it sets itself up, while it records, and while it ends."""
    outcomes, said = recording.at_instants(
        *(number, 25, tmp_path, "--source", played[0], "--fast", "--out", "FOLDER", "--quiet"),
        *("--seconds", "0.5"),
    )
    assert outcomes.pop(0) == ("whole", 0)
    kept = 0
    for name, code in outcomes:
        folder = tmp_path / name
        if number == signal.SIGINT or folder.exists():
            # A SIGTERM before the command listens to it is the end.
            assert code in (0, 130) or code == -number, said
        if not folder.exists():
            continue
        kept += 1
        assert [finding.text for finding in check_session(folder) if finding.state == "fault"] == []
        with open_session(folder) as session:
            assert session.description.end in ("0.5 s were asked for", "asked to stop")
            np.testing.assert_array_equal(
                session.read(0, session.n_samples), played[1][: session.n_samples]
            )
    assert 0 < kept < len(outcomes)
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--seconds", "0"], 2, "--seconds 0: expected more than 0"),
        (["--keep-free", "-1"], 2, "--keep-free -1: expected megabytes"),
        (["--temperature", "200"], 2, "--temperature 200: expected -60 to 70"),
        (["--calibration", "c.json"], 2, "belongs to an array; give its --array"),
        (["--camera", "webcam"], 2, "camera 'webcam': expected one of"),
        (["--array", "/nowhere.json"], 3, "/nowhere.json: cannot be read"),
        (["--page", "99999"], 2, "--page 99999: cannot be served"),
    ],
)
def test_bad_options_are_told_in_a_line_and_leave_nothing(
    recording: ModuleType,
    played: tuple[Path, NDArray[np.float32]],
    tmp_path: Path,
    options: list[str],
    code: int,
    said: str,
) -> None:
    out = tmp_path / "hall"
    done = recording.run("record", "--source", played[0], "--out", out, *options)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not out.exists()


def test_a_calibration_of_another_array_is_refused(
    recording: ModuleType, played: tuple[Path, NDArray[np.float32]], array: Path, tmp_path: Path
) -> None:
    calibration = calibration_of(tmp_path / "calibration.json", 0.3)
    done = recording.run(
        *("record", "--source", played[0], "--out", tmp_path / "hall", "--array", array),
        *("--calibration", calibration),
    )
    assert done.returncode == 3
    told = f"({vogel_spiral(4, 0.3).hash()[:12]}), not to "
    assert told in done.stderr
    assert "calibrate this array, or take the array.json that it was made with" in done.stderr
    assert not (tmp_path / "hall").exists()


def test_more_microphones_than_channels_are_refused(
    recording: ModuleType, played: tuple[Path, NDArray[np.float32]], tmp_path: Path
) -> None:
    write_array(tmp_path / "big.json", ArrayDescription(vogel_spiral(8, 0.2)))
    done = recording.run(
        *("record", "--source", played[0], "--out", tmp_path / "hall"),
        *("--array", tmp_path / "big.json"),
    )
    assert done.returncode == 3
    assert "4 channels; expected at least 8" in done.stderr
