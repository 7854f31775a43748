"""The loop: it learns, and a kill leaves no trace in what comes out."""

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from soundpost.device.errors import InputError
from soundpost.train.checkpoint import load_tensors
from soundpost.train.sed.fitting import Validation, fit_pair, learning_rate_of, score_scenes
from soundpost.train.sed.networks import STUDENT, PairSettings, TaggingDetectionNetwork
from soundpost.train.sed.recipe import FitSettings

PROGRAM = Path(__file__).with_name("synthetic.py")
CPU = torch.device("cpu")


def lines_of(run):
    """Lines of metrics.jsonl without the speed, which no two runs share."""
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{k: v for k, v in line.items() if k != "clips_per_s"} for line in lines]


@pytest.fixture
def steps():
    """Every step of any optimiser: its learning rate, and the parameters before and after it."""
    taken = []

    def parameters(optimiser):
        return [p.detach().clone() for group in optimiser.param_groups for p in group["params"]]

    def before(optimiser, *_):
        (group,) = optimiser.param_groups
        taken.append({"rate": group["lr"], "before": parameters(optimiser)})

    def after(optimiser, *_):
        taken[-1]["after"] = parameters(optimiser)

    hooks = register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)
    yield taken
    for hook in hooks:
        hook.remove()


def test_learns_when_which_band_sounds(synthetic, tmp_path):
    recipe = synthetic.recipe_of(training={"epochs": 16, "report_every": 16})
    fit_pair(
        recipe, 3, synthetic.Synthetic(), tmp_path, CPU,
        validation=synthetic.validation(), quiet=True,
    )  # fmt: skip
    last = lines_of(tmp_path)[-1]
    assert last["frame_f1"] > 0.9
    assert last["clip_f1"] > 0.8


def test_killed_in_the_middle_it_goes_on_to_the_same_curve(synthetic, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for run in (whole, killed):
        run.mkdir()
    synthetic.fit(whole)
    process = subprocess.Popen([sys.executable, PROGRAM, killed])
    deadline = time.monotonic() + 120
    while not lines_of(killed) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)  # within the second epoch
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 1 <= len(lines_of(killed)) < 4
    synthetic.fit(killed)
    assert lines_of(killed) == lines_of(whole)
    assert [line["epoch"] for line in lines_of(whole)] == [0, 1, 2, 3]
    expected, _ = load_tensors(whole / "checkpoint.safetensors")
    found, _ = load_tensors(killed / "checkpoint.safetensors")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


class Stopping:
    """An EpochSource that breaks down after a number of batches."""

    def __init__(self, source, after):
        self.source, self.left = source, after

    def epoch(self, number):
        for batch in self.source.epoch(number):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            yield batch


@pytest.mark.parametrize("kind", ["guided", "mean_teacher"])
def test_stopped_at_any_batch_it_goes_on_to_the_same_curve(kind, synthetic, tmp_path):
    # 3 batches in each of 3 epochs: at the first batch, inside, and between two epochs.
    recipe = synthetic.recipe_of(training={"epochs": 3}, method={"kind": kind})
    source = synthetic.Synthetic(3)
    whole = tmp_path / "whole"
    whole.mkdir()
    fit_pair(recipe, 3, source, whole, CPU, quiet=True)
    run = tmp_path / "stopped"
    run.mkdir()
    for after in (0, 4, 3):
        with pytest.raises(KeyboardInterrupt):
            fit_pair(recipe, 3, Stopping(source, after), run, CPU, quiet=True)
    fit_pair(recipe, 3, source, run, CPU, quiet=True)
    assert lines_of(run) == lines_of(whole)


def test_a_line_without_its_checkpoint_is_written_once(synthetic, tmp_path):
    # Killed between the two: the epoch is repeated, its first line dropped.
    recipe = synthetic.recipe_of(training={"epochs": 1})
    fit_pair(recipe, 3, synthetic.Synthetic(1), tmp_path, CPU, quiet=True)
    (tmp_path / "checkpoint.safetensors").unlink()
    before = lines_of(tmp_path)
    fit_pair(recipe, 3, synthetic.Synthetic(1), tmp_path, CPU, quiet=True)
    assert lines_of(tmp_path) == before


def test_seeds_decide(synthetic, tmp_path):
    losses = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        recipe = synthetic.recipe_of(training={"epochs": 1, "seed": seed})
        fit_pair(recipe, 3, synthetic.Synthetic(2), tmp_path / name, CPU, quiet=True)
        losses.append(lines_of(tmp_path / name)[0]["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_scores_of_scenes_leave_the_network_as_it_was(synthetic):
    network = TaggingDetectionNetwork(3, synthetic.N_MELS, PairSettings(width=0.1), STUDENT).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batches = [synthetic.make_batch(1), synthetic.make_batch(2)]
    frames, clips = score_scenes(network, batches, CPU)
    assert frames.shape == (24, synthetic.N_FRAMES, 3)
    assert clips.shape == (24, 3)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_an_empty_validation_set_is_refused(synthetic, tmp_path):
    recipe = synthetic.recipe_of(training={"epochs": 1})
    empty = Validation([], lambda frames, clips: {})
    with pytest.raises(InputError, match="set to be judged is empty"):
        fit_pair(recipe, 3, synthetic.Synthetic(1), tmp_path, CPU, validation=empty, quiet=True)


def test_an_epoch_without_a_batch_is_refused(synthetic, tmp_path):
    recipe = synthetic.recipe_of()
    with pytest.raises(InputError, match="epoch 1 has no batch"):
        fit_pair(recipe, 3, synthetic.Synthetic(0), tmp_path, CPU, quiet=True)


def test_a_loss_that_is_no_number_stops_the_run(synthetic, tmp_path):
    class Broken:
        def epoch(self, number):
            batch = synthetic.make_batch(0)
            batch.log_mel[0, 0, 0] = float("nan")
            yield batch

    with pytest.raises(InputError, match=r"loss of epoch 1 is no number; set training\.learning"):
        fit_pair(synthetic.recipe_of(), 3, Broken(), tmp_path, CPU, quiet=True)
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_the_learning_rate_falls_in_steps():
    # 1.8e-3 * 0.8 every 10 epochs, as guided learning was trained
    training = FitSettings(learning_rate=1.8e-3, decay=0.8, decay_epochs=10)
    assert learning_rate_of(training, 9) == 1.8e-3
    assert learning_rate_of(training, 10) == pytest.approx(1.44e-3)
    assert learning_rate_of(training, 199) == pytest.approx(1.8e-3 * 0.8**19)


class Again:
    """An EpochSource that gives the same batch in every epoch."""

    def __init__(self, batch):
        self.batch = batch

    def epoch(self, number):
        yield self.batch


def test_the_weights_of_the_sum_move_with_the_epochs(synthetic, tmp_path):
    """alpha from epoch 1 on, beta over half of the run, and equation 4 from tau on."""
    recipe = synthetic.recipe_of(
        model={"teacher": {"mel_pools": [2, 2, 2, 2, 1], "dropout": 0.0}},
        method={
            "distillation": "tfd", "alpha_start": 1.0, "alpha_decay": 0.5, "focal": True, "tau": 2,
        },
        # Too small a rate to change a weight: what changes from line to line is the method.
        training={"epochs": 4, "learning_rate": 1e-12},
    )  # fmt: skip
    fit_pair(recipe, 3, Again(synthetic.make_batch(0)), tmp_path, CPU, quiet=True)
    lines = lines_of(tmp_path)
    alphas = [0.0, 0.0, 1 - 0.5, 1 - 0.25]
    betas = [math.exp(-5), math.exp(-1.25), 1.0, 1.0]
    for line, alpha, beta in zip(lines, alphas, betas, strict=True):
        weighted = alpha * line["to_teacher"] + beta * line["distillation"]
        plain = sum(
            line[name]
            for name in ("weak", "strong", "weak_teacher", "strong_teacher", "to_student")
        )
        # Lines have six decimals.
        assert line["loss"] == pytest.approx(plain + weighted, abs=5e-6)
    assert lines[0]["distillation"] > 0.01
    assert lines[0]["to_teacher"] > 0.01
    for name in ("weak", "strong", "weak_teacher", "strong_teacher"):
        entropy, still_entropy, focal, still_focal = (line[name] for line in lines)
        assert entropy == pytest.approx(still_entropy, abs=2e-6)
        assert focal == pytest.approx(still_focal, abs=2e-6)
        # (1 - p^2) is below 1, and below 0.9 for most p of a network that has learnt nothing.
        assert focal < 0.9 * entropy


def test_every_step_has_its_epochs_learning_rate(synthetic, tmp_path, steps):
    training = {"epochs": 5, "learning_rate": 4e-4, "decay": 0.5, "decay_epochs": 2}
    recipe = synthetic.recipe_of(training=training)
    with pytest.raises(KeyboardInterrupt):
        fit_pair(recipe, 3, Stopping(synthetic.Synthetic(2), 6), tmp_path, CPU, quiet=True)
    fit_pair(recipe, 3, synthetic.Synthetic(2), tmp_path, CPU, quiet=True)
    rates = [4e-4, 4e-4, 2e-4, 2e-4, 1e-4]
    # Two batches in each epoch; the run goes on with the fourth.
    assert [step["rate"] for step in steps] == pytest.approx([r for r in rates for _ in range(2)])
    assert [line["learning_rate"] for line in lines_of(tmp_path)] == pytest.approx(rates)


def test_the_mean_teacher_follows_its_student_step_by_step(synthetic, tmp_path, steps):
    recipe = synthetic.recipe_of(
        training={"epochs": 2}, method={"kind": "mean_teacher", "average_decay": 0.27}
    )
    fit_pair(recipe, 3, synthetic.Synthetic(2), tmp_path, CPU, quiet=True)
    # Early on the average forgets faster: (1 + n) / (10 + n) after n steps is 2/11, 3/12, 4/13 and
    # 5/14, of which the last two are above the decay.
    followed = steps[0]["before"]
    for step, decay in zip(steps, (2 / 11, 3 / 12, 0.27, 0.27), strict=True):
        pairs = zip(followed, step["after"], strict=True)
        followed = [decay * old + (1 - decay) * new for old, new in pairs]
    tensors, _ = load_tensors(tmp_path / "checkpoint.safetensors")
    network = TaggingDetectionNetwork(3, synthetic.N_MELS, recipe.model, recipe.model.student)
    for (name, _), expected in zip(network.named_parameters(), followed, strict=True):
        found = tensors[f"average.{name}"]
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    # A network that never moved would pass.
    assert not torch.allclose(steps[0]["before"][0], steps[-1]["after"][0], atol=1e-3)
