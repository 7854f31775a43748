"""Model card: what the model is, how well it does, what conversion cost, whose sound it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from soundpost.device.bundle import Manifest, TrainingData
from soundpost.export.gates import RuntimeAgreement
from soundpost.export.parity import INT8_TFLITE, TORCH, Parity, ParityBounds
from soundpost.export.thresholds import ThresholdRule
from soundpost.train.clips import Clip
from soundpost.train.metrics import ClipFigures


@dataclass(frozen=True)
class HeardRow:
    """One label at its thresholds, on clips that chose nothing.

    n_clips, heard : clips of the label, and those in which it was heard
    n_others, false : clips of anything else, and those in which it was heard wrongly
    """

    n_clips: int
    heard: int
    n_others: int
    false: int


@dataclass(frozen=True)
class CardFacts:
    """Everything that the card states and the manifest does not."""

    parity: Parity
    bounds: ParityBounds
    rule: ThresholdRule
    figures: dict[str, tuple[ClipFigures, ClipFigures]]
    heard: dict[str, HeardRow]
    heard_on: str
    runtimes: RuntimeAgreement | None
    operators: Counter[tuple[str, int]]
    n_representative: int
    model_bytes: int
    provenance: tuple[tuple[str, str], ...]
    notes: str


def training_data(clips: Sequence[Clip], name: str) -> tuple[TrainingData, ...]:
    """What the model was trained on, with its licences counted and its credits in full."""
    licences = Counter(clip.licence or "not stated" for clip in clips)
    credits = sorted(
        {
            f"{clip.attribution} ({clip.licence or 'licence not stated'})"
            for clip in clips
            if clip.attribution
        }
    )
    return (TrainingData(name, len(clips), dict(sorted(licences.items())), tuple(credits)),)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [*lines, ""]


def render_card(manifest: Manifest, facts: CardFacts) -> str:
    """Markdown; the same bytes for the same facts."""
    front_end, parity = manifest.front_end, facts.parity
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        f"{len(manifest.labels)} sound labels, one window of "
        f"{manifest.window_samples / front_end.sample_rate_hz:.3f} s every "
        f"{manifest.hop_samples / front_end.sample_rate_hz:.3f} s, full int8, "
        f"{facts.model_bytes:,} bytes. Made {manifest.created}.",
        "",
        f"Licence of the weights: {manifest.licence or 'not stated by who exported them'}.",
        "",
    ]
    if facts.notes:
        lines += [facts.notes.strip(), ""]
    lines += ["## Where it comes from", ""]
    lines += _table(("what", "value"), facts.provenance)
    lines += ["## Figures", "", "Recorded clips; one clip is the mean of its windows.", ""]
    rows = []
    for name, (before, after) in facts.figures.items():
        for engine, figures in (("float (torch)", before), ("int8", after)):
            rows.append(
                (
                    name,
                    str(figures.n_clips),
                    engine,
                    _percent(figures.top1),
                    _percent(figures.top5),
                    f"{figures.mean_average_precision:.3f}",
                )
            )
    lines += _table(("clips", "number", "model", "top-1", "top-5", "mAP"), rows)
    lines += [
        "## Parity",
        "",
        f"{parity.n_windows} held-out windows through every form of the model; TFLite by "
        f"{parity.runtime}. Δp is the difference of a label's probability from torch's.",
        "",
    ]
    rows = [
        (
            row.engine,
            f"{row.max_difference:.2g}",
            f"{row.mean_difference:.2g}",
            f"{row.top1_agreement:.4f}",
            _percent(row.figures.top1),
            f"{row.figures.mean_average_precision:.3f}",
        )
        for row in parity.engines
    ]
    lines += _table(
        ("form", "max Δp", "mean Δp", "top-1 agreement of windows", "clip top-1", "mAP"), rows
    )
    bounds = facts.bounds
    lines += [
        f"Bounds that the export holds: agreement ≥ {bounds.top1_agreement:g}, clip top-1 down by "
        f"≤ {100 * bounds.accuracy_drop:g} points, average precision of a label with "
        f"≥ {bounds.class_clips} clips down by ≤ {bounds.class_drop:g}.",
        "",
        f"Operators: {', '.join(f'{n} {k} v{v}' for (k, v), n in sorted(facts.operators.items()))}."
        f" Ranges from {facts.n_representative} training windows.",
        "",
    ]
    if facts.runtimes is None:
        lines += ["Only one TFLite runtime was installed: the second was not compared.", ""]
    else:
        r = facts.runtimes
        lines += [
            f"{r.runtimes[0]} and {r.runtimes[1]} differ by {r.mean_quanta:.2f} int8 steps on "
            f"average and {r.max_quanta:.0f} at most (Δp {r.mean_score:.2g} and "
            f"{r.max_score:.2g}); best label equal in {r.top1_agreement:.4f} of the windows.",
            "",
        ]
    lines += _label_section(manifest, facts)
    lines += _data_section(manifest)
    return "\n".join(lines).rstrip() + "\n"


def _label_section(manifest: Manifest, facts: CardFacts) -> list[str]:
    before = facts.parity.of(TORCH).average_precision
    after = facts.parity.of(INT8_TFLITE).average_precision
    rows = []
    for settings in manifest.classes:
        row = facts.heard[settings.label]
        known = settings.label in before
        rows.append(
            (
                settings.label,
                f"{settings.onset:.3f}",
                f"{settings.release:.3f}",
                f"{before[settings.label]:.3f}" if known else "",
                f"{after[settings.label]:.3f}" if known else "",
                f"{row.heard} of {row.n_clips}",
                f"{row.false} of {row.n_others}",
            )
        )
    return [
        "## Labels and thresholds",
        "",
        "Chosen on int8 scores of validation clips (rule: soundpost.export.thresholds; at most "
        f"{_percent(facts.rule.max_false_share)} of other clips heard). AP is average precision "
        f"over all held-out clips, synthesised alarms among them. Heard and false: "
        f"{facts.heard_on}, before any cadence check.",
        "",
        *_table(("label", "onset", "release", "AP float", "AP int8", "heard", "false"), rows),
    ]


def _data_section(manifest: Manifest) -> list[str]:
    lines = ["## Training data", ""]
    for data in manifest.training_data:
        lines += [f"{data.name}: {data.n_clips} clips.", ""]
        lines += _table(
            ("licence", "clips"), [(name, str(count)) for name, count in data.licences.items()]
        )
        if data.credits:
            lines += ["Credits:", "", *[f"- {credit}" for credit in data.credits], ""]
    return lines
