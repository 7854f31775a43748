"""Pictures of a detector's run: confusion, PSD-ROC, the trade of the threshold, one recording.

Colours are those of Okabe and Ito, which people tell apart whatever their colour vision; where two
things share a place they differ in form, too.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MultipleLocator
from numpy.typing import NDArray

from soundpost.device.detection import ClassSettings
from soundpost.device.features import FrontEnd
from soundpost.device.files import write_atomically
from soundpost.train.sed.decisions import Detected, FrameGrid
from soundpost.train.sed.metrics import PsdsFigures
from soundpost.train.sed.scenes import Event, Scene
from soundpost.train.sed.thresholds import TradePoint

FloatArray = NDArray[np.float32]

BLUE, ORANGE, BLACK, GREY = "#0072B2", "#D55E00", "#000000", "#8C8C8C"
# Natural logarithm of a magnitude to decibels.
_DB = 20 / math.log(10)
_FREQUENCIES_HZ = (125, 250, 500, 1000, 2000, 4000, 8000, 16_000)
# What a picture of a recording shows at most; the highest scores first.
_MAX_ROWS = 8
_MAX_TICKS = 15
# A label that neither sounds nor is found has a row where its score comes this close to the onset
# threshold, and to one.
_NEAR_SHARE, _NEAR_SCORE = 0.5, 0.2


def save(figure: Figure, path: Path) -> None:
    """Write a PNG; without a date and a version, the same run gives the same bytes."""
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, metadata={"Software": None})
    plt.close(figure)
    write_atomically(path, picture.getvalue())


def _readable(label: str) -> str:
    return label.replace("_", " ")


# --------------------------------------------------------------------------------- confusion


def draw_segment_confusion(counts: NDArray[np.int64], labels: Sequence[str], path: Path) -> None:
    """Confusion over seconds; see `segment_confusion`. Rows are shaded by their shares."""
    names = [*map(_readable, labels), "nothing"]
    n = len(names)
    figure, axes = plt.subplots(figsize=(4.2 + 0.5 * n, 3.2 + 0.5 * n), layout="constrained")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    for row, column in zip(*np.nonzero(counts), strict=True):
        axes.text(
            column,
            row,
            f"{counts[row, column]:d}",
            ha="center",
            va="center",
            fontsize=9,
            color="white" if shares[row, column] > 0.55 else "black",
        )
    axes.set_xticks(range(n), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(n), names)
    axes.set(xlabel="detected", ylabel="in the reference")
    axes.set_xticks(np.arange(n) - 0.5, minor=True)
    axes.set_yticks(np.arange(n) - 0.5, minor=True)
    axes.grid(which="minor", color="#D8D8D8", lw=0.5)
    axes.tick_params(which="minor", length=0)
    # "Nothing" is no label: it stands apart.
    axes.axhline(n - 1.5, color=BLACK, lw=1)
    axes.axvline(n - 1.5, color=BLACK, lw=1)
    axes.set_title(
        textwrap.fill(
            "Seconds of sound: diagonal, detected; beside it, missed while the other was detected "
            "falsely; last column, missed alone; last row, detected out of nothing",
            width=34 + 6 * n,
        ),
        fontsize=9,
    )
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the row (%)")
    save(figure, path)


# ----------------------------------------------------------------------------------- PSD-ROC


def draw_psd_roc(figures: Sequence[PsdsFigures], path: Path) -> None:
    """Share of events detected over the rate of effective false positives, one panel a scenario."""
    figure, panels = plt.subplots(
        1, len(figures), figsize=(5.2 * len(figures), 4.4), layout="constrained", sharey=True
    )
    for axes, psds in zip(np.atleast_1d(panels), figures, strict=True):
        end = psds.scenario.max_rate_per_hour
        lowest = sorted(psds.by_label, key=lambda label: psds.by_label[label])[:2]
        for label, (rate, hits) in psds.curves.items():
            x, y = _staircase(rate, hits, end)
            axes.step(
                x,
                y,
                where="post",
                color=ORANGE if label in lowest else GREY,
                lw=1.4 if label in lowest else 0.8,
                ls={0: "-", 1: "--"}[lowest.index(label)] if label in lowest else "-",
                alpha=1.0 if label in lowest else 0.7,
            )
        x, y = _staircase(psds.rate_per_hour, psds.hit_rate, end)
        axes.step(x, y, where="post", color=BLUE, lw=2.5)
        axes.fill_between(x, y, step="post", color=BLUE, alpha=0.12)
        handles = [
            Line2D([], [], color=BLUE, lw=2.5, label=f"all labels: {psds.score:.3f}"),
            *(
                Line2D(
                    [],
                    [],
                    color=ORANGE,
                    lw=1.4,
                    ls=("-", "--")[place],
                    label=f"{_readable(label)}: {psds.by_label[label]:.3f}",
                )
                for place, label in enumerate(lowest)
            ),
        ]
        if len(psds.by_label) > len(lowest):
            handles.append(Line2D([], [], color=GREY, lw=0.8, label="other labels"))
        # Low curves leave room above, high ones below.
        place = "upper left" if len(y) and y[-1] < 0.35 else "lower right"
        axes.legend(handles=handles, title="area", loc=place, fontsize=8, title_fontsize=8)
        overlap = f"overlap of at least {100 * psds.scenario.detection:.0f} %"
        if psds.scenario.cross_trigger is not None:
            overlap += f", cross triggers at weight {psds.scenario.cross_weight:g}"
        axes.set_title(f"{psds.scenario.name}: {psds.score:.3f}\n{overlap}", fontsize=10)
        axes.set(
            xlim=(0, end),
            ylim=(0, 1.02),
            xlabel="effective false positives per hour",
        )
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f}"))
        axes.grid(alpha=0.3)
    np.atleast_1d(panels)[0].set_ylabel("events detected (%)")
    weights = {psds.scenario.spread_weight for psds in figures}
    figure.supxlabel(
        f"all labels: mean less {'/'.join(f'{w:g}' for w in sorted(weights))} standard deviation "
        "over the labels",
        fontsize=8,
    )
    save(figure, path)


def _staircase(
    rate: NDArray[Any], hits: NDArray[Any], end: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The curve from 0 to the end of the axis."""
    last = hits[-1] if len(hits) else 0.0
    return np.concatenate([[0.0], rate, [end]]), np.concatenate([[0.0], hits, [last]])


# ------------------------------------------------------------------------------ the threshold


def draw_trade_off(points: Sequence[TradePoint], path: Path) -> None:
    """Event F1, false alarms and onset delay over one onset threshold for all labels."""
    together = [point for point in points if point.label is None]
    onsets = [point.onset for point in together]
    # A model that hears whole recordings at once has no delay.
    delayed = any(math.isfinite(point.onset_delay_median_s) for point in together)
    n = 3 if delayed else 2
    figure, panels = plt.subplots(n, 1, figsize=(6.4, 2.6 * n), layout="constrained", sharex=True)
    first, second = panels[:2]
    labels = sorted({point.label for point in points if point.label is not None})
    for label in labels:
        of = [point for point in points if point.label == label]
        x = [point.onset for point in of]
        first.plot(x, [100 * point.event_f1 for point in of], color=GREY, lw=0.8, alpha=0.7)
        second.plot(x, [point.false_alarms_per_hour for point in of], color=GREY, lw=0.8, alpha=0.7)
    first.plot(onsets, [100 * p.event_f1 for p in together], "o-", ms=4, color=BLUE, lw=2)
    first.set(ylabel="event F1 (%)", ylim=(0, 102))
    second.plot(onsets, [p.false_alarms_per_hour for p in together], "o-", ms=4, color=BLUE, lw=2)
    # Zero has its place, thousands too.
    second.set_yscale("symlog", linthresh=1)
    second.set_ylim(0, max(1.0, 1.3 * max(point.false_alarms_per_hour for point in points)))
    second.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    second.set_ylabel("false alarms per hour")
    if delayed:
        _draw_delays(panels[2], together)
    first.legend(
        handles=[
            Line2D([], [], color=BLUE, marker="o", ms=4, lw=2, label="all labels (F1: mean)"),
            Line2D([], [], color=GREY, lw=0.8, label="each label"),
        ],
        fontsize=8,
    )
    panels[-1].set(xlabel="onset threshold of all labels")
    best = max(together, key=lambda point: point.event_f1)
    for axes in panels:
        axes.axvline(best.onset, color=BLACK, lw=0.8, ls="-.")
        axes.grid(alpha=0.3)
    first.set_title(
        f"Highest mean F1 {100 * best.event_f1:.1f} % at {best.onset:g} (dash-dotted)", fontsize=10
    )
    save(figure, path)


def _draw_delays(third: Axes, together: Sequence[TradePoint]) -> None:
    onsets = [point.onset for point in together]
    third.plot(
        onsets,
        [1000 * p.onset_delay_median_s for p in together],
        "o-",
        ms=4,
        color=BLUE,
        lw=2,
        label="median",
    )
    third.plot(
        onsets,
        [1000 * p.onset_delay_p90_s for p in together],
        "s--",
        ms=4,
        color=ORANGE,
        lw=1.5,
        label="90 % are faster",
    )
    third.set(ylabel="onset to start message (ms)")
    third.legend(fontsize=8)
    # How many events the delay is of changes with the threshold: say it, or it misleads.
    heard = third.twinx()
    shares = [100 * p.n_heard / max(p.n_heard + p.n_missed, 1) for p in together]
    heard.plot(onsets, shares, ":", color=BLACK, lw=1)
    heard.set(ylabel="events heard (%, dotted)", ylim=(0, 102))


# ------------------------------------------------------------------------------- a recording


@dataclass(frozen=True)
class PicturedRecording:
    """What a picture of a recording shows.

    log_mel : (n_frames, n_mels) of front_end
    scores : (n_frames, n_labels) of the same frames, as they were decided on
    """

    scene: Scene
    log_mel: FloatArray
    front_end: FrontEnd
    scores: FloatArray
    classes: tuple[ClassSettings, ...]
    found: tuple[Event, ...]


def draw_recording(shown: PicturedRecording, path: Path) -> None:
    """Spectrogram, and for each label that matters the reference, the scores and what was found."""
    edges_s = FrameGrid.of(shown.front_end).edges_s(len(shown.log_mel))
    rows = _rows(shown)
    figure, panels = plt.subplots(
        1 + len(rows),
        1,
        figsize=(10, 3.3 + 0.95 * len(rows)),
        height_ratios=[2.6] + [0.95] * len(rows),
        sharex=True,
        layout="constrained",
        squeeze=False,
    )
    axes = panels[0, 0]
    bands = np.arange(shown.log_mel.shape[1] + 1) - 0.5
    image = axes.pcolormesh(edges_s, bands, _DB * shown.log_mel.T, cmap="magma", rasterized=True)
    centres = band_centres_hz(shown.front_end)
    ticks = [hz for hz in _FREQUENCIES_HZ if centres[0] <= hz <= centres[-1]]
    axes.set_yticks(
        np.interp(ticks, centres, np.arange(len(centres))),
        [f"{hz // 1000} kHz" if hz >= 1000 else f"{hz} Hz" for hz in ticks],
    )
    axes.set_ylabel("frequency")
    silent = "" if rows else ": no reference event, nothing detected"
    axes.set_title(shown.scene.path.name + silent, fontsize=10, loc="left")
    bar = axes.inset_axes((1.01, 0.0, 0.015, 1.0))
    figure.colorbar(image, cax=bar, label="mel magnitude (dB)")
    middles_s = (edges_s[:-1] + edges_s[1:]) / 2
    for axes, index in zip(panels[1:, 0], rows, strict=True):
        settings = shown.classes[index]
        axes.plot(middles_s, shown.scores[:, index], color=BLACK, lw=1)
        axes.axhline(settings.onset, color=GREY, lw=1, ls="--")
        axes.axhline(settings.release, color=GREY, lw=1, ls=":")
        for event in shown.scene.events:
            if event.label == settings.label:
                axes.axvspan(event.onset_s, event.offset_s, color=BLUE, alpha=0.18, lw=0)
                axes.plot(
                    [event.onset_s, event.offset_s],
                    [1.17] * 2,
                    color=BLUE,
                    lw=5,
                    solid_capstyle="butt",
                )
        for event in shown.found:
            if event.label == settings.label:
                axes.plot(
                    [event.onset_s, event.offset_s],
                    [-0.17] * 2,
                    color=ORANGE,
                    lw=5,
                    solid_capstyle="butt",
                )
                if isinstance(event, Detected) and math.isfinite(event.decided_s):
                    axes.plot(event.decided_s, -0.17, "|", color=BLACK, ms=9, mew=1.6)
        axes.set(ylim=(-0.32, 1.32), yticks=(0, 1))
        axes.set_ylabel(
            textwrap.fill(_readable(settings.label), 12), rotation=0, ha="right", va="center"
        )
        axes.grid(axis="x", alpha=0.3)
    bottom = panels[-1, 0]
    if shown.scene.seconds <= 2 * _MAX_TICKS:
        bottom.xaxis.set_major_locator(MultipleLocator(1 if shown.scene.seconds <= 12 else 2))
    bottom.set(xlim=(0, shown.scene.seconds), xlabel="time (s)")
    figure.legend(
        handles=[
            Patch(color=BLUE, label="reference"),
            Patch(color=ORANGE, label="detected"),
            Line2D([], [], color=BLACK, marker="|", ms=9, mew=1.6, ls="", label="start message"),
            Line2D([], [], color=BLACK, lw=1, label="score"),
            Line2D([], [], color=GREY, lw=1, ls="--", label="onset threshold"),
            Line2D([], [], color=GREY, lw=1, ls=":", label="release threshold"),
        ],
        loc="outside upper right",
        ncols=6,
        fontsize=9,
        frameon=False,
    )
    save(figure, path)


def _rows(shown: PicturedRecording) -> list[int]:
    """Labels that sound or are found, then those whose score comes near; in their order."""
    there = {event.label for event in (*shown.scene.events, *shown.found)}
    highest = shown.scores.max(axis=0)
    order = sorted(
        range(len(shown.classes)),
        key=lambda index: (shown.classes[index].label not in there, -highest[index]),
    )
    kept = [
        index
        for index in order
        if shown.classes[index].label in there
        or highest[index] >= max(_NEAR_SHARE * shown.classes[index].onset, _NEAR_SCORE)
    ]
    return sorted(kept[:_MAX_ROWS])


def band_centres_hz(front_end: FrontEnd) -> NDArray[np.float64]:
    """Middle frequency of each mel band, (n_mels,), on the HTK mel scale."""
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (front_end.fmin_hz, front_end.fmax_hz))
    mel = np.linspace(low, high, front_end.n_mels + 2)[1:-1]
    centres: NDArray[np.float64] = 700 * (10 ** (mel / 2595) - 1)
    return centres
