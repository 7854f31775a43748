"""Golden vector: a short sound of our own making, and what this machine makes of it."""

from __future__ import annotations

import numpy as np

from soundpost.device.bundle import (
    Golden,
    GoldenTolerance,
    Manifest,
    model_interpreter,
    score_features,
)
from soundpost.device.errors import ExportError
from soundpost.device.features import FloatArray, FrontEnd, log_mel
from soundpost.device.frame_interpreter import FrameInterpreter
from soundpost.device.interpreter import Interpreter, available_runtimes, sigmoid

# Windows of the golden vector: enough that a wrong hop or a state left over would show.
N_WINDOWS = 4
# And so much sound for a model that remembers.
N_GOLDEN_S = 4.0

# Past this, two runtimes do not say the same.
MOST_SCORE_DIFFERENCE = 0.15


def golden_input(front_end: FrontEnd, n_samples: int) -> FloatArray:
    """A rising sweep with its octave, pulsed, over noise that fades in: from silence to full scale.

    It reaches every mel band and the whole clamped range. No recording: a bundle must not carry
    somebody's sound about.

    Returns
    -------
    (n_samples,) float32, full scale ±1.0
    """
    rate = front_end.sample_rate_hz
    time_s = np.arange(n_samples) / rate
    duration_s = n_samples / rate
    low, high = max(front_end.fmin_hz, 50.0), front_end.fmax_hz
    # Exponential sweep: phase is the integral of low (high / low)^(t / duration).
    slope = np.log(high / low) / duration_s
    phase = 2 * np.pi * low * np.expm1(slope * time_s) / slope
    pulses = (np.sin(2 * np.pi * 3.0 * time_s) > -0.5).astype(float)
    tone = (np.sin(phase) + 0.3 * np.sin(2 * phase)) * pulses
    # A tenth of silence first; squared, so that every level from there on is passed through.
    rise = np.clip(np.linspace(-1 / 9, 1.0, n_samples), 0.0, 1.0) ** 2
    noise = np.random.default_rng(20_261_120).standard_normal(n_samples)
    samples = rise * (0.6 * tone + 0.05 * noise)
    clipped: FloatArray = np.clip(samples, -1.0, 1.0).astype(np.float32)
    return clipped


def make_golden(
    interpreter: Interpreter, front_end: FrontEnd, window_samples: int, hop_samples: int
) -> Golden:
    """Run the golden input through the device's own front end and interpreter."""
    samples = golden_input(front_end, window_samples + (N_WINDOWS - 1) * hop_samples)
    features = log_mel(samples, front_end)
    length, hop = front_end.frames_of(window_samples), hop_samples // front_end.hop_length
    outputs = [interpreter.run(features[i * hop : i * hop + length]) for i in range(N_WINDOWS)]
    return Golden(
        samples,
        features,
        np.stack([output.logits for output in outputs]),
        np.stack([output.embedding for output in outputs]),
    )


def make_frame_golden(interpreter: FrameInterpreter, manifest: Manifest) -> Golden:
    """The same of a model of kind `frames`: the chunks of N_GOLDEN_S one after the other."""
    front_end, n_frames = manifest.front_end, manifest.n_frames
    hop_s = front_end.hop_length / front_end.sample_rate_hz
    n_chunks = round(N_GOLDEN_S / (n_frames * hop_s))
    samples = golden_input(front_end, front_end.samples_of(n_chunks * n_frames))
    features = log_mel(samples, front_end)
    logits = score_features(features, manifest, interpreter)
    return Golden(samples, features, logits, np.zeros((n_chunks, 0), np.float32))


def golden_tolerance(model: bytes, golden: Golden, manifest: Manifest) -> GoldenTolerance:
    """How far a device's scores may be off: twice what the runtimes here differ by, or the default.

    The vector is made by one runtime and must reproduce in the others, on other processors too;
    how much their rounding shows depends on the model. Raises ExportError where it shows so much
    that a wrong model would pass.
    """
    default = GoldenTolerance()
    expected, worst = sigmoid(golden.logits), 0.0
    for runtime in available_runtimes():
        if runtime != "tensorflow":
            interpreter = model_interpreter(manifest, model, runtime)
            scores = sigmoid(score_features(golden.features, manifest, interpreter))
            worst = max(worst, float(np.abs(scores - expected).max()))
            if worst > MOST_SCORE_DIFFERENCE:
                raise ExportError(
                    f"golden vector: {runtime}'s scores differ by {worst:.2g}: expected at most "
                    f"{MOST_SCORE_DIFFERENCE:g}; train longer, or with more weight decay"
                )
    return GoldenTolerance(default.features, round(max(default.scores, 2 * worst), 4))
