"""What is drawn from machine labels in each epoch: numbers of the text, from files as published."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from soundpost.device.errors import InputError
from soundpost.train.multimodal.machine_targets import read_machine_targets


def write(folder, folds, n_folds=2):
    """Tables as labelling.py describes them: for each clip its visual and its audio labels."""
    folder.mkdir(exist_ok=True)
    header = {"schema": "soundpost.machine_labels/1", "rules": {"n_folds": n_folds}}
    (folder / "labelling.json").write_text(json.dumps(header))
    for fold, clips in folds.items():
        lines = ["clip_id,label,score,source,model"]
        for name, (visual, audio) in clips.items():
            lines += [f'{name},"{label}",0.500000,visual,abcdefabcdef' for label in visual]
            lines += [f'{name},"{label}",0.250000,audio,012345678901' for label in audio]
        (folder / f"fold_{fold}.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def folder(tmp_path):
    ten = [f"thing {k}" for k in range(10)]
    return write(
        tmp_path / "labels",
        {
            0: {"a": (ten, ["Dog", "Animal", "Bark, loud"]), "b": (ten[:3], [])},
            1: {"c": (["Dog"], ["Speech"]), "d": ([], ["Speech", "Dog"])},
        },
    )


def test_classes_are_those_that_occur_and_each_source_has_its_own(folder):
    targets = read_machine_targets(folder)
    assert targets.clip_ids == ("a", "b", "c", "d")
    # "Dog" is seen and heard: two classes.
    visual = ["Dog", *(f"thing {k}" for k in range(10))]
    audio = ["Animal", "Bark, loud", "Dog", "Speech"]
    assert targets.classes == (
        *(("visual", label) for label in visual),
        *(("audio", label) for label in audio),
    )
    assert targets.n_visual == 11
    everything = targets.all_labels([0, 2, 3])
    assert everything.dtype == torch.float32
    assert everything.sum(1).tolist() == [13, 2, 2]
    assert everything[1].nonzero()[:, 0].tolist() == [0, 14]


def test_half_of_the_visual_labels_and_all_audio_ones_are_drawn(folder):
    targets = read_machine_targets(folder)
    for epoch in range(20):
        drawn = targets.draw([0, 1, 2, 3], epoch)
        visual, audio = drawn[:, :11], drawn[:, 11:]
        # Of ten five, of three two, of one the one; of none none.
        assert visual.sum(1).tolist() == [5, 2, 1, 0]
        assert audio.sum(1).tolist() == [3, 0, 1, 2]
        assert (drawn <= targets.all_labels([0, 1, 2, 3])).all()


def test_a_second_has_6_to_10_labels(tmp_path):
    # 10 visual and 1 to 5 audio labels.
    ten = [f"thing {k}" for k in range(10)]
    clips = {f"c{n}": (ten, [f"sound {k}" for k in range(n)]) for n in range(1, 6)}
    targets = read_machine_targets(write(tmp_path / "labels", {0: clips, 1: {}}))
    assert targets.draw(range(5), 0).sum(1).tolist() == [6, 7, 8, 9, 10]


def test_every_visual_label_is_drawn_half_of_the_time(folder):
    targets = read_machine_targets(folder)
    n = 400
    counts = sum(targets.draw([0], epoch)[0] for epoch in range(n))
    for k in range(1, 11):
        assert binomtest(int(counts[k]), n, 0.5).pvalue > 1e-4
    # Pairs come together as often as five of ten without replacement: 5/10 * 4/9.
    together = sum(int(targets.draw([0], epoch)[0, 1:3].all()) for epoch in range(n))
    assert binomtest(together, n, 2 / 9).pvalue > 1e-4


def test_a_draw_depends_on_seed_epoch_and_clip_alone(folder):
    targets = read_machine_targets(folder)
    together, alone = targets.draw([3, 0, 1], 7), targets.draw([0], 7)
    assert torch.equal(together[1:2], alone)
    assert torch.equal(read_machine_targets(folder).draw([0], 7), alone)
    # Also where other folds are left out.
    only = read_machine_targets(folder, [0], targets.classes)
    assert torch.equal(only.draw([0], 7), alone)
    assert not all(torch.equal(targets.draw([0], epoch), alone) for epoch in range(8, 12))
    assert not all(torch.equal(targets.draw([0], 7, seed), alone) for seed in range(1, 5))


def test_validation_has_the_classes_of_training(folder):
    training = read_machine_targets(folder, [0])
    assert ("audio", "Speech") not in training.classes
    validation = read_machine_targets(folder, [1], training.classes)
    assert validation.classes == training.classes
    # Clip c has only labels that training lacks (it saw no dog), and is left out.
    assert validation.clip_ids == ("d",)
    named = [training.classes[k] for k in validation.of_clip(0)]
    assert named == [("audio", "Dog")]


def test_bad_folders_are_named(folder, tmp_path):
    with pytest.raises(InputError, match=r"labelling\.json: is no header of machine labels"):
        read_machine_targets(tmp_path)
    (folder / "fold_1.csv").unlink()
    with pytest.raises(InputError, match=r"fold_1\.csv: no such fold; label it first"):
        read_machine_targets(folder, [1])
    (folder / "fold_1.part").write_bytes(b"{")
    with pytest.raises(InputError, match=r"fold_1\.csv: is not complete; run the labelling again"):
        read_machine_targets(folder)
    (folder / "fold_1.csv").write_text("clip_id,label,score,source,model\nx,Dog,0.5,smell,ab\n")
    with pytest.raises(
        InputError, match=r"fold_1\.csv: line 2: is 'x,Dog,0\.5,smell,ab'; expected"
    ):
        read_machine_targets(folder)
    (folder / "fold_1.csv").write_text("clip,label\n")
    with pytest.raises(InputError, match=r"fold_1\.csv: line 1: expected clip_id,label,score"):
        read_machine_targets(folder)
    empty = write(tmp_path / "empty", {0: {}, 1: {}})
    with pytest.raises(InputError, match="no clip has a label"):
        read_machine_targets(empty)


def test_memory_is_that_of_the_labels(folder):
    # 13 + 3 + 2 + 2 labels, one number each.
    targets = read_machine_targets(folder)
    assert targets.class_index.shape == (20,)
    assert np.diff(targets.starts).tolist() == [13, 3, 2, 2]
