"""A judged run to its report: what is pictured, and what is said of how it was made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from soundpost.train.sed.decisions import FrameGrid
from soundpost.train.sed.feature_cache import FeatureCache
from soundpost.train.sed.judging import Judged
from soundpost.train.sed.metrics import SedFigures
from soundpost.train.sed.pictures import PicturedRecording
from soundpost.train.sed.report import SedReport, write_report
from soundpost.train.sed.thresholds import trade_off

_PICTURED = 4


def pictured(judged: Judged, features: FeatureCache) -> tuple[PicturedRecording, ...]:
    """The recordings with most labels at first: what one label does to another shows there."""
    order = sorted(range(len(judged.scenes)), key=lambda i: (-len(judged.scenes[i].tags), i))[
        :_PICTURED
    ]
    shown = []
    for index in sorted(order):
        scene = judged.scenes[index]
        shown.append(
            PicturedRecording(
                scene,
                features.log_mel([index])[0].numpy()[: len(judged.scores[scene.path])],
                features.front_end,
                judged.scores[scene.path],
                judged.classes,
                tuple(judged.found[scene.path]),
            )
        )
    return tuple(shown)


def write_run_report(
    run: Path,
    title: str,
    source: str,
    made: tuple[str, ...],
    judged: Judged,
    features: FeatureCache,
    validation: Judged,
    *,
    published: Mapping[str, float] | None = None,
    published_on: str = "",
    chosen: tuple[SedFigures, str] | None = None,
    look_ahead_frames: int = 0,
    chunk_frames: int | None = None,
) -> None:
    """Write report.md, figures.json and the pictures.

    Parameters
    ----------
    judged : the test recordings, or the validation ones where there are no others
    features : of the recordings of `judged`, in their order
    validation : gives the trade of the threshold
    chosen : figures with other thresholds, and what these are
    chunk_frames : that the sensor hears at a time; None for a model that hears whole recordings,
        whose delays mean nothing
    """
    trade = trade_off(
        validation.scenes,
        validation.scores,
        FrameGrid.of(features.front_end),
        validation.classes,
        look_ahead_frames=look_ahead_frames,
        chunk_frames=chunk_frames or 1,
    )
    if chunk_frames is None:
        trade = tuple(
            replace(point, onset_delay_median_s=math.nan, onset_delay_p90_s=math.nan)
            for point in trade
        )
    report = SedReport(
        title=title,
        source=source,
        made=made,
        published=published or {},
        published_on=published_on,
        figures=judged.figures,
        classes=judged.classes,
        confusion=judged.confusion(),
        trade=trade,
        recordings=pictured(judged, features),
        chosen=chosen,
    )
    write_report(run, report)
