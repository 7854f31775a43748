"""Recording, and what is left after a kill, on a full disk, without sound or pictures."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from soundpost.device.array.geometry import vogel_spiral
from soundpost.device.array.geometry_files import ArrayDescription
from soundpost.device.audio import AudioBlock
from soundpost.device.errors import CaptureError, InputError
from soundpost.device.file_source import open_file
from soundpost.device.gaps import Missing
from soundpost.device.session.audio_writer import TOO_SLOW, AudioWriter
from soundpost.device.session.camera import open_camera
from soundpost.device.session.record_settings import RecordSettings
from soundpost.device.session.recorder import Recorder
from soundpost.device.session.session_check import check_session, repair_session
from soundpost.device.session.session_json import CameraGap, read_description
from soundpost.device.session.session_reader import open_session
from soundpost.device.session.session_tables import Gap
from soundpost.device.session.source_feed import LOST_BY_SOURCE
from soundpost.device.session.wav_segments import SegmentWriter

RATE_HZ = 16_000


class Blocks:
    """A live source of given blocks; may end with an error."""

    live = True
    channel = 0
    overflows = 0
    fault = None
    name = "blocks"
    rate_hz = RATE_HZ

    def __init__(self, blocks: list[AudioBlock], error: Exception | None = None) -> None:
        self._blocks = blocks
        self._error = error
        self.n_channels = blocks[0].samples.shape[1]

    def blocks(self) -> Iterator[AudioBlock]:
        yield from self._blocks
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        pass

    def __enter__(self) -> Blocks:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def noise(n_samples: int, n_channels: int) -> NDArray[np.float32]:
    steps = np.random.default_rng(2).integers(-(2**23), 2**23, (n_samples, n_channels))
    return (steps / 2**23).astype(np.float32)


def record(folder: Path, source: Any, **settings: Any) -> Recorder:
    return finish(Recorder(folder, source, RecordSettings("porch-pi", "blocks", **settings)))


def finish(recorder: Recorder) -> Recorder:
    recorder.start()
    until_s = time.monotonic() + 20
    while not recorder.wait(0.01) and time.monotonic() < until_s:
        recorder.tick()
    recorder.finish()
    return recorder


def test_what_a_source_loses_is_a_gap_where_it_was_lost(tmp_path: Path) -> None:
    """The numbering of blocks jumps; it begins anywhere, and what is told twice counts once."""
    sound = noise(3_000, 2)
    spans = [(0, 400), (400, 900), (1_300, 2_000), (1_900, 2_500), (2_501, 3_000)]
    blocks = [
        AudioBlock(sound[first:last], 7_000 + first, RATE_HZ, 50.0 + last / RATE_HZ)
        for first, last in spans
    ]
    record(tmp_path / "s", Blocks(blocks), notes="hall")
    expected = sound.copy()
    expected[900:1_300] = 0.0
    expected[2_500:2_501] = 0.0
    with open_session(tmp_path / "s") as session:
        np.testing.assert_array_equal(session.read(0, session.n_samples), expected)
        assert session.gaps == (
            Gap(900, 400, LOST_BY_SOURCE),
            Gap(2_500, 1, LOST_BY_SOURCE),
        )
        assert session.description.end == "the source has ended"
        assert session.clock[0].sample == 0
        assert session.clock[0].monotonic_s == pytest.approx(50.0, abs=1e-6)
        assert session.notes == "hall"
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == [
        *("audio", "gaps.csv", "session.json"),
    ]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_some_channels_lack_is_stated_however_blocks_cut_it(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two streams of three channels lose packets of their own."""
    lost = {
        (stream, packet)
        for stream in (0, 1)
        for packet in data.draw(st.sets(st.integers(0, 19), max_size=12))
    }
    cuts = sorted(data.draw(st.sets(st.integers(1, 999), max_size=8)))
    enough = data.draw(st.none() | st.integers(1, 1_000))
    sound = noise(1_000, 6)
    lacks = np.zeros((1_000, 6), bool)
    for stream, packet in lost:
        lacks[50 * packet : 50 * (packet + 1), 3 * stream : 3 * stream + 3] = True
    sound[lacks] = 0.0
    blocks = []
    for first, last in itertools.pairwise([0, *cuts, 1_000]):
        missing = [
            Missing(9_000 + low, high - low, 3 * stream, 3, "lost")
            for stream, packet in sorted(lost, key=lambda one: one[1])
            if (low := max(first, 50 * packet)) < (high := min(last, 50 * (packet + 1)))
        ]
        blocks.append(AudioBlock(sound[first:last], 9_000 + first, RATE_HZ, 1.0, tuple(missing)))
    folder = tmp_path_factory.mktemp("lost") / "s"
    record(folder, Blocks(blocks), seconds=None if enough is None else enough / RATE_HZ)
    with open_session(folder) as session:
        n_samples = session.n_samples
        assert n_samples == (enough or 1_000)
        stated = np.zeros((n_samples, 6), int)
        for part in session.lost:
            stated[
                part.first_sample : part.first_sample + part.length,
                part.first_channel : part.first_channel + part.n_channels,
            ] += 1
            assert part.cause == "lost"
        np.testing.assert_array_equal(stated, lacks[:n_samples])
        assert session.gaps == ()
        np.testing.assert_array_equal(session.read(0, n_samples), sound[:n_samples])


def test_what_no_channel_has_is_a_gap_though_blocks_have_zeros_for_it(tmp_path: Path) -> None:
    """An array of one stream: a lost packet is missing on all of its channels."""
    sound = noise(1_000, 2)
    sound[150:200] = sound[390:410] = 0.0
    blocks = [
        AudioBlock(
            sound[first : first + 400], 70 + first, RATE_HZ, 1.0,
            tuple(
                Missing(70 + low, high - low, 0, 2, "lost")
                for low, high in ((150, 200), (390, 400), (400, 410))
                if first <= low < first + 400
            ),
        )
        for first in (0, 400, 800)
    ]  # fmt: skip
    record(tmp_path / "s", Blocks(blocks))
    with open_session(tmp_path / "s") as session:
        assert session.lost == ()
        stated = np.zeros(session.n_samples, int)
        for gap in session.gaps:
            stated[gap.first_sample : gap.first_sample + gap.length] += 1
            assert gap.cause == LOST_BY_SOURCE
        np.testing.assert_array_equal(stated, (sound == 0.0).all(1))
        np.testing.assert_array_equal(session.read(0, session.n_samples), sound)


def test_a_writer_that_fails_in_a_way_of_its_own_ends_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no such layout")

    monkeypatch.setattr(SegmentWriter, "write", broken)
    blocks = [AudioBlock(noise(400, 1), 400 * n, RATE_HZ, 1.0) for n in range(50)]
    recorder = record(tmp_path / "s", Blocks(blocks))
    assert not recorder.ended_well
    assert recorder.end == "the disk takes no more sound: no such layout"
    # Not a sample was written.
    assert not (tmp_path / "s").exists()


def test_it_ends_at_the_sample_that_was_asked_for(tmp_path: Path) -> None:
    sound = noise(3_000, 1)
    blocks = [AudioBlock(sound[i : i + 700], i, RATE_HZ, 1.0) for i in range(0, 3_000, 700)]
    record(tmp_path / "s", Blocks(blocks), seconds=0.1)
    with open_session(tmp_path / "s") as session:
        assert session.n_samples == 1_600
        np.testing.assert_array_equal(session.read(0, 1_600), sound[:1_600])
        assert session.description.end == "0.1 s were asked for"


def test_a_source_that_is_lost_ends_the_session_and_is_told(tmp_path: Path) -> None:
    blocks = [AudioBlock(noise(800, 1), 0, RATE_HZ, 1.0)]
    lost = CaptureError("microphone 'mic0': unplugged")
    recorder = record(tmp_path / "s", Blocks(blocks, lost))
    assert recorder.failure is lost
    assert not recorder.ended_well
    with open_session(tmp_path / "s") as session:
        assert session.n_samples == 800
        assert session.description.end == "microphone 'mic0': unplugged"


def test_a_source_that_breaks_because_it_is_closed_has_not_failed(tmp_path: Path) -> None:
    """A file that is read while it is closed raises whatever its library does."""
    reading, closed = threading.Event(), threading.Event()

    class Closed(Blocks):
        def blocks(self) -> Iterator[AudioBlock]:
            yield from super().blocks()
            reading.set()
            assert closed.wait(20)
            raise TypeError("initializer for ctype must be a cdata pointer, not NoneType")

        def close(self) -> None:
            closed.set()

    sound = noise(500, 1)
    source: Any = Closed([AudioBlock(sound, 0, RATE_HZ, 1.0)])
    recorder = Recorder(tmp_path / "s", source, RecordSettings("porch-pi", "blocks"))
    recorder.start()
    assert reading.wait(20)
    recorder.finish()
    with open_session(tmp_path / "s") as session:
        np.testing.assert_array_equal(session.read(0, 500), sound)
        assert "failed" not in session.description.end


def test_a_source_that_fails_in_a_way_of_its_own_ends_the_session_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocks = [AudioBlock(noise(800, 1), 0, RATE_HZ, 1.0)]
    recorder = record(tmp_path / "s", Blocks(blocks, ZeroDivisionError("theirs")))
    assert isinstance(recorder.failure, ZeroDivisionError)
    assert "the source has failed" in caplog.text
    with open_session(tmp_path / "s") as session:
        assert session.description.end == "the source has failed: theirs"


def test_the_array_must_fit_the_source(tmp_path: Path) -> None:
    array = ArrayDescription(vogel_spiral(4, 0.2))
    source = Blocks([AudioBlock(noise(8, 3), 0, RATE_HZ, 1.0)])
    with pytest.raises(InputError, match="3 channels; expected at least 4"):
        Recorder(tmp_path / "s", source, RecordSettings("porch-pi", "blocks", array=array))


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("dear diary")
    source = Blocks([AudioBlock(noise(8, 1), 0, RATE_HZ, 1.0)])
    recorder = Recorder(tmp_path, source, RecordSettings("porch-pi", "blocks"))
    with pytest.raises(InputError, match="is not empty; give the folder of a new session"):
        recorder.start()
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


def test_a_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """No room for what the end of a session needs; the folder was there, or was not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "new" / "s"):
        source = Blocks([AudioBlock(noise(8, 1), 0, RATE_HZ, 1.0)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
        try:
            with pytest.raises(InputError, match=r"no room for a session \(File too large\)"):
                Recorder(folder, source, RecordSettings("porch-pi", "blocks")).start()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "there").iterdir()) == []
    assert list((tmp_path / "new").iterdir()) == []


def test_a_source_without_a_sample_leaves_nothing(tmp_path: Path) -> None:
    lost = CaptureError("microphone 'mic0': unplugged")
    source = Blocks([AudioBlock(noise(8, 1), 0, RATE_HZ, 1.0)], lost)
    source._blocks = []
    recorder = record(tmp_path / "s", source)
    assert recorder.failure is lost
    assert not recorder.kept
    assert not (tmp_path / "s").exists()


def test_a_disk_below_its_floor_ends_the_session(tmp_path: Path) -> None:
    blocks = [AudioBlock(noise(800, 1), 800 * i, RATE_HZ, 1.0) for i in range(50)]

    class Endless(Blocks):
        def blocks(self) -> Iterator[AudioBlock]:
            yield from self._blocks
            closed.wait(20)

        def close(self) -> None:
            closed.set()

    closed = threading.Event()
    recorder = record(tmp_path / "s", Endless(blocks), keep_free_bytes=10**18)
    assert not recorder.ended_well
    with open_session(tmp_path / "s") as session:
        assert "are to stay free" in session.description.end


def test_what_a_slow_disk_cannot_take_is_a_stated_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that stands still for longer than the queue: nothing is shifted, all is told."""
    held = threading.Event()
    write = SegmentWriter.write

    def slow(self: SegmentWriter, samples: NDArray[np.float32]) -> None:
        held.wait(20)
        write(self, samples)

    monkeypatch.setattr(SegmentWriter, "write", slow)
    sound = noise(20 * RATE_HZ, 1)
    writer = AudioWriter(tmp_path, RATE_HZ, 1, 60 * RATE_HZ)
    for first in range(0, 16 * RATE_HZ, RATE_HZ):
        writer.put(sound[first : first + RATE_HZ])
    assert writer.waiting <= 1.0
    held.set()
    while writer.waiting > 0.1:
        time.sleep(0.01)
    for first in range(16 * RATE_HZ, 20 * RATE_HZ, RATE_HZ):
        writer.put(sound[first : first + RATE_HZ])
    writer.finish()
    (gap,) = writer.gaps
    assert gap.cause == TOO_SLOW
    assert writer.position == len(sound)
    assert writer.lost == gap.length >= 4 * RATE_HZ
    import soundfile

    read, _ = soundfile.read(tmp_path / "audio" / "000000.wav", dtype="float32")
    sound[gap.first_sample : gap.first_sample + gap.length] = 0.0
    np.testing.assert_array_equal(read, sound[:, 0])


# ------------------------------------------------------------------------- killed, full, unplugged


@pytest.fixture(scope="module")
def played(
    recording: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, NDArray[np.float32]]:
    path = tmp_path_factory.mktemp("played") / "noise.wav"
    return path, recording.write_noise(path, 60.0, 8, RATE_HZ)


def running(folder: Path) -> bool:
    return (folder / "audio" / "000000.wav").exists()


def log_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("after_s", [0.01, 0.73, 1.94, 3.41])
def test_kill_9_takes_a_second_at_most(
    recording: ModuleType,
    played: tuple[Path, NDArray[np.float32]],
    tmp_path: Path,
    after_s: float,
) -> None:
    """All that is left is to the bit what was played, and the last second alone is missing."""
    folder = tmp_path / "s"
    process = recording.start(
        "record", "--source", played[0], "--out", folder, "--quiet", errors=tmp_path / "log"
    )
    recording.wait_for(lambda: running(folder) and bool(read_description(folder).clock))
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    killed_s = time.monotonic()
    process.wait()
    (fault,) = [finding for finding in check_session(folder) if finding.state == "fault"]
    assert "was interrupted" in fault.text
    assert repair_session(folder)
    with open_session(folder) as session:
        np.testing.assert_array_equal(
            session.read(0, session.n_samples), played[1][: session.n_samples]
        )
        heard_s = killed_s - session.clock[0].monotonic_s
        assert heard_s - 1.0 <= session.duration_s <= heard_s
        assert session.gaps == ()
    # Once it is whole, there is nothing to do.
    assert repair_session(folder) == []


def test_what_is_recorded_is_not_repaired(
    recording: ModuleType, played: tuple[Path, NDArray[np.float32]], tmp_path: Path
) -> None:
    folder = tmp_path / "s"
    process = recording.start(
        "record", "--source", played[0], "--out", folder, "--quiet", errors=tmp_path / "log"
    )
    recording.wait_for(lambda: running(folder))
    with pytest.raises(InputError, match="is being recorded, or repaired, by another process"):
        repair_session(folder)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0, log_of(tmp_path / "log")
    assert all(finding.state != "fault" for finding in check_session(folder))


def test_a_full_disk_ends_the_session_at_a_sample(
    recording: ModuleType, played: tuple[Path, NDArray[np.float32]], tmp_path: Path
) -> None:
    """A file may have 600 kB here: 1.6 s of 8 channels. Nothing is to repair then."""
    folder = tmp_path / "s"

    def limit() -> None:
        # Reserve and tables are below it.
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))

    done = subprocess.run(
        recording.command("record", "--source", played[0], "--fast", "--out", folder, "--quiet"),
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3
    assert done.stderr == (
        f"{folder}: the disk takes no more sound: File too large; what came before is kept\n"
    )
    with open_session(folder) as session:
        n_samples = (5_000_000 - 68) // (3 * 8)
        assert 0 <= n_samples - session.n_samples < RATE_HZ / 2
        assert session.description.end == "the disk takes no more sound: File too large"
        np.testing.assert_array_equal(
            session.read(0, session.n_samples), played[1][: session.n_samples]
        )
    assert not (folder / ".reserve").exists()


def test_a_camera_that_dies_is_a_gap_and_comes_back(
    recording: ModuleType, played: tuple[Path, NDArray[np.float32]], tmp_path: Path
) -> None:
    import av

    assert av
    folder, pids = tmp_path / "s", tmp_path / "pids"
    script = tmp_path / "camera.sh"
    camera = recording.CAMERA.removeprefix("pipe:")
    script.write_text(f"#!/bin/sh\necho $$ >> {pids}\nexec {camera}\n")
    script.chmod(0o755)
    process = recording.start(
        *("record", "--source", played[0], "--camera", f"pipe:{script}", "--out", folder),
        "--quiet",
        errors=tmp_path / "log",
    )
    recording.wait_for(
        lambda: (folder / "video.csv").exists() and len(log_of(folder / "video.csv")) > 2_000
    )
    subprocess.run(["kill", "-9", log_of(pids).split()[0]], check=True)
    recording.wait_for(lambda: any(gap.length for gap in _gaps(folder)))
    # Some more of the second one.
    n_lines = log_of(folder / "video.csv").count("\n")
    recording.wait_for(lambda: log_of(folder / "video.csv").count("\n") > n_lines + 30)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, log_of(tmp_path / "log")
    assert len(log_of(pids).split()) >= 2
    with open_session(folder) as session:
        assert session.gaps == ()
        np.testing.assert_array_equal(
            session.read(0, session.n_samples), played[1][: session.n_samples]
        )
        assert session.description.video is not None
        (gap,) = session.description.video.gaps
        assert "lost" in gap.cause
        assert gap.length is not None
        samples = session.frame_table.samples
        # All of it lies between two pictures, to the few milliseconds by which clocks are known.
        before = int(np.searchsorted(samples, gap.first_sample + RATE_HZ // 50))
        assert samples[before - 1] == pytest.approx(gap.first_sample, abs=RATE_HZ // 50)
        assert samples[before] == pytest.approx(gap.first_sample + gap.length, abs=RATE_HZ // 10)
        # Pictures come every 40 ms of the sound's time, before and after.
        steps = np.diff(samples)
        assert np.median(steps) == pytest.approx(RATE_HZ / recording.CAMERA_FPS, rel=0.03)
        assert len(list(session.frames())) == session.frame_table.n_frames


def _gaps(folder: Path) -> tuple[CameraGap, ...]:
    video = read_description(folder).video
    return () if video is None else video.gaps


def test_kill_9_leaves_pictures_that_are_found_by_their_sample(
    recording: ModuleType, played: tuple[Path, NDArray[np.float32]], tmp_path: Path
) -> None:
    import av

    assert av
    folder = tmp_path / "s"
    process = recording.start(
        *("record", "--source", played[0], "--camera", recording.CAMERA, "--out", folder),
        "--quiet",
        errors=tmp_path / "log",
    )
    recording.wait_for(
        lambda: (folder / "video.csv").exists() and len(log_of(folder / "video.csv")) > 3_000
    )
    process.kill()
    process.wait()
    repair_session(folder)
    with open_session(folder) as session:
        frames = list(session.frames())
        assert len(frames) == session.frame_table.n_frames > 30
        # The recorder had a second's worth in hand at most.
        assert session.n_samples - frames[-1].sample < 1.0 * RATE_HZ
        # The pictures are those of consecutive numbers: 20 shades in turn.
        shades = np.array([frame.picture.mean() for frame in frames])
        turns = np.round((shades - 20) / 10).astype(int)
        assert (np.diff(turns) % 20 == 1).all()


def test_statuses_tell_what_a_person_wants_to_know(tmp_path: Path) -> None:
    sound = noise(4 * RATE_HZ, 4)
    sound[:, 2] = 0.0
    blocks = [
        AudioBlock(sound[i : i + 800], i if i < 32_000 else i + 1_600, RATE_HZ, i / RATE_HZ)
        for i in range(0, len(sound), 800)
    ]
    recorder = Recorder(tmp_path / "s", Blocks(blocks), RecordSettings("porch-pi", "blocks"))
    meters = recorder.meters.reader()
    observed: list[AudioBlock] = []
    recorder.observe(observed.append)
    finish(recorder)
    status = recorder.status(meters)
    assert (status.n_gaps, status.lost) == (1, 1_600)
    assert status.n_samples == len(sound) + 1_600
    # Noise that fills all steps evenly: 1 / sqrt(3) of full scale.
    np.testing.assert_allclose(status.levels.rms[[0, 1, 3]], -4.77, atol=0.05)
    assert status.levels.rms[2] == -140.0
    assert [block.first_sample for block in observed] == [block.first_sample for block in blocks]


def test_a_camera_that_hangs_is_let_go_and_opened_again(
    recording: ModuleType, played: tuple[Path, NDArray[np.float32]], tmp_path: Path
) -> None:
    """It is there, its pipe is open, and nothing comes: as good as unplugged.

    The second one hangs from the start.
    """
    import av

    assert av
    folder = tmp_path / "s"
    opened: list[Any] = []

    def open_one() -> Any:
        opened.append(open_camera(recording.CAMERA))
        if len(opened) == 2:
            os.kill(opened[1].pid, signal.SIGSTOP)
        return opened[-1]

    source = open_file(str(played[0]))
    settings = RecordSettings("porch-pi", "noise.wav", camera=recording.CAMERA)
    recorder = Recorder(folder, source, settings, open_one(), open_one)
    recorder.start()

    def ticked(what: Callable[[], bool]) -> Callable[[], bool]:
        def now() -> bool:
            recorder.tick()
            return what()

        return now

    assert recorder.video is not None
    recording.wait_for(ticked(lambda: recorder.video.written > 20))  # type: ignore[union-attr]
    os.kill(opened[0].pid, signal.SIGSTOP)
    meters = recorder.meters.reader()
    recording.wait_for(ticked(lambda: recorder.status(meters).camera_fault is not None))
    fault = recorder.status(meters).camera_fault
    assert fault is not None
    assert "no picture for 3 s" in fault
    before = recorder.video.written
    recording.wait_for(
        ticked(lambda: recorder.video.written > before + 20)  # type: ignore[union-attr]
    )
    assert recorder.status(meters).camera_fault is None
    recorder.stop()
    recorder.finish()
    assert len(opened) == 3
    for one in opened:
        assert not Path(f"/proc/{one.pid}/fd/1").exists()
    with open_session(folder) as session:
        assert session.gaps == ()
        assert session.description.video is not None
        (gap,) = session.description.video.gaps
        assert gap.length is not None
        # One gap, though two of them hung.
        assert gap.length >= 6 * RATE_HZ
        assert np.diff(session.frame_table.samples).max() >= 6 * RATE_HZ
