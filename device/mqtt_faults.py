"""Why a connection to a broker failed, in words that say what to do."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import Final

from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.tls import TLS_PORT, TlsSettings, explain, own_certificate_fault


@dataclass(frozen=True)
class Fault:
    """cause : what happened; remedy : what a person can do; final : trying again cannot help."""

    cause: str
    remedy: str
    final: bool = False

    def line(self, address: str) -> str:
        """One line for a person."""
        return f"MQTT broker at {address}: {self.cause}: {self.remedy}"


CREDENTIALS: Final = "set the user name and the password file that this broker knows"
LOST: Final = Fault("the connection was lost", "connecting again until it is back")
UNSUPPORTED_VERSION: Final = "Unsupported protocol version"

# By the names paho gives the return codes of MQTT 3.1.1 (table 3.1) and the reason codes of
# MQTT 5 (2.4).
_REFUSALS: Final = {
    "Bad user name or password": Fault("bad user name or password", CREDENTIALS, True),
    "Not authorized": Fault("not authorised", CREDENTIALS, True),
    "Client identifier not valid": Fault(
        "client identifier refused", "choose another device id", True
    ),
    "Server unavailable": Fault("it is not available now", "look at the broker's log"),
    "Server busy": Fault("it is busy", "look at the broker's log"),
    "Banned": Fault("it has banned this client", "look at the broker's log", True),
    "Session taken over": Fault(
        "another client took over the connection", "look for a second one with its client id"
    ),
    "Server shutting down": Fault("it is shutting down", "connecting again until it is back"),
    "Keep alive timeout": Fault("it heard nothing from us in time", "check the network"),
}


def refusal(code: ReasonCode, properties: Properties | None, version: str) -> Fault:
    """What a broker that refused us, or ended the connection, said."""
    name = str(code)
    if name == UNSUPPORTED_VERSION:
        return Fault(
            f"it does not speak MQTT {version}",
            "set version in [mqtt] to another, or to auto",
            True,
        )
    fault = _REFUSALS.get(name) or Fault(name, "look at the broker's log")
    said = getattr(properties, "ReasonString", None)
    if isinstance(said, str) and said:
        # A peer's text: kept short, and of one line.
        shown = "".join(c if c.isprintable() else " " for c in said[:100])
        fault = Fault(f"{fault.cause} ({shown})", fault.remedy, fault.final)
    return fault


def slow(timeout_s: float) -> Fault:
    """Nothing answered in time."""
    return Fault(
        f"timed out after {timeout_s:g} s", "check the address, the network and the firewall"
    )


def closed(settings: BrokerSettings, version: str) -> Fault:
    """It ended the connection before it said anything."""
    cause = "it closed the connection without accepting it"
    check = f"check that this port is an MQTT {version} broker's"
    if settings.tls is None:
        return Fault(cause, f"{check}, without TLS, or turn TLS on")
    out_of_date = own_certificate_fault(settings.tls)
    if out_of_date is not None:
        return Fault(*out_of_date)
    # It may have said why, in an alert that the reset of the connection swept away.
    if settings.tls.cert_file is None:
        return Fault(cause, f"{check}; if it asks for a client certificate, set cert_file (--cert)")
    return Fault(cause, f"{check}, and that it trusts the CA of {settings.tls.cert_file}")


def fault_of(exc: OSError | UnicodeError, settings: BrokerSettings) -> Fault:
    """What an error of the network means."""
    if settings.tls is not None and isinstance(exc, (ConnectionResetError, ssl.SSLEOFError)):
        return Fault("it broke off the TLS handshake", f"TLS is mostly on port {TLS_PORT}")
    if isinstance(exc, ssl.SSLError):
        return Fault(*explain(exc, settings.tls or TlsSettings()))
    # UnicodeError: the resolver's encoding of a name with an empty or overlong part.
    if isinstance(exc, (socket.gaierror, UnicodeError)):
        return Fault("name not known", "check the host name, or give the address in numbers")
    if isinstance(exc, ConnectionRefusedError):
        return Fault(
            "connection refused", "nothing listens there; start the broker, or check host and port"
        )
    if isinstance(exc, TimeoutError):
        return slow(settings.timeout_s)
    return Fault(exc.strerror or str(exc), "check the address and the network")
