"""One loop for every method: it learns, and a kill leaves no trace in what comes out."""

import contextlib
import importlib.util
import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from soundpost.device.errors import ConfigError, InputError
from soundpost.train.checkpoint import load_tensors
from soundpost.train.multimodal.fitting import FitSettings, fit_method, stage_epochs, to_device
from soundpost.train.multimodal.mil_crnn import MilTrainingSettings
from soundpost.train.multimodal.mutual_networks import Inputs, TaggingBatch

PROGRAM = Path(__file__).with_name("small_tagging.py")
_specification = importlib.util.spec_from_file_location("small_tagging", PROGRAM)
small = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(small)


def lines_of(run):
    """Lines of metrics.jsonl without the speed, which no two runs share."""
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{k: v for k, v in line.items() if k != "clips_per_s"} for line in lines]


def assert_same_run(found, expected):
    assert lines_of(found) == lines_of(expected)
    tensors, notes = load_tensors(found / "checkpoint.safetensors")
    others, other_notes = load_tensors(expected / "checkpoint.safetensors")
    assert notes == other_notes
    assert tensors.keys() == others.keys()
    for name, value in tensors.items():
        assert torch.equal(value, others[name]), name


def test_stages_take_their_shares_of_the_epochs(tmp_path):
    # FitNets: the teacher all of them, the hint a fifth, the student the rest.
    stages = stage_epochs(small.new_method("fitnets"), 10)
    assert [(stage.name, n) for stage, n in stages] == [
        ("teacher", 10),
        ("hint", 2),
        ("student", 8),
    ]
    method = small.fit("fitnets", tmp_path)
    assert [line["stage"] for line in lines_of(tmp_path)] == [
        *["teacher"] * 3, "hint", *["student"] * 2,
    ]  # fmt: skip
    assert [line["epoch"] for line in lines_of(tmp_path)] == list(range(6))
    assert not any(module.training for module in method.modules())


def test_the_learning_rate_falls_within_each_stage(tmp_path):
    small.fit("distillation", tmp_path)
    rates = [line["learning_rate"] for line in lines_of(tmp_path)]
    assert rates == pytest.approx([1e-2, 9e-3, 8.1e-3] * 2)


def test_the_loss_falls_and_the_student_learns(tmp_path):
    method = small.fit("mutual", tmp_path, small.Clips(10), replace(small.FIT, epochs=6, decay=1.0))
    losses = [line["student"] for line in lines_of(tmp_path)]
    assert losses[-1] < 0.7 * losses[0]
    batch = small.Clips(1).batch(77, 0)
    with torch.no_grad():
        heard = method.student(Inputs(batch.inputs.acoustic)).logits[:, 0] > 0
    assert float((heard == (batch.targets[:, 0] > 0.5)).float().mean()) >= 0.8


class Stopping:
    """A source that breaks down after a number of batches."""

    batch_size, n_batches = 8, 3

    def __init__(self, after):
        self.left = after

    def batch(self, epoch, number):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return small.Clips().batch(epoch, number)


@pytest.mark.parametrize("name", ["mutual", "fitnets"])
def test_stopped_at_any_batch_it_goes_on_to_the_same_run(name, tmp_path):
    # 3 batches in each epoch: at the first, inside, at the end of a stage (9 + 3 are done of
    # fitnets' teacher, hint), and when all is done.
    small.fit(name, tmp_path / "whole")
    for after in (0, 4, 6, 3):
        try:
            small.fit(name, tmp_path / "stopped", Stopping(after))
        except KeyboardInterrupt:
            continue
    method = small.fit(name, tmp_path / "stopped")
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")
    # What was done already is loaded, not trained again.
    again = small.fit(name, tmp_path / "stopped", Stopping(0))
    for name, value in method.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_rate_that_depends_on_what_was_judged_is_the_same_after_a_stop(tmp_path):
    settings = MilTrainingSettings(epochs=5, batch_size=8, patience_epochs=1)

    def fit(run, source, worse):
        # The loss of every other epoch is no lower.
        judged = iter(worse)
        return small.fit(
            "plain", run, source, settings, judge=lambda _: {"validation_loss": next(judged)}
        )

    losses = (1.0, 1.5, 0.9, 0.95, 0.8)
    whole = fit(tmp_path / "whole", small.Clips(), losses)
    rates = [line["learning_rate"] for line in lines_of(tmp_path / "whole")]
    assert rates == pytest.approx([0.1, 0.1, 0.08, 0.08, 0.064])
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "stopped", Stopping(10), losses)
    resumed = fit(tmp_path / "stopped", small.Clips(), losses[3:])
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


# Two stages of three epochs. By what is judged the teacher is best after its second epoch, the
# student after its first and, as well, after its third; once it is no number.
JUDGED = {"teacher": (0.1, 0.5, 0.2), "student": (0.7, math.nan, 0.7)}


def fit_best(run, source=None):
    """The method that is left, and what it was each time that it was judged, by epoch."""
    run.mkdir(exist_ok=True)
    settings = replace(small.FIT, report_every=1, keep="best")
    method, seen = small.new_method("distillation"), {}

    def judge(stage):
        epoch = len(lines_of(run))
        seen[epoch] = {name: value.clone() for name, value in method.state_dict().items()}
        return {f"{stage.name}_map": JUDGED[stage.name][epoch % 3]}

    best_by = settings.best_by("{}_map", validated=True)
    source, device = source or small.Clips(), torch.device("cpu")
    fit_method(method, source, settings, run, device, judge=judge, best_by=best_by, quiet=True)
    return method.state_dict(), seen


def test_the_best_of_each_stage_is_kept_and_the_next_begins_with_it(tmp_path):
    left, seen = fit_best(tmp_path / "whole")
    kept = [line.get("kept_epoch") for line in lines_of(tmp_path / "whole")]
    assert kept == [None, None, 1, None, None, 3]
    assert sorted(seen) == [0, 1, 2, 3, 4, 5]
    for name, value in left.items():
        expected = seen[1] if name.startswith("teacher.") else seen[3]
        assert torch.equal(value, expected[name]), name
        if name.startswith("teacher."):
            assert torch.equal(seen[4][name], value), name
    assert any(not torch.equal(seen[5][name], seen[3][name]) for name in seen[3])
    for after in (5, 4, 3, 4):
        with contextlib.suppress(KeyboardInterrupt):
            fit_best(tmp_path / "stopped", Stopping(after))
    again, _ = fit_best(tmp_path / "stopped")
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")
    for name, value in left.items():
        assert torch.equal(again[name], value), name


def test_what_is_kept_is_chosen_on_clips_that_nothing_is_judged_on():
    settings = FitSettings(keep="best")
    settings.check("here")
    with pytest.raises(ConfigError, match=r"needs clips to choose by .*data\.validation"):
        settings.best_by("{}_map", validated=False)
    assert FitSettings().best_by("{}_map", validated=False) is None
    with pytest.raises(ConfigError, match=r"here: training\.keep is first; expected last or best"):
        FitSettings(keep="first").check("here")


def test_killed_in_the_middle_it_goes_on_to_the_same_run(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    small.fit("distillation", whole)
    killed.mkdir()
    process = subprocess.Popen([sys.executable, PROGRAM, "distillation", killed])
    deadline = time.monotonic() + 240
    while not lines_of(killed) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 1 <= len(lines_of(killed)) < 6
    small.fit("distillation", killed)
    assert_same_run(killed, whole)


def test_it_is_judged_now_and_then_and_at_the_end_of_each_stage(tmp_path):
    asked = []

    def judge(stage):
        asked.append(stage.name)
        return {"map": 0.5}

    small.fit("distillation", tmp_path, judge=judge)
    assert asked == ["teacher", "teacher", "student", "student"]
    assert [i for i, line in enumerate(lines_of(tmp_path)) if "map" in line] == [1, 2, 4, 5]


def test_a_loss_that_is_no_number_ends_the_run_in_one_line(tmp_path):
    class Broken(small.Clips):
        def batch(self, epoch, number):
            batch = super().batch(epoch, number)
            heard = batch.inputs.acoustic[0] * (float("nan") if number == 1 else 1.0)
            return TaggingBatch(Inputs((heard,), batch.inputs.visual), batch.targets)

    with pytest.raises(InputError, match=r"epoch 1 \(stage mutual\) is no number; set training"):
        small.fit("mutual", tmp_path, Broken())
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_a_checkpoint_of_another_method_is_refused(tmp_path):
    small.fit("mutual", tmp_path)
    with pytest.raises(InputError, match=r"checkpoint.safetensors: is of another method"):
        fit_method(
            small.new_method("plain"), small.Clips(), replace(small.FIT, epochs=9), tmp_path,
            torch.device("cpu"), quiet=True,
        )  # fmt: skip


def test_batches_move_whole():
    batch = small.Clips().batch(0, 0)
    moved = to_device(
        TaggingBatch(Inputs(batch.inputs.acoustic), batch.targets), torch.device("meta")
    )
    assert isinstance(moved, TaggingBatch)
    assert moved.inputs.visual is None
    assert {moved.targets.device.type, moved.inputs.acoustic[0].device.type} == {"meta"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, r"training.epochs is 0; expected at least 1"),
        ({"batch_size": 1}, r"training.batch_size is 1; expected at least 2"),
        ({"learning_rate": 0.0}, r"learning_rate is 0.0; expected above 0"),
        ({"decay": 1.5}, r"decay is 1.5; expected above 0, up to 1"),
    ],
)
def test_settings_outside_their_range_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(FitSettings(), **change).check("r.toml")
