"""Which model a sensor has, what it is doing about another one, and how the last try ended.

Published, retained, on `<base>/<device>/model/state` (schema `soundpost.model-state/1`) at every
step of an update; Home Assistant's update entity and `soundpost fleet` read it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, get_args

from soundpost.device.errors import InputError, UsageError
from soundpost.device.identifiers import format_time
from soundpost.device.records import (
    NAME_SCHEMA,
    OPTIONAL_TIME_SCHEMA,
    TIME_SCHEMA,
    Fields,
    check_moment,
    check_schema,
    dump,
    object_schema,
    parse_object,
    require,
)
from soundpost.device.topics import check_name
from soundpost.device.updates.offers import Installed

MODEL_STATE_SCHEMA: Final = "soundpost.model-state/1"

# In the order of an update. `off`: no repository is set; `waiting`: for the clock, or for an hour.
Phase = Literal[
    "off",
    "idle",
    "waiting",
    "refresh",
    "download",
    "check",
    "self_test",
    "shadow",
    "swap",
    "probation",
    "roll_back",
]
PHASES: Final[tuple[str, ...]] = get_args(Phase)

# How the last try ended. `deferred` and `unreachable` are tried again by themselves; `refused` is
# what cannot be trusted or does not fit, `rejected` what was no good here before it was heard with,
# `rolled_back` what was no good afterwards, `superseded` what gave way to another model before it
# had proved itself.
Result = Literal[
    "up_to_date",
    "installed",
    "confirmed",
    "deferred",
    "unreachable",
    "refused",
    "rejected",
    "rolled_back",
    "superseded",
    "failed",
]
RESULTS: Final[tuple[str, ...]] = get_args(Result)
_ROLES: Final = ("installed", "offered", "previous")


@dataclass(frozen=True)
class ModelState:
    """State of a sensor's model.

    time : instant with a zone
    phase : what it is doing now
    progress : of the phase, 0 to 1; None where it has none
    installed : what it hears with
    confirmed : whether that has proved itself; else it is on probation
    offered : what the repository has for it, if another; None: nothing, or not known
    previous : what it goes back to where `installed` is no good
    channel : of the repository; None: no repository is set
    result, reason, result_time : how the last try ended, one line for a person, and when; None
        before the first
    drift : of the scores since they were noted as usual, as a population stability index (0: none,
        above 0.25: the sound or the model has changed); None: not known yet
    extra : fields of later versions, kept as they came

    Raises InputError where a value is outside its range.
    """

    device: str
    time: datetime
    phase: Phase
    installed: Installed
    confirmed: bool = True
    progress: float | None = None
    offered: Installed | None = None
    previous: Installed | None = None
    channel: str | None = None
    result: Result | None = None
    reason: str | None = None
    result_time: datetime | None = None
    drift: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            check_name(self.device, "device id")
        except UsageError as exc:
            raise InputError(f"model state: {exc}") from exc
        check_moment(self.time, "model state time")
        if self.result_time is not None:
            check_moment(self.result_time, "model state result_time")
        require(self.phase in PHASES, "model state phase", f"one of {PHASES}", self.phase)
        require(
            self.result is None or self.result in RESULTS,
            "model state result",
            f"one of {RESULTS}",
            self.result,
        )
        if self.progress is not None:
            require(0 <= self.progress <= 1, "model state progress", "0 to 1", self.progress)
        if self.drift is not None:
            require(0 <= self.drift < math.inf, "model state drift", "0 or more", self.drift)

    def to_dict(self) -> dict[str, Any]:
        """JSON object in the order of the fields, then the unknown ones."""
        models = {role: _to_table(getattr(self, role)) for role in _ROLES}
        return {
            "schema": MODEL_STATE_SCHEMA,
            "device": self.device,
            "time": format_time(self.time),
            "phase": self.phase,
            "progress": self.progress,
            "installed": models["installed"],
            "confirmed": self.confirmed,
            "offered": models["offered"],
            "previous": models["previous"],
            "channel": self.channel,
            "result": self.result,
            "reason": self.reason,
            "result_time": None if self.result_time is None else format_time(self.result_time),
            "drift": self.drift,
            **self.extra,
        }

    def to_json(self) -> str:
        """Compact JSON on one line."""
        return dump(self.to_dict())

    @classmethod
    def from_json(cls, payload: str | bytes, where: str = "model state") -> ModelState:
        """Read JSON text; raises InputError naming the field that is wrong or missing."""
        fields = Fields(parse_object(payload, where), where)
        check_schema(fields, MODEL_STATE_SCHEMA)
        phase, result = fields.text("phase"), fields.optional_text("result")
        installed = _from_table(fields.table("installed"), f"{where}, field 'installed'")
        assert installed is not None
        return cls(
            device=fields.text("device"),
            time=fields.moment("time"),
            phase=phase,  # type: ignore[arg-type]  # checked when it is made
            installed=installed,
            confirmed=fields.truth("confirmed"),
            progress=fields.optional_number("progress"),
            offered=_from_table(fields.optional_table("offered"), f"{where}, field 'offered'"),
            previous=_from_table(fields.optional_table("previous"), f"{where}, field 'previous'"),
            channel=fields.optional_text("channel"),
            result=result,  # type: ignore[arg-type]  # checked when it is made
            reason=fields.optional_text("reason"),
            result_time=fields.optional_moment("result_time"),
            drift=fields.optional_number("drift"),
            extra=fields.rest(),
        )


def _to_table(model: Installed | None) -> dict[str, str] | None:
    if model is None:
        return None
    return {"name": model.name, "version": model.version, "sha256": model.sha256}


def _from_table(table: Mapping[str, Any] | None, where: str) -> Installed | None:
    if table is None:
        return None
    fields = Fields(table, where)
    return Installed(fields.text("name"), fields.text("version"), fields.text("sha256"))


def model_state_json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a model state, for programs that receive one."""
    model = {
        "type": "object",
        "required": ["name", "version", "sha256"],
        "properties": {key: {"type": "string"} for key in ("name", "version", "sha256")},
    }
    optional_model = {**model, "type": ["object", "null"]}
    optional_text = {"type": ["string", "null"]}
    return object_schema(
        MODEL_STATE_SCHEMA,
        {
            "schema": {"const": MODEL_STATE_SCHEMA},
            "device": NAME_SCHEMA,
            "time": TIME_SCHEMA,
            "phase": {"enum": list(PHASES)},
            "progress": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
            "installed": model,
            "confirmed": {"type": "boolean"},
            "offered": optional_model,
            "previous": optional_model,
            "channel": optional_text,
            "result": {"enum": [*RESULTS, None]},
            "reason": optional_text,
            "result_time": OPTIONAL_TIME_SCHEMA,
            "drift": {"type": ["number", "null"], "minimum": 0},
        },
    )
