"""`soundpost train` with a detection recipe, on tones that come and go."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile

RATE = 16_000
TONES = {"high": 3_000.0, "low": 500.0}
SECONDS = 1.0
SMALL = (
    "model.width=0.1", "batch.strong=2", "batch.weak=2", "batch.unlabelled=2",
    f"batch.seconds={SECONDS}", "training.epochs=2", "training.report_every=1",
)  # fmt: skip


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "soundpost.device", *arguments],
        capture_output=True,
        text=True,
        timeout=280,
    )


def train(data, run, *more, recipe="full"):
    return command(
        "train", recipe, "--data", data, "--out", run, "--quiet", "--threads", "1", "--device",
        "cpu", *SMALL, *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Four scenes of each kind, with one of two tones in 0.2 to 0.5 s."""
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    tables = {
        "train/synthetic": "strong", "train/weak": "weak", "train/unlabel_in_domain": "unlabelled",
        "validation/validation": "strong",
    }  # fmt: skip
    for table, kind in tables.items():
        part, name = table.split("/")
        audio = folder / "audio" / (table if part == "train" else part)
        audio.mkdir(parents=True)
        header = {
            "strong": "filename\tonset\toffset\tevent_label",
            "weak": "filename\tevent_labels",
        }
        rows = [header.get(kind, "filename")]
        for i in range(4):
            sound = 0.01 * rng.standard_normal(int(SECONDS * RATE))
            label = sorted(TONES)[i % 2]
            n = np.arange(RATE // 5, RATE // 2)
            sound[n] += 0.3 * np.sin(2 * np.pi * TONES[label] * n / RATE)
            soundfile.write(audio / f"{name}_{i}.wav", sound, RATE)
            columns = {"strong": f"\t0.200\t0.500\t{label}", "weak": f"\t{label}"}
            rows.append(f"{name}_{i}.wav" + columns.get(kind, ""))
        metadata = folder / "metadata" / part
        metadata.mkdir(parents=True, exist_ok=True)
        (metadata / f"{name}.tsv").write_text("\n".join(rows) + "\n")
    return folder


def test_a_folder_becomes_a_run(scenes, tmp_path):
    run = tmp_path / "run"
    done = train(scenes, run, "--json")
    assert done.returncode == 0, done.stderr
    judged = json.loads(done.stdout)
    assert judged.keys() == {"validation"}
    assert judged["validation"]["n_recordings"] == 4
    pictures = {f"recording_{number:02d}.png" for number in range(1, 5)}
    assert {path.name for path in run.iterdir()} == {
        "settings.json", "metrics.jsonl", "checkpoint.safetensors", "model.safetensors",
        "scores.npz", "report.md", "figures.json", "psd_roc.png", "confusion.png", "trade_off.png",
        "decision.json", *pictures,
    }  # fmt: skip
    # Published figures of the row stand beside ours.
    report = (run / "report.md").read_text()
    assert re.search(r"\| event F1 .* \| 49.8 % \|", report)
    kept = json.loads((run / "figures.json").read_text())
    assert "chosen on validation" in report
    chosen = kept.pop("chosen")["all"]
    assert chosen["event_f1"] >= kept["all"]["event_f1"]
    assert kept == judged["validation"]
    # The thresholds that were chosen are kept, and evaluate decides with either.
    limits = json.loads((run / "decision.json").read_text())
    assert f"with {limits['threshold']:g} and {limits['tag_threshold']:g}, chosen" in report
    asked = ("evaluate", run, "--data", scenes, "--part", "validation", "--json", "--device", "cpu")
    for more, figures in (((), kept["all"]), (("--chosen",), chosen)):
        found = json.loads(command(*asked, *more).stdout)["all"]
        assert found == pytest.approx(figures, nan_ok=True)
    scores = np.load(run / "scores.npz")
    assert scores["validation_frames"].shape == (4, 98, 2)
    assert scores["validation_clips"].shape == (4, 2)
    assert scores["validation_paths"][0] == "audio/validation/validation_0.wav"
    settings = json.loads((run / "settings.json").read_text())
    # A third of 0.3 s for both labels
    assert settings["windows"]["window_s"] == pytest.approx({"high": 0.1, "low": 0.1})
    assert settings["data"]["n_weak"] == 4
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    assert [{"loss", "distillation", "frame_f1", "clip_f1"} <= line.keys() for line in lines] == [
        True, True,
    ]  # fmt: skip


@pytest.fixture
def short(scenes, tmp_path):
    """The same scenes, with a validation recording that ends after 0.6 of its 1.0 s."""
    folder = tmp_path / "short"
    shutil.copytree(scenes, folder)
    path = folder / "audio" / "validation" / "validation_0.wav"
    sound, rate = soundfile.read(path)
    soundfile.write(path, sound[: int(0.6 * rate)], rate)
    return folder


def test_a_held_out_recording_may_be_shorter_than_the_batch(short, tmp_path):
    fit = ("reading.lengths=fit",)
    pair, student = tmp_path / "pair", tmp_path / "student"
    refused = train(short, pair, recipe="pts")
    assert refused.returncode == 3
    assert "validation_0.wav is 0.60 s long; expected 1 s: cut it, or set" in refused.stderr
    done = train(short, pair, *fit, "--json", recipe="pts")
    assert done.returncode == 0, done.stderr
    # What a batch pads it with is not judged: 3 x 1.0 + 0.6 s.
    assert json.loads(done.stdout)["validation"]["n_seconds"] == pytest.approx(3.6)
    shape = ("model.channels=[4,4,8]", "model.hidden_size=8", "training.epochs=1")
    asked = [arg for arg in SMALL if arg.startswith("batch.")]
    done = command(
        "train", "streaming", "--data", short, "--teacher", pair, "--out", student, "--quiet",
        "--threads", "1", "--json", *asked, *shape, *fit,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    judged = json.loads(done.stdout)["validation"]
    assert judged["n_seconds"] == pytest.approx(3.6)
    again = command("evaluate", student, "--data", short, "--part", "validation", "--json")
    assert json.loads(again.stdout)["all"] == judged["all"]
    refused = command(
        "evaluate", student, "--data", short, "--part", "validation", "--lengths", "refuse"
    )
    assert refused.returncode == 3
    assert "(evaluate: --lengths fit)" in refused.stderr


def test_validation_without_an_event_is_refused_before_anything_is_trained(scenes, tmp_path):
    folder, run = tmp_path / "silent", tmp_path / "run"
    shutil.copytree(scenes, folder)
    table = folder / "metadata" / "validation" / "validation.tsv"
    rows = [f"validation_{i}.wav\t\t\t" for i in range(4)]
    table.write_text("\n".join(["filename\tonset\toffset\tevent_label", *rows, ""]))
    done = train(folder, run)
    assert done.returncode == 3
    assert f"{table.parent}: none of its 4 recordings has an event" in done.stderr
    assert not run.exists()


def test_options_of_clip_students_are_refused(scenes, tmp_path):
    done = train(scenes, tmp_path / "run", "--fold", "1")
    assert done.returncode == 2
    assert "--fold K is not used by its recipes; it is for clip students" in done.stderr


def test_a_run_teaches_the_sensors_student(scenes, tmp_path):
    teacher, run = tmp_path / "teacher", tmp_path / "streaming"
    assert train(scenes, teacher, "--json", recipe="pts").returncode == 0
    shape = ("model.channels=[4,4,8]", "model.hidden_size=8", "training.epochs=3")
    more = ("--teacher", teacher, "--data", scenes, "--out", run)
    asked = [arg for arg in SMALL if arg.startswith("batch.")]

    def student(*arguments):
        return command("train", "streaming", *arguments, *more, "--quiet", "--threads", "1")

    done = student(*asked, *shape, "--json")
    assert done.returncode == 0, done.stderr
    judged = json.loads(done.stdout)
    assert judged["validation"]["n_recordings"] == 4
    made = {path.name for path in run.iterdir()}
    assert {"detector.json", "student.json", "model.safetensors", "report.md"} <= made
    detector = json.loads((run / "detector.json").read_text())
    # A third of 0.3 s, in frames of 10 ms, odd.
    assert [known["smoothing_windows"] for known in detector["classes"]] == [11, 11]
    assert (detector["look_ahead_frames"], detector["chunk_frames"]) == (20, 10)
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3

    again = command(
        "evaluate", run, "--data", scenes, "--part", "validation", "--json", "--device", "cpu"
    )
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout)
    assert found["all"] == judged["validation"]["all"]
    of_teacher = command("evaluate", teacher, "--data", scenes, "--part", "validation", "--json")
    kept = json.loads((teacher / "figures.json").read_text())
    assert json.loads(of_teacher.stdout)["labels"] == kept["labels"]

    # A pair hears ten seconds at once: it is told what to do, and nothing is written.
    pair = command("export", teacher, "--out", tmp_path / "pair.bundle")
    assert pair.returncode == 3
    assert f"soundpost train streaming --teacher {teacher}" in pair.stderr
    assert not (tmp_path / "pair.bundle").exists()

    # The same command with the run there changes nothing; with other settings it is refused.
    weights = (run / "model.safetensors").read_bytes()
    assert student(*asked, *shape).returncode == 0
    assert (run / "model.safetensors").read_bytes() == weights
    refused = student(*asked, *shape, "training.epochs=4")
    assert refused.returncode == 2
    assert "holds a run with another recipe" in refused.stderr


def test_a_student_needs_a_teacher_of_the_same_labels(scenes, tmp_path):
    done = command("train", "streaming", "--data", scenes, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "--teacher RUN is missing: give a run of a recipe such as full" in done.stderr
    done = train(scenes, tmp_path / "run", "--teacher", tmp_path)
    assert done.returncode == 2
    assert "--teacher RUN is not used" in done.stderr
    done = command(
        "train", "streaming", "--data", scenes, "--out", tmp_path / "run", "--teacher", tmp_path
    )
    assert done.returncode == 3
    assert f"{tmp_path}: is not a run folder" in done.stderr


def test_what_is_refused_leaves_no_run_behind(scenes, tmp_path):
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    assert train(scenes, teacher, recipe="guided").returncode == 0
    asked = ("--data", scenes, "--out", run, "--teacher", teacher, "--quiet", *SMALL[1:5])
    done = command("train", "streaming", *asked, "model.pools=[3,4,2]", "training.epochs=1")
    assert done.returncode == 2
    assert "expected factors whose product divides them" in done.stderr
    assert not run.exists()
    done = command("train", "streaming", *asked, "reading.lengths=any")
    assert done.returncode == 2
    assert "reading.lengths is any; expected refuse or fit" in done.stderr
    assert not run.exists()


def test_a_model_or_a_part_that_is_not_there_is_named(scenes, tmp_path):
    done = command("evaluate", tmp_path, "--data", scenes)
    assert done.returncode == 3
    assert f"{tmp_path}: is not a run folder" in done.stderr
    run = tmp_path / "run"
    assert train(scenes, run).returncode == 0
    done = command("evaluate", run, "--data", scenes, "--part", "test")
    assert done.returncode == 3
    assert f"{scenes / 'metadata' / 'eval'}: has no table" in done.stderr
