"""What is drawn, the loss by hand, what a printed penalty does, scores of clips."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from soundpost.device.errors import InputError
from soundpost.device.features import FrontEnd
from soundpost.train.datasets.catalogue import MediaClip
from soundpost.train.multimodal.audio_networks import AudioModel, audio_network
from soundpost.train.multimodal.machine_learning import (
    MachineBatches,
    MachineLearning,
    PatchBatch,
    l2_penalty,
    score_seconds,
)
from soundpost.train.multimodal.machine_recipe import RegularisationSettings
from soundpost.train.multimodal.machine_targets import read_machine_targets
from soundpost.train.multimodal.method import train_step
from soundpost.train.multimodal.second_features import open_seconds


class Noise:
    """Clips of 1 to 3 s."""

    def sound(self, clip, rate_hz):
        n = int(clip.id[1:])
        return np.random.default_rng(n).uniform(-1, 1, (1 + n % 3) * rate_hz).astype(np.float32)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Twelve clips as they are heard, and their labels: seen ones alone."""
    folder = tmp_path_factory.mktemp("clips")
    header = {"schema": "soundpost.machine_labels/1", "rules": {"n_folds": 1}}
    (folder / "labelling.json").write_text(json.dumps(header))
    rows = [f"c{n},thing {k},0.5,visual,ab" for n in range(12) for k in (n % 4, 4, 5, 6)]
    lines = ["clip_id,label,score,source,model", *rows]
    (folder / "fold_0.csv").write_text("\n".join(lines) + "\n")
    targets = read_machine_targets(folder)
    listed = [MediaClip(clip_id, None, None, (), "train") for clip_id in targets.clip_ids]
    return open_seconds(listed, Noise(), FrontEnd(), folder, quiet=True), targets


def batches(clips, **more):
    heard, targets = clips
    return MachineBatches(heard, targets, np.arange(12), np.arange(12), 4, 3, **more)


def test_an_epoch_has_one_second_of_every_clip(clips):
    heard, targets = clips
    source = batches(clips)
    assert (source.n_batches, source.batch_size) == (3, 4)
    for epoch in range(3):
        chosen = [source.drawn(epoch, number) for number in range(3)]
        assert sorted(np.concatenate([clip for clip, _ in chosen])) == list(range(12))
        for number, (of, starts) in enumerate(chosen):
            # Seconds do not overlap: each begins where another ends.
            assert (starts % 100 == 0).all()
            assert (starts <= heard.n_frames()[of] - 100).all()
            batch = source.batch(epoch, number)
            assert batch.patches.shape == (4, 1, 100, 64)
            for row, (clip, start) in enumerate(zip(of, starts, strict=True)):
                second = heard.seconds(int(clip))[start // 100]
                np.testing.assert_array_equal(batch.patches[row, 0].numpy(), second)
            assert torch.equal(batch.targets, targets.draw(of, epoch, 3))
            # Half of four seen labels.
            assert batch.targets.sum(1).tolist() == [2.0] * 4


def test_every_second_is_drawn_as_often_as_another(clips):
    source = batches(clips)
    longest = int(np.argmax(source.last))
    starts = []
    for epoch in range(300):
        for number in range(3):
            of, first = source.drawn(epoch, number)
            starts += first[of == longest].tolist()
    counts = np.bincount(np.array(starts) // 100)
    assert len(counts) == 3
    # Of 300 draws a third each, within four deviations.
    assert np.abs(counts - 100).max() < 4 * np.sqrt(300 * 2 / 9)


def test_a_crop_may_begin_anywhere(clips):
    source = batches(clips, anywhere=True)
    drawn = [source.drawn(epoch, number) for epoch in range(40) for number in range(3)]
    starts = np.concatenate([first for _, first in drawn])
    last = np.concatenate([source.last[of] for of, _ in drawn])
    assert (starts <= last).all()
    assert len(set((starts % 100).tolist())) > 50
    # The last frame of a clip is in reach: a clip of one second has no choice.
    assert (starts[last == 0] == 0).all()


def test_what_is_drawn_depends_on_seed_epoch_and_number_alone(clips):
    first, again = batches(clips, anywhere=True), batches(clips, anywhere=True)
    first.batch(0, 0)
    for one, other in zip(first.batch(5, 1), again.batch(5, 1), strict=True):
        assert torch.equal(one, other)


class Linear(nn.Module):
    """Scores straight from the mean of a patch; the second output is what an embedding is."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[1.0, -2.0], [0.5, 0.0]]))
            self.layer.bias.copy_(torch.tensor([10.0, 0.0]))

    def forward(self, patch):
        means = patch.mean(2)[:, 0]
        return self.layer(means), means


def test_the_loss_is_equation_1_and_half_of_the_squares():
    patches = torch.zeros(1, 1, 3, 2)
    method = MachineLearning(Linear(), l2=0.1)
    terms = method.losses(PatchBatch(patches, torch.tensor([[0.0, 1.0]])), method.stages[0])
    # Scores 10 and 0: -ln(1 - s(10)) and -ln(s(0)), mean over the two classes.
    expected = (np.log1p(np.exp(10.0)) + np.log(2.0)) / 2
    terms = {name: value.detach() for name, value in terms.items()}
    assert float(terms["labels"]) == pytest.approx(expected, rel=1e-6)
    # Biases do not count: (1 + 4 + .25) / 2 * .1.
    assert float(terms["l2"]) == pytest.approx(0.2625)
    assert float(terms["loss"]) == pytest.approx(expected + 0.2625)


def test_the_gradient_of_the_penalty_is_that_of_weight_decay():
    network = Linear()
    l2_penalty(network, 0.3).backward()
    torch.testing.assert_close(network.layer.weight.grad, 0.3 * network.layer.weight.detach())
    assert network.layer.bias.grad is None
    assert float(l2_penalty(network, 0.0)) == 0.0
    network.layer.weight.requires_grad_(False)
    assert float(l2_penalty(network, 1.0)) == 0.0


@pytest.mark.parametrize(("factor", "falls"), [(1.0, True), (RegularisationSettings.factor, False)])
def test_the_printed_penalty_alone_lets_kernels_fall_to_zero(factor, falls):
    # Where the penalty's gradient is the larger one, Adam takes its step from every element,
    # whatever else the loss says: at 1e-4 those of VGGish's hidden layers, of a deviation of
    # sqrt(2 / 4096), are gone in some hundred steps. Here a step is as much larger as they are.
    torch.manual_seed(0)
    network = audio_network(AudioModel("vggish", 0.02, embedding_size=4), 3)
    layer = network.embeddings[2]
    method = MachineLearning(network, RegularisationSettings(factor=factor).l2)
    optimiser = torch.optim.Adam(method.begin(method.stages[0]), lr=1e-2)
    batch = PatchBatch(torch.randn(4, 1, 100, 64), (torch.rand(4, 3) < 0.5).float())
    before = float(layer.weight.detach().norm())
    for _ in range(60):
        train_step(method, batch, method.stages[0], optimiser)
    after = float(layer.weight.detach().norm())
    assert (after < before / 10) == falls
    assert RegularisationSettings(factor=factor).l2 == factor


def test_a_clips_score_is_the_mean_over_its_seconds(clips):
    heard, _ = clips
    network = Linear()
    network.layer = nn.Linear(64, 3)
    rows = np.array([5, 0, 11])
    found = score_seconds(network.eval(), heard, rows, torch.device("cpu"))
    for row, scores in zip(rows, found, strict=True):
        with torch.no_grad():
            seconds = torch.from_numpy(heard.seconds(int(row)))
            expected = network.layer(seconds.mean(1)).sigmoid().mean(0)
        np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-5)


def test_too_few_clips_are_named(clips):
    heard, targets = clips
    with pytest.raises(InputError, match="1 clips; expected two or more to learn from"):
        MachineBatches(heard, targets, np.arange(1), np.arange(1), 4, 0)
