"""A whole run on tones: it learns, survives a kill, and leaves nothing half-written."""

import json
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from soundpost.device.errors import ConfigError, InputError
from soundpost.train.evaluate import evaluate
from soundpost.train.loop import learning_rate_of, loss_of
from soundpost.train.recipe import Recipe, TrainingSettings
from soundpost.train.run import claim, initialise, load_run

RECIPE = """
name = "tones"
[model]
width = 0.35
dropout = 0.0
[data]
validation_fraction = 0.25
[augment]
mix_probability = 0.2
speed = 1.02
[training]
epochs = 24
batch_size = 8
learning_rate = 3e-3
warmup_epochs = 1.0
average_decay = 0.9
label_smoothing = 0.0
report_every = 12
"""


def command(recipe, data, run, *more):
    return [
        sys.executable, "-m", "soundpost.device", "train", str(recipe), "--data", str(data),
        "--out", str(run), "--fold", "4", "--quiet", "--threads", "1", "--device", "cpu", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tones.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def finished(recipe, tone_clips, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "whole"
    subprocess.run(command(recipe, tone_clips, run), check=True, timeout=900)
    return run


def test_learns_three_tones(finished, tone_clips):
    result = evaluate(finished, tone_clips, 4, quiet=True)
    assert result.figures.n_clips == 18
    assert result.figures.top1 >= 0.95
    assert result.figures.mean_average_precision >= 0.95


def test_leaves_a_readable_run_folder(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "settings.json", "metrics.jsonl", "checkpoint.safetensors", "model.safetensors",
        "scores.npz", "curves.png", "confusion_test.png", "confusion_validation.png", "report.md",
    }  # fmt: skip
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").open()]
    assert [line["epoch"] for line in lines] == list(range(24))
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert "| test | 18 |" in (finished / "report.md").read_text()
    settings = json.loads((finished / "settings.json").read_text())
    assert settings["data"]["folds_train"] == [1, 2, 3]


def test_killed_at_any_moment_it_goes_on_to_the_same_weights(
    finished, recipe, tone_clips, tmp_path
):
    run = tmp_path / "killed"
    epochs = 0
    # Three kills at different moments, the last runs through.
    for pause_s in (0.0, 0.25, 0.6):
        process = subprocess.Popen(command(recipe, tone_clips, run))
        deadline = time.monotonic() + 120
        metrics = run / "metrics.jsonl"
        while time.monotonic() < deadline and process.poll() is None:
            done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
            if done > epochs:
                break
            time.sleep(0.01)
        time.sleep(pause_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        epochs = len(metrics.read_text().splitlines())
    subprocess.run(command(recipe, tone_clips, run), check=True, timeout=900)
    whole = load_file(finished / "model.safetensors")
    resumed = load_file(run / "model.safetensors")
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    lines = [json.loads(line)["epoch"] for line in (run / "metrics.jsonl").open()]
    assert lines == list(range(24))


def test_a_full_disk_ends_in_one_line_and_leaves_no_half_file(recipe, tone_clips, tmp_path):
    # The kernel refuses to let any file grow past this, as a full disk would.
    run = tmp_path / "full"
    done = subprocess.run(
        command(recipe, tone_clips, run),
        capture_output=True,
        text=True,
        timeout=900,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000)),
    )
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    (line,) = [text for text in done.stderr.splitlines() if "cannot be written" in text]
    assert "checkpoint.safetensors" in line
    assert "free some space" in line
    assert {path.name for path in run.iterdir()} == {"settings.json", "metrics.jsonl"}


def test_another_recipe_in_the_same_folder_is_refused(finished, recipe, tone_clips):
    done = subprocess.run(
        command(recipe, tone_clips, finished, "training.epochs=25"), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "holds a run with another recipe" in done.stderr


def test_going_on_with_other_code_is_said(tmp_path, caplog):
    claim(tmp_path / "run", {"recipe": {}, "git": "abc1234", "torch": "2.13.0"})
    claim(tmp_path / "run", {"recipe": {}, "git": "abc1234", "torch": "2.13.0"})
    assert not caplog.messages
    claim(tmp_path / "run", {"recipe": {}, "git": "def5678", "torch": "2.13.0"})
    (line,) = caplog.messages
    assert "was begun with code abc1234, now it is def5678" in line


def test_classifier_rows_follow_their_labels(finished):
    trained = load_run(finished)
    network = type(trained.network)(2, trained.network.settings)
    shared = initialise(network, ("high", "new"), str(finished))
    assert shared == 1
    high = trained.labels.index("high")
    torch.testing.assert_close(
        network.classifier.weight[0], trained.network.classifier.weight[high]
    )
    torch.testing.assert_close(network.embedding.weight, trained.network.embedding.weight)


def test_starting_from_another_width_is_refused(finished):
    trained = load_run(finished)
    other = type(trained.network)(2)
    with pytest.raises(InputError, match=r"set model\.kind and model\.width to the same"):
        initialise(other, ("high", "low"), str(finished))


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is not a run folder"):
        load_run(tmp_path)


def test_loss_equals_hand_computed_values():
    recipe = Recipe(training=TrainingSettings(label_smoothing=0.0, softmax_weight=0.5))
    logits = torch.tensor([[0.0, np.log(3.0)]], dtype=torch.float64)
    targets = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    # sigmoid: -ln(1/2) - ln(1 - 3/4) = ln 8; softmax: -ln(1/4) = ln 4
    expected = np.log(8.0) + 0.5 * np.log(4.0)
    assert float(loss_of(logits, targets, recipe)) == pytest.approx(expected)
    nothing = torch.zeros(1, 2, dtype=torch.float64)
    # sigmoid only: -ln(1/2) - ln(1/4); a window without a label ranks nothing
    assert float(loss_of(logits, nothing, recipe)) == pytest.approx(np.log(8.0))


def test_schedules():
    cosine = Recipe(training=TrainingSettings(epochs=100, learning_rate=1.0, warmup_epochs=0.0))
    assert learning_rate_of(cosine, 0) == pytest.approx(1.0)
    assert learning_rate_of(cosine, 50) == pytest.approx(0.5)
    assert learning_rate_of(cosine, 100) == pytest.approx(0.0)
    # jia2019: 0.9 per epoch
    exponential = Recipe(
        training=TrainingSettings(learning_rate=1e-4, schedule="exponential", warmup_epochs=0.0)
    )
    assert learning_rate_of(exponential, 3.5) == pytest.approx(1e-4 * 0.9**3)


def test_cuda_is_refused_where_there_is_none():
    from soundpost.train.run import choose_device

    if torch.cuda.is_available():
        assert choose_device("auto").type == "cuda"
    else:
        with pytest.raises(ConfigError, match="no CUDA device"):
            choose_device("cuda")
        assert choose_device("auto") == torch.device("cpu")
