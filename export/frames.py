"""A streaming student to a model of kind `frames`: conversion, and what must hold before it ships.

The converted model takes a chunk and the student's states, and gives frame logits and the states
that the next chunk goes in with. Its int8 ranges are set by chunks from the middle of streams, with
the states that the float student has there: zeros would give the state a range of nothing.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnxruntime
import torch
from torch import Tensor
from torch.jit._trace import TracerWarning

from soundpost.device.errors import ExportError, UsageError
from soundpost.device.features import FloatArray, FrontEnd
from soundpost.device.frame_interpreter import FrameInterpreter, load_frame_interpreter
from soundpost.device.interpreter import (
    INT8_HIGH,
    INT8_LOW,
    Quantisation,
    Signature,
    available_runtimes,
    sigmoid,
)
from soundpost.device.manifest import StateTensor
from soundpost.export.gates import (
    MEAN_SCORE_DIFFERENCE,
    check_float,
    check_full_int8,
    check_operators,
)
from soundpost.export.onnx_export import trace_onnx
from soundpost.export.tflite import Interface, TFLiteModels, convert_to_tflite
from soundpost.train.sed.streaming import StreamingCRNN

SIGNATURE = Signature("frames", "chunk", "logits", "")
# Names of the student's two states, going in and coming out.
CONTEXT, HIDDEN = ("context", "next_context"), ("hidden", "next_hidden")
INTERFACE = Interface(
    SIGNATURE.name,
    (SIGNATURE.input, CONTEXT[0], HIDDEN[0]),
    (SIGNATURE.logits, CONTEXT[1], HIDDEN[1]),
    unroll=True,
)

FEWEST_FRAMES, MOST_FRAMES = 10, 25
# A longer chunk saves nothing: 10, 20 and 25 frames of the default student cost 2.6, 2.9 and 2.9 ms
# per second of sound by LiteRT on one x86 thread (32, 31, 29 by tflite-runtime), every step that is
# written out makes the file longer (166, 212, 237 kB), and alerts come later by half a chunk.
CHUNK_FRAMES = 10

# The default student of ten labels has 166,192; a sensor of small flash should hold it.
MOST_BYTES = 300_000
N_CHUNKS = 160
_N_EXTREME = 5
# A state's range may miss this share of what the float student reaches on other sound, and may hold
# so many times as much before its steps are too coarse.
_STATE_SLACK = 0.25
_MOST_STATE_ROOM = 4.0
RUNTIME_SECONDS = 20.0
DRIFT_SECONDS = 600.0
_MINUTE_S = 60.0


@dataclass(frozen=True)
class FrameBounds:
    """How far the int8 model may be from torch; past one of these the export fails.

    mean_difference : of probabilities over all frames and labels
    decision_agreement : least share of frames and labels on the same side of one half
    drift : the last minute of ten may be this much worse, in mean difference, than the first
    """

    mean_difference: float = 0.02
    decision_agreement: float = 0.98
    drift: float = 0.005


@dataclass(frozen=True)
class Drift:
    """How int8 and float grow apart over a long stream: mean |Δp| of each minute."""

    seconds: float
    by_minute: tuple[float, ...]
    decision_agreement: float

    @property
    def first(self) -> float:
        """Of the first minute."""
        return self.by_minute[0]

    @property
    def last(self) -> float:
        """Of the last minute."""
        return self.by_minute[-1]


@dataclass(frozen=True)
class FrameRuntimes:
    """How far two runtimes are apart on the same stream, in probability.

    Not by the best label of a frame: where nothing sounds, that is chance.
    """

    runtimes: tuple[str, str]
    mean_score: float
    max_score: float
    decision_agreement: float


@dataclass(frozen=True)
class FrameFigures:
    """What the gates measured.

    float_error : of ONNX Runtime and float TFLite against torch, by name
    mean_difference, max_difference, decision_agreement : int8 against torch, in probability
    """

    float_error: dict[str, float]
    mean_difference: float
    max_difference: float
    decision_agreement: float
    runtimes: FrameRuntimes | None
    drift: Drift


@dataclass(frozen=True)
class ConvertedFrames:
    """A converted student and what was found of it.

    states : as the manifest must state them
    quantisation : of "input" and "logits"
    """

    onnx: bytes
    models: TFLiteModels
    chunk_frames: int
    states: tuple[StateTensor, ...]
    quantisation: dict[str, Quantisation]
    operators: Counter[tuple[str, int]]
    n_representative: int
    figures: FrameFigures

    def interpreter(self, runtime: str = "auto", model: bytes | None = None) -> FrameInterpreter:
        """Of the int8 model, or another one of the same states."""
        return load_frame_interpreter(model or self.models.int8, SIGNATURE, self.states, runtime)


def state_tensors(network: StreamingCRNN) -> tuple[StateTensor, ...]:
    """The student's states, without quantisation."""
    context, hidden = network.initial_state()
    return (
        StateTensor(*CONTEXT, (context.shape[0], context.shape[1]), network.silence),
        StateTensor(*HIDDEN, (hidden.shape[0], hidden.shape[1]), 0.0),
    )


def export_frames_onnx(network: StreamingCRNN, chunk_frames: int) -> bytes:
    """ONNX model of one chunk; raises ExportError."""
    context, hidden = network.initial_state()
    examples = (torch.zeros(1, 1, chunk_frames, network.n_mels), context, hidden)
    inputs = dict(zip(INTERFACE.inputs, examples, strict=True))
    with warnings.catch_warnings():
        # A GRU checks shapes, which are fixed here, and its state is an input, its batch one.
        warnings.simplefilter("ignore", TracerWarning)
        warnings.filterwarnings("ignore", "Exporting a model to ONNX with a batch_size")
        return trace_onnx(network, inputs, INTERFACE.outputs)


@dataclass(frozen=True)
class Step:
    """One chunk of a float stream: what went in, and what came out."""

    inputs: tuple[FloatArray, FloatArray, FloatArray]
    logits: FloatArray
    hidden: FloatArray


@torch.no_grad()
def roll_out(network: StreamingCRNN, log_mel: FloatArray, chunk_frames: int) -> Iterator[Step]:
    """Let torch hear a recording (n_frames, n_mels) chunk by chunk; a rest is left out."""
    context, hidden = network.initial_state()
    for chunk in chunks_of(log_mel, chunk_frames):
        before: tuple[Tensor, Tensor] = (context, hidden)
        logits, context, hidden = network(torch.from_numpy(chunk)[None, None], *before)
        inputs = (chunk, before[0].numpy(), before[1].numpy())
        yield Step(inputs, logits.numpy(), hidden.numpy())


def chunks_of(log_mel: FloatArray, chunk_frames: int) -> list[FloatArray]:
    """Chunks (chunk_frames, n_mels) of a recording (n_frames, n_mels); a rest is left out."""
    n_chunks = len(log_mel) // chunk_frames
    return [log_mel[i * chunk_frames : (i + 1) * chunk_frames] for i in range(n_chunks)]


def draw_chunks(
    network: StreamingCRNN,
    recordings: Sequence[FloatArray],
    front_end: FrontEnd,
    chunk_frames: int,
    seed: int,
) -> dict[str, FloatArray]:
    """Chunks with the states that the float student has there: they set the int8 ranges.

    From anywhere within the recordings; on top the quietest, the loudest and those with the largest
    state, and one whose chunk and context pin the range of log-mel values to the front end's.

    Parameters
    ----------
    recordings : (n_frames, n_mels) each, of training

    Raises ExportError where they hold fewer chunks than a range can be estimated from.
    """
    steps = [
        step for recording in recordings for step in roll_out(network, recording, chunk_frames)
    ]
    if len(steps) < 4 * _N_EXTREME:
        raise ExportError(
            f"{len(steps)} chunks of training sound are too few to set int8 ranges: expected at "
            f"least {4 * _N_EXTREME}; give more recordings"
        )
    rng = np.random.default_rng([seed, 0xF7A])
    levels = np.argsort([step.inputs[0].mean() for step in steps], kind="stable")
    largest = np.argsort([-np.abs(step.hidden).max() for step in steps], kind="stable")
    extremes = [*levels[:_N_EXTREME], *levels[-_N_EXTREME:], *largest[:_N_EXTREME]]
    drawn = rng.permutation(len(steps))[:N_CHUNKS]
    chosen = [steps[i] for i in dict.fromkeys(int(i) for i in [*drawn, *extremes])]
    chunk, context, hidden = (array.copy() for array in steps[levels[-1]].inputs)
    for array in (chunk, context):
        array.flat[array.argmin()] = front_end.clamp_low
        array.flat[array.argmax()] = front_end.clamp_high
    examples = [step.inputs for step in chosen] + [(chunk, context, hidden)]
    return {
        name: np.stack([example[index] for example in examples])
        for index, name in enumerate(INTERFACE.inputs)
    }


def score_recording(interpreter: FrameInterpreter, log_mel: FloatArray) -> FloatArray:
    """Logits (n_frames, n_labels) of a recording (n_frames, n_mels), heard from its beginning.

    The last chunk is filled up with its last frame, which no earlier frame hears.
    """
    length = interpreter.input_shape[0]
    lacking = -len(log_mel) % length
    padded = np.concatenate([log_mel, np.repeat(log_mel[-1:], lacking, 0)])
    state, found = interpreter.initial_state(), []
    for chunk in chunks_of(padded, length):
        outputs = interpreter.run(chunk, state)
        state = outputs.state
        found.append(outputs.logits)
    scored: FloatArray = np.concatenate(found)[: len(log_mel)]
    return scored


@torch.no_grad()
def _score_torch(network: StreamingCRNN, log_mel: FloatArray) -> FloatArray:
    """The same by torch, ten seconds at a time: a minute of maps does not fit into the caches."""
    context, hidden = network.initial_state()
    found = []
    for start in range(0, len(log_mel), 1_000):
        part = torch.from_numpy(np.ascontiguousarray(log_mel[start : start + 1_000]))
        logits, context, hidden = network(part[None, None], context, hidden)
        found.append(logits.numpy())
    return np.concatenate(found)


def _score_onnx(model: bytes, network: StreamingCRNN, log_mel: FloatArray, n: int) -> FloatArray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    context, hidden = (state.numpy() for state in network.initial_state())
    found = []
    for chunk in chunks_of(log_mel, n):
        values = (chunk[None, None], context, hidden)
        logits, context, hidden = session.run(
            list(INTERFACE.outputs), dict(zip(INTERFACE.inputs, values, strict=True))
        )
        found.append(logits)
    return np.concatenate(found)


def convert_frames(
    network: StreamingCRNN,
    front_end: FrontEnd,
    training: Sequence[FloatArray],
    held_out: Sequence[FloatArray],
    *,
    chunk_frames: int = CHUNK_FRAMES,
    seed: int = 0,
    bounds: FrameBounds | None = None,
    quiet: bool = False,
) -> ConvertedFrames:
    """Convert a student and let it through every gate.

    Parameters
    ----------
    training, held_out : recordings (n_frames, n_mels) of log-mel values: the first set the ranges,
        the second are what int8 and float are compared on
    chunk_frames : of the model, FEWEST_FRAMES to MOST_FRAMES

    Raises
    ------
    ExportError
        The conversion failed, or a gate refused what came out of it.
    """
    if not FEWEST_FRAMES <= chunk_frames <= MOST_FRAMES:
        raise UsageError(
            f"chunks of {chunk_frames} frames: expected {FEWEST_FRAMES} to {MOST_FRAMES}"
        )
    if not held_out or min(map(len, held_out)) < chunk_frames:
        raise ExportError("no recording of a chunk or more is held out: give validation recordings")
    network = network.eval().to("cpu")
    onnx_model = export_frames_onnx(network, chunk_frames)
    representative = draw_chunks(network, training, front_end, chunk_frames, seed)
    models = convert_to_tflite(onnx_model, representative, interface=INTERFACE, quiet=quiet)
    check_operators(models.float32)
    operators = check_operators(models.int8)
    check_size(models.int8)
    check_full_int8(models.int8, front_end, (SIGNATURE.input, CONTEXT[0]))
    interpreter = load_frame_interpreter(models.int8, SIGNATURE, state_tensors(network))
    states = tuple(
        replace(
            state,
            input_quantisation=interpreter.state_quantisation[state.input],
            output_quantisation=interpreter.state_quantisation[state.output],
        )
        for state in interpreter.states
    )
    check_states(states, network, held_out, chunk_frames)
    float_error = _check_floats(network, onnx_model, models.float32, held_out, chunk_frames)
    hop_s = front_end.hop_length / front_end.sample_rate_hz
    figures = measure_figures(network, interpreter, models.int8, held_out, float_error, hop_s)
    check_figures(figures, bounds or FrameBounds())
    return ConvertedFrames(
        onnx_model,
        models,
        chunk_frames,
        states,
        dict(interpreter.quantisation),
        operators,
        len(representative[SIGNATURE.input]),
        figures,
    )


def check_size(model: bytes) -> None:
    """Raise ExportError where an int8 model takes more than MOST_BYTES."""
    if len(model) > MOST_BYTES:
        raise ExportError(
            f"the int8 model has {len(model):,} bytes: expected at most {MOST_BYTES:,}; train with "
            "fewer model.channels or a smaller model.hidden_size"
        )


def check_states(
    states: Sequence[StateTensor],
    network: StreamingCRNN,
    recordings: Sequence[FloatArray],
    chunk_frames: int,
) -> None:
    """Each state's int8 range fits what the float student has in it, neither much more nor less.

    Raises ExportError naming the state: a scale of 1e-8 holds nothing and forgets every chunk.
    """
    reached = dict.fromkeys((*CONTEXT, *HIDDEN), 0.0)
    for recording in recordings:
        for step in roll_out(network, recording, chunk_frames):
            context, hidden = (float(np.abs(array).max()) for array in step.inputs[1:])
            following = float(np.abs(step.hidden).max())
            for name, value in zip(reached, (context, context, hidden, following), strict=True):
                reached[name] = max(reached[name], value)
    for state in states:
        for name, how in (
            (state.input, state.input_quantisation),
            (state.output, state.output_quantisation),
        ):
            covered = max(how.zero_point - INT8_LOW, INT8_HIGH - how.zero_point) * how.scale
            wanted = reached[name]
            if not (1 - _STATE_SLACK) * wanted <= covered <= max(_MOST_STATE_ROOM * wanted, 1.0):
                raise ExportError(
                    f"int8 model: its state {name} holds up to {covered:.2g}, the float student "
                    f"reaches {wanted:.2g}: the representative set does not span the range"
                )


def _check_floats(
    network: StreamingCRNN,
    onnx_model: bytes,
    float_model: bytes,
    recordings: Sequence[FloatArray],
    chunk_frames: int,
) -> dict[str, float]:
    interpreter = load_frame_interpreter(float_model, SIGNATURE, state_tensors(network))
    found: dict[str, float] = {}
    for recording in recordings:
        whole = recording[: len(recording) // chunk_frames * chunk_frames]
        expected = _score_torch(network, whole)
        for name, logits in (
            ("ONNX Runtime", _score_onnx(onnx_model, network, whole, chunk_frames)),
            ("float32 TFLite", score_recording(interpreter, whole)),
        ):
            found[name] = max(found.get(name, 0.0), check_float(expected, logits, name))
    return found


def measure_figures(
    network: StreamingCRNN,
    interpreter: FrameInterpreter,
    model: bytes,
    held_out: Sequence[FloatArray],
    float_error: dict[str, float],
    hop_s: float,
) -> FrameFigures:
    """The int8 model, which interpreter runs, against torch; raises ExportError as the gates do.

    hop_s : from one frame to the next
    """
    expected = np.concatenate([_score_torch(network, recording) for recording in held_out])
    found = np.concatenate([score_recording(interpreter, recording) for recording in held_out])
    differences = np.abs(sigmoid(found) - sigmoid(expected))
    return FrameFigures(
        float_error,
        float(differences.mean()),
        float(differences.max()),
        float(((found > 0) == (expected > 0)).mean()),
        check_frame_runtimes(model, interpreter.states, held_out, hop_s),
        measure_drift(network, interpreter, held_out, hop_s),
    )


def check_figures(figures: FrameFigures, bounds: FrameBounds) -> None:
    """Raise ExportError where int8 is further from the float student than the bounds allow."""
    if figures.mean_difference > bounds.mean_difference:
        raise ExportError(
            f"int8 model: scores differ from torch's by {figures.mean_difference:.2g} on average: "
            f"expected at most {bounds.mean_difference:g}; train longer or with more weight decay"
        )
    if figures.decision_agreement < bounds.decision_agreement:
        raise ExportError(
            f"int8 model: decides as torch does in {figures.decision_agreement:.4f} of frames and "
            f"labels: expected at least {bounds.decision_agreement:g}; train longer or with more "
            "weight decay"
        )
    drift = figures.drift
    if drift.last - drift.first > bounds.drift:
        raise ExportError(
            f"int8 model: its state drifts: scores differ from torch's by {drift.first:.2g} in the "
            f"first minute, {drift.last:.2g} in the last of {drift.seconds:.0f} s: expected at "
            f"most {bounds.drift:g} more"
        )


def check_frame_runtimes(
    model: bytes, states: Sequence[StateTensor], recordings: Sequence[FloatArray], hop_s: float
) -> FrameRuntimes | None:
    """Both device runtimes say the same of a stream, a few int8 steps apart; None with one there.

    Raises ExportError where a runtime refuses the model or they disagree.
    """
    names = [name for name in available_runtimes() if name != "tensorflow"]
    if len(names) < 2:
        return None
    first, second = (load_frame_interpreter(model, SIGNATURE, states, name) for name in names[:2])
    stream = long_stream(recordings, RUNTIME_SECONDS, hop_s)
    a, b = (score_recording(interpreter, stream) for interpreter in (first, second))
    differences = np.abs(sigmoid(a) - sigmoid(b))
    agreement = FrameRuntimes(
        (first.runtime, second.runtime),
        float(differences.mean()),
        float(differences.max()),
        float(((a > 0) == (b > 0)).mean()),
    )
    if (
        agreement.mean_score > MEAN_SCORE_DIFFERENCE
        or agreement.decision_agreement < FrameBounds().decision_agreement
    ):
        raise ExportError(
            f"{first.runtime} and {second.runtime} disagree on the int8 model: scores "
            f"by {agreement.mean_score:.2g} on average, decisions at one half in "
            f"{1 - agreement.decision_agreement:.3f} of frames and labels: expected at most "
            f"{MEAN_SCORE_DIFFERENCE:g} and {1 - FrameBounds().decision_agreement:.2g}"
        )
    return agreement


def long_stream(recordings: Sequence[FloatArray], seconds: float, hop_s: float) -> FloatArray:
    """Recordings one after the other, again and again in another order: (n_frames, n_mels)."""
    n_frames, rng = round(seconds / hop_s), np.random.default_rng(0xD21F7)
    parts: list[FloatArray] = []
    while sum(map(len, parts)) < n_frames:
        parts += [recordings[i] for i in rng.permutation(len(recordings))]
    stream: FloatArray = np.concatenate(parts)[:n_frames]
    return stream


def measure_drift(
    network: StreamingCRNN,
    interpreter: FrameInterpreter,
    recordings: Sequence[FloatArray],
    hop_s: float,
    seconds: float = DRIFT_SECONDS,
) -> Drift:
    """Let both hear a long stream without a pause: does the int8 state walk away from the float?"""
    stream = long_stream(recordings, seconds, hop_s)
    expected, found = _score_torch(network, stream), score_recording(interpreter, stream)
    differences = np.abs(sigmoid(found) - sigmoid(expected)).mean(axis=1)
    minute = round(_MINUTE_S / seconds * len(stream))
    by_minute = [
        float(differences[start : start + minute].mean())
        for start in range(0, len(stream) - minute + 1, minute)
    ]
    agreement = float(((found > 0) == (expected > 0)).mean())
    return Drift(seconds, tuple(by_minute), agreement)
