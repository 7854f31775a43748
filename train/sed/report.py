"""report.md of a run of sound event detection: ours beside the published, labels, pictures."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soundpost.device.detection import ClassSettings
from soundpost.device.errors import ConfigError
from soundpost.device.files import write_atomically
from soundpost.train.sed.metrics import SedFigures
from soundpost.train.sed.pictures import (
    PicturedRecording,
    draw_psd_roc,
    draw_recording,
    draw_segment_confusion,
    draw_trade_off,
)
from soundpost.train.sed.thresholds import TradePoint

FIGURES = "figures.json"
# Name in figures.json and in a recipe's [published]: what it is, and how it is written.
HEADLINES = {
    "event_f1": ("event F1 (200 ms, 20 %)", "share"),
    "segment_f1": ("segment F1 (1 s)", "share"),
    "clip_f1": ("clip F1 (macro)", "share"),
    "map": ("mAP of clips", "number"),
    "mauc": ("mAUC of clips", "number"),
    "psds_1": ("PSDS 1", "number"),
    "psds_2": ("PSDS 2", "number"),
    "false_alarms_per_hour": ("false alarms per hour", "rate"),
    "onset_delay_median_s": ("onset delay, median", "time"),
    "onset_delay_p90_s": ("onset delay, 90 % are faster", "time"),
}


@dataclass(frozen=True)
class SedReport:
    """What a run's report says.

    title, source : of the recipe
    made : lines on what was trained on what, with which code and seed
    published : the recipe's figures, shares in 0 to 1, by the names of HEADLINES
    published_on : what they were measured on, if that is not what ours are
    classes : thresholds that `figures` were made with
    confusion : of `segment_confusion`
    trade : of `trade_off` on validation recordings; may be empty
    recordings : to be pictured
    chosen : the same model's figures with other thresholds, and what these are
    """

    title: str
    source: str
    made: tuple[str, ...]
    published: Mapping[str, float]
    figures: SedFigures
    classes: tuple[ClassSettings, ...]
    confusion: NDArray[np.int64]
    published_on: str = ""
    trade: tuple[TradePoint, ...] = ()
    recordings: tuple[PicturedRecording, ...] = ()
    chosen: tuple[SedFigures, str] | None = None


def check_published(published: Mapping[str, float], where: str) -> None:
    """ConfigError for a published figure under a name that the report does not know."""
    for name in published:
        if name not in HEADLINES:
            near = difflib.get_close_matches(name, HEADLINES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(HEADLINES)}"
            raise ConfigError(f"{where}: unknown figure {name} in [published]; {hint}")


def written(value: float, kind: str) -> str:
    """A figure as people read it; a dash where there is none."""
    if not math.isfinite(value):
        return "–"
    if kind == "share":
        return f"{100 * value:.1f} %"
    if kind == "time":
        return f"{1000 * value:.0f} ms"
    return f"{value:.1f}" if kind == "rate" else f"{value:.3f}"


def write_report(folder: Path, report: SedReport) -> None:
    """report.md, figures.json and the pictures, in an existing folder.

    Raises ConfigError for a published figure of an unknown name, InputError where the disk is full.
    """
    check_published(report.published, report.title)
    figures, labels = report.figures, report.figures.events.labels
    pictures = ["psd_roc.png", "confusion.png"]
    draw_psd_roc([figures.psds_1, figures.psds_2], folder / "psd_roc.png")
    draw_segment_confusion(report.confusion, labels, folder / "confusion.png")
    if report.trade:
        draw_trade_off(report.trade, folder / "trade_off.png")
        pictures.append("trade_off.png")
    for number, shown in enumerate(report.recordings, 1):
        draw_recording(shown, folder / f"recording_{number:02d}.png")
    events = figures.events
    lines = [
        f"# {report.title}",
        "",
        report.source,
        "",
        *report.made,
        "",
        f"Judged on {events.n_recordings} recordings, {events.n_seconds / 60:.1f} minutes, "
        f"{sum(events.n_reference.values())} events. Means are over the "
        f"{sum(n > 0 for n in events.n_reference.values())} labels that occur.",
        "",
        *_headline_table(report),
        "",
        "An event counts where its onset lies within 200 ms and its offset within 200 ms or a "
        "fifth of its length. A false alarm is a detection of which less than a tenth lies on an "
        "event of its label. The delay ends when the start was known.",
        "",
        "## Labels",
        "",
        *_label_table(report),
        "",
        "## False positives against detected events",
        "",
        "![PSD-ROC](psd_roc.png)",
        "",
        "## What is taken for what",
        "",
        "Counted in seconds, for labels may sound at once. On the diagonal: the label sounds and "
        "is detected. Beside it: it is missed while the other, which does not sound, is detected. "
        "Nothing: missed without a false detection, or detected without a missed one. A second "
        "counts in every cell that is true of it.",
        "",
        "![confusion](confusion.png)",
        "",
    ]
    if report.trade:
        lines += [
            "## The threshold",
            "",
            "On validation recordings, one onset threshold for all labels; the run itself uses "
            "those of the table, and a detection recipe filters what it decided once more.",
            "",
            "![trade-off](trade_off.png)",
            "",
        ]
    if report.recordings:
        lines += ["## Recordings", ""]
    for number, shown in enumerate(report.recordings, 1):
        lines += [f"![{shown.scene.path.name}](recording_{number:02d}.png)", ""]
    table = figures.to_dict()
    if report.chosen is not None:
        of, how = report.chosen
        table["chosen"] = {"how": how, "all": of.to_dict()["all"]}
    write_atomically(folder / FIGURES, (json.dumps(table, indent=1) + "\n").encode())
    write_atomically(folder / "report.md", "\n".join(lines).encode())


def figure_lines(figures: SedFigures) -> list[str]:
    """Labels for a terminal, the worst first."""
    by_label = figures.by_label()
    lines = [
        f"{'label':<20} {'events':>6} {'found':>6} {'precision':>9} {'recall':>7} {'event F1':>8} "
        f"{'false/h':>7} {'delay':>8}"
    ]
    for label in _worst_first(by_label):
        of = by_label[label]
        shares = [written(of[name], "share") for name in ("precision", "recall", "event_f1")]
        lines.append(
            f"{label:<20} {of['n_reference']:>6} {of['n_found']:>6} {shares[0]:>9} {shares[1]:>7} "
            f"{shares[2]:>8} {written(of['false_alarms_per_hour'], 'rate'):>7} "
            f"{written(of['onset_delay_median_s'], 'time'):>8}"
        )
    return lines


def _worst_first(by_label: Mapping[str, Mapping[str, float]]) -> list[str]:
    """That is where work is; labels that do not occur last."""
    return sorted(
        by_label, key=lambda k: (math.isnan(by_label[k]["event_f1"]), by_label[k]["event_f1"], k)
    )


def _headline_table(report: SedReport) -> list[str]:
    ours = report.figures.headline()
    on = f" ({report.published_on})" if report.published_on else ""
    columns = ["here", *([report.chosen[1]] if report.chosen else []), f"published{on}"]
    lines = [f"| figure | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for name, (title, kind) in HEADLINES.items():
        values = [ours[name]]
        values += [report.chosen[0].headline()[name]] if report.chosen else []
        values += [report.published.get(name, math.nan)]
        lines.append(f"| {title} | {' | '.join(written(value, kind) for value in values)} |")
    return lines


def _label_table(report: SedReport) -> list[str]:
    settings = {known.label: known for known in report.classes}
    lines = [
        "| label | events | detected | precision | recall | event F1 | segment F1 | clip F1 "
        "| PSDS 1 | PSDS 2 | false alarms per hour | median delay | onset / release |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    by_label = report.figures.by_label()
    for label in _worst_first(by_label):
        of = by_label[label]
        shares = ("precision", "recall", "event_f1", "segment_f1", "clip_f1")
        known = settings[label]
        lines.append(
            f"| {label} | {of['n_reference']} | {of['n_found']} | "
            + " | ".join(written(of[name], "share") for name in shares)
            + f" | {written(of['psds_1'], 'number')} | {written(of['psds_2'], 'number')}"
            f" | {written(of['false_alarms_per_hour'], 'rate')}"
            f" | {written(of['onset_delay_median_s'], 'time')}"
            f" | {known.onset:.2f} / {known.release:.2f} |"
        )
    return lines


@dataclass(frozen=True)
class LadderStep:
    """One recipe of a series, trained once or with several seeds.

    headlines : "all" of each run's figures.json
    """

    title: str
    headlines: tuple[Mapping[str, float | None], ...]
    published: Mapping[str, float]


def ladder_table(
    steps: Sequence[LadderStep], names: Sequence[str] = ("event_f1", "segment_f1", "clip_f1")
) -> list[str]:
    """Markdown lines: mean ± standard deviation over the seeds, and the published figure beside it.

    The deviation is that of a sample (n - 1); a single run has none.
    """
    lines = [
        "| system | seeds | "
        + " | ".join(f"{HEADLINES[name][0]} | published" for name in names)
        + " |",
        "|---|---|" + "---|---|" * len(names),
    ]
    for step in steps:
        cells = []
        for name in names:
            kind = HEADLINES[name][1]
            values = [value for of in step.headlines if (value := of.get(name)) is not None]
            mean = written(float(np.mean(values)) if values else math.nan, kind)
            if len(values) > 1:
                mean += f" ± {written(float(np.std(values, ddof=1)), kind)}"
            cells += [mean, written(step.published.get(name, math.nan), kind)]
        lines.append(f"| {step.title} | {len(step.headlines)} | " + " | ".join(cells) + " |")
    return lines
