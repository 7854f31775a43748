"""Options of the commands that connect to a broker, and the settings they make."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from soundpost.device.broker_settings import (
    DEFAULT_PORT,
    MQTT_VERSIONS,
    PASSWORD_VARIABLE,
    USERNAME_VARIABLE,
    BrokerSettings,
    default_port,
    read_password,
)
from soundpost.device.errors import UsageError
from soundpost.device.tls import TLS_PORT, TlsSettings, client_context

# As they stand in the parsed arguments, None or False where they were not given.
BROKER_OPTIONS: Final = (
    *("host", "port", "username", "password_file", "mqtt_version"),
    *("tls", "ca", "cert", "key", "tls_insecure"),
)


def add_broker_options(parser: argparse.ArgumentParser) -> None:
    """Where the broker is, who we are, and TLS."""
    group = parser.add_argument_group("broker")
    group.add_argument("--host", help="broker (default: 127.0.0.1)")
    group.add_argument(
        "--port", type=int, help=f"its TCP port (default: {DEFAULT_PORT}, with TLS {TLS_PORT})"
    )
    group.add_argument(
        "--username", help=f"user name, where the broker asks for one (or {USERNAME_VARIABLE})"
    )
    group.add_argument(
        "--password-file",
        type=Path,
        metavar="FILE",
        help=f"file whose first line is the password (or {PASSWORD_VARIABLE})",
    )
    group.add_argument(
        "--mqtt-version", choices=MQTT_VERSIONS, help=f"default: {BrokerSettings.version}"
    )
    group.add_argument("--tls", action="store_true", help="encrypt; trust the system's CAs")
    group.add_argument(
        "--ca", type=Path, metavar="FILE", help="encrypt; trust the CA certificates in FILE (PEM)"
    )
    group.add_argument(
        "--cert", type=Path, metavar="FILE", help="encrypt; our certificate, if the broker asks"
    )
    group.add_argument("--key", type=Path, metavar="FILE", help="its private key, not locked")
    group.add_argument(
        "--tls-insecure",
        action="store_true",
        help="encrypt; take a certificate that is of another name",
    )


def broker_settings(
    arguments: argparse.Namespace, environment: Mapping[str, str] | None = None
) -> BrokerSettings:
    """Settings that the options of `add_broker_options` say.

    Raises UsageError where they contradict, InputError where a file cannot be used.
    """
    environment = os.environ if environment is None else environment
    username = arguments.username or environment.get(USERNAME_VARIABLE) or None
    if arguments.password_file is not None and username is None:
        raise UsageError("--password-file is given without --username: MQTT needs both")
    if arguments.key is not None and arguments.cert is None:
        raise UsageError("--key is given without --cert: the broker wants to see both")
    password = None
    if arguments.password_file is not None:
        password = read_password(arguments.password_file)
    elif username is not None:
        password = environment.get(PASSWORD_VARIABLE) or None
    tls = None
    if arguments.tls or arguments.ca or arguments.cert or arguments.tls_insecure:
        tls = TlsSettings(arguments.ca, arguments.cert, arguments.key, arguments.tls_insecure)
        client_context(tls)
    return BrokerSettings(
        host=arguments.host or BrokerSettings.host,
        port=default_port(tls) if arguments.port is None else arguments.port,
        username=username,
        password=password,
        tls=tls,
        version=arguments.mqtt_version or BrokerSettings.version,
    )
