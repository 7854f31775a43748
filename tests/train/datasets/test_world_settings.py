"""Settings of a world: what is checked, and what ours say."""

from pathlib import Path

import pytest

from soundpost.calibration.pictures.looks import SOUNDING
from soundpost.device.errors import ConfigError
from soundpost.train.datasets.world_bodies import BODIES
from soundpost.train.datasets.world_settings import load_world_settings
from soundpost.train.ours import path_of_ours


def ours(name, *changes):
    path = path_of_ours(name, "soundpost.train.datasets.worlds", "settings")
    return load_world_settings(Path(path), changes)


def test_every_look_that_sounds_has_a_body_within_the_frame():
    assert set(BODIES) == set(SOUNDING)
    for body in BODIES.values():
        low_m, high_m = body.height_m
        assert 0.3 <= low_m <= high_m <= 1.1
        # The camera is 1.2 m over the floor and sees 36.9 degrees up: 1.5 m at 2 m.
        assert body.above_m[1] + high_m < 1.2 + 1.5


def test_the_small_world_is_the_published_set_in_small():
    small = ours("small")
    assert len(small.classes) == 14 == len(set(small.classes))
    assert small.locations == ("anechoic", "reverberant", "outdoors")
    assert (small.microphones, small.n_stored) == (128, 1)
    assert (small.camera.width_px, small.camera.height_px) == (640, 480)
    assert small.n_frames == 60
    assert small.n_samples == 60 * 1_024
    looks = [small.look_of(label) for label in small.classes]
    assert [looks.count(look) for look in dict.fromkeys(looks)].count(2) == 2


def test_the_full_world_is_the_small_one_with_all_microphones():
    small, full = ours("small"), ours("full")
    assert full.n_stored == 128
    assert full.takes > small.takes
    assert (full.classes, full.objects, full.sounds) == (
        small.classes,
        small.objects,
        small.sounds,
    )


def test_subjects_belong_to_one_split(world_toml):
    settings = load_world_settings(
        world_toml, ["subjects=5", "validation_subjects=[2]", "test_subjects=[1, 5]"]
    )
    splits = [settings.split_of(subject) for subject in range(1, 6)]
    assert splits == ["test", "validation", "train", "train", "test"]


def test_a_change_of_one_key_of_a_location_keeps_the_others(world_toml):
    settings = load_world_settings(world_toml, ["outdoors.wind_snr_db=[-5, 5]"])
    assert settings.outdoors.wind
    assert settings.outdoors.place == "garden"
    assert settings.outdoors.wind_snr_db == (-5.0, 5.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("classes=['dog']", r"classes is \['dog'\]; expected two or more, each once"),
        ("looks.owl=cat", r"looks.owl: no such class"),
        ("looks.dog=owl", r"class dog has the look 'owl'; expected looks.dog to be one of dog, "),
        ("distractors=['cat']", r"distractors: cat is a class; expected other labels"),
        ("locations=['moon']", r"locations is \['moon'\]; expected some of anechoic, reverb"),
        ("test_subjects=[3]", r"test_subjects is .*; expected different ones of 1 to 2"),
        ("test_subjects=[1, 2]", r"expected different ones of 1 to 2, and not all of them"),
        ("takes=0", r"takes is 0; expected 1 to 1000"),
        ("seconds=1.1", r"seconds is 1.1; expected 1 to 60, in whole frames of 1/12 s"),
        ("microphones=4", r"microphones is 4; expected 8 to 1024"),
        ("store.microphones=two", r"store.microphones is two; expected all or first"),
        ("store.frame_height_px=100", r"frame_height_px is 100; expected .* multiple of 6"),
        ("objects.hidden_share=2", r"objects.hidden_share is 2.0; expected 0 to 1"),
        ("objects.most_sounding=5", r"objects.most_sounding is 5; expected 1 to 4"),
        ("objects.depth_m=[2, 9]", r"objects.depth_m is \[2.0, 9.0\]; expected within 1 and 4"),
        ("distractors=[]", r"objects.distractor_share is 0.35; expected 0 where distractors"),
        ("sounds.other_s=[1, 3]", r"sounds.other_s is .*; expected within 0.2 and seconds \(1\)"),
        ("sounds.other_db=[0, 6]", r"sounds.other_db is .*; expected none above 0"),
        ("anechoic.place=attic", r"anechoic.place is attic; expected studio, room, garden"),
        ("anechoic.rt60_s=[0.1, 0.3]", r"anechoic.rt60_s is .*; expected within 0.2 and 1.5"),
        ("objects.hiden=1", r"unknown key hiden"),
        ("seed=-1", r"seed is -1; expected at least 0"),
    ],
)
def test_settings_are_checked(world_toml, change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_world_settings(world_toml, [change])
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(world_toml))
