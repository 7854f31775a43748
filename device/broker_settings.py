"""Where the MQTT broker is and how to speak to it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from soundpost.device.errors import InputError, UsageError
from soundpost.device.tls import TLS_PORT, TlsSettings

DEFAULT_PORT: Final = 1883
USERNAME_VARIABLE: Final = "SOUNDPOST_MQTT_USERNAME"
PASSWORD_VARIABLE: Final = "SOUNDPOST_MQTT_PASSWORD"

MqttVersion = Literal["auto", "5", "3.1.1"]
MQTT_VERSIONS: Final[tuple[str, ...]] = get_args(MqttVersion)


def default_port(tls: TlsSettings | None) -> int:
    """The port that IANA has registered."""
    return DEFAULT_PORT if tls is None else TLS_PORT


# What check_host accepts.
HOST_PATTERN: Final = r"^(?![^:]*:[^:]*$)(?![\s\S]*\s)[^/\[\]\u0000]+$"


def check_host(host: str) -> None:
    """Raise UsageError for what is no name or address alone, such as a URL or `host:port`."""
    if re.search(r"[/\[\]\s]", host) or host.count(":") == 1:
        raise UsageError(
            f"found {host[:60]!r}, expected the name or address alone; port and TLS are options of "
            "their own"
        )


@dataclass(frozen=True)
class BrokerSettings:
    """Where the broker is and how to speak to it.

    host : name or address
    port : TCP port, 1 to 65535
    username, password : None where the broker asks for none
    tls : None for a connection that anybody on the way can read
    version : of MQTT; auto: 5, or 3.1.1 where the broker does not speak 5
    keepalive_s : a silent connection is probed after this long and given up after 1.5 times it
    timeout_s : for the TCP connection, and again for the broker's answer
    ack_timeout_s : a broker that leaves all messages unacknowledged for so long is left, and
        connected to again
    retry_min_s, retry_max_s : pause before connecting again, doubled after each failure; each
        pause is shortened by a random part of up to half, so that a house full of sensors does
        not return to a restarted broker in one instant
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: TlsSettings | None = None
    version: MqttVersion = "auto"
    keepalive_s: int = 30
    timeout_s: float = 5.0
    ack_timeout_s: float = 30.0
    retry_min_s: float = 0.5
    retry_max_s: float = 30.0

    def __post_init__(self) -> None:
        if not self.host:
            raise UsageError("broker host is empty: give a name or an address")
        try:
            check_host(self.host)
        except UsageError as exc:
            raise UsageError(f"broker host: {exc}") from exc
        if not 1 <= self.port <= 65535:
            raise UsageError(f"broker port must be 1 to 65535, found {self.port}")
        if self.password is not None and self.username is None:
            raise UsageError("a broker password is set without a user name: MQTT needs both")
        if self.version not in MQTT_VERSIONS:
            raise UsageError(f"MQTT version must be auto, 5 or 3.1.1, found {self.version}")
        if not 1 <= self.keepalive_s <= 65535:
            raise UsageError(f"keep-alive must be 1 to 65535 s, found {self.keepalive_s}")
        if self.timeout_s <= 0:
            raise UsageError(f"broker timeout must be more than 0 s, found {self.timeout_s}")
        if self.ack_timeout_s <= 0:
            raise UsageError(
                f"acknowledgement timeout must be more than 0 s, found {self.ack_timeout_s}"
            )
        if not 0 < self.retry_min_s <= self.retry_max_s:
            raise UsageError(
                "retry pauses must grow from more than 0 s: found "
                f"{self.retry_min_s} s to {self.retry_max_s} s"
            )

    @property
    def address(self) -> str:
        """`host:port`, as in messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_password(path: Path) -> str:
    """First line of a password file.

    Raises
    ------
    InputError
        The file cannot be read, is empty or is not UTF-8 text.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as exc:
        raise InputError(f"password file {path}: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise InputError(f"password file {path}: not UTF-8 text") from exc
    if not lines or not lines[0]:
        raise InputError(f"password file {path}: its first line is empty, expected the password")
    return lines[0]
