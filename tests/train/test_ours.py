"""Files of ours by name, and files of others by path."""

import pytest

from soundpost.device.errors import UsageError
from soundpost.train.ours import path_of_ours

PACKAGE = "soundpost.train.recipes"


def test_a_folder_of_the_same_name_is_no_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    found = path_of_ours("pictures", PACKAGE, "recipe")
    assert found.is_file()
    assert found.name == "pictures.toml"


def test_a_file_is_taken_by_its_path_whatever_it_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").write_text("")
    assert path_of_ours("pictures", PACKAGE, "recipe").read_text() == ""
    # Not there: who reads it says so.
    assert path_of_ours("mine.toml", PACKAGE, "recipe").name == "mine.toml"
    with pytest.raises(UsageError, match=r"no recipe nonesuch; ours: .*starter"):
        path_of_ours("nonesuch", PACKAGE, "recipe")
