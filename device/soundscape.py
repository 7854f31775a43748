"""The demo's soundscape: a house of alarms, knocks, tones and noise, all synthesised.

No recording is used, so that the demo needs none and none is in the repository.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from soundpost.device.alarms import (
    AlarmKind,
    AlarmSettings,
    Note,
    Range,
    Room,
    Timbre,
    place_in_room,
    render_notes,
    synthesise_alarm,
)

FloatArray = NDArray[np.float32]
Event = tuple[str, float, float]

SECONDS = 38.0
# A quiet room: noise at -52 dBFS, falling by 3 dB per octave, with a trace of mains hum.
_BACKGROUND = 10 ** (-52 / 20)
_HUM = 10 ** (-66 / 20)
_SETTINGS = replace(
    AlarmSettings(), reverb_db=Range(-15.0, -3.0), rt60_s=Range(0.2, 0.5), dry_share=0.0
)


def soundscape(seed: int, rate_hz: int) -> tuple[FloatArray, list[Event]]:
    """About 38 s of a house, with what can be heard in it.

    In turn: knocks on a door, three groups of a smoke alarm (T3), three of a carbon monoxide alarm
    (T4) with a burst of noise in between, an alarm clock, a slow chime, knocks. The seed moves and
    colours all of them.

    Returns
    -------
    samples : (n_samples,) float32, full scale ±1.0
    events : (label, onset_s, offset_s), in order of onset
    """
    rng = np.random.default_rng(seed)
    scene = _Scene(rng, rate_hz)
    at = scene.jitter(1.2)
    scene.add("door_wood_knock", at, *_knocks(rng, rate_hz))
    scene.add("smoke_alarm", scene.jitter(4.5), *_alarm("smoke_alarm", rng, rate_hz))
    carbon_monoxide = scene.jitter(17.5)
    scene.add("noise_burst", carbon_monoxide + 2.6, *_burst(rng, rate_hz))
    scene.add("co_alarm", carbon_monoxide, *_alarm("co_alarm", rng, rate_hz))
    scene.add("clock_alarm", scene.jitter(31.3), *_clock(rng, rate_hz))
    scene.add("chime", scene.jitter(34.4), *_chime(rng, rate_hz))
    scene.add("door_wood_knock", scene.jitter(36.2), *_knocks(rng, rate_hz))
    return scene.samples, sorted(scene.events, key=lambda event: event[1])


class _Scene:
    def __init__(self, rng: np.random.Generator, rate_hz: int) -> None:
        self._rng = rng
        self._rate_hz = rate_hz
        self.samples = _background(rng, rate_hz)
        self.events: list[Event] = []

    def jitter(self, time_s: float) -> float:
        return time_s + float(self._rng.uniform(-0.2, 0.2))

    def add(self, label: str, onset_s: float, sound: FloatArray, length_s: float) -> None:
        start = round(onset_s * self._rate_hz)
        part = sound[: len(self.samples) - start]
        self.samples[start : start + len(part)] += part
        self.events.append((label, onset_s, min(onset_s + length_s, SECONDS)))


def _background(rng: np.random.Generator, rate_hz: int) -> FloatArray:
    n_samples = round(SECONDS * rate_hz)
    spectrum = np.fft.rfft(rng.standard_normal(n_samples))
    frequency_hz = np.fft.rfftfreq(n_samples, 1 / rate_hz)
    spectrum /= np.sqrt(np.maximum(frequency_hz, 40.0))
    noise = np.fft.irfft(spectrum, n_samples)
    noise *= _BACKGROUND / math.sqrt(float(np.mean(noise**2)))
    noise += _HUM * np.sin(2 * math.pi * 50.0 * np.arange(n_samples) / rate_hz)
    return noise.astype(np.float32)


def _in_room(
    dry: FloatArray, rng: np.random.Generator, rate_hz: int, peak_dbfs: float
) -> FloatArray:
    room = Room(rt60_s=float(rng.uniform(0.2, 0.5)), reverb_db=-6.0)
    wet = place_in_room(dry, room, rng, rate_hz)
    return wet * np.float32(10 ** (peak_dbfs / 20) / np.max(np.abs(wet)))


def _alarm(kind: AlarmKind, rng: np.random.Generator, rate_hz: int) -> tuple[FloatArray, float]:
    """Three whole groups, which is one more than its confirmation needs."""
    seconds = {"smoke_alarm": 12.0, "co_alarm": 14.0}[kind]
    level = Range(-14.0, -8.0)
    alarm = synthesise_alarm(
        kind, rng, seconds, rate_hz, replace(_SETTINGS, peak_dbfs=level), phase_s=0.0
    )
    pulses = {"smoke_alarm": 9, "co_alarm": 12}[kind]
    length_s = float(alarm.beeps[pulses - 1, 1])
    # A fourth group may begin before the clip ends: the alarm is switched off, with its tail.
    fade = round(0.5 * rate_hz)
    samples = alarm.samples.copy()
    stop = min(round((length_s + 0.5) * rate_hz), len(samples))
    samples[stop:] = 0.0
    samples[max(0, stop - fade) : stop] *= np.linspace(1, 0, min(fade, stop), dtype=np.float32)
    return samples, length_s


def _knocks(rng: np.random.Generator, rate_hz: int) -> tuple[FloatArray, float]:
    """Knuckles on a wooden door: the panel's first modes, struck, and a click."""
    step_s = float(rng.uniform(0.19, 0.27))
    count = int(rng.integers(4, 6))
    n_samples = round((count * step_s + 0.3) * rate_hz)
    out = np.zeros(n_samples)
    modes_hz = float(rng.uniform(110.0, 170.0)) * np.array([1.0, 1.6, 2.3, 3.4, 4.9, 6.7])
    decays_s = 0.045 / np.sqrt(np.arange(1, len(modes_hz) + 1))
    for number in range(count):
        first = round(number * step_s * rate_hz)
        age_s = np.arange(n_samples - first) / rate_hz
        strength = float(rng.uniform(0.75, 1.0))
        for order, (mode_hz, decay_s) in enumerate(zip(modes_hz, decays_s, strict=True)):
            phase = float(rng.uniform(0, 2 * math.pi))
            tone = np.sin(2 * math.pi * mode_hz * age_s + phase) * np.exp(-age_s / decay_s)
            out[first:] += strength * 0.8**order * tone
        click = rng.standard_normal(len(age_s)) * np.exp(-age_s / 0.003)
        out[first:] += 0.5 * strength * click
    length_s = (count - 1) * step_s + 0.15
    return _in_room(out.astype(np.float32), rng, rate_hz, -6.0), length_s


def _burst(rng: np.random.Generator, rate_hz: int) -> tuple[FloatArray, float]:
    """A gust of broad noise, as of a tap or a passing lorry."""
    length_s = float(rng.uniform(0.8, 1.2))
    n_samples = round(length_s * rate_hz)
    noise = rng.standard_normal(n_samples) * np.hanning(n_samples)
    noise = np.convolve(noise, np.ones(6) / 6, mode="same")
    return _in_room(noise.astype(np.float32), rng, rate_hz, -16.0), length_s


def _clock(rng: np.random.Generator, rate_hz: int) -> tuple[FloatArray, float]:
    """An alarm clock: four quick beeps every second."""
    pitch_hz = float(rng.uniform(1_950.0, 2_150.0))
    starts = [second + 0.125 * beep for second in range(3) for beep in range(4)]
    notes = [Note(start, start + 0.065, pitch_hz, pitch_hz) for start in starts]
    timbre = Timbre(harmonics=(1.0, 0.1, 0.35, 0.03, 0.1), attack_s=0.001, release_s=0.003)
    dry = render_notes(notes, timbre, rng, 3.2, rate_hz)
    return _in_room(dry, rng, rate_hz, -10.0), notes[-1].offset_s


def _chime(rng: np.random.Generator, rate_hz: int) -> tuple[FloatArray, float]:
    """Two soft tones, a major third apart and falling."""
    high_hz = float(rng.uniform(600.0, 720.0))
    low_hz = high_hz * 4 / 5
    notes = [Note(0.0, 0.25, high_hz, high_hz), Note(0.5, 0.8, low_hz, low_hz)]
    timbre = Timbre(harmonics=(1.0, 0.2, 0.08), attack_s=0.004, release_s=0.12)
    dry = render_notes(notes, timbre, rng, 1.6, rate_hz)
    return _in_room(dry, rng, rate_hz, -12.0), 1.2
