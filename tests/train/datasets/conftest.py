from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

_specification = spec_from_file_location("layouts", Path(__file__).with_name("layouts.py"))
_made = module_from_spec(_specification)
_specification.loader.exec_module(_made)


@pytest.fixture(scope="session")
def layouts():
    """layouts.py: tiny examples of every published layout."""
    return _made
