"""The page in a real browser: a person's clicks become the table that training reads."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from soundpost.device.feedback.collected_set import CollectedSet
from soundpost.device.feedback.example import Example
from soundpost.device.feedback.review_page import write_review_page

Make = Callable[..., tuple[Example, bytes]]


@pytest.fixture
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("chromium is missing: sudo apt-get install chromium")
    return found


def in_browser(chromium: str, folder: Path, script: str) -> str:
    """What the script puts into `result` on the page; the page itself is not changed."""
    page = (folder / "index.html").read_text(encoding="utf-8")
    end = (
        "<script>(async () => { let result; try {"
        f"{script}"
        "} catch (error) { result = 'FAULT ' + error; }"
        "const out = document.createElement('pre'); out.id = 'out'; out.textContent = "
        "JSON.stringify(result); document.body.append(out); })();</script></body>"
    )
    trial = folder / "trial.html"
    trial.write_text(page.replace("</body>", end), encoding="utf-8")
    done = subprocess.run(
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--virtual-time-budget=10000", "--mute-audio", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={folder / 'profile'}", trial.as_uri()),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    shutil.rmtree(folder / "profile", ignore_errors=True)
    (found,) = re.findall(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    result = json.loads(html.unescape(found))
    assert not str(result).startswith("FAULT"), result
    return str(result) if isinstance(result, str) else json.dumps(result)


@pytest.fixture
def collected(tmp_path: Path, make_example: Make) -> CollectedSet:
    into = CollectedSet(tmp_path / "set")
    for label in ("clap", "water drops", "clap", "clap"):
        into.add(*make_example(label))
    into.save(["clap", "dog", "water drops"])
    write_review_page(into)
    return into


def test_clicks_become_the_corrected_table(chromium: str, collected: CollectedSet) -> None:
    text = in_browser(
        chromium,
        collected.folder,
        """
        const cards = [...document.querySelectorAll("article")];
        cards[0].querySelector("button.right").click();
        const other = cards[1].querySelector("input.label");
        other.value = 'dog, "big"'; other.dispatchEvent(new Event("change"));
        cards[2].querySelector("button.reject").click();
        cards[3].querySelector("button.reject").click();
        cards[3].querySelector("button.undo").click();
        result = csvText();
        """,
    )
    before = collected.rows()
    after = list(csv.DictReader(io.StringIO(text)))
    decided = [("clap", "labelled"), ('dog, "big"', "labelled"), ("", "rejected"), ("", "")]
    assert [(row["label"], row["review"]) for row in after] == decided
    for old, new in zip(before, after, strict=True):
        assert list(old) == list(new)
        assert {**old, "label": "", "review": ""} == {**new, "label": "", "review": ""}
    # Saved in its place, it is what the next collection goes on with.
    (collected.folder / "clips.csv").write_text(text, encoding="utf-8")
    again = CollectedSet(collected.folder)
    assert again.save() == 0
    assert again.rows() == after


def test_the_keys(chromium: str, collected: CollectedSet) -> None:
    text = in_browser(
        chromium,
        collected.folder,
        """
        const press = (key) => document.activeElement.dispatchEvent(
          new KeyboardEvent("keydown", { key, bubbles: true }));
        document.querySelector("article").focus();
        press("Enter"); press("x"); press("j"); press("Enter"); press("k");
        result = csvText() + document.activeElement.className;
        """,
    )
    rows = list(csv.DictReader(io.StringIO(text.rpartition("\n")[0])))
    assert [row["review"] for row in rows] == ["labelled", "rejected", "", "labelled"]
    assert text.rpartition("\n")[2] == "open"


def test_the_sound_can_be_played_and_nothing_else_is_loaded(
    chromium: str, collected: CollectedSet
) -> None:
    found = in_browser(
        chromium,
        collected.folder,
        """
        const audio = document.querySelector("audio");
        audio.load(); audio.preload = "auto";
        await new Promise((done, fail) => {
          audio.onloadedmetadata = done; audio.onerror = () => fail(audio.error.message); });
        const names = performance.getEntriesByType("resource").map((one) => one.name);
        const options = [...document.querySelectorAll("#labels option")].map((one) => one.value);
        result = [audio.duration, names.filter((name) => !name.startsWith("file:")), options,
          document.getElementById("count").textContent];
        """,
    )
    duration_s, elsewhere, options, count = json.loads(found)
    assert duration_s == pytest.approx(0.5, abs=0.01)
    assert elsewhere == []
    assert options == ["clap", "dog", "water drops"]
    assert count == "4 clips: 0 labelled, 0 rejected, 4 to do"


def test_what_others_wrote_is_text_and_no_program(
    chromium: str, tmp_path: Path, make_example: Make
) -> None:
    """A label from a sensor's model, or a column of a person's table, with markup in it."""
    evil = "<img src=x onerror=document.title='bad'>"
    closing = "</script><script>document.title='bad';</script>"
    into = CollectedSet(tmp_path / "set")
    for label in (evil.replace("/", "|"), "@ROWS@", "a'\"b"):
        into.add(*make_example(label))
    into.save([closing, "@ROWS@"])
    write_review_page(into)
    found = in_browser(
        chromium,
        into.folder,
        "await new Promise((done) => setTimeout(done, 200));"
        "result = [document.title, document.images.length, ROWS.map((row) => row.suggested)];",
    )
    title, n_images, labels = json.loads(found)
    assert (title, n_images) == ("Sounds to label", 0)
    assert labels == [evil.replace("/", "|"), "@ROWS@", "a'\"b"]


def test_labels_of_a_person_are_shown(chromium: str, collected: CollectedSet) -> None:
    rows = collected.rows()
    path = collected.folder / "clips.csv"
    text = path.read_text(encoding="utf-8").replace(
        f"{rows[0]['filename']},,", f"{rows[0]['filename']},siren,"
    )
    path.write_text(text, encoding="utf-8")
    write_review_page(CollectedSet(collected.folder))
    found = in_browser(
        chromium,
        collected.folder,
        """
        const open = document.querySelectorAll("article").length;
        document.getElementById("show").value = "all";
        document.getElementById("show").dispatchEvent(new Event("change"));
        const first = document.querySelector("article");
        result = [open, document.querySelectorAll("article").length, first.className,
          first.querySelector("input.label").value];
        """,
    )
    assert json.loads(found) == [3, 4, "labelled", "siren"]
