"""MQTT topics of a sensor, and the names that they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from soundpost.device.errors import UsageError

DEFAULT_BASE_TOPIC: Final = "soundpost"
RESERVED_SOURCES: Final = frozenset({"status", "model", "cmd"})
_SOURCE_LEVELS: Final = frozenset({"event", "class", "level", "health", "paused"})

# A topic is at most 65,535 bytes (MQTT 3.1.1, 1.5.3); three names of this size and a base stay
# far below, and a log line stays readable.
MAX_NAME_BYTES: Final = 128
MAX_BASE_BYTES: Final = 512


def _name_fault(name: str, max_bytes: int) -> str | None:
    """Why `name` cannot be one level of a topic, or None where it can."""
    if not name:
        return "it is empty"
    for character in name:
        if character in "/+#":
            return f"it contains {character!r}, which has a meaning in MQTT topics"
        code = ord(character)
        # NUL and surrogates are forbidden by MQTT 3.1.1 (1.5.3); other control characters and
        # non-characters may make a broker close the connection, and would disturb a terminal.
        if code < 0x20 or 0x7F <= code <= 0x9F or code in (0x2028, 0x2029):
            return f"it contains the control character U+{code:04X}"
        if 0xD800 <= code <= 0xDFFF or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE:
            return f"it contains U+{code:04X}, which is no character"
    if name.startswith("$"):
        return "it begins with '$', which brokers keep for themselves"
    if name != name.strip():
        return "it begins or ends with a space"
    n_bytes = len(name.encode())
    if n_bytes > max_bytes:
        return f"it has {n_bytes} bytes, at most {max_bytes} are allowed"
    return None


def check_name(name: str, what: str = "name") -> str:
    """Return `name` if it can be one level of an MQTT topic.

    Raises
    ------
    UsageError
        It is empty, longer than `MAX_NAME_BYTES`, begins with `$`, or holds `/`, `+`, `#`, a
        control character or something that is not a character.
    """
    fault = _name_fault(name, MAX_NAME_BYTES)
    if fault is not None:
        raise UsageError(f"{what} {name[:60]!r} cannot be used: {fault}")
    return name


def check_source(name: str) -> str:
    """Return `name` if a source may bear it.

    Raises
    ------
    UsageError
        As `check_name`; also for `status`, `model` and `cmd`, whose topics mean something else.
    """
    check_name(name, "source name")
    if name in RESERVED_SOURCES:
        taken = ", ".join(sorted(RESERVED_SOURCES))
        raise UsageError(f"source name {name!r} is reserved ({taken} are topics of their own)")
    return name


def check_base_topic(base: str) -> str:
    """Return `base` if it can stand before `/<device_id>/…`; it may have several levels.

    Raises
    ------
    UsageError
        A level is empty or not usable (see `check_name`).
    """
    for level in base.split("/"):
        fault = _name_fault(level, MAX_BASE_BYTES)
        if fault is not None:
            raise UsageError(f"base topic {base[:60]!r} cannot be used: a level of it: {fault}")
    if len(base.encode()) > MAX_BASE_BYTES:
        raise UsageError(f"base topic has {len(base.encode())} bytes, at most {MAX_BASE_BYTES}")
    return base


@dataclass(frozen=True)
class Topics:
    """Topics of one device, `<base>/<device_id>/…`.

    base : levels before the device, `soundpost` unless told
    device_id : one level, unique among the sensors of a broker
    """

    base: str
    device_id: str

    def __post_init__(self) -> None:
        check_base_topic(self.base)
        check_name(self.device_id, "device id")

    def _of(self, *levels: str) -> str:
        return "/".join((self.base, self.device_id, *levels))

    @property
    def status(self) -> str:
        """`online` or `offline`; retained, last will."""
        return self._of("status")

    @property
    def instance(self) -> str:
        """Where daemons that claim this device id hear of each other; not retained."""
        return self._of("status", "instance")

    @property
    def model_state(self) -> str:
        """State of the installed model; retained."""
        return self._of("model", "state")

    @property
    def feedback_state(self) -> str:
        """How many hard examples wait; retained."""
        return self._of("model", "feedback")

    def event(self, source: str) -> str:
        """Events of a source; QoS 1, not retained."""
        return self._of(check_source(source), "event")

    def state(self, source: str, label: str) -> str:
        """`ON` or `OFF` of one class at one source; retained."""
        return self._of(check_source(source), "class", check_name(label, "label"))

    @property
    def source_filters(self) -> tuple[str, ...]:
        """Subscriptions for what a broker keeps of this device's sources."""
        return self._of("+", "class", "+"), self._of("+", "health"), self._of("+", "paused")

    def level(self, source: str) -> str:
        """Sound levels of a source; QoS 0."""
        return self._of(check_source(source), "level")

    def health(self, source: str) -> str:
        """Health of a source; retained."""
        return self._of(check_source(source), "health")

    def paused(self, source: str) -> str:
        """`ON` while a source is paused by a command, else `OFF`; retained."""
        return self._of(check_source(source), "paused")

    def cmd(self, name: str) -> str:
        """Command of that name; its answer is on the same topic and `/result`.

        Raises
        ------
        UsageError
            Also for the last levels of a source's topics: those who listen to all sources would
            take the command for what a source named `cmd` says.
        """
        check_name(name, "command")
        if name in _SOURCE_LEVELS:
            raise UsageError(f"command {name!r} is reserved: sources publish under this word")
        return self._of("cmd", name)

    @property
    def cmd_filter(self) -> str:
        """Subscription for all commands, without their answers."""
        return self._of("cmd", "+")

    def cmd_result(self, name: str) -> str:
        """Answer to a command."""
        return self.cmd(name) + "/result"


def event_filter(base: str, device_id: str | None = None) -> str:
    """Subscription for the events of all sources of one device, or of all devices."""
    return f"{check_base_topic(base)}/{_device_level(device_id)}/+/event"


def status_filter(base: str, device_id: str | None = None) -> str:
    """Subscription for the status of one device, or of all devices."""
    return f"{check_base_topic(base)}/{_device_level(device_id)}/status"


def model_state_filter(base: str, device_id: str | None = None) -> str:
    """Subscription for the model's state of one device, or of all devices."""
    return f"{check_base_topic(base)}/{_device_level(device_id)}/model/state"


def health_filter(base: str, device_id: str | None = None) -> str:
    """Subscription for the health of all sources of one device, or of all devices."""
    return f"{check_base_topic(base)}/{_device_level(device_id)}/+/health"


def command_result_filter(base: str, name: str, device_id: str | None = None) -> str:
    """Subscription for the answers to a command of one device, or of all devices."""
    return (
        f"{check_base_topic(base)}/{_device_level(device_id)}/cmd/"
        f"{check_name(name, 'command')}/result"
    )


def _device_level(device_id: str | None) -> str:
    return "+" if device_id is None else check_name(device_id, "device id")
