"""TLS to a real Mosquitto: who is let in, and what each wrong certificate is told as."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import trustme

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.errors import BrokerError, InputError, UsageError
from soundpost.device.publisher import Publisher
from soundpost.device.tls import TlsSettings, certificate_dates, client_context
from soundpost.device.topics import Topics

TOPICS = Topics("soundpost", "porch-pi")
NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Files:
    """Certificates of one CA; each `(certificate, key)` in files that a key may have."""

    folder: Path
    authority: trustme.CA

    @property
    def ca(self) -> Path:
        path = self.folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(path))
        return path

    def issue(
        self, name: str, *, first: datetime = NOW - DAY, last: datetime = NOW + DAY
    ) -> tuple[Path, Path]:
        issued = self.authority.issue_cert(name, not_before=first, not_after=last)
        number = len(list(self.folder.iterdir()))
        certificate, key = self.folder / f"{number}.pem", self.folder / f"{number}.key"
        issued.cert_chain_pems[0].write_to_path(str(certificate))
        issued.private_key_pem.write_to_path(str(key))
        key.chmod(0o600)
        return certificate, key


def new_files(folder: Path) -> Files:
    folder.mkdir()
    return Files(folder, trustme.CA())


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return new_files(tmp_path / "certificates")


@pytest.fixture
def start_tls(start_mosquitto, files: Files) -> Callable[..., int]:
    """Function that starts a Mosquitto with a certificate, and returns its port."""

    def start(own: tuple[Path, Path] | None = None, asks: bool = False) -> int:
        certificate, key = own or files.issue("127.0.0.1")
        lines = f"allow_anonymous true\ncertfile {certificate}\nkeyfile {key}\n"
        if asks:
            lines += f"cafile {files.ca}\nrequire_certificate true\n"
        return int(start_mosquitto(lines).port)

    return start


def settings(port: int, tls: TlsSettings | None, **changes: object) -> BrokerSettings:
    return BrokerSettings(port=port, tls=tls, retry_min_s=0.05, timeout_s=10, **changes)  # type: ignore[arg-type]


def connect(where: BrokerSettings) -> None:
    with Publisher(where, TOPICS) as publisher:
        publisher.wait_connected(30, first_failure=True)


def refusal(where: BrokerSettings) -> str:
    with pytest.raises(BrokerError) as caught:
        connect(where)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.count(":") >= 3, "address, cause, remedy"
    return message


# --- let in


def test_a_ca_file_lets_in_with_either_version(start_tls, files: Files) -> None:
    port = start_tls()
    for version in ("3.1.1", "5", "auto"):
        connect(settings(port, TlsSettings(files.ca), version=version))


def test_a_client_certificate_lets_in_where_the_broker_asks_for_one(
    start_tls, files: Files
) -> None:
    certificate, key = files.issue("sensor@example.org")
    both = files.folder / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    both.chmod(0o600)
    port = start_tls(asks=True)
    connect(settings(port, TlsSettings(files.ca, certificate, key)))
    connect(settings(port, TlsSettings(files.ca, both)))


def test_another_name_is_let_in_only_where_that_was_asked_for_and_it_is_warned_of(
    start_tls, files: Files, caplog
) -> None:
    port = start_tls(files.issue("broker.example"))
    message = refusal(settings(port, TlsSettings(files.ca)))
    assert "certificate is of another name" in message
    assert "subjectAltName" in message
    assert "tls_insecure" not in caplog.text
    caplog.clear()
    connect(settings(port, TlsSettings(files.ca, insecure=True)))
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert ["tls_insecure is set" in record.message for record in warned] == [True]


def test_insecure_still_wants_a_certificate_of_a_known_ca(start_tls, tmp_path: Path) -> None:
    other = new_files(tmp_path / "other")
    assert "signed by none of" in refusal(
        settings(start_tls(), TlsSettings(other.ca, insecure=True))
    )


def test_a_renewed_certificate_is_taken_at_the_next_connection(
    start_mosquitto, files: Files
) -> None:
    certificate, key = files.issue("sensor@example.org", last=NOW - timedelta(hours=1))
    server, server_key = files.issue("127.0.0.1")
    broker = start_mosquitto(
        f"allow_anonymous true\ncertfile {server}\nkeyfile {server_key}\n"
        f"cafile {files.ca}\nrequire_certificate true\n"
    )
    with Publisher(settings(broker.port, TlsSettings(files.ca, certificate, key)), TOPICS) as one:
        with pytest.raises(BrokerError, match="expired on"):
            one.wait_connected(30, first_failure=True)
        fresh, fresh_key = files.issue("sensor@example.org")
        fresh_key.rename(key)
        fresh.rename(certificate)
        one.wait_connected(60)


# --- refused, and why


def test_the_brokers_certificate_has_expired_or_is_not_valid_yet(start_tls, files: Files) -> None:
    old = start_tls(files.issue("127.0.0.1", first=NOW - 3 * DAY, last=NOW - DAY))
    message = refusal(settings(old, TlsSettings(files.ca)))
    assert "its certificate has expired" in message
    assert f"{NOW:%Y-%m-%d}" in message, "says what this machine's clock is"
    early = start_tls(files.issue("127.0.0.1", first=NOW + DAY, last=NOW + 3 * DAY))
    message = refusal(settings(early, TlsSettings(files.ca)))
    assert "its certificate is not valid yet" in message
    assert "clock" in message


def test_the_brokers_certificate_is_of_another_ca(start_tls, tmp_path: Path) -> None:
    other = new_files(tmp_path / "other")
    port = start_tls()
    message = refusal(settings(port, TlsSettings(other.ca)))
    assert f"signed by none of the CAs in {other.ca}" in message
    assert "ca_file (--ca)" in message
    assert "signed by none of the system's CAs" in refusal(settings(port, TlsSettings()))


def test_the_broker_asks_for_a_certificate_that_we_do_not_have(start_tls, files: Files) -> None:
    port = start_tls(asks=True)
    message = refusal(settings(port, TlsSettings(files.ca)))
    # The broker's alert may be lost when it closes at once: the line then asks.
    assert "client certificate" in message
    assert "cert_file" in message


def test_the_broker_does_not_take_our_certificate(start_tls, files: Files, tmp_path: Path) -> None:
    port = start_tls(asks=True)
    certificate, key = files.issue("sensor@example.org", first=NOW - 3 * DAY, last=NOW - DAY)
    message = refusal(settings(port, TlsSettings(files.ca, certificate, key)))
    assert f"our certificate {certificate} expired on {NOW - DAY:%Y-%m-%d}" in message
    certificate, key = new_files(tmp_path / "other").issue("sensor@example.org")
    message = refusal(settings(port, TlsSettings(files.ca, certificate, key)))
    assert str(certificate) in message
    assert "CA" in message


def test_tls_where_there_is_none_and_none_where_there_is(
    start_tls, files: Files, mosquitto
) -> None:
    for version in ("3.1.1", "5", "auto"):
        message = refusal(settings(start_tls(), None, version=version))
        assert "turn TLS on" in message
        assert "closed the connection without accepting it" in message
    # Mosquitto hangs up; what is no TLS at all answers with bytes.
    assert "TLS" in refusal(settings(mosquitto.port, TlsSettings(files.ca)))


# --- files


def problem(tls: TlsSettings) -> str:
    with pytest.raises(InputError) as caught:
        client_context(tls)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_files_that_cannot_be_used_are_named_with_the_remedy(files: Files, tmp_path: Path) -> None:
    certificate, key = files.issue("sensor@example.org")
    nothing, nonsense = tmp_path / "nothing.pem", tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    nonsense.chmod(0o600)
    assert f"CA file {nothing}: No such file" in problem(TlsSettings(nothing))
    assert f"CA file {nonsense}: holds no certificate" in problem(TlsSettings(nonsense))
    assert f"certificate file {nothing}: No such" in problem(TlsSettings(None, nothing, key))
    assert f"key file {nothing}: No such file" in problem(TlsSettings(None, certificate, nothing))
    assert f"{nonsense}: holds no certificate" in problem(TlsSettings(None, nonsense, key))
    assert f"{nonsense}: holds no private" in problem(TlsSettings(None, certificate, nonsense))
    _, other_key = files.issue("sensor@example.org")
    assert f"{other_key}: is not the key of" in problem(TlsSettings(None, certificate, other_key))
    key.chmod(0o644)
    message = problem(TlsSettings(None, certificate, key))
    assert f"key file {key}: every user of this machine can read it: chmod" in message
    key.chmod(0o640)
    client_context(TlsSettings(None, certificate, key))


def test_a_locked_key_is_refused_and_nobody_is_asked_for_a_pass_phrase(files: Files) -> None:
    certificate, key = files.issue("sensor@example.org")
    locked = files.folder / "locked.key"
    # Written by openssl itself, as people do it.
    subprocess.run(
        ["openssl", "pkey", "-aes256", "-passout", "pass:secret", "-in", key, "-out", locked],
        check=True,
    )
    locked.chmod(0o600)
    message = problem(TlsSettings(None, certificate, locked))
    assert f"key file {locked}: is locked by a pass phrase" in message
    assert "openssl pkey" in message


def test_a_key_without_a_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without a certificate"):
        TlsSettings(key_file=tmp_path / "key")


def test_dates_of_a_certificate(files: Files) -> None:
    certificate, _ = files.issue("sensor@example.org", first=NOW - 3 * DAY, last=NOW + 9 * DAY)
    first, last = certificate_dates(certificate)
    assert abs(first - (NOW - 3 * DAY)) < timedelta(seconds=2)
    assert abs(last - (NOW + 9 * DAY)) < timedelta(seconds=2)
    nonsense = files.folder / "nonsense.pem"
    nonsense.write_text("no certificate")
    with pytest.raises(InputError, match=r"nonsense\.pem: cannot be read"):
        certificate_dates(nonsense)
