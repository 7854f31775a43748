"""The page on which a person listens to collected clips and labels them: one file, no network."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from soundpost.device.feedback.collected_set import COLUMNS, TABLES, CollectedSet
from soundpost.device.files import write_atomically

PAGE: Final = "index.html"


def write_review_page(collected: CollectedSet) -> None:
    """Write index.html anew, from the rows of clips.csv as they are now.

    Raises InputError where it cannot be written.
    """
    template = files("soundpost.device.feedback").joinpath("review_page.html").read_text("utf-8")
    rows = collected.rows("clips")
    columns = list(dict.fromkeys([*(key for row in rows[:1] for key in row), *COLUMNS]))
    scripts = {
        "COLUMNS": _script(columns),
        "LABELS": _script(collected.labels),
        "TABLE": _script(TABLES["clips"]),
        "ROWS": _script(rows),
    }
    # In one pass: what others wrote may look like a place in the page.
    page = re.sub(r"@(COLUMNS|LABELS|TABLE|ROWS)@", lambda match: scripts[match[1]], template)
    write_atomically(collected.folder / PAGE, page.encode())


def _script(value: str | Sequence[str] | Sequence[dict[str, str]]) -> str:
    """JSON that may stand in a script: nothing in it ends the element."""
    return json.dumps(value, ensure_ascii=True).replace("<", "\\u003c")
