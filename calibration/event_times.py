"""When microphones hear chirps or clicks, to a small fraction of a sample.

Events are where the power of the array rises above what there is between them. Of each, the spectra
of all microphones are turned back by the delays found so far and averaged, and each microphone's
delay is then the one at which it agrees best with this average: the maximum of their correlation,
found by Newton's steps. The first delays come from GCC-PHAT (Knapp and Carter, "The generalized
correlation method for estimation of time delay", 1976) with the microphone that is loudest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from soundpost.device.array.geometry import Floats
from soundpost.device.audio import FloatArray

_LOWEST_HZ = 300.0
_HIGHEST_HZ = 8_000.0
_USED = 0.48
_STEP_S = 0.005
# Above the quiet, and below the loudest: quieter things are echoes, steps and coughs.
_ABOVE = 10 ** (10 / 10)
_BELOW = 10 ** (-20 / 10)
# Parts of one event may be so far apart.
_JOIN_S = 0.04
_MARGIN_S = 0.01
_SHORTEST_S, _LONGEST_S = 0.002, 2.0
_UPSAMPLING = 4
_ROUNDS = 6


@dataclass(frozen=True, eq=False)
class EventTimes:
    """When each microphone hears each event.

    times_s : (n_events, n_mics) in the recording, the same unknown moment of each event
    errors_s : (n_events, n_mics) standard errors, from what each hears beside the event
    spans_s : (n_events, 2) what was cut out
    """

    times_s: Floats
    errors_s: Floats
    spans_s: Floats


def find_events(samples: FloatArray, rate_hz: int) -> list[tuple[int, int]]:
    """First sample of each event, and the one after its last.

    samples : (n_samples, n_mics)
    """
    step = max(round(_STEP_S * rate_hz), 1)
    n_steps = len(samples) // step
    if n_steps < 2:
        return []
    steps = samples[: n_steps * step].reshape(n_steps, step, -1)
    power = np.median(np.square(steps, dtype=np.float64).mean(axis=1), axis=1)
    quiet = max(float(np.percentile(power, 20)), 1e-20)
    loud = power > max(_ABOVE * quiet, _BELOW * float(power.max()))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.view(np.int8), [0]])))
    spans: list[tuple[int, int]] = []
    for first, last in edges.reshape(-1, 2).tolist():
        if spans and (first - spans[-1][1]) * step <= _JOIN_S * rate_hz:
            spans[-1] = (spans[-1][0], last)
        else:
            spans.append((first, last))
    shortest, longest = _SHORTEST_S * rate_hz, _LONGEST_S * rate_hz
    margin = round(_MARGIN_S * rate_hz)
    return [
        (max(first * step - margin, 0), min(last * step + margin, len(samples)))
        for first, last in spans
        if shortest <= (last - first) * step <= longest
    ]


def measure_times(
    samples: FloatArray, rate_hz: int, events: list[tuple[int, int]], widest_s: float
) -> EventTimes:
    """When microphones hear events.

    samples : (n_samples, n_mics), a column for each microphone
    widest_s : most that one microphone may hear an event later than another
    """
    times = np.empty((len(events), samples.shape[1]))
    errors = np.empty_like(times)
    for number, (first, last) in enumerate(events):
        delays_s, errors[number] = _delays(samples[first:last], rate_hz, widest_s)
        times[number] = first / rate_hz + delays_s
    spans_s = np.array(events, np.float64).reshape(-1, 2) / rate_hz
    return EventTimes(times, errors, spans_s)


def _delays(cut: FloatArray, rate_hz: int, widest_s: float) -> tuple[Floats, Floats]:
    # Room for the shift, which would otherwise bring the end round to the beginning.
    size = fft.next_fast_len(len(cut) + 2 * int(widest_s * rate_hz) + 2, real=True)
    spectra = fft.rfft(cut.astype(np.float64), size, axis=0)
    frequencies = np.arange(len(spectra)) * (rate_hz / size)
    used = (frequencies >= _LOWEST_HZ) & (frequencies <= min(_HIGHEST_HZ, _USED * rate_hz))
    delays = _first_delays(spectra, used, rate_hz, size, widest_s)
    some, omega = spectra[used], 2 * np.pi * frequencies[used, None]
    strength = np.maximum(np.linalg.norm(some, axis=0), 1e-30)
    some = some / strength
    for _ in range(_ROUNDS):
        turned = some * np.exp(1j * omega * delays)
        signs = np.sign((turned * turned[:, :1].conj()).real.sum(axis=0))
        mean = (turned * np.where(signs == 0, 1, signs)).mean(axis=1, keepdims=True)
        agreed = turned * mean.conj()
        agreed *= np.sign(agreed.real.sum(axis=0))
        curvature = np.maximum((omega**2 * agreed.real).sum(axis=0), 1e-30)
        delays = delays - (omega * agreed.imag).sum(axis=0) / curvature
    # What a microphone has beside the event is noise whose part across the phase moves the maximum.
    turned = some * np.exp(1j * omega * delays)
    share = (turned * mean.conj()).sum(axis=0) / np.square(np.abs(mean)).sum()
    noise = np.square(np.abs(turned - share * mean))
    weight = omega**2 * np.square(np.abs(mean))
    variance = (weight * noise).sum(axis=0) / 2
    errors = np.sqrt(variance) / np.maximum(np.abs(share) * weight.sum(axis=0), 1e-30)
    return delays, errors


def _first_delays(
    spectra: NDArray[np.complex128],
    used: NDArray[np.bool_],
    rate_hz: int,
    size: int,
    widest_s: float,
) -> Floats:
    power = np.square(np.abs(spectra[used])).sum(axis=0)
    loudest = int(power.argmax())
    cross = np.where(used[:, None], spectra * spectra[:, loudest, None].conj(), 0)
    # Bins without the event say nothing: a chirp's noise between its tones.
    heard = np.abs(cross) > 1e-3 * np.abs(cross).max(axis=0)
    cross = np.where(heard, cross / np.maximum(np.abs(cross), 1e-30), 0)
    correlation = np.abs(fft.irfft(cross, size * _UPSAMPLING, axis=0))
    most = int(widest_s * rate_hz * _UPSAMPLING) + 1
    lags = np.arange(-most, most + 1)
    found: Floats = lags[correlation[lags].argmax(axis=0)] / (rate_hz * _UPSAMPLING)
    return found
