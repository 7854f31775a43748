"""A stream in any chunks gives what the whole recording gives, and nothing looks ahead."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from soundpost.device.errors import ConfigError
from soundpost.train.mobilenet_v2 import LOGIT_LIMIT
from soundpost.train.sed.streaming import StreamingCRNN, StreamingSettings

SMALL = StreamingSettings(channels=(4, 6, 8), pools=(4, 4, 2), hidden_size=12)


@pytest.fixture(scope="module")
def network() -> StreamingCRNN:
    torch.manual_seed(3)
    made = StreamingCRNN(3, SMALL)
    # Statistics other than those of a normalisation that does nothing.
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    return made.eval()


def sound(n_frames: int, n_scenes: int = 1, seed: int = 5) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.uniform(-7, 5, (n_scenes, n_frames, 64)).astype(np.float32))


@torch.no_grad()
def in_chunks(network: StreamingCRNN, log_mel: Tensor, lengths: list[int]) -> Tensor:
    """(n_frames, n_labels) of one recording (n_frames, n_mels), the last chunk being the rest."""
    context, hidden = network.initial_state()
    found, position = [], 0
    for length in [*lengths, len(log_mel)]:
        chunk = log_mel[position : position + length]
        if len(chunk):
            logits, context, hidden = network(chunk[None, None], context, hidden)
            assert logits.shape == (len(chunk), network.n_labels)
            assert context.shape == (network.context_frames, 64)
            assert hidden.shape == (1, network.settings.hidden_size)
            found.append(logits)
        position += length
    return torch.cat(found)


@given(lengths=st.lists(st.integers(1, 30), max_size=20), n_frames=st.integers(1, 120))
@settings(max_examples=60, deadline=None)
def test_any_chunks_give_what_the_whole_gives(
    network: StreamingCRNN, lengths: list[int], n_frames: int
) -> None:
    log_mel = sound(n_frames)
    with torch.no_grad():
        whole = network.forward_sequence(log_mel)[0]
    torch.testing.assert_close(in_chunks(network, log_mel[0], lengths), whole, atol=1e-5, rtol=1e-5)


def test_recordings_of_a_batch_know_nothing_of_each_other(network: StreamingCRNN) -> None:
    log_mel = sound(50, n_scenes=3)
    with torch.no_grad():
        together = network.forward_sequence(log_mel)
        for scene, logits in zip(log_mel, together, strict=True):
            alone = network.forward_sequence(scene[None])[0]
            torch.testing.assert_close(alone, logits, atol=1e-5, rtol=1e-5)


@given(frame=st.integers(0, 59))
@settings(max_examples=20, deadline=None)
def test_no_frame_hears_what_comes_after_it(network: StreamingCRNN, frame: int) -> None:
    log_mel = sound(60)
    other = log_mel.clone()
    other[:, frame] += 1.0
    with torch.no_grad():
        before, after = network.forward_sequence(log_mel)[0], network.forward_sequence(other)[0]
    torch.testing.assert_close(before[:frame], after[:frame], atol=0, rtol=0)
    # And the frame itself is heard.
    assert (before[frame] - after[frame]).abs().max() > 1e-6


def test_the_gru_is_the_one_of_the_equations(network: StreamingCRNN) -> None:
    """One step by the equations of Cho et al. (2014) as PyTorch states them, in float64 numpy."""
    rng = np.random.default_rng(8)
    features = rng.standard_normal(8 * 2)
    hidden = rng.uniform(-1, 1, SMALL.hidden_size)
    gru = {name: value.double().numpy() for name, value in network.gru.state_dict().items()}

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    r_x, z_x, n_x = np.split(gru["weight_ih_l0"] @ features + gru["bias_ih_l0"], 3)
    r_h, z_h, n_h = np.split(gru["weight_hh_l0"] @ hidden + gru["bias_hh_l0"], 3)
    r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
    expected = (1 - z) * np.tanh(n_x + r * n_h) + z * hidden
    with torch.no_grad():
        _, found = network.gru(
            torch.tensor(features, dtype=torch.float32)[None, None],
            torch.tensor(hidden, dtype=torch.float32)[None, None],
        )
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-6)


def test_logits_stay_within_the_limit(network: StreamingCRNN) -> None:
    loud = StreamingCRNN(3, SMALL).eval()
    with torch.no_grad():
        loud.head.weight.mul_(1_000)
        logits = loud.forward_sequence(sound(40))
    assert logits.abs().max() == LOGIT_LIMIT


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"channels": (8, 8)}, "2 channels, 3 pools"),
        ({"hidden_size": 0}, "hidden_size 0"),
        ({"dropout": 1.0}, "dropout 1.0"),
    ],
)
def test_shapes_that_cannot_be_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        StreamingSettings(**change)  # type: ignore[arg-type]


def test_pools_must_divide_the_mel_axis() -> None:
    with pytest.raises(ConfigError, match=r"pools \(3, 4, 2\) of 64 mel bands"):
        StreamingCRNN(2, StreamingSettings(pools=(3, 4, 2)))
