from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest


def _beside(name):
    """A module of this folder that holds no tests."""
    specification = spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    made = module_from_spec(specification)
    specification.loader.exec_module(made)
    return made


_layouts = _beside("layouts")
_world_clips = _beside("world_clips")


@pytest.fixture(scope="session")
def layouts():
    """layouts.py: tiny examples of every published layout."""
    return _layouts


@pytest.fixture(scope="session")
def world_clips(tmp_path_factory):
    """A clips.csv folder of five labels, two authors with a clip each per label and fold."""
    folder = tmp_path_factory.mktemp("world_clips")
    _world_clips.write_world_clips(folder)
    return folder


@pytest.fixture(scope="session")
def world_toml(tmp_path_factory):
    """Settings of a tiny world: one location, two subjects, four actions, two takes of 1 s."""
    path = tmp_path_factory.mktemp("world_settings") / "tiny.toml"
    path.write_text(_world_clips.SETTINGS)
    return path


@pytest.fixture(scope="session")
def world(world_clips, world_toml):
    """Settings with changes, and the cast that belongs to them."""
    from soundpost.train.clips import read_clip_set
    from soundpost.train.datasets.world_cast import gather
    from soundpost.train.datasets.world_settings import load_world_settings

    def made(*changes):
        settings = load_world_settings(world_toml, changes)
        return settings, gather(read_clip_set(world_clips), settings, quiet=True)

    return made
