"""A server may be slow, endless or a liar: what is fetched stays within bounds."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from soundpost.device.errors import UpdateError, UpdateRefusedError, UpdateUnreachableError
from soundpost.device.updates.bounded_fetch import (
    NotThereError,
    Pace,
    TooLongError,
    open_body,
)
from soundpost.device.updates.connection import Deadline

CONTENT = bytes(range(256)) * 1_000
# A second is long enough for a loaded machine to answer itself, and short enough to wait for.
PACE = Pace(connect_s=10.0, gap_s=1.0, least_bytes_s=1_000.0, window_s=1.0)


def fetched(
    url: str, limit: int = len(CONTENT), start: int = 0, pace: Pace = PACE, seconds: float = 20.0
) -> tuple[int, bytes]:
    with open_body(url, limit, pace, Deadline(seconds), start) as body:
        return body.start, b"".join(body.blocks)


@pytest.fixture
def web(serve: Callable[..., Any], tmp_path: Path) -> Any:
    (tmp_path / "model").write_bytes(CONTENT)
    return serve(tmp_path)


def test_a_file_arrives_from_a_web_server_and_from_a_folder(web: Any, tmp_path: Path) -> None:
    for url in (f"{web.address}/model", (tmp_path / "model").as_uri()):
        assert fetched(url) == (0, CONTENT)
        assert fetched(url, start=1_000) == (1_000, CONTENT[1_000:])


def test_a_server_that_knows_no_parts_sends_the_whole(web: Any) -> None:
    web.ranges = False
    assert fetched(f"{web.address}/model", start=1_000) == (0, CONTENT)


def test_what_is_not_there_says_so_with_its_status(web: Any, tmp_path: Path) -> None:
    for url in (f"{web.address}/none", (tmp_path / "none").as_uri()):
        with pytest.raises(NotThereError) as told:
            fetched(url)
        assert told.value.status == 404


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/model", "http://no.such.host.invalid/model"])
def test_nobody_there_is_one_line(url: str) -> None:
    with pytest.raises(UpdateUnreachableError, match="cannot be fetched") as told:
        fetched(url)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "url", ["ftp://host/a", "model", "http:///a", "http://host:99999/a", "http://host/a b\r\nX: y"]
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(UpdateRefusedError):
        fetched(url)


# ------------------------------------------------------------------------------- too much


def endless(stated: str | None) -> Callable[[BaseHTTPRequestHandler], None]:
    """Misdeed: bytes without end, under a length or without one."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if stated == "chunked":
            request.send_header("Transfer-Encoding", "chunked")
        elif stated:
            request.send_header("Content-Length", stated)
        request.end_headers()
        block = bytes(65_536)
        while True:
            if stated == "chunked":
                request.wfile.write(b"10000\r\n" + block + b"\r\n")
            else:
                request.wfile.write(block)

    return answer


@pytest.mark.parametrize("stated", [None, "chunked", str(10**15)])
def test_endless_data_ends_at_the_limit(web: Any, stated: str | None) -> None:
    web.misdeeds["model"] = endless(stated)
    received: list[bytes] = []

    def receive() -> None:
        with open_body(f"{web.address}/model", 100_000, PACE, Deadline(20.0)) as body:
            received.extend(body.blocks)

    with pytest.raises(TooLongError, match="expected at most 100000"):
        receive()
    assert len(b"".join(received)) <= 100_000


def test_a_length_that_is_stated_is_believed_before_anything_is_read(
    web: Any, tmp_path: Path
) -> None:
    for url in (f"{web.address}/model", (tmp_path / "model").as_uri()):
        with pytest.raises(TooLongError, match=f"has {len(CONTENT)} bytes or more"):
            fetched(url, limit=len(CONTENT) - 1)
    with pytest.raises(TooLongError):
        fetched(f"{web.address}/model", limit=len(CONTENT) - 1, start=1_000)


def test_endless_headers_end(web: Any) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.0 200 OK\r\n")
        while True:
            request.wfile.write(b"X: " + b"a" * 60_000 + b"\r\n")

    web.misdeeds["model"] = answer
    with pytest.raises(UpdateUnreachableError, match="cannot be fetched"):
        fetched(f"{web.address}/model")


# ------------------------------------------------------------------------------- too slow


def drip(where: str, gap_s: float) -> Callable[[BaseHTTPRequestHandler], None]:
    """Misdeed: a byte now and then, from the headers on or in the body."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        head = b"HTTP/1.0 200 OK\r\nContent-Length: 256000\r\n"
        if where == "body":
            request.wfile.write(head + b"\r\n")
        drops = head * 1_000 if where == "headers" else CONTENT
        for value in drops:
            request.wfile.write(bytes([value]))
            time.sleep(gap_s)

    return answer


@pytest.mark.parametrize("where", ["headers", "body"])
def test_a_drip_is_too_slow_though_it_leaves_no_gap(web: Any, where: str) -> None:
    web.misdeeds["model"] = drip(where, 0.02)
    began_s = time.monotonic()
    with pytest.raises(UpdateUnreachableError, match="bytes per second: expected at least 1000"):
        fetched(f"{web.address}/model")
    assert time.monotonic() - began_s < 10.0


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nabc"])
def test_silence_ends(web: Any, sent: bytes) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(sent)
        request.wfile.flush()
        web.ending.wait(20)

    web.misdeeds["model"] = answer
    with pytest.raises(UpdateUnreachableError, match="sends nothing for 1 s"):
        fetched(f"{web.address}/model")


def test_all_of_it_together_has_an_end(web: Any) -> None:
    web.misdeeds["model"] = drip("body", 0.02)
    patient = Pace(gap_s=20.0, least_bytes_s=0.0, window_s=1.0)
    with pytest.raises(UpdateUnreachableError, match=r"did not end within 1\.5 s"):
        fetched(f"{web.address}/model", pace=patient, seconds=1.5)


def test_a_deadline_is_for_all_requests_of_a_job(web: Any) -> None:
    deadline = Deadline(0.05)
    time.sleep(0.06)
    with (
        pytest.raises(UpdateUnreachableError, match="did not end"),
        open_body(f"{web.address}/model", 1, PACE, deadline),
    ):
        pass
    assert web.requests == []


# ------------------------------------------------------------------------------- broken


@settings(max_examples=25)
@given(cut=st.integers(0, 3_000), stated=st.booleans())
def test_an_answer_that_breaks_off_is_never_taken_for_a_whole_one(
    cut: int, stated: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from web import Web

    content = CONTENT[:2_000]
    head = b"HTTP/1.1 200 OK\r\nX-Filler: abcdefghij\r\n"
    if stated:
        whole = head + b"Content-Length: 2000\r\n\r\n" + content
    else:
        whole = head + b"Transfer-Encoding: chunked\r\n\r\n7d0\r\n" + content + b"\r\n0\r\n\r\n"
    cut = min(cut, len(whole))
    web = Web(tmp_path_factory.getbasetemp())
    try:
        web.misdeeds[""] = lambda request: request.wfile.write(whole[:cut])
        try:
            found = fetched(f"{web.address}/model")
        except UpdateUnreachableError:
            # Of the last chunk only the closing line may be missing.
            assert cut < len(whole)
        else:
            assert found == (0, content)
    finally:
        web.close()


@settings(max_examples=40)
@given(answer=st.binary(max_size=200), status=st.booleans())
def test_whatever_a_server_says_is_bytes_or_one_line(
    answer: bytes, status: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from web import Web

    web = Web(tmp_path_factory.getbasetemp())
    try:
        start = b"HTTP/1.1 200 OK\r\n" if status else b""
        web.misdeeds[""] = lambda request: request.wfile.write(start + answer)
        try:
            fetched(f"{web.address}/model", limit=1_000)
        except UpdateError as error:
            told = str(error)
            assert "\n" not in told
    finally:
        web.close()


@pytest.mark.parametrize("told", ["bytes 7-99/100", "bytes */100", "", "bytes 1000-x/5"])
def test_another_part_than_was_asked_for_is_refused(web: Any, told: str) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(206)
        request.send_header("Content-Range", told)
        request.end_headers()
        request.wfile.write(CONTENT[1_000:])

    web.misdeeds["model"] = answer
    with pytest.raises(UpdateRefusedError, match="another part than was asked for"):
        fetched(f"{web.address}/model", start=1_000)


# ------------------------------------------------------------------------------- elsewhere


def redirect(target: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", target)
        request.end_headers()

    return answer


def test_a_redirection_is_followed_and_a_circle_is_not(web: Any) -> None:
    web.misdeeds["/old"] = redirect("/model")
    assert fetched(f"{web.address}/old") == (0, CONTENT)
    web.misdeeds["/round"] = redirect("/round")
    with pytest.raises(UpdateUnreachableError, match="redirected more than 3 times"):
        fetched(f"{web.address}/round")
    assert [path for path, _ in web.requests].count("/round") == 4


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://host/a", "http://host:x/"])
def test_a_redirection_to_another_kind_of_address_is_refused(web: Any, target: str) -> None:
    web.misdeeds["/old"] = redirect(target)
    with pytest.raises(UpdateRefusedError):
        fetched(f"{web.address}/old")


def test_tls_is_checked_and_kept(
    serve: Callable[..., Any], web: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    secure = serve(tmp_path, context)
    # An authority that the system does not know.
    with pytest.raises(UpdateUnreachableError, match="cannot be fetched"):
        fetched(f"{secure.address}/model")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert fetched(f"{secure.address}/model") == (0, CONTENT)
    secure.misdeeds["/old"] = redirect(f"{web.address}/model")
    with pytest.raises(UpdateRefusedError, match=r"redirects to http:.*: expected https"):
        fetched(f"{secure.address}/old")


def test_a_handshake_that_never_ends_is_left(tmp_path: Path) -> None:

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(UpdateUnreachableError, match="cannot be fetched"):
            fetched(f"https://127.0.0.1:{port}/model", pace=Pace(connect_s=0.5))
