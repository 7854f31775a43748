"""Two settings compared: what of the change a running sensor can take over, and how. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final

from soundpost.device.plan import SourcePlan
from soundpost.device.settings import Settings

# Fields of the settings that a running sensor can change; any other needs a restart.
LIVE: Final = frozenset(
    {"mqtt", "model", "sources", "levels", "detector", "classes", "commands", "path"}
)
# Where a field stands in the file, if not in the table of its name.
_KEYS: Final = {"base_topic": "mqtt.base_topic", "broker_port": "broker.port"}


@dataclass(frozen=True)
class SourceChanges:
    """Names of sources, in the order of their plans.

    added, removed : begin, end
    reopened : end, and begin afresh with another url, channel or option
    retuned : go on with the same sound, with another bundle, thresholds or levels
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    reopened: tuple[str, ...] = ()
    retuned: tuple[str, ...] = ()

    def __str__(self) -> str:
        """In words: `yard retuned, porch added`."""
        parts = [
            f"{', '.join(getattr(self, known.name))} {known.name}"
            for known in fields(self)
            if getattr(self, known.name)
        ]
        return "; ".join(parts)


def needs_restart(old: Settings, new: Settings) -> tuple[str, ...]:
    """Keys whose change a running sensor cannot take over, as they stand in the file."""
    found: list[str] = []
    for known in fields(Settings):
        before, after = getattr(old, known.name), getattr(new, known.name)
        if known.name == "mqtt" and (before is None) != (after is None):
            # From a broker of our own to another or back.
            found.append("mqtt.host")
        elif known.name not in LIVE and before != after:
            found += _differing(known.name, before, after)
    return tuple(found)


def _differing(name: str, before: Any, after: Any) -> list[str]:
    if is_dataclass(before) and type(before) is type(after):
        inner = [known.name for known in fields(before)]
        return [f"{name}.{key}" for key in inner if getattr(before, key) != getattr(after, key)]
    return [_KEYS.get(name, name)]


def compare_plans(
    old: Mapping[str, SourcePlan], new: Sequence[SourcePlan], failed: Collection[str] = ()
) -> SourceChanges:
    """What is to be done with each source; nothing with one whose plan is the same.

    failed : sources that could not go on; they are begun afresh
    """
    names = [plan.name for plan in new]
    added, reopened, retuned = [], [], []
    for plan in new:
        before = old.get(plan.name)
        if before is None:
            added.append(plan.name)
        elif plan.name in failed or _sound(before) != _sound(plan):
            reopened.append(plan.name)
        elif _use(before) != _use(plan):
            retuned.append(plan.name)
    removed = [name for name in old if name not in names]
    return SourceChanges(tuple(added), tuple(removed), tuple(reopened), tuple(retuned))


def _sound(plan: SourcePlan) -> tuple[object, ...]:
    """What a source has to be opened again for."""
    return plan.url, plan.channel, dict(plan.options)


def _use(plan: SourcePlan) -> tuple[object, ...]:
    """All that is done with the sound. A bundle is what its hash says, an interpreter itself."""
    others = [known.name for known in fields(plan) if known.name not in ("bundle", "interpreter")]
    values = (getattr(plan, name) for name in others)
    return plan.bundle.sha256, id(plan.interpreter), *values
