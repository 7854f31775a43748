"""Ctrl-C comes at the end of what must not be interrupted, and at once elsewhere."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from soundpost.device.interrupt import StopRequests, handle_interrupts, interrupts_wait


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handle_interrupts(*kept)
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_elsewhere_it_comes_at_once(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_it_waits_for_the_end_of_the_outermost_block_and_comes_once() -> None:
    passed = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012  # where it is raised is the law
        with interrupts_wait():
            signal.raise_signal(signal.SIGINT)
            with interrupts_wait():
                signal.raise_signal(signal.SIGINT)
                passed.append("inner")
            passed.append("outer")
        passed.append("after")
    assert passed == ["inner", "outer"]
    with interrupts_wait():
        passed.append("again")
    assert passed[-1] == "again"


def test_an_error_of_the_block_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), interrupts_wait():
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_signal_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    handle_interrupts(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_a_request_to_stop_interrupts_nothing_but_a_second_one_does_while_that_is_allowed() -> None:
    with StopRequests(signal.SIGINT, signal.SIGTERM) as requests:
        requests.check()
        assert not requests.asked
        signal.raise_signal(signal.SIGTERM)
        assert requests.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        requests.urgent = False
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            requests.check()
    # As it was before.
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_request_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopRequests(signal.SIGINT) as requests:
        signal.raise_signal(signal.SIGINT)
        assert not requests.asked
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
