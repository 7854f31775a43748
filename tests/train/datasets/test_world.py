"""Rendered takes: sound comes from where the object is; what is hidden or silent is so."""

from dataclasses import replace

import numpy as np
import pytest

from soundpost.calibration.trajectory import Trajectory
from soundpost.device.array.acoustic_image import cut_snapshots
from soundpost.train.datasets.world import WorldRenderer, frame_time_s
from soundpost.train.datasets.world_plan import plan_take

RATE = 12_288
SEES_ALL = ["objects.hidden_share=0", "objects.silent_share=0", "objects.distractor_share=0"]


def first_with(settings, cast, role, location=1):
    """A take in which something has this role, with the plan's actors of that role alone."""
    for take in range(50):
        plan = plan_take(settings, cast, location, 1, 1, take)
        if any(actor.role == role for actor in plan.actors):
            return plan
    raise AssertionError(role)


def alone(plan, actor):
    return replace(plan, actors=(actor,), noises=())


def sounding_frames(actor, n_frames, late=0.02):
    """Frames throughout which an actor is heard."""
    return [
        number
        for number in range(n_frames)
        if any(
            cue.start / RATE + late <= number / 12 and (number + 1) / 12 <= cue.end / RATE
            for cue in actor.cues
        )
    ]


@pytest.mark.parametrize("location", [1, 2, 3])
def test_the_loudest_pixel_is_where_the_object_is(world, location):
    """Beside echoes, noise and motion: within two pixels of 36 x 48, in each sounding frame."""
    settings, cast = world(
        "microphones=128",
        "locations=['anechoic', 'reverberant', 'outdoors']",
        "objects.moving_share=1",
        "objects.most_sounding=1",
        "objects.speed_m_s=[0.5, 1.5]",
        *SEES_ALL,
    )
    renderer = WorldRenderer(settings, cast.clips)
    columns = []
    for action in (1, 2, 3):
        plan = plan_take(settings, cast, location, 1, action, 0)
        (main,) = plan.actors
        assert main.place.moves
        energy = renderer.imager.energy(cut_snapshots(renderer.sound(plan)))
        frames = sounding_frames(main, len(energy))
        assert len(frames) >= 4
        for number in frames:
            expected = renderer.imager.grid.pixel_of(main.place.at(frame_time_s(number)))
            found = np.unravel_index(energy[number].argmax(), energy[number].shape)
            assert np.abs(np.subtract(found, expected)).max() <= 2
            columns.append(found[1])
    # The objects went somewhere, and stood in different places.
    assert len(set(columns)) >= 5


def test_an_object_is_seen_where_it_is_heard(world):
    """What it changes in the picture lies about where the camera projects its place.

    Its shadow on the floor below changes too, evenly to both sides.
    """
    settings, cast = world("store.frame_height_px=240", "objects.most_sounding=1", *SEES_ALL)
    renderer = WorldRenderer(settings, cast.clips)
    for action in range(1, 5):
        plan = plan_take(settings, cast, 1, 2, action, 0)
        view, empty = (renderer.view(of) for of in (plan, replace(plan, actors=())))
        (main,) = plan.actors
        for time_s in (0.1, 0.9):
            column, row = settings.camera.project(main.place.at(time_s))
            depth_m = main.place.at(time_s)[2]
            height_px = settings.camera.focal_px * main.height_m / depth_m
            changed = np.abs(view.frame(time_s).astype(int) - empty.frame(time_s)).max(axis=2)
            rows, columns = np.nonzero(changed > 8)
            middle = (columns.min() + columns.max()) / 2
            assert middle == pytest.approx(column, abs=0.3 * height_px)
            assert rows.min() == pytest.approx(row - height_px / 2, abs=0.15 * height_px)


def test_what_is_hidden_is_heard_as_before_and_not_in_the_picture(world):
    settings, cast = world("objects.hidden_share=1", "objects.most_sounding=2")
    renderer = WorldRenderer(settings, cast.clips)
    plan = first_with(settings, cast, "other")
    assert all(actor.hidden for actor in plan.actors if actor.role in ("main", "other"))
    assert len(plan.screens) >= 2
    nobody = [actor for actor in plan.actors if actor.seen]
    without = replace(plan, actors=tuple(nobody))
    assert np.array_equal(renderer.view(plan).frame(0.5), renderer.view(without).frame(0.5))
    shown = replace(plan, actors=tuple(replace(actor, hidden=False) for actor in plan.actors))
    assert np.array_equal(renderer.sound(plan), renderer.sound(shown))
    assert np.abs(renderer.sound(plan)).max() > 1e-3
    # Were they in the picture, all of them would stand behind a screen.
    view = renderer.view(replace(shown, actors=tuple(a for a in shown.actors if a.look)))
    n_hidden = sum(actor.role in ("main", "other") for actor in plan.actors)
    assert view.visible_shares(0.5)[:n_hidden].max() < 0.002


def test_what_is_silent_is_seen_to_move_and_not_heard(world):
    settings, cast = world("objects.silent_share=1", "store.frame_height_px=240")
    renderer = WorldRenderer(settings, cast.clips)
    plan = first_with(settings, cast, "silent")
    silent = next(actor for actor in plan.actors if actor.role == "silent")
    without = replace(plan, actors=tuple(actor for actor in plan.actors if actor is not silent))
    assert np.array_equal(renderer.sound(plan), renderer.sound(without))
    view, empty = renderer.view(alone(plan, silent)), renderer.view(replace(plan, actors=()))
    # At rest in its place it still moves its parts while it would sound.
    still = replace(silent, place=Trajectory.at_rest(silent.place.at(0.0)))
    cue = silent.cues[0]
    busy = replace(still, cues=(cue,))
    inside_s = (cue.start + cue.end) / 2 / RATE
    idle = replace(still, cues=())
    moved, rested = (renderer.view(alone(plan, of)).frame(inside_s) for of in (busy, idle))
    assert (np.abs(moved.astype(int) - rested).max(axis=2) > 10).sum() > 20
    assert (np.abs(view.frame(0.5).astype(int) - empty.frame(0.5)).max(axis=2) > 10).sum() > 50


def test_nobody_can_tell_classes_that_look_alike(world):
    settings, cast = world("objects.hidden_share=0")
    renderer = WorldRenderer(settings, cast.clips)
    plan = plan_take(settings, cast, 1, 1, 1, 0)
    main = plan.actors[0]
    assert main.label == "car_horn"
    twin = replace(main, label="engine", look=settings.look_of("engine"))
    cat = replace(main, label="cat", look=settings.look_of("cat"))
    pictures = [renderer.view(alone(plan, actor)).frame(0.4) for actor in (main, twin, cat)]
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_levels_at_the_array_are_as_planned(world):
    """At rest in the free field: the mean power while the cues sound, whatever the distance."""
    settings, cast = world(
        "objects.moving_share=0", "objects.distractor_share=1", "objects.most_sounding=2"
    )
    renderer = WorldRenderer(settings, cast.clips)
    plan = first_with(settings, cast, "other")
    assert {actor.role for actor in plan.actors} >= {"main", "other", "distractor"}
    main_db = None
    for actor in plan.actors:
        if not actor.sounds:
            continue
        samples = renderer.sound(alone(plan, actor))
        length = sum(cue.end - cue.start for cue in actor.cues)
        power = np.square(samples, dtype=float).sum(axis=0).mean() / length
        found_db = 10 * np.log10(power)
        # Microphones are a little nearer or farther than the array's middle.
        assert found_db == pytest.approx(actor.level_dbfs, abs=0.3)
        main_db = found_db if actor.role == "main" else main_db
        low, high = {
            "main": (0, 0),
            "other": settings.sounds.other_db,
            "distractor": settings.sounds.distractor_db,
        }[actor.role]
        assert low - 0.5 <= found_db - main_db <= high + 0.5


def test_an_object_is_heard_when_its_events_say(world):
    """Alone in the free field: silence before the onset, sound from then on, silence after."""
    settings, cast = world("objects.hidden_share=0")
    renderer = WorldRenderer(settings, cast.clips)
    for take in range(4):
        plan = plan_take(settings, cast, 1, 1, 2, take)
        plan = alone(plan, plan.actors[0])
        loud = np.square(renderer.sound(plan)[:, 0], dtype=float)
        times_s = np.arange(len(loud)) / RATE
        inside = np.zeros(len(loud), bool)
        for event in plan.events():
            inside |= (times_s > event.onset_s - 0.003) & (times_s < event.offset_s + 0.003)
            span = (times_s > event.onset_s + 0.005) & (times_s < event.onset_s + 0.03)
            assert loud[span].mean() > 0.05 * loud[inside].mean()
        assert loud[~inside].sum() < 1e-4 * loud.sum()


def test_a_frame_has_the_shapes_of_the_published_set(world):
    settings, cast = world("microphones=128", "store.frame_height_px=480")
    frames = list(WorldRenderer(settings, cast.clips).frames(plan_take(settings, cast, 1, 1, 1, 0)))
    assert len(frames) == 12
    for image, samples, picture in frames:
        assert (image.shape, image.dtype) == ((36, 48, 12), np.float32)
        assert (samples.shape, samples.dtype) == ((1_024, 128), np.float32)
        assert (picture.shape, picture.dtype) == ((480, 640, 3), np.uint8)
        assert np.isfinite(image).all()
        assert np.abs(samples).max() < 1
