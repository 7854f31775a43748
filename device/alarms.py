"""Alarm signals and other beepers, synthesised: what `smoke_alarm` and `co_alarm` are learnt from.

A smoke alarm sounds the three-pulse temporal pattern T3 (ISO 8201, ANSI/ASA S3.41), a carbon
monoxide alarm the four-pulse pattern T4 (UL 2034, NFPA 72), either with a piezo sounder around
3 kHz or, for sleeping rooms, with a 520 Hz square wave (NFPA 72, 18.4.6.3). Device, room and level
are drawn at random; ranges can leave out a band, so that tests meet alarms that training did not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
AlarmKind = Literal["smoke_alarm", "co_alarm"]

# How far each pulse and each gap may be from its nominal length: ISO 8201, 4.2.
TOLERANCE = 0.10


@dataclass(frozen=True)
class TemporalPattern:
    """A standard temporal pattern: equal pulses with equal gaps, then a long gap.

    Lengths are nominal; each may vary by `TOLERANCE`.
    """

    name: str
    pulses: int
    on_s: float
    off_s: float
    long_off_s: float

    @property
    def period_s(self) -> float:
        """From the first pulse of one group to the first pulse of the next."""
        return self.pulses * self.on_s + (self.pulses - 1) * self.off_s + self.long_off_s


TEMPORAL_PATTERNS: dict[str, TemporalPattern] = {
    "T3": TemporalPattern("T3", pulses=3, on_s=0.5, off_s=0.5, long_off_s=1.5),
    "T4": TemporalPattern("T4", pulses=4, on_s=0.1, off_s=0.1, long_off_s=5.0),
}
PATTERN_OF_ALARM: dict[str, str] = {"smoke_alarm": "T3", "co_alarm": "T4"}


@dataclass(frozen=True)
class Range:
    """Values from low to high, drawn evenly; those between `without` are left out."""

    low: float
    high: float
    without: tuple[float, float] | None = None

    def draw(self, rng: np.random.Generator) -> float:
        """One value."""
        if self.without is None:
            return float(rng.uniform(self.low, self.high))
        below, above = self.without
        first = below - self.low
        value = float(rng.uniform(0.0, first + self.high - above))
        return self.low + value if value < first else above + (value - first)

    def only_without(self) -> Range:
        """The band that this range leaves out, as a range of its own."""
        return Range(*self.without) if self.without is not None else self


@dataclass(frozen=True)
class AlarmSettings:
    """What a synthesised alarm may be; the defaults span the devices on the market.

    piezo_hz, square_hz : pitch of the two kinds of sounder
    square_share : part of the alarms that have the 520 Hz sounder
    tempo : factor on every length of the pattern (the device's clock)
    length_error : further relative error of pulses and of gaps; with `tempo` kept in TOLERANCE
    attack_s, release_s : time constants of a pulse's rise and ringing
    rt60_s : reverberation time of the room; reverb_db is its energy over the direct sound's
    dry_share : part of the alarms heard without a room
    peak_dbfs : level of the loudest sample
    """

    piezo_hz: Range = Range(2_800.0, 3_600.0)
    square_hz: Range = Range(494.0, 546.0)
    square_share: float = 0.35
    tempo: Range = Range(0.94, 1.06)
    length_error: Range = Range(-0.035, 0.035)
    attack_s: Range = Range(0.001, 0.015)
    release_s: Range = Range(0.002, 0.025)
    rt60_s: Range = Range(0.1, 0.8)
    reverb_db: Range = Range(-15.0, 3.0)
    dry_share: float = 0.1
    peak_dbfs: Range = Range(-40.0, -3.0)

    @classmethod
    def for_training(cls) -> AlarmSettings:
        """The default ranges without the bands that only tests draw from."""
        return cls(
            piezo_hz=Range(2_800.0, 3_600.0, without=(3_050.0, 3_200.0)),
            square_hz=Range(494.0, 546.0, without=(512.0, 524.0)),
            tempo=Range(0.94, 1.06, without=(0.985, 1.015)),
            rt60_s=Range(0.1, 0.8, without=(0.35, 0.5)),
        )

    @classmethod
    def held_out(cls) -> AlarmSettings:
        """Only the bands that `for_training` leaves out."""
        training = cls.for_training()
        return replace(
            training,
            piezo_hz=training.piezo_hz.only_without(),
            square_hz=training.square_hz.only_without(),
            tempo=training.tempo.only_without(),
            rt60_s=training.rt60_s.only_without(),
        )


@dataclass(frozen=True)
class Alarm:
    """A synthesised alarm.

    samples : (n_samples,) float32, full scale ±1.0
    beeps : (n_beeps, 2) float64, start and end of each pulse in seconds, within the clip; the
        room's tail is not counted
    fundamental_hz : pitch of the sounder
    """

    samples: FloatArray
    beeps: NDArray[np.float64]
    fundamental_hz: float


@dataclass(frozen=True)
class Note:
    """One tone: its span in seconds, its pitch at either end and its amplitude."""

    onset_s: float
    offset_s: float
    start_hz: float
    end_hz: float
    gain: float = 1.0


@dataclass(frozen=True)
class Timbre:
    """How a sounder plays its notes.

    harmonics : amplitude of each multiple of the pitch, from the first
    attack_s, release_s : time constants of rise and ringing
    wobble_hz, wobble_depth : slow relative change of the pitch
    settle : relative error of the pitch at a note's start, gone within some 10 ms
    ripple_hz, ripple_depth : amplitude modulation (a supply's hum, a beating second sounder)
    """

    harmonics: tuple[float, ...]
    attack_s: float = 0.003
    release_s: float = 0.005
    wobble_hz: float = 5.0
    wobble_depth: float = 0.0
    settle: float = 0.0
    ripple_hz: float = 100.0
    ripple_depth: float = 0.0


@dataclass(frozen=True)
class Room:
    """A room's response: direct sound, early reflections, an exponentially decaying tail."""

    rt60_s: float
    reverb_db: float
    # dB per octave above 1 kHz: a microphone behind a cover, or a bright one.
    tilt_db: float = 0.0
    dry: bool = False


def render_notes(
    notes: list[Note], timbre: Timbre, rng: np.random.Generator, seconds: float, rate_hz: int
) -> FloatArray:
    """Tones as a sounder plays them, without a room.

    Partials past 95 % of half the sampling rate are left out.

    Returns
    -------
    (n_samples,) float32
    """
    n_samples = round(seconds * rate_hz)
    out = np.zeros(n_samples, np.float32)
    ceiling_hz = 0.475 * rate_hz
    wobble_phase = rng.uniform(0.0, 2 * math.pi)
    for note in notes:
        # Eight time constants: the ringing is 70 dB down where it is cut.
        first = max(0, math.ceil(note.onset_s * rate_hz))
        last = min(n_samples, math.ceil((note.offset_s + 8 * timbre.release_s) * rate_hz))
        if last <= first:
            continue
        time_s = np.arange(first, last) / rate_hz
        age_s = time_s - note.onset_s
        length_s = note.offset_s - note.onset_s
        pitch_hz = note.start_hz + (note.end_hz - note.start_hz) * np.clip(age_s / length_s, 0, 1)
        if timbre.settle:
            pitch_hz = pitch_hz * (1.0 + timbre.settle * np.exp(-age_s / 0.01))
        if timbre.wobble_depth:
            wobble = np.sin(2 * math.pi * timbre.wobble_hz * time_s + wobble_phase)
            pitch_hz = pitch_hz * (1.0 + timbre.wobble_depth * wobble)
        phase = np.cumsum(pitch_hz) * (2 * math.pi / rate_hz) + rng.uniform(0, 2 * math.pi)
        highest_hz = max(note.start_hz, note.end_hz) * (1 + abs(timbre.settle))
        tone = np.zeros(last - first)
        for number, amplitude in enumerate(timbre.harmonics, 1):
            if amplitude and number * highest_hz < ceiling_hz:
                tone += amplitude * np.sin(number * phase)
        envelope = 1.0 - np.exp(-age_s / timbre.attack_s)
        over_s = np.maximum(0.0, time_s - note.offset_s)
        envelope *= np.exp(-over_s / timbre.release_s)
        if timbre.ripple_depth:
            ripple = np.sin(2 * math.pi * timbre.ripple_hz * time_s)
            envelope *= 1.0 + timbre.ripple_depth * ripple
        out[first:last] += (note.gain * envelope * tone).astype(np.float32)
    return out


def draw_room(rng: np.random.Generator, settings: AlarmSettings) -> Room:
    """A room within the settings' ranges."""
    return Room(
        rt60_s=settings.rt60_s.draw(rng),
        reverb_db=settings.reverb_db.draw(rng),
        tilt_db=float(rng.uniform(-4.0, 2.0)),
        dry=bool(rng.random() < settings.dry_share),
    )


def room_response(room: Room, rng: np.random.Generator, rate_hz: int) -> FloatArray:
    """Impulse response of a random room of that reverberation time.

    Returns
    -------
    (n_taps,) float32
        The direct sound is tap 0, of amplitude 1: a beep keeps its time.
    """
    n_taps = max(2, round(room.rt60_s * rate_hz))
    time_s = np.arange(n_taps) / rate_hz
    # Energy falls by 60 dB in rt60: amplitude by 6.9 nepers.
    tail = rng.standard_normal(n_taps) * np.exp(-6.908 * time_s / room.rt60_s)
    # Sound reaches every wall within some 10 ms: the tail builds up over the early reflections.
    tail *= 1.0 - np.exp(-time_s / 0.008)
    # Walls and air take the treble: average neighbours, more of them for a darker room.
    width = int(rng.integers(1, 4))
    tail = np.convolve(tail, np.ones(width) / width)[:n_taps]
    early = rng.integers(round(0.001 * rate_hz), max(round(0.05 * rate_hz), 32), size=12)
    early = early[early < n_taps]
    distance = 1.0 + early / (0.01 * rate_hz)
    np.add.at(tail, early, rng.choice((-1.0, 1.0), len(early)) / distance)
    tail[0] = 0.0
    energy = float(np.sum(tail**2))
    if energy > 0:
        tail *= math.sqrt(10 ** (room.reverb_db / 10) / energy)
    tail[0] = 1.0
    return tail.astype(np.float32)


def place_in_room(
    samples: FloatArray, room: Room, rng: np.random.Generator, rate_hz: int
) -> FloatArray:
    """The sound as a microphone in that room hears it; same length, the tail's end cut off."""
    size = _fast_length(len(samples) + round(room.rt60_s * rate_hz))
    spectrum = np.fft.rfft(samples, size)
    if not room.dry:
        spectrum *= np.fft.rfft(room_response(room, rng, rate_hz), size)
    if room.tilt_db:
        octaves = np.log2(np.maximum(np.fft.rfftfreq(size, 1 / rate_hz), 60.0) / 1_000.0)
        spectrum *= 10 ** (room.tilt_db * octaves / 20)
    return np.fft.irfft(spectrum, size)[: len(samples)].astype(np.float32)


def pulse_spans(
    pattern: TemporalPattern,
    seconds: float,
    phase_s: float = 0.0,
    on_factor: float = 1.0,
    off_factor: float = 1.0,
) -> list[tuple[float, float]]:
    """Start and end of each pulse that overlaps [0, seconds), in seconds, not clipped to it.

    phase_s is the position in the pattern at time 0; the factors stretch pulses and gaps.
    """
    on_s = pattern.on_s * on_factor
    step_s = on_s + pattern.off_s * off_factor
    period_s = (pattern.pulses - 1) * step_s + on_s + pattern.long_off_s * off_factor
    spans = []
    group_s = -phase_s
    while group_s < seconds:
        for number in range(pattern.pulses):
            start_s = group_s + number * step_s
            if start_s + on_s > 0 and start_s < seconds:
                spans.append((start_s, start_s + on_s))
        group_s += period_s
    return spans


def synthesise_alarm(
    kind: AlarmKind,
    rng: np.random.Generator,
    seconds: float,
    rate_hz: int,
    settings: AlarmSettings | None = None,
    phase_s: float | None = None,
) -> Alarm:
    """A smoke or carbon monoxide alarm that sounds throughout the clip.

    Parameters
    ----------
    kind : "smoke_alarm" (T3) or "co_alarm" (T4)
    rng : source of every random choice: same state, same alarm
    seconds : length of the clip
    rate_hz : sampling rate of the result
    settings : ranges of device, room and level; the whole market by default
    phase_s : position in the pattern at the clip's start; random by default

    Returns
    -------
    Alarm
        A clip of a few seconds may fall into the pattern's long gap and hold no pulse at all.
    """
    settings = settings if settings is not None else AlarmSettings()
    pattern = TEMPORAL_PATTERNS[PATTERN_OF_ALARM[kind]]
    tempo = settings.tempo.draw(rng)
    on_factor = _within_tolerance(tempo * (1 + settings.length_error.draw(rng)))
    off_factor = _within_tolerance(tempo * (1 + settings.length_error.draw(rng)))
    if phase_s is None:
        phase_s = float(rng.uniform(0.0, pattern.period_s * off_factor))
    spans = pulse_spans(pattern, seconds, phase_s, on_factor, off_factor)
    square = bool(rng.random() < settings.square_share)
    if square:
        pitch_hz = settings.square_hz.draw(rng)
        timbre = _square_timbre(rng, settings)
        bend = 0.0
    else:
        pitch_hz = settings.piezo_hz.draw(rng)
        timbre = _piezo_timbre(rng, settings)
        # Some sounders glide by up to 2 % within a pulse.
        bend = float(rng.uniform(-0.02, 0.02)) if rng.random() < 0.25 else 0.0
    low_hz, high_hz = pitch_hz * (1 - bend / 2), pitch_hz * (1 + bend / 2)
    # The battery's sag and the pulse's position shift level and pitch a little.
    notes = [
        Note(start, end, low_hz, high_hz, gain=float(rng.uniform(0.92, 1.0)))
        for start, end in spans
    ]
    dry = render_notes(notes, timbre, rng, seconds, rate_hz)
    samples = _heard(dry, rng, settings, rate_hz)
    beeps = np.clip(np.array(spans, np.float64).reshape(-1, 2), 0.0, seconds)
    return Alarm(samples, beeps, pitch_hz)


def synthesise_beeper(
    rng: np.random.Generator,
    seconds: float,
    rate_hz: int,
    family: str | None = None,
    settings: AlarmSettings | None = None,
) -> FloatArray:
    """A beeper that is no alarm: timers, reversing lorries, chirps, telephones, doors, Morse.

    Parameters
    ----------
    family : one of `BEEPER_FAMILIES`; random by default
    settings : ranges of room and level (pitch and rhythm belong to the family)

    Returns
    -------
    (n_samples,) float32, full scale ±1.0
        Rhythms that would be a T3 or T4 by their tolerance are never drawn.
    """
    settings = settings if settings is not None else AlarmSettings()
    if family is None:
        family = BEEPER_FAMILIES[int(rng.integers(len(BEEPER_FAMILIES)))]
    notes = _BEEPERS[family](rng, seconds)
    timbre = _square_timbre(rng, settings) if rng.random() < 0.3 else _piezo_timbre(rng, settings)
    return _heard(render_notes(notes, timbre, rng, seconds, rate_hz), rng, settings, rate_hz)


def _within_tolerance(factor: float) -> float:
    return min(max(factor, 1 - TOLERANCE), 1 + TOLERANCE)


def _fast_length(size: int) -> int:
    """The next length whose factors an FFT likes: 1, 3, 5, 9 or 15 times a power of two."""
    return min(odd << max(0, math.ceil(math.log2(size / odd))) for odd in (1, 3, 5, 9, 15))


def _piezo_timbre(rng: np.random.Generator, settings: AlarmSettings) -> Timbre:
    # A horn's resonance carries the first partial; the others are 6 to 40 dB below it.
    levels_db = -rng.uniform(6.0, 40.0, size=6)
    return Timbre(
        harmonics=(1.0, *(10 ** (levels_db / 20))),
        attack_s=settings.attack_s.draw(rng),
        release_s=settings.release_s.draw(rng),
        wobble_hz=float(rng.uniform(1.0, 12.0)),
        wobble_depth=float(rng.uniform(0.0, 0.004)),
        settle=float(rng.uniform(-0.03, 0.03)),
        ripple_hz=float(rng.uniform(40.0, 130.0)),
        ripple_depth=float(rng.uniform(0.0, 0.3)) if rng.random() < 0.4 else 0.0,
    )


def _square_timbre(rng: np.random.Generator, settings: AlarmSettings) -> Timbre:
    # Fourier series of a square wave, coloured by a small loudspeaker: a high-pass below its
    # resonance, a tilt above, and even partials where the duty cycle is not quite one half.
    duty = float(rng.uniform(0.44, 0.56))
    resonance = float(rng.uniform(0.5, 3.0))
    tilt_db = float(rng.uniform(-6.0, 3.0))
    harmonics = []
    for number in range(1, 16):
        level = 2 / (math.pi * number) * abs(math.sin(math.pi * number * duty))
        speaker = number**2 / math.hypot(number**2 - resonance**2, number * resonance)
        spread_db = float(rng.uniform(-4.0, 4.0))
        gain_db = tilt_db * math.log2(number) + spread_db
        harmonics.append(level * speaker * 10 ** (gain_db / 20))
    return Timbre(
        harmonics=tuple(harmonics),
        attack_s=settings.attack_s.draw(rng),
        release_s=settings.release_s.draw(rng),
        wobble_hz=float(rng.uniform(1.0, 8.0)),
        wobble_depth=float(rng.uniform(0.0, 0.002)),
    )


def _heard(
    dry: FloatArray, rng: np.random.Generator, settings: AlarmSettings, rate_hz: int
) -> FloatArray:
    samples = place_in_room(dry, draw_room(rng, settings), rng, rate_hz)
    peak = float(np.max(np.abs(samples), initial=0.0))
    if peak == 0.0:
        return samples
    samples = samples / peak
    if rng.random() < 0.2:
        # A microphone that is overdriven by an alarm of 85 dB(A) at 3 m.
        drive = float(rng.uniform(1.0, 4.0))
        samples = np.tanh(drive * samples) / math.tanh(drive)
    level = 10 ** (settings.peak_dbfs.draw(rng) / 20)
    return (level * samples).astype(np.float32)


def _steady(
    rng: np.random.Generator, seconds: float, on_s: float, off_s: float, pitch_hz: float
) -> list[Note]:
    start_s = -float(rng.uniform(0.0, on_s + off_s))
    notes = []
    while start_s < seconds:
        notes.append(Note(start_s, start_s + on_s, pitch_hz, pitch_hz))
        start_s += on_s + off_s
    return notes


def _groups(
    rng: np.random.Generator,
    seconds: float,
    pulses: int,
    on_s: float,
    off_s: float,
    long_off_s: float,
    pitch_hz: float,
) -> list[Note]:
    pattern = TemporalPattern("", pulses, on_s, off_s, long_off_s)
    phase_s = float(rng.uniform(0.0, pattern.period_s))
    return [Note(a, b, pitch_hz, pitch_hz) for a, b in pulse_spans(pattern, seconds, phase_s)]


def _pitch(rng: np.random.Generator) -> float:
    """A beeper's pitch: half of them lie where alarms lie."""
    if rng.random() < 0.5:
        return float(rng.uniform(2_500.0, 4_100.0))
    return float(np.exp(rng.uniform(math.log(400.0), math.log(5_000.0))))


def _kitchen_timer(rng: np.random.Generator, seconds: float) -> list[Note]:
    """Four quick beeps every second."""
    step_s = float(rng.uniform(0.10, 0.14))
    on_s = step_s * float(rng.uniform(0.4, 0.7))
    rest_s = float(rng.uniform(0.9, 1.1)) - 3 * step_s - on_s
    return _groups(rng, seconds, 4, on_s, step_s - on_s, rest_s, _pitch(rng))


def _microwave_end(rng: np.random.Generator, seconds: float) -> list[Note]:
    """Three to five beeps, once."""
    on_s, off_s = float(rng.uniform(0.5, 1.0)), float(rng.uniform(0.4, 1.0))
    pitch_hz = float(rng.uniform(900.0, 3_200.0))
    start_s = float(rng.uniform(0.0, max(0.1, seconds / 2)))
    starts = [start_s + number * (on_s + off_s) for number in range(int(rng.integers(3, 6)))]
    return [Note(start, start + on_s, pitch_hz, pitch_hz) for start in starts]


def _reversing(rng: np.random.Generator, seconds: float) -> list[Note]:
    """A lorry's steady beep, from 0.25 s on and off to 0.6 s."""
    on_s = float(rng.uniform(0.25, 0.6))
    off_s = on_s * float(rng.uniform(0.8, 1.25))
    pitch_hz = float(rng.uniform(900.0, 3_200.0))
    return _steady(rng, seconds, on_s, off_s, pitch_hz)


def _low_battery(rng: np.random.Generator, seconds: float) -> list[Note]:
    """A detector's chirp, every half minute to minute."""
    pitch_hz = float(rng.uniform(2_800.0, 3_600.0))
    on_s = float(rng.uniform(0.02, 0.12))
    start_s = float(rng.uniform(0.0, max(0.1, min(seconds - 0.2, 30.0))))
    notes = []
    period_s = float(rng.uniform(30.0, 60.0))
    while start_s < seconds:
        notes.append(Note(start_s, start_s + on_s, pitch_hz, pitch_hz))
        start_s += period_s
    return notes


def _telephone(rng: np.random.Generator, seconds: float) -> list[Note]:
    """Two tones in quick turn, a second or two long, then a pause."""
    low_hz = float(rng.uniform(500.0, 2_500.0))
    high_hz = low_hz * float(rng.uniform(1.1, 1.6))
    half_s = float(rng.uniform(0.025, 0.08))
    ring_s, pause_s = float(rng.uniform(0.8, 2.2)), float(rng.uniform(1.0, 4.2))
    notes = []
    start_s = -float(rng.uniform(0.0, ring_s + pause_s))
    while start_s < seconds:
        for number in range(round(ring_s / half_s)):
            note_s = start_s + number * half_s
            pitch_hz = high_hz if number % 2 else low_hz
            if note_s + half_s > 0 and note_s < seconds:
                notes.append(Note(note_s, note_s + half_s, pitch_hz, pitch_hz))
        start_s += ring_s + pause_s
    return notes


def _wristwatch(rng: np.random.Generator, seconds: float) -> list[Note]:
    """Two short beeps every second, or the hour's two only."""
    pitch_hz = float(rng.uniform(3_600.0, 4_500.0))
    on_s, off_s = float(rng.uniform(0.04, 0.09)), float(rng.uniform(0.04, 0.09))
    if rng.random() < 0.3:
        start_s = float(rng.uniform(0.0, max(0.1, seconds - 0.5)))
        return [
            Note(start, start + on_s, pitch_hz, pitch_hz)
            for start in (start_s, start_s + on_s + off_s)
        ]
    return _groups(rng, seconds, 2, on_s, off_s, 1.0 - 2 * on_s - off_s, pitch_hz)


def _continuous(rng: np.random.Generator, seconds: float) -> list[Note]:
    """One unbroken tone."""
    start_s = float(rng.uniform(-1.0, max(0.1, seconds / 2)))
    length_s = float(rng.uniform(0.8, max(1.0, seconds)))
    pitch_hz = _pitch(rng)
    return [Note(start_s, start_s + length_s, pitch_hz, pitch_hz)]


def _siren(rng: np.random.Generator, seconds: float) -> list[Note]:
    """Up and down without a pause, as horns and burglar alarms do."""
    low_hz = float(rng.uniform(500.0, 2_000.0))
    high_hz = low_hz * float(rng.uniform(1.3, 2.2))
    half_s = float(rng.uniform(0.1, 2.5))
    notes = []
    start_s = -float(rng.uniform(0.0, half_s))
    up = True
    while start_s < seconds:
        first, last = (low_hz, high_hz) if up else (high_hz, low_hz)
        notes.append(Note(start_s, start_s + half_s, first, last))
        start_s += half_s
        up = not up
    return notes


def _ding(rng: np.random.Generator, seconds: float) -> list[Note]:
    """A lift's or a level crossing's bell: strokes that ring out."""
    pitch_hz = float(rng.uniform(500.0, 2_500.0))
    period_s = float(rng.uniform(0.4, 3.0))
    notes = []
    start_s = -float(rng.uniform(0.0, period_s))
    while start_s < seconds:
        for number in range(10):
            # A decay drawn as steps of falling gain, without a gap between them.
            note_s = start_s + 0.04 * number
            if note_s + 0.04 > 0 and note_s < seconds:
                notes.append(Note(note_s, note_s + 0.04, pitch_hz, pitch_hz, 0.6**number))
        start_s += period_s
    return notes


def _wrong_groups(rng: np.random.Generator, seconds: float) -> list[Note]:
    """Groups like those of T3 or T4, but with another count, pulse or pause."""
    name = "T3" if rng.random() < 0.6 else "T4"
    pattern = TEMPORAL_PATTERNS[name]
    tempo = float(rng.uniform(0.94, 1.06))
    pulses, on_s = pattern.pulses, pattern.on_s * tempo
    off_s, long_off_s = pattern.off_s * tempo, pattern.long_off_s * tempo
    fault = int(rng.integers(4))
    if fault == 0:
        pulses += int(rng.choice((-1, 1, 2)))
    elif fault == 1:
        # Three beeps, then hardly a pause; or a pause twice as long.
        long_off_s = off_s if rng.random() < 0.5 else long_off_s * float(rng.uniform(1.6, 2.5))
    elif fault == 2:
        # Pulses and gaps of half or less, or double.
        factor = float(rng.uniform(0.3, 0.55) if rng.random() < 0.5 else rng.uniform(1.7, 2.2))
        on_s, off_s = on_s * factor, off_s * factor
    else:
        long_off_s *= float(rng.uniform(0.4, 0.6))
    return _groups(rng, seconds, pulses, on_s, off_s, long_off_s, _pitch(rng))


def _morse(rng: np.random.Generator, seconds: float) -> list[Note]:
    """Random dots and dashes in random words (ITU-R M.1677: 1 and 3 units, gaps 1, 3 and 7)."""
    unit_s = float(rng.uniform(0.05, 0.25))
    pitch_hz = float(rng.uniform(450.0, 1_200.0)) if rng.random() < 0.6 else _pitch(rng)
    notes = []
    start_s = -float(rng.uniform(0.0, 1.0))
    while start_s < seconds:
        on_s = unit_s * int(rng.choice((1, 3)))
        notes.append(Note(start_s, start_s + on_s, pitch_hz, pitch_hz))
        start_s += on_s + unit_s * int(rng.choice((1, 3, 7), p=(0.65, 0.27, 0.08)))
    return notes


def _key_pad(rng: np.random.Generator, seconds: float) -> list[Note]:
    """Keys pressed at no rhythm, one pitch each or all alike."""
    pitch_hz = _pitch(rng)
    one_pitch = rng.random() < 0.5
    on_s = float(rng.uniform(0.05, 0.2))
    notes = []
    start_s = float(rng.uniform(0.0, 1.0))
    while start_s < seconds:
        key_hz = pitch_hz if one_pitch else pitch_hz * float(rng.uniform(0.7, 1.4))
        notes.append(Note(start_s, start_s + on_s, key_hz, key_hz))
        start_s += on_s + float(rng.exponential(0.5)) + 0.05
    return notes


_BEEPERS: dict[str, Callable[[np.random.Generator, float], list[Note]]] = {
    "kitchen_timer": _kitchen_timer,
    "microwave_end": _microwave_end,
    "reversing": _reversing,
    "low_battery": _low_battery,
    "telephone": _telephone,
    "wristwatch": _wristwatch,
    "continuous": _continuous,
    "siren": _siren,
    "ding": _ding,
    "wrong_groups": _wrong_groups,
    "morse": _morse,
    "key_pad": _key_pad,
}
BEEPER_FAMILIES: tuple[str, ...] = tuple(_BEEPERS)
