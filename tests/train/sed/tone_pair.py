"""Tones in a folder of DESED's layout, a pair made by hand that hears them, and a student of it.

A label's frames are those where one band of the log-mel is loud, its clip's tag is the mean
loudness of another band, or of the same: what the pair says of any sound can be worked out without
it.
"""

from dataclasses import replace

import numpy as np
import soundfile
import torch

from soundpost.device.features import FrontEnd, log_mel
from soundpost.train.checkpoint import save_tensors
from soundpost.train.run import WEIGHTS
from soundpost.train.sed.networks import TeacherStudent
from soundpost.train.sed.recipe import detection_recipe_from_dict
from soundpost.train.sed.run import save_decision, train_detection
from soundpost.train.sed.scenes import SceneBatch
from soundpost.train.sed.streaming_recipe import streaming_recipe_from_dict
from soundpost.train.sed.streaming_run import read_scenes, train_streaming

RATE_HZ = 16_000
SECONDS = 1.5
TONES_HZ = {"high": 3_000.0, "low": 500.0}
LABELS = tuple(TONES_HZ)
FRONT_END = FrontEnd()

# One convolution of one band and one frame, whose first channel lets the log-mel through.
RECIPE = {
    "name": "by hand",
    "model": {
        "frames_averaged": 1,
        "gru_layers": 0,
        "hidden_units": 8,
        "student": {
            "channels": [8], "layers": [1], "kernels": [1], "time_pools": [1], "mel_pools": [1],
        },
    },
    "batch": {"strong": 2, "weak": 2, "unlabelled": 2, "seconds": SECONDS},
    "method": {"kind": "mean_teacher"},
    "training": {"epochs": 1},
}  # fmt: skip
N_CHANNELS = 8


def recipe(**post_processing):
    """RECIPE with such post-processing."""
    return detection_recipe_from_dict(RECIPE | {"filter": post_processing}, "by hand")


@torch.no_grad()
def band_pair(frame_bands, tag_bands, gain=1.0, offset=2.0):
    """A pair whose scores are sigmoid(gain max(0, x) - offset) of bands' log-mel x.

    frame_bands, tag_bands : of each label; a clip's score is the mean of its frames'
    """
    settings = recipe()
    n_labels = len(frame_bands)
    pair = TeacherStudent(n_labels, 64, settings.model, mean_teacher=True, distil=False)
    network = pair.student
    for name, parameter in network.named_parameters():
        if name.split(".")[0] != "normalise":
            parameter.zero_()
    convolution, normalisation = network.blocks[0][:2]
    convolution.weight[0] = 1.0
    normalisation.weight.fill_(1.0)
    for layer, bands in ((network.detection, frame_bands), (network.tagging, tag_bands)):
        for label, band in enumerate(bands):
            layer.weight[label, band * N_CHANNELS] = 1.0
    for layer in (network.heads, network.tags):
        layer.bias.fill_(-offset)
        for label in range(n_labels):
            layer.weight[label, label] = gain
    return pair.eval()


def write_tones(folder, counts, seed=0):
    """Recordings of one tone each, by turns, over noise.

    counts : of each table, such as {"train/weak": 4}
    """
    kinds = {"synthetic": "strong", "weak": "weak", "unlabel_in_domain": "unlabelled"}
    headers = {
        "strong": "filename\tonset\toffset\tevent_label",
        "weak": "filename\tevent_labels",
        "unlabelled": "filename",
    }
    rng = np.random.default_rng(seed)
    for table, count in counts.items():
        part, name = table.split("/")
        kind = kinds.get(name, "strong")
        audio = folder / "audio" / ("validation" if part == "validation" else table)
        audio.mkdir(parents=True)
        rows = [headers[kind]]
        for number in range(count):
            label = LABELS[number % 2]
            sound, onset_s, offset_s = tone(label, rng, quiet=part == "eval")
            file = f"{name}_{number}.wav"
            soundfile.write(audio / file, sound, RATE_HZ)
            cells = {
                "strong": f"\t{onset_s:.3f}\t{offset_s:.3f}\t{label}",
                "weak": f"\t{label}",
                "unlabelled": "",
            }
            rows.append(file + cells[kind])
        metadata = folder / "metadata" / part
        metadata.mkdir(parents=True, exist_ok=True)
        (metadata / f"{name}.tsv").write_text("\n".join(rows) + "\n")


def tone(label, rng, *, quiet=False):
    """One tone over noise, with its onset and offset in seconds; a quiet one is 6 dB lower."""
    sound = 0.002 * rng.standard_normal(round(SECONDS * RATE_HZ))
    onset_s = round(rng.uniform(0.2, 0.6), 3)
    offset_s = round(onset_s + rng.uniform(0.4, 0.7), 3)
    n = np.arange(round(onset_s * RATE_HZ), round(offset_s * RATE_HZ))
    sound[n] += (0.1 if quiet else 0.2) * np.sin(2 * np.pi * TONES_HZ[label] * n / RATE_HZ)
    return sound.astype(np.float32), onset_s, offset_s


def band_of(hz):
    """The band in which a tone is loudest."""
    n = np.arange(RATE_HZ // 4)
    sound = 0.2 * np.sin(2 * np.pi * hz * n / RATE_HZ)
    return int(log_mel(sound.astype(np.float32), FRONT_END).mean(axis=0).argmax())


class _OneBatch:
    """An EpochSource of silence: the weights that it gives are replaced."""

    def __init__(self, n_labels):
        self.n_labels = n_labels

    def epoch(self, number):
        yes = torch.ones(2, dtype=torch.bool)
        shape = 2, 10, self.n_labels
        yield SceneBatch(
            torch.full((2, 10, 64), -6.0), torch.zeros(shape), torch.zeros(shape[::2]), yes, yes
        )


def write_pair(run, scenes, tag_threshold):
    """A finished run folder of a pair that hears TONES_HZ, its tags' threshold chosen.

    scenes : SceneSet of the training recordings
    """
    published = recipe(rule="esp")
    trained = train_detection(
        published, scenes, _OneBatch(len(LABELS)), run, torch.device("cpu"), quiet=True
    )
    bands = [band_of(hz) for hz in TONES_HZ.values()]
    pair = band_pair(bands, bands, gain=3.0, offset=4.0)
    save_tensors(run / WEIGHTS, pair.state_dict(), {"labels": list(LABELS)})
    save_decision(run, replace(trained.recipe.filter, tag_threshold=tag_threshold))


def streaming_recipe():
    """Taught by the pair alone: the recordings' own labels do not enter the loss."""
    return streaming_recipe_from_dict(
        {
            "name": "tones",
            "batch": {"strong": 2, "weak": 2, "unlabelled": 4, "seconds": SECONDS},
            "model": {"channels": [8, 8, 16], "hidden_size": 16, "dropout": 0.0},
            "training": {
                "epochs": 14, "learning_rate": 3e-2, "warmup_steps": 3, "teacher_weight": 1.0,
                "average_decay": 0.7,
            },
        },
        "tone_pair",
    )  # fmt: skip


def write_streaming_run(folder, runs):
    """Recordings into folder, a pair and its student into runs/pair and runs/streaming.

    Returns what `train_streaming` does.
    """
    counts = {"train/synthetic": 4, "train/weak": 4, "train/unlabel_in_domain": 8}
    write_tones(folder, counts | {"validation/validation": 4, "eval/test": 4})
    wanted = streaming_recipe()
    # Half of a recording at most is sound, and so at most half is its score: at 0.5 the gate of
    # unlabelled recordings would stay shut.
    train = read_scenes(wanted, folder, quiet=True).train
    write_pair(runs / "pair", train, tag_threshold=0.2)
    return train_streaming(
        wanted, folder, runs / "pair", runs / "streaming", torch.device("cpu"), quiet=True
    )
