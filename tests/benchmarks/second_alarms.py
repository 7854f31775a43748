"""A second generator of alarms: what the student and the cadence check are tested with.

Nothing is shared with soundpost.device.alarms. Where that one adds sine partials under exponential
envelopes and convolves with a decaying noise tail, this one
- excites a horn, a chain of second-order resonators, with a pulse train that the gate switches
  (piezo), or sums the Fourier series of a square wave that a driver's band-pass weighs (520 Hz);
- gates with raised-cosine ramps, each pulse and gap with an error of its own;
- puts source and microphone into a rectangular room and adds the image sources (Allen and Berkley,
  1979) up to the reverberation time, each reflection darker than the last.
Pitch, tempo and reverberation come from the bands that training leaves out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.signal
from numpy.typing import NDArray

# On, off, pulses, long off: ISO 8201 (T3); UL 2034 and NFPA 72 (T4).
CADENCES = {"smoke_alarm": (0.5, 0.5, 3, 1.5), "co_alarm": (0.1, 0.1, 4, 5.0)}

# (on, off) seconds of one cycle of beepers that are no alarms.
RHYTHMS: dict[str, list[tuple[float, float]]] = {
    "reversing lorry": [(0.5, 0.5)],
    "reversing lorry, quick": [(0.3, 0.3)],
    "reversing lorry, slow": [(0.6, 0.7)],
    "kitchen timer": [(0.06, 0.06)] * 3 + [(0.06, 0.58)],
    "microwave": [(0.7, 0.7)],
    "detector's chirp": [(0.05, 35.0)],
    "watch": [(0.06, 0.06), (0.06, 0.82)],
    "telephone": [(0.4, 0.2), (0.4, 2.0)],
    "telephone, American": [(2.0, 4.0)],
    "busy line": [(0.5, 0.5)],
    "crossing": [(0.12, 0.88)],
    "lift": [(0.25, 4.0)],
    "dishwasher": [(1.0, 1.0)] * 2 + [(1.0, 6.0)],
    "fridge door": [(0.15, 0.15), (0.15, 2.0)],
    "four of a half": [(0.5, 0.5)] * 3 + [(0.5, 1.5)],
    "two of a half": [(0.5, 0.5), (0.5, 1.5)],
    "three quick": [(0.15, 0.15)] * 2 + [(0.15, 1.5)],
    "five of a tenth": [(0.1, 0.1)] * 4 + [(0.1, 5.0)],
    "three of a tenth": [(0.1, 0.1)] * 2 + [(0.1, 5.0)],
    "four of a tenth, soon again": [(0.1, 0.1)] * 3 + [(0.1, 1.5)],
    "SOS": [(0.1, 0.1)] * 2
    + [(0.1, 0.3)]
    + [(0.3, 0.1)] * 2
    + [(0.3, 0.3)]
    + [(0.1, 0.1)] * 2
    + [(0.1, 0.7)],
    "steady tone": [(30.0, 0.01)],
    "random": [],
}

# soundpost.device.alarms.AlarmSettings.for_training leaves exactly these out.
PIEZO_HZ = (3_050.0, 3_200.0)
SQUARE_HZ = (512.0, 524.0)
TEMPO = (0.985, 1.015)
RT60_S = (0.35, 0.5)
SPEED_OF_SOUND = 343.0


@dataclass(frozen=True)
class TestAlarm:
    """samples (n,) float64, unit RMS while it sounds; sounding (n,) bool; what it was drawn as."""

    __test__ = False

    samples: NDArray[np.float64]
    sounding: NDArray[np.bool_]
    sounder: str
    pitch_hz: float
    rt60_s: float


def make_alarm(
    kind: str, rng: np.random.Generator, seconds: float, rate_hz: int = 16_000
) -> TestAlarm:
    """An alarm that starts somewhere in its pattern and sounds to the clip's end."""
    on_s, off_s, pulses, long_s = CADENCES[kind]
    cycle = [(on_s, off_s)] * (pulses - 1) + [(on_s, long_s)]
    gate, sounding = _gate(cycle, float(rng.uniform(*TEMPO)), 0.004, rng, seconds, rate_hz)
    if rng.random() < 0.5:
        sounder, pitch_hz = "piezo", float(rng.uniform(*PIEZO_HZ))
        dry = _horn(gate, pitch_hz, rng, rate_hz)
    else:
        sounder, pitch_hz = "square", float(rng.uniform(*SQUARE_HZ))
        dry = _square(gate, pitch_hz, rng, rate_hz)
    rt60_s = float(rng.uniform(*RT60_S))
    wet = scipy.signal.fftconvolve(dry, _image_sources(rt60_s, rng, rate_hz))[: len(dry)]
    if sounding.any():
        wet /= math.sqrt(float(np.mean(wet[sounding] ** 2)))
    return TestAlarm(wet, sounding, sounder, pitch_hz, rt60_s)


def mix_at_0_db(background: NDArray[np.float32], alarm: TestAlarm) -> NDArray[np.float32]:
    """Alarm, while it sounds, as strong as the background over the whole clip."""
    level = math.sqrt(float(np.mean(background.astype(np.float64) ** 2)))
    mixed = background + max(level, 1e-4) * alarm.samples
    # What would clip is turned down as a whole: the ratio stays.
    return (mixed / max(1.0, float(np.max(np.abs(mixed))))).astype(np.float32)


def make_beeper(
    rng: np.random.Generator, seconds: float, rate_hz: int = 16_000
) -> tuple[str, NDArray[np.float32]]:
    """Its rhythm's name, and the sound of a beeper that is no alarm, through the same sounders."""
    name = str(rng.choice(sorted(RHYTHMS)))
    cycle = RHYTHMS[name]
    if name == "random":
        # Nothing repeats: the cycle is longer than the clip.
        cycle = [(float(a), float(b)) for a, b in rng.uniform(0.05, 0.8, size=(80, 2))]
    gate, _ = _gate(cycle, float(rng.uniform(0.93, 1.07)), 0.004, rng, seconds, rate_hz)
    if name == "microwave":
        gate[round(0.45 * len(gate)) :] = 0.0
    if rng.random() < 0.5:
        dry = _horn(gate, float(rng.uniform(2_000, 3_700)), rng, rate_hz)
    else:
        dry = _square(gate, float(rng.uniform(400, 1_600)), rng, rate_hz)
    taps = _image_sources(float(rng.uniform(0.15, 0.7)), rng, rate_hz)
    wet = scipy.signal.fftconvolve(dry, taps)[: len(dry)]
    peak = max(float(np.max(np.abs(wet))), 1e-9)
    level = 10 ** (float(rng.uniform(-30, -3)) / 20)
    noise = 10 ** (float(rng.uniform(-70, -45)) / 20) * rng.standard_normal(len(wet))
    return name, (level * wet / peak + noise).astype(np.float32)


def _gate(
    cycle: list[tuple[float, float]],
    tempo: float,
    spread: float,
    rng: np.random.Generator,
    seconds: float,
    rate_hz: int,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """On and off by a cycle of (on, off) seconds, from a random place in it."""
    lengths: list[tuple[bool, float]] = []
    total, period = 0.0, tempo * sum(on_s + off_s for on_s, off_s in cycle)
    while total < seconds + period + 1.0:
        for pair in cycle:
            for sounds, length_s in zip((True, False), pair, strict=True):
                length_s *= tempo * float(rng.normal(1.0, spread))
                lengths.append((sounds, length_s))
                total += length_s
    edges = np.concatenate(([0.0], np.cumsum([length for _, length in lengths])))
    start = float(rng.uniform(0.0, period))
    time_s = start + np.arange(round(seconds * rate_hz)) / rate_hz
    slot = np.searchsorted(edges, time_s, side="right") - 1
    sounding = np.array([sounds for sounds, _ in lengths])[slot]
    ramp = np.hanning(max(3, round(float(rng.uniform(0.002, 0.02)) * rate_hz)))
    gate = np.convolve(sounding.astype(np.float64), ramp / ramp.sum(), mode="same")
    return gate, sounding


def _horn(
    gate: NDArray[np.float64], pitch_hz: float, rng: np.random.Generator, rate_hz: int
) -> NDArray[np.float64]:
    """A pulse train through the horn's resonances, at four times the rate against aliasing."""
    fine = 4 * rate_hz
    drive_hz = pitch_hz * (1 + 0.002 * np.sin(2 * math.pi * 0.3 * np.arange(4 * len(gate)) / fine))
    turns = np.cumsum(drive_hz) / fine
    train = np.where(turns % 1.0 < float(rng.uniform(0.2, 0.5)), 1.0, -1.0)
    train *= np.repeat(gate, 4)
    out = train
    for resonance, quality in ((1.0, rng.uniform(6, 25)), (2.0, rng.uniform(2, 6))):
        centre_hz = pitch_hz * resonance * float(rng.uniform(0.97, 1.03))
        b, a = scipy.signal.iirpeak(centre_hz, float(quality), fs=fine)
        out = out + 2.0 * scipy.signal.lfilter(b, a, out)
    return scipy.signal.decimate(out, 4, ftype="fir")


def _square(
    gate: NDArray[np.float64], pitch_hz: float, rng: np.random.Generator, rate_hz: int
) -> NDArray[np.float64]:
    """Odd partials of a square wave below 7.4 kHz, weighed by a driver's band-pass."""
    time_s = np.arange(len(gate)) / rate_hz
    low_hz, high_hz = float(rng.uniform(250, 700)), float(rng.uniform(2_500, 6_000))
    out = np.zeros(len(gate))
    for number in range(1, int(7_400 / pitch_hz) + 1, 2):
        partial_hz = number * pitch_hz
        weight = 1 / math.sqrt((1 + (low_hz / partial_hz) ** 4) * (1 + (partial_hz / high_hz) ** 4))
        out += weight / number * np.sin(2 * math.pi * partial_hz * time_s)
    return gate * out


def _image_sources(rt60_s: float, rng: np.random.Generator, rate_hz: int) -> NDArray[np.float64]:
    room_m = rng.uniform((3.0, 2.5, 2.3), (6.0, 5.0, 3.0))
    source_m, microphone_m = rng.uniform(0.15, 0.85, size=(2, 3)) * room_m
    volume = float(np.prod(room_m))
    surface = 2 * float(room_m[0] * room_m[1] + room_m[1] * room_m[2] + room_m[0] * room_m[2])
    # Sabine's formula, solved for the walls' absorption.
    absorption = min(0.161 * volume / (surface * rt60_s), 0.95)
    reflection = math.sqrt(1 - absorption)
    reach = np.ceil(SPEED_OF_SOUND * rt60_s / (2 * room_m)).astype(int)
    axes = []
    for axis in range(3):
        order = np.arange(-reach[axis], reach[axis] + 1)
        places = [
            (2 * order * room_m[axis] + sign * source_m[axis] - microphone_m[axis], bounce)
            for sign, bounce in ((1, np.abs(2 * order)), (-1, np.abs(2 * order - 1)))
        ]
        axes.append(
            (np.concatenate([p[0] for p in places]), np.concatenate([p[1] for p in places]))
        )
    (x, nx), (y, ny), (z, nz) = axes
    distance = np.sqrt(
        x[:, None, None] ** 2 + y[None, :, None] ** 2 + z[None, None, :] ** 2
    ).ravel()
    bounces = (nx[:, None, None] + ny[None, :, None] + nz[None, None, :]).ravel()
    delay = (distance - distance.min()) / SPEED_OF_SOUND * rate_hz
    near = delay < rt60_s * rate_hz
    taps = np.zeros(round(rt60_s * rate_hz) + 2)
    # An image's arrival lies between samples: it is shared by the two.
    whole = delay[near].astype(int)
    part = delay[near] - whole
    gain = reflection ** bounces[near] / np.maximum(distance[near], 0.3)
    np.add.at(taps, whole, gain * (1 - part))
    np.add.at(taps, whole + 1, gain * part)
    # Equal signs of all images make a hum below 50 Hz that no room has.
    b, a = scipy.signal.butter(2, 50, "highpass", fs=rate_hz)
    return scipy.signal.lfilter(b, a, taps)
