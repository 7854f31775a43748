from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

_specification = spec_from_file_location("event_clips", Path(__file__).with_name("event_clips.py"))
_made = module_from_spec(_specification)
_specification.loader.exec_module(_made)


@pytest.fixture(scope="session")
def event_clips(tmp_path_factory):
    """A clips.csv folder of four labels, four clips per label and fold."""
    folder = tmp_path_factory.mktemp("event_clips")
    _made.write_event_clips(folder)
    return folder


@pytest.fixture(scope="session")
def soundscape_settings(tmp_path_factory):
    path = tmp_path_factory.mktemp("settings") / "test.toml"
    path.write_text(_made.SETTINGS)
    return path
