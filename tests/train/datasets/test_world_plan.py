"""What happens in a take: roles, times, clips, and what decides them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from soundpost.train.datasets.world_plan import draw_room, plan_take

RATE = 12_288


def plans(settings, cast, n_takes=25, location=1):
    return [
        plan_take(settings, cast, location, subject, action, take)
        for subject in (1, 2)
        for action in range(1, len(settings.classes) + 1)
        for take in range(n_takes)
    ]


def told(plan):
    """All of a plan that can be compared."""
    actors = [
        (a.role, a.label, a.hidden, a.place.points(), a.height_m, a.look_seed, a.cues, a.level_dbfs)
        for a in plan.actors
    ]
    things = [(t.look, t.place.points(), t.seed) for t in (*plan.screens, *plan.clutter)]
    return actors, things, plan.room, plan.noises, plan.picture_seed, plan.noise_seed


def test_a_take_follows_from_its_numbers_alone(world):
    settings, cast = world()
    key = (1, 2, 3, 1)
    assert told(plan_take(settings, cast, *key)) == told(plan_take(settings, cast, *key))
    others = [(1, 1, 3, 1), (1, 2, 2, 1), (1, 2, 3, 0)]
    other_world = replace(settings, seed=1)
    found = [told(plan_take(settings, cast, *other)) for other in others]
    found.append(told(plan_take(other_world, cast, *key)))
    assert all(other[0] != told(plan_take(settings, cast, *key))[0] for other in found)


def test_the_action_sounds_throughout_and_others_for_a_while(world):
    settings, cast = world()
    for plan in plans(settings, cast):
        main, *others = plan.actors
        assert (main.role, main.label) == ("main", settings.classes[plan.action - 1])
        assert main.cues[0].start <= 0.3 * RATE
        assert main.cues[-1].end > 0.5 * RATE
        for actor in plan.actors:
            assert all(cue.stop > cue.first for cue in actor.cues)
            for one, after in zip(actor.cues, actor.cues[1:], strict=False):
                assert 0.19 * RATE <= after.start - one.end <= 0.71 * RATE
            assert actor.cues[-1].end <= RATE * settings.seconds
        for actor in others:
            if actor.role == "other":
                assert actor.cues[-1].end - actor.cues[0].start <= 0.81 * RATE
                assert actor.level_dbfs <= main.level_dbfs


def test_cues_are_of_clips_of_the_subject_where_they_sound(world):
    settings, cast = world()
    for plan in plans(settings, cast):
        for actor in plan.actors:
            voices = cast.voices[plan.subject].get(actor.label, cast.distractors[plan.subject])
            spans = {voice.clip: voice.spans for voice in voices}
            for cue in actor.cues:
                assert cast.clips[cue.clip].label == actor.label
                assert any(first <= cue.first < cue.stop <= stop for first, stop in spans[cue.clip])


def test_shares_are_as_asked_for(world):
    settings, cast = world(
        "objects.hidden_share=0.3",
        "objects.silent_share=0.4",
        "objects.distractor_share=0.5",
        "objects.most_sounding=1",
    )
    found = plans(settings, cast, 100)
    roles = Counter(actor.role for plan in found for actor in plan.actors)
    hidden = sum(plan.actors[0].hidden for plan in found)
    # 800 takes: four standard deviations are 0.065 of a share of 0.3, 0.07 of 0.5.
    assert roles["main"] == 800
    assert hidden / 800 == pytest.approx(0.3, abs=0.065)
    assert roles["silent"] / 800 == pytest.approx(0.4, abs=0.07)
    assert roles["distractor"] / 800 == pytest.approx(0.5, abs=0.07)


def test_all_numbers_of_sounding_objects_are_as_likely(world):
    settings, cast = world("objects.most_sounding=3", "objects.silent_share=0")
    numbers = Counter(len(plan.labels()) for plan in plans(settings, cast, 75))
    assert set(numbers) == {1, 2, 3}
    # The third may find no place.
    assert numbers[1] / 600 == pytest.approx(1 / 3, abs=0.08)


def test_a_label_is_heard_once_and_a_silent_object_looks_like_none_that_sounds(world):
    settings, cast = world("objects.silent_share=1", "objects.most_sounding=3")
    for plan in plans(settings, cast):
        labels = plan.labels()
        assert len(set(labels)) == len(labels)
        looks = {settings.look_of(label) for label in labels}
        for actor in plan.actors:
            if actor.role == "silent":
                assert actor.look not in looks
                assert actor.label not in {event.label for event in plan.events()}


def test_events_come_as_late_as_the_way_to_the_array_takes(world):
    """343 m/s at 20 degrees, by hand."""
    settings, cast = world()
    for plan in plans(settings, cast, 4):
        main = plan.actors[0]
        events = [event for event in plan.events() if event.role == "main"]
        assert len(events) == len(main.cues)
        for event, cue in zip(events, main.cues, strict=True):
            way_m = np.linalg.norm(main.place.at(cue.start / RATE))
            assert event.onset_s == pytest.approx(cue.start / RATE + way_m / 343.2, abs=1e-3)
            assert event.offset_s <= settings.seconds
            assert event.seen is not main.hidden


def test_a_subject_has_a_room_and_objects_of_its_own(world):
    settings, cast = world("locations=['anechoic', 'reverberant']", "objects.individuals=2")
    assert draw_room(settings, 1, 1) is None
    first, second = (draw_room(settings, 2, subject) for subject in (1, 2))
    assert first == draw_room(settings, 2, 1)
    assert first.size_m != second.size_m
    assert all(0.25 <= room.rt60_s <= 0.5 for room in (first, second))
    seeds = {1: set(), 2: set()}
    for plan in plans(settings, cast):
        for actor in plan.actors:
            if actor.label == "dog":
                seeds[plan.subject].add(actor.look_seed)
    assert [len(seeds[subject]) for subject in (1, 2)] == [2, 2]
    assert not seeds[1] & seeds[2]


def test_everything_lies_within_the_room(world):
    settings, cast = world("locations=['anechoic', 'reverberant']", "objects.distractor_share=1")
    for plan in plans(settings, cast, 10, location=2):
        origin = np.array(plan.room.camera_m)
        for actor in plan.actors:
            corners = actor.place.positions_m + origin
            assert ((corners > 0.05) & (corners < np.array(plan.room.size_m) - 0.05)).all()


def test_a_location_has_the_noise_that_its_settings_say(world):
    settings, cast = world("locations=['outdoors']", "outdoors.wind_snr_db=[2, 6]")
    for plan in plans(settings, cast, 3):
        noises = {noise.kind: noise.snr_db for noise in plan.noises}
        assert set(noises) == {"diffuse", "self", "wind"}
        assert 2 <= noises["wind"] <= 6
        assert 3 <= noises["diffuse"] <= 15
