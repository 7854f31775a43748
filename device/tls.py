"""TLS to the broker: which files, and what is wrong with them or with the broker's certificate."""

from __future__ import annotations

import _ssl
import ssl
import stat
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Final, NoReturn

from soundpost.device.errors import InputError, UsageError

TLS_PORT: Final = 8883


@dataclass(frozen=True)
class TlsSettings:
    """How the broker proves who it is, and how we do.

    ca_file : PEM certificates of those who may sign the broker's; None: the system's
    cert_file, key_file : ours, PEM, where the broker asks for them; the key may stand in cert_file
    insecure : take a certificate that is of another name; its signature is checked all the same
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.key_file is not None and self.cert_file is None:
            raise UsageError(f"key file {self.key_file}: is given without a certificate file")


def client_context(settings: TlsSettings) -> ssl.SSLContext:
    """Settings as OpenSSL takes them; reads the files, so that a renewed certificate is used.

    Raises
    ------
    InputError
        A file is missing, is not what it should be, is readable by everybody, or is locked by a
        pass phrase; one line that names the file and the remedy.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = not settings.insecure
    if settings.ca_file is None:
        context.load_default_certs()
    else:
        _check_readable(settings.ca_file, "CA file")
        try:
            context.load_verify_locations(cafile=settings.ca_file)
        except ssl.SSLError as exc:
            raise InputError(
                f"CA file {settings.ca_file}: holds no certificate in PEM: give the file that "
                "begins with -----BEGIN CERTIFICATE-----"
            ) from exc
    if settings.cert_file is not None:
        _load_own(context, settings.cert_file, settings.key_file)
    return context


def _load_own(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> None:
    _check_readable(cert_file, "certificate file")
    key = cert_file if key_file is None else key_file
    _check_readable(key, "key file")
    if key.stat().st_mode & stat.S_IROTH:
        raise InputError(
            f"key file {key}: every user of this machine can read it: chmod o-rwx {key}"
        )

    def no_pass_phrase() -> NoReturn:
        # Without an answer OpenSSL would ask on the terminal, where nobody sits.
        raise InputError(
            f"key file {key}: is locked by a pass phrase, which a sensor cannot type: write it "
            f"unlocked with openssl pkey -in {key} -out NEW"
        )

    try:
        context.load_cert_chain(cert_file, key, no_pass_phrase)
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise InputError(f"key file {key}: is not the key of certificate {cert_file}") from exc
        if "BEGIN CERTIFICATE" not in _text(cert_file):
            raise InputError(f"certificate file {cert_file}: holds no certificate in PEM") from exc
        raise InputError(f"key file {key}: holds no private key in PEM") from exc


def certificate_dates(path: Path) -> tuple[datetime, datetime]:
    """From when to when the first certificate of a PEM file is valid, in UTC.

    Raises InputError where it cannot be read.
    """
    try:
        # The standard library decodes certificates of a peer only, except here.
        found = _ssl._test_decode_cert(path)  # type: ignore[attr-defined]
        dates = [
            datetime.fromtimestamp(ssl.cert_time_to_seconds(str(found[name])), timezone.utc)
            for name in ("notBefore", "notAfter")
        ]
    except (OSError, ValueError) as exc:
        raise InputError(f"certificate file {path}: cannot be read: {exc}") from exc
    return dates[0], dates[1]


def own_certificate_fault(settings: TlsSettings) -> tuple[str, str] | None:
    """Cause and remedy where our certificate is out of date by this machine's clock."""
    if settings.cert_file is None:
        return None
    try:
        first, last = certificate_dates(settings.cert_file)
    except InputError:
        return None
    now = datetime.now(timezone.utc)
    if first <= now <= last:
        return None
    passed = f"expired on {last:%Y-%m-%d}" if now > last else f"is valid from {first:%Y-%m-%d} on"
    return (
        f"our certificate {settings.cert_file} {passed}",
        f"renew it, or set this machine's clock (it is {_now()} here)",
    )


def _now() -> str:
    return f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"


def _check_readable(path: Path, what: str) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as exc:
        raise InputError(f"{what} {path}: {exc.strerror or exc}") from exc


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def explain(exc: ssl.SSLError, settings: TlsSettings) -> tuple[str, str]:
    """What a failed handshake means, and what a person can do about it."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return _explain_certificate(exc, settings)
    reason = exc.reason or ""
    own = settings.cert_file
    if own is None and reason in _ASKS_FOR_OURS:
        return "it asks for a client certificate", "set cert_file and key_file (--cert, --key)"
    if own is not None and reason in _REFUSES_OURS:
        return own_certificate_fault(settings) or (
            f"it does not accept the certificate {own} ({_REFUSES_OURS[reason]})",
            "have one signed by the CA that this broker trusts",
        )
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
        return "it does not speak TLS on this port", f"TLS is mostly on port {TLS_PORT}"
    if reason in ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"):
        return "it speaks no TLS 1.2 or newer", "update the broker"
    return f"the TLS handshake failed ({reason or exc})", "look at the broker's log"


# Alerts of the broker by OpenSSL's names, which changed with version 3.2.
_ASKS_FOR_OURS: Final = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "TLSV1_ALERT_CERTIFICATE_REQUIRED",
    "SSLV3_ALERT_HANDSHAKE_FAILURE",
    "SSL/TLS_ALERT_HANDSHAKE_FAILURE",
}
_REFUSES_OURS: Final = {
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "expired, or not valid yet",
    "SSL/TLS_ALERT_CERTIFICATE_EXPIRED": "expired, or not valid yet",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "revoked",
    "SSL/TLS_ALERT_CERTIFICATE_REVOKED": "revoked",
    "TLSV1_ALERT_UNKNOWN_CA": "signed by a CA that it does not know",
    "SSLV3_ALERT_BAD_CERTIFICATE": "bad certificate",
    "SSL/TLS_ALERT_BAD_CERTIFICATE": "bad certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "not acceptable",
    "SSL/TLS_ALERT_CERTIFICATE_UNKNOWN": "not acceptable",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "not made for clients",
    "SSL/TLS_ALERT_UNSUPPORTED_CERTIFICATE": "not made for clients",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "no reason given",
    "SSL/TLS_ALERT_HANDSHAKE_FAILURE": "no reason given",
    "TLSV1_ALERT_DECRYPT_ERROR": "its key does not fit",
    "TLSV1_ALERT_INTERNAL_ERROR": "internal error of the broker",
}

# X509_V_ERR_… of openssl/x509_vfy.h.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_OTHER_NAME: Final = {62, 64}
_UNKNOWN_CA: Final = {2, 18, 19, 20, 21}


def _explain_certificate(
    exc: ssl.SSLCertVerificationError, settings: TlsSettings
) -> tuple[str, str]:
    if exc.verify_code == _EXPIRED:
        return (
            "its certificate has expired",
            f"renew it on the broker, or set this machine's clock (it is {_now()} here)",
        )
    if exc.verify_code == _NOT_YET_VALID:
        return "its certificate is not valid yet", f"set this machine's clock (it is {_now()} here)"
    if exc.verify_code in _OTHER_NAME:
        return (
            "its certificate is of another name",
            "connect by the name or address that stands in it as subjectAltName",
        )
    if exc.verify_code in _UNKNOWN_CA:
        known = "the system's CAs" if settings.ca_file is None else f"the CAs in {settings.ca_file}"
        return (
            f"its certificate is signed by none of {known}",
            "set ca_file (--ca) to the certificate of the CA that signed it",
        )
    return f"its certificate was refused ({exc.verify_message})", "look at the broker's certificate"
