"""Is a session whole, and what to do where it is not: after a kill, a full disk, a lost file.

A repair never touches sound that is there. What was recorded and not yet told in a header is taken
in; what is missing becomes a stated gap.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

import numpy as np

from soundpost.device.errors import InputError
from soundpost.device.findings import Finding, State
from soundpost.device.session.lost_parts import LOST_FILE, read_lost, write_lost
from soundpost.device.session.session_folder import RESERVE_FILE
from soundpost.device.session.session_json import (
    SessionDescription,
    read_description,
    write_description,
)
from soundpost.device.session.session_lock import session_lock
from soundpost.device.session.session_reader import (
    AUDIO_FOLDER,
    VIDEO_FILE,
    Session,
    lost_ms,
    open_session,
    segment_path,
)
from soundpost.device.session.session_tables import (
    FRAMES_FILE,
    GAPS_FILE,
    FrameTable,
    Gap,
    read_frames,
    read_gaps,
    write_frames,
    write_gaps,
)
from soundpost.device.session.wav_segments import HEADER_BYTES, SAMPLE_BYTES, wav_header

INTERRUPTED: Final = "interrupted, and repaired since"
MISSING: Final = "the file is missing"
CUT_OFF: Final = "the file ends early"


def check_session(folder: Path) -> list[Finding]:
    """What there is to say about a session; faults are what its reader would refuse."""
    remedy = f"soundpost session check {folder} --repair"
    try:
        session = open_session(folder)
    except InputError as error:
        return [Finding("session", "fault", str(error), remedy)]
    with session:
        return [
            Finding("session", "ok", f"{session.duration_s:.3f} s, {session.description.end}"),
            _sound(session),
            *_lost(session),
            *_pictures(session, remedy),
            *_rest(session),
        ]


def _sound(session: Session) -> Finding:
    lost = sum(gap.length for gap in session.gaps)
    if not lost:
        return Finding("sound", "ok", f"{session.n_samples} samples, no gap")
    causes = ", ".join(sorted({gap.cause for gap in session.gaps}))
    text = (
        f"{len(session.gaps)} gaps, together {lost} of {session.n_samples} samples "
        f"({lost / session.rate_hz:.3f} s): {causes}"
    )
    return Finding("sound", "warning", text)


def _lost(session: Session) -> list[Finding]:
    if not session.lost:
        return []
    causes = ", ".join(sorted({part.cause for part in session.lost}))
    text = f"{len(session.lost)} times some of them lack sound, {lost_ms(session):.1f} ms of each "
    return [Finding("channels", "warning", f"{text}on average: {causes}")]


def _pictures(session: Session, remedy: str) -> list[Finding]:
    video = session.description.video
    if video is None:
        return []
    found = []
    n_frames = session.frame_table.n_frames
    if n_frames:
        from soundpost.device.session.video_file import packet_times

        try:
            there = len(packet_times(session.folder / VIDEO_FILE))
        except InputError as error:
            return [Finding("pictures", "fault", str(error), remedy)]
        if there < n_frames:
            text = f"{VIDEO_FILE} holds {there} of the {n_frames} pictures in {FRAMES_FILE}"
            return [Finding("pictures", "fault", text, remedy)]
    dropped = f", {video.dropped} dropped" if video.dropped else ""
    state: State = "warning" if video.dropped or not n_frames else "ok"
    found.append(Finding("pictures", state, f"{n_frames}{dropped}"))
    for gap in video.gaps:
        first_s = gap.first_sample / session.rate_hz
        length = "to the end" if gap.length is None else f"for {gap.length / session.rate_hz:.1f} s"
        found.append(
            Finding("pictures", "warning", f"none from {first_s:.1f} s {length}: {gap.cause}")
        )
    return found


def _rest(session: Session) -> list[Finding]:
    found = []
    if session.array is None:
        text = "no geometry: no acoustic images can be made of it"
        found.append(Finding("array", "ok", text))
    else:
        name, n_mics = session.array.geometry.name, session.array.geometry.n_mics
        found.append(Finding("array", "ok", f"{name or 'without a name'}, {n_mics} microphones"))
    if not session.description.time_synced:
        text = "the system clock was not known to be right: dates may be wrong, spans are not"
        found.append(Finding("clock", "warning", text))
    return found


def repair_session(folder: Path) -> list[str]:
    """Make a session whole, and say what was done; an empty list where nothing was to do.

    Raises InputError where session.json cannot be read, or a process still records.
    """
    description = read_description(folder)
    with session_lock(folder):
        done: list[str] = []
        lengths = _repair_segments(folder, description, done)
        gaps = _read_gaps(folder, done)
        n_samples = description.n_samples
        if n_samples is None:
            ends = [number * description.segment_samples + n for number, n in lengths.items() if n]
            ends += [gap.first_sample + gap.length for gap in gaps]
            n_samples = max(ends, default=0)
        write_gaps(folder, _add_gaps(description, lengths, gaps, n_samples, done))
        _repair_lost(folder, n_samples, description.n_channels, done)
        if description.video is not None:
            _repair_video(folder, description, done)
        if description.n_samples is None:
            clock = tuple(anchor for anchor in description.clock if anchor.sample <= n_samples)
            description = dataclasses.replace(description, clock=clock)
            write_description(folder, description.closed(n_samples, INTERRUPTED))
            done.append(f"closed at sample {n_samples}, {n_samples / description.rate_hz:.3f} s")
        for left in (folder / RESERVE_FILE, *folder.glob(".*.part")):
            left.unlink(missing_ok=True)
    return done


def _repair_segments(
    folder: Path, description: SessionDescription, done: list[str]
) -> dict[int, int]:
    """Samples of each file by its number; files that are none are put aside."""
    lengths = {}
    for path in sorted((folder / AUDIO_FOLDER).glob("[0-9]*.wav")):
        try:
            number = int(path.stem)
        except ValueError:
            continue
        if path != segment_path(folder, number):
            continue
        length = _repair_segment(path, description, done)
        if length is None:
            path.rename(path.with_suffix(".damaged"))
            done.append(f"{path.name}: no sound of this session: put aside as {path.stem}.damaged")
        else:
            lengths[number] = length
    return lengths


def _repair_segment(path: Path, description: SessionDescription, done: list[str]) -> int | None:
    """Samples that a file holds once its header says so; None where it is none of ours."""
    frame_bytes = SAMPLE_BYTES * description.n_channels
    expected = wav_header(description.rate_hz, description.n_channels, 0)
    with path.open("r+b") as file:
        header = file.read(HEADER_BYTES)
        # All but the two lengths.
        if header[:4] + header[8:64] == expected[:4] + expected[8:64]:
            size = file.seek(0, 2)
            length = min((size - HEADER_BYTES) // frame_bytes, description.segment_samples)
            right = wav_header(description.rate_hz, description.n_channels, length)
            if header != right or size != HEADER_BYTES + length * frame_bytes:
                file.truncate(HEADER_BYTES + length * frame_bytes)
                file.seek(0)
                file.write(right)
                done.append(f"{path.name}: its header now tells all {length} samples")
            return length
    # Another program's header: libsndfile says what the file holds.
    import soundfile

    try:
        with soundfile.SoundFile(path) as sound:
            if (sound.samplerate, sound.channels) != (description.rate_hz, description.n_channels):
                return None
            n_samples: int = sound.frames
            return min(n_samples, description.segment_samples)
    except soundfile.LibsndfileError:
        return None


def _read_gaps(folder: Path, done: list[str]) -> tuple[Gap, ...]:
    try:
        return read_gaps(folder)
    except InputError as error:
        path = folder / GAPS_FILE
        if path.exists():
            path.rename(path.with_suffix(".damaged"))
        done.append(f"{GAPS_FILE}: written anew ({error})")
        return ()


def _repair_lost(folder: Path, n_samples: int, n_channels: int, done: list[str]) -> None:
    """Leave out what lies behind the end, and put a table aside that cannot be read."""
    path = folder / LOST_FILE
    try:
        parts = read_lost(folder, None, n_channels)
    except InputError as error:
        path.rename(path.with_suffix(".damaged"))
        done.append(f"{LOST_FILE}: put aside ({error})")
        return
    kept = [part for part in (one.within(0, n_samples) for one in parts) if part is not None]
    if kept != list(parts):
        path.unlink()
        write_lost(folder, kept)
        done.append(f"{LOST_FILE}: what lies behind the end is left out")


def _add_gaps(
    description: SessionDescription,
    lengths: dict[int, int],
    gaps: tuple[Gap, ...],
    n_samples: int,
    done: list[str],
) -> list[Gap]:
    """The stated gaps within the timeline, and one for each stretch of it that no file holds."""
    kept = []
    for gap in gaps:
        length = min(gap.length, n_samples - gap.first_sample)
        if length > 0:
            kept.append(gap._replace(length=length))
    segment = description.segment_samples
    for number in range(-(-n_samples // segment)):
        first, end = number * segment, min((number + 1) * segment, n_samples)
        cause = CUT_OFF if number in lengths else MISSING
        for low, high in _uncovered(kept, first + lengths.get(number, 0), end):
            kept.append(Gap(low, high - low, cause))
            done.append(f"{GAPS_FILE}: {high - low} samples from {low} on are missing: {cause}")
        kept.sort()
    return kept


def _uncovered(gaps: list[Gap], first: int, end: int) -> list[tuple[int, int]]:
    """What of a stretch no gap covers."""
    found = []
    for gap in sorted(gaps):
        low, high = gap.first_sample, gap.first_sample + gap.length
        if high <= first or low >= end:
            continue
        if low > first:
            found.append((first, low))
        first = max(first, high)
    if first < end:
        found.append((first, end))
    return found


def _repair_video(folder: Path, description: SessionDescription, done: list[str]) -> None:
    from soundpost.device.session.video_file import packet_times, write_again

    path = folder / VIDEO_FILE
    try:
        n_pictures = len(packet_times(path))
    except InputError:
        n_pictures = 0
    try:
        table = read_frames(folder)
    except InputError as error:
        table = FrameTable(*np.empty((3, 0)))
        done.append(f"{FRAMES_FILE}: written anew without a picture ({error})")
    n_frames = min(n_pictures, table.n_frames)
    if n_frames < table.n_frames:
        done.append(
            f"{FRAMES_FILE}: {table.n_frames - n_frames} pictures were not yet in the video: "
            f"{n_frames} stay"
        )
    write_frames(folder, FrameTable(*(column[:n_frames] for column in table)))
    if n_pictures and description.n_samples is None:
        write_again(path, n_frames)
        done.append(f"{VIDEO_FILE}: given its index and its end, {n_frames} pictures")
