"""Several acoustic features, from the recipe to soft labels, each through a network of its own."""

import hashlib
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from sklearn.metrics import average_precision_score

from soundpost.device.errors import ConfigError, InputError, UsageError
from soundpost.device.features import FrontEnd, log_mel
from soundpost.train.backbones import weights
from soundpost.train.backbones.frozen_audio import soundnet_hearing, stub_hearing
from soundpost.train.backbones.soundnet5 import SoundNet5
from soundpost.train.backbones.vggish import VGGish, VGGishSettings
from soundpost.train.commands import EVALUATE, TRAIN
from soundpost.train.datasets.media import read_audio
from soundpost.train.mobilenet_v2 import MobileNetV2, MobileNetV2Settings
from soundpost.train.multimodal import tagging_inputs
from soundpost.train.multimodal.acoustic_inputs import EmbeddingInput, LogMelInput
from soundpost.train.multimodal.distil_command import COMMAND as DISTIL
from soundpost.train.multimodal.mutual_networks import (
    Inputs,
    SpectrogramNetwork,
    Tagged,
    VectorNetwork,
)
from soundpost.train.multimodal.soft_label_format import Teacher
from soundpost.train.multimodal.soft_labelling import TaggingLabeller
from soundpost.train.multimodal.soft_labels import SoftLabelStore
from soundpost.train.multimodal.tagging_inputs import open_features
from soundpost.train.multimodal.tagging_recipe import load_tagging_recipe
from soundpost.train.multimodal.tagging_run import load_tagging_run
from soundpost.train.ours import path_of_ours

CPU = torch.device("cpu")
BOTH = ('acoustic.features=["log_mel", "vggish"]', "acoustic.vggish.backbone=stub")


@pytest.fixture(scope="module")
def train(tiny, vehicles):
    def run(recipe, out, *more):
        assert tiny.run(
            TRAIN, recipe, *tiny.small, *more, "--data", vehicles, "--out", out, "--quiet",
            "--threads", 1, "--device", "cpu",
        ) == 0  # fmt: skip
        return out

    return run


@pytest.fixture(scope="module")
def run(train, tmp_path_factory):
    return train("yin2021_vggish", tmp_path_factory.mktemp("runs") / "both", *BOTH)


def recipe(*changes):
    return load_tagging_recipe(
        path_of_ours("yin2021", "soundpost.train.recipes", "recipe"), list(changes)
    )


def test_each_feature_has_a_network_of_its_own(run, settings_of):
    loaded = load_tagging_run(run)
    for network in (loaded.student, loaded.teacher):
        spectrogram, vectors = network.hear.parts
        assert isinstance(spectrogram, SpectrogramNetwork)
        assert isinstance(vectors, VectorNetwork)
        # Figure 3: the contexts are concatenated.
        assert network.acoustic_size == network.hear.size == 16 + 8
    notes = settings_of(run)["acoustic"]
    assert [(note["name"], note["kind"], note["size"]) for note in notes] == [
        ("log_mel", "spectrogram", 64),
        ("vggish", "vectors", 128),
    ]
    assert notes[1]["origin"]["name"] == "stub"


def test_the_scores_kept_are_made_of_both(run, vehicles):
    """By hand, from a clip's file: the device's log-mel, and the stub's vectors of each second."""
    loaded = load_tagging_run(run)
    kept = np.load(run / "scores.npz")
    sound = read_audio(vehicles / "video" / "testi000000_0.000_1.000.mkv", 16_000, 0.0, 1.0)
    frames = torch.from_numpy(log_mel(sound, FrontEnd()))
    vectors = torch.from_numpy(stub_hearing().vectors(sound))
    row = kept["test_student_clips"].tolist().index("testi000000_0.000_1.000")
    with torch.no_grad():
        said = loaded.student(Inputs((frames[None], vectors[None]))).logits.sigmoid().numpy()
        other = loaded.student(Inputs((frames[None], 0 * vectors[None]))).logits.sigmoid().numpy()
    np.testing.assert_allclose(said[0], kept["test_student_scores"][row], atol=5e-3)
    assert np.abs(said - other).max() > 1e-3


def test_bands_are_standardised_and_vectors_are_not(run, vehicles):
    student = load_tagging_run(run).student
    frames = np.concatenate(
        [
            log_mel(read_audio(path, 16_000, 0.0, 1.0), FrontEnd())
            for path in sorted((vehicles / "video").glob("train*.mkv"))
        ]
    )
    mean = student.hear.parts[0].standardise.mean.numpy()
    np.testing.assert_allclose(mean, frames.mean(0), atol=1e-2)
    # The other part's are as its backbone makes them: nothing in it holds their mean.
    vector_part = student.hear.parts[1]
    assert not hasattr(vector_part, "standardise")
    vectors = torch.randn(2, 3, 128) + 7.0
    with torch.no_grad():
        assert not torch.allclose(vector_part(vectors)[0], vector_part(vectors - 7.0)[0])


def test_it_is_judged_as_its_report_says(run, tiny, vehicles, capsys):
    assert tiny.run(EVALUATE, run, "--data", vehicles, "--device", "cpu", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    figures = json.loads((run / "figures.json").read_text())["test"]["student"]
    assert found["mean_average_precision"] == pytest.approx(figures["mean_average_precision"])


def test_it_is_judged_on_the_set_that_it_is_given(
    run, tiny, vehicles, relabelled, tmp_path, capsys
):
    # Clips that are called otherwise: the same scores against that truth.
    names = [("Train",), ("Bus",), ("Car", "Train"), ("Car",)] * 2
    other = relabelled(vehicles, tmp_path / "other", "testing", names)
    assert tiny.run(EVALUATE, run, "--data", other, "--device", "cpu", "--json") == 0
    found = json.loads(capsys.readouterr().out)["mean_average_precision"]
    kept, labels = np.load(run / "scores.npz"), load_tagging_run(run).labels
    order = [int(clip_id[5:11]) for clip_id in kept["test_student_clips"]]
    truth = np.array([[label in names[clip] for label in labels] for clip in order])
    some = truth.any(0)
    expected = average_precision_score(truth[:, some], kept["test_student_scores"][:, some])
    assert found == pytest.approx(expected, abs=1e-6)
    figures = json.loads((run / "figures.json").read_text())["test"]["student"]
    assert abs(found - figures["mean_average_precision"]) > 0.05


def test_it_labels_clips(run, tiny, vehicles, tmp_path):
    kept = np.load(run / "scores.npz")
    for network in ("student", "teacher"):
        store = tmp_path / network
        assert tiny.run(
            DISTIL, run, "--data", vehicles, "--kind", "dcase2017", "--out", store, "--network",
            network, "--split", "testing", "--device", "cpu",
        ) == 0  # fmt: skip
        found = SoftLabelStore(store)
        for clip_id, scores in zip(
            kept[f"test_{network}_clips"], kept[f"test_{network}_scores"], strict=True
        ):
            np.testing.assert_allclose(found.rows(str(clip_id))[0][0], scores, atol=2e-2)


def test_a_longer_clip_is_heard_in_parts_by_every_feature(run, tiny, tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    rng = np.random.default_rng(1)
    soundfile.write(clips / "0.wav", tiny.sound_of(["Car"], rng, 1.6), 16_000)
    (clips / "clips.csv").write_text("filename,label,fold\n0.wav,Car,1\n")
    store = tmp_path / "store"
    assert tiny.run(
        DISTIL, run, "--data", clips, "--kind", "esc50", "--out", store, "--device", "cpu"
    ) == 0  # fmt: skip
    rows, _ = SoftLabelStore(store).rows("0.wav")
    sound, _ = soundfile.read(clips / "0.wav", dtype="float32")
    student, hearing = load_tagging_run(run).student, stub_hearing()
    for row, start in enumerate((0, 9_600)):
        part = sound[start:][:16_000]
        heard = (log_mel(part, FrontEnd()), hearing.vectors(part))
        with torch.no_grad():
            said = student(Inputs(tuple(torch.from_numpy(one)[None] for one in heard)))
        np.testing.assert_allclose(rows[row], said.logits.sigmoid().numpy()[0], atol=1e-5)


def test_vectors_alone_are_enough(train, tmp_path):
    out = train("yin2021_plain_vggish_alone", tmp_path / "alone", BOTH[1])
    assert load_tagging_run(out).student.acoustic_size == 8
    figures = json.loads((out / "figures.json").read_text())["test"]["student"]
    # The stub hears in which bands a second is loud.
    assert figures["average_precision"]["Car"] >= 0.9


def test_published_weights_come_from_a_file(train, tmp_path, monkeypatch, tiny, vehicles):
    """The published layout of weights, with few hidden units: the whole of VGGish is 288 MB."""
    torch.manual_seed(0)
    small = VGGishSettings(hidden_units=16)
    torch.save(VGGish(None, small).state_dict(), tmp_path / "vggish.pth")
    monkeypatch.setattr(
        weights,
        "PUBLISHED",
        weights.PUBLISHED
        | {"vggish": replace(weights.PUBLISHED["vggish"], build=lambda _: VGGish(None, small))},
    )
    out = train(
        "yin2021_vggish", tmp_path / "run", f"acoustic.vggish.file={tmp_path / 'vggish.pth'}",
        "training.epochs=1",
    )  # fmt: skip
    note = json.loads((out / "settings.json").read_text())["acoustic"][1]
    assert (note["name"], note["size"], note["origin"]["name"]) == ("vggish", 128, "vggish")
    # It is found again where it was, and other weights are told from it.
    assert tiny.run(EVALUATE, out, "--data", vehicles, "--device", "cpu", "--json") == 0
    torch.manual_seed(1)
    torch.save(VGGish(None, small).state_dict(), tmp_path / "vggish.pth")
    with pytest.raises(InputError, match=r"was trained with other weights of vggish \(sha256 "):
        tiny.run(EVALUATE, out, "--data", vehicles, "--device", "cpu", "--json")


def test_missing_weights_say_which_whence_and_their_hash(train, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError) as error:
        train("yin2021_vggish", tmp_path / "run")
    for part in ("vggish-10086976.pth", "torchvggish/releases", "10086976245803799d9194e9"):
        assert part in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_clip_student_stands_in(tmp_path, monkeypatch):
    run = tmp_path / "student"
    run.mkdir()
    (run / "model.safetensors").write_bytes(b"weights")
    network = MobileNetV2(2, MobileNetV2Settings(0.35, 24))
    monkeypatch.setattr(
        tagging_inputs,
        "load_run",
        lambda folder: SimpleNamespace(
            folder=folder, network=network, front_end=FrontEnd(), n_frames=50
        ),
    )
    own = recipe(BOTH[0], f"acoustic.vggish.backbone={run}")
    features = open_features(own, CPU, quiet=True)
    assert [type(feature) for feature in features] == [LogMelInput, EmbeddingInput]
    assert features[1].feature.size == 24
    sha256 = hashlib.sha256(b"weights").hexdigest()
    assert features[1].note()["origin"] == {"name": "clip student", "sha256": sha256}
    assert own.places()["vggish"] == str(run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (['acoustic.features=["vggish", "log_mel"]'], r"expected each of log_mel, .*log_mel first"),
        (['acoustic.features=["log_mel", "log_mel"]'], "at most once"),
        (["acoustic.features=[]"], "one or more"),
        (['acoustic.features=["vgish"]'], "each of log_mel, vggish, soundnet"),
        (["acoustic.vgish.file=x"], r"unknown key vgish; did you mean vggish\?"),
    ],
)
def test_recipes_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        recipe(*changes)


def test_what_cannot_hear_is_refused():
    for backbone in ("vgg17", "gone"):
        own = recipe(BOTH[0], f"acoustic.vggish.backbone={backbone}")
        with pytest.raises(UsageError, match=r"expected vggish, soundnet5, stub or the run folder"):
            open_features(own, CPU, quiet=True)


def test_a_run_is_the_same_wherever_its_weights_lie(tmp_path):
    file = tmp_path / "v.pth"
    file.write_bytes(b"")
    own = recipe(BOTH[0], f"acoustic.vggish.file={file}", "acoustic.vggish.online=true")
    assert own.without_places() == recipe(BOTH[0]).without_places()
    places = own.places()
    assert places == {"vggish": str(file)}
    assert recipe(BOTH[0]).at(places).acoustic.vggish.file == str(file)
    file.unlink()
    assert recipe(BOTH[0]).at(places).acoustic.vggish.file == ""
    # Runs of before there was a choice go on.
    assert "acoustic" not in recipe().without_places()


def test_a_teacher_of_other_features_is_refused(run, train, tmp_path):
    teacher = train("yin2021_fusion", tmp_path / "teacher", "data.problems=skip")
    with pytest.raises(UsageError, match=r"its acoustic features is .*log_mel.*expected .*vggish"):
        train("yin2021_distillation", tmp_path / "no", *BOTH, "--teacher", teacher)


def test_features_of_two_rates_are_each_decoded_at_their_own(run):
    """SoundNet's sound is resampled, log-mel's is not."""
    own = recipe('acoustic.features=["log_mel", "soundnet"]', "acoustic.soundnet.backbone=stub")
    log_mel_input, stub = open_features(own, CPU, quiet=True)
    torch.manual_seed(0)
    heard = EmbeddingInput("soundnet", soundnet_hearing(SoundNet5(), {"name": "drawn"}))
    asked = []

    class Media:
        def sound(self, clip, rate_hz):
            asked.append(rate_hz)
            return np.zeros(round(1.6 * rate_hz), np.float32)

    loaded = load_tagging_run(run)

    class Both(torch.nn.Module):
        def forward(self, inputs):
            assert [tuple(one.shape) for one in inputs.acoustic] == [(2, 98, 64), (2, 3, 256)]
            return Tagged(*inputs.acoustic[:2], torch.zeros(2, 17))

    labeller = TaggingLabeller(
        Both(), loaded.recipe, (log_mel_input, heard), loaded.labels, Teacher("t", "0" * 64), CPU
    )
    said = labeller.label(None, Media())
    assert asked == [16_000, 22_050]
    assert said.scores.shape == (2, 17)
    # A stub is VGGish's stand-in, whatever feature it stands for.
    assert (stub.name, stub.rate_hz, stub.feature.size) == ("soundnet", 16_000, 128)
