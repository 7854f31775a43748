"""An MQTT broker for a machine that has none: amqtt, on 127.0.0.1 and nowhere else.

amqtt opens no socket here. We listen ourselves and hand it each connection, because then the port
may be chosen by the system, a taken port is reported as such, and no setting can bind an address
that other machines reach: there are no user names in this broker.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
from types import TracebackType
from typing import Any, Final

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.errors import BrokerError, UsageError

logger = logging.getLogger(__name__)

LOOPBACK: Final = "127.0.0.1"
_LISTENER: Final = "default"
_START_TIMEOUT_S: Final = 10.0
_STOP_TIMEOUT_S: Final = 2.0


class AcceptLocal(BaseAuthPlugin):  # type: ignore[misc]  # amqtt is untyped
    """Accepts every client, for only this machine's programs reach the broker.

    amqtt's own plugin for this loads password hashing with it.
    """

    async def authenticate(self, *, session: Session) -> bool:
        """Accept; and keep nothing for a client that is away, which nobody would ever bound."""
        session.is_anonymous = True
        return True


class _Broker(Broker):  # type: ignore[misc]  # amqtt is untyped
    """amqtt's broker, telling a client the retained messages of its own subscriptions only.

    amqtt 0.12 also sends each client that connects those of everybody else's filters.
    """

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        subscribers = self._subscriptions.get(subscription[0], ())
        if any(subscriber is session for subscriber, _ in subscribers):
            await super()._publish_retained_messages_for_subscription(subscription, session)


def _quiet() -> None:
    # amqtt reports each client that leaves in the middle of a message, with a traceback. Someone
    # who sets its logger's level, or debugs everything, still sees it all.
    amqtt_logger = logging.getLogger("amqtt")
    if amqtt_logger.level == logging.NOTSET and not logging.getLogger().isEnabledFor(logging.DEBUG):
        amqtt_logger.setLevel(logging.CRITICAL)
    transitions_logger = logging.getLogger("transitions")
    if transitions_logger.level == logging.NOTSET:
        transitions_logger.setLevel(logging.WARNING)


class _Reader(StreamReaderAdapter):  # type: ignore[misc]  # amqtt is untyped
    """A connection of which the beginning was read already."""

    def __init__(self, reader: asyncio.StreamReader, beginning: bytes) -> None:
        super().__init__(reader)
        self._beginning = beginning

    async def read(self, n: int = -1) -> bytes:
        if not self._beginning:
            return bytes(await super().read(n))
        end = len(self._beginning) if n < 0 else n
        taken, self._beginning = self._beginning[:end], self._beginning[end:]
        left = n if n < 0 else n - len(taken)
        return taken + await super().read(left) if left else taken


# The first bytes of a CONNECT up to the protocol level (MQTT 3.1.1, 3.1), and its refusal (3.2).
_CONNECT: Final = 0x10
_PROTOCOL_NAME: Final = b"\x00\x04MQTT"
_REFUSED_LEVEL: Final = b"\x20\x02\x00\x01"


async def _beginning(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """The first bytes of a connection, and whether they ask for MQTT 5.

    amqtt would take the properties of version 5 for the client's name, and wait for the rest.
    """
    taken = await reader.readexactly(1)
    if taken[0] != _CONNECT:
        return taken, False
    n_left = 0
    for place in range(4):
        taken += await reader.readexactly(1)
        n_left |= (taken[-1] & 0x7F) << 7 * place
        if taken[-1] < 0x80:
            break
    if n_left < len(_PROTOCOL_NAME) + 1:
        return taken, False
    level = await reader.readexactly(len(_PROTOCOL_NAME) + 1)
    return taken + level, level == _PROTOCOL_NAME + b"\x05"


class LoopbackBroker:
    """An MQTT 3.1.1 broker in a thread of this process; also a context manager.

    port : TCP port on 127.0.0.1; 0 lets the system choose a free one

    Holds QoS 0 to 2, retained messages and wills while it runs; nothing is kept on disk.
    """

    host: Final = LOOPBACK

    def __init__(self, port: int = 0) -> None:
        if not 0 <= port <= 65535:
            raise UsageError(f"embedded MQTT broker: port must be 0 to 65535, found {port}")
        self._asked_port = port
        self._port: int | None = None
        self._ready = threading.Event()
        self._fault: OSError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Port that it listens on.

        Raises
        ------
        BrokerError
            It is not running.
        """
        if self._port is None:
            raise BrokerError("the embedded MQTT broker is not running: start it first")
        return self._port

    @property
    def settings(self) -> BrokerSettings:
        """How to connect to it; raises as `port`."""
        return BrokerSettings(self.host, self.port, version="3.1.1")

    def start(self) -> LoopbackBroker:
        """Listen; returns once connections are accepted.

        Raises
        ------
        BrokerError
            The port is taken or not allowed.
        """
        if self._thread is not None:
            return self
        _quiet()
        self._ready.clear()
        self._fault = None
        self._thread = threading.Thread(target=self._run, name="mqtt-broker", daemon=True)
        self._thread.start()
        in_time = self._ready.wait(_START_TIMEOUT_S)
        where = f"embedded MQTT broker: {LOOPBACK}:{self._asked_port}"
        if self._fault is not None:
            fault = self._fault
            self._thread.join()
            self._thread = None
            if fault.errno == errno.EADDRINUSE:
                remedy = "use the broker that is there (set the MQTT host), or choose another port"
                raise BrokerError(f"{where} is taken by another program: {remedy}") from fault
            if fault.errno == errno.EACCES:
                raise BrokerError(
                    f"{where} is not allowed to this user: choose a port from 1024 on"
                ) from fault
            raise BrokerError(f"{where}: {fault.strerror or fault}") from fault
        if not in_time or self._port is None:
            self.stop()
            raise BrokerError(f"{where}: not ready within {_START_TIMEOUT_S:g} s: see the log")
        return self

    def stop(self) -> None:
        """Close all connections and the port; one that is not running is no error."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        thread.join(2 * _STOP_TIMEOUT_S)

    def __enter__(self) -> LoopbackBroker:
        return self.start()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _value: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as exc:
            self._fault = exc
        finally:
            self._port = None
            self._loop = None
            self._stop = None
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_report)
        self._stop = asyncio.Event()
        plugin = f"{AcceptLocal.__module__}.{AcceptLocal.__qualname__}"
        config = BrokerConfig(
            listeners={
                _LISTENER: ListenerConfig(
                    type=ListenerType.EXTERNAL, bind=f"{LOOPBACK}:{self._asked_port}"
                )
            },
            plugins={plugin: {}},
        )
        broker = _Broker(config, loop=self._loop)
        await broker.start()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is not None:
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)
            await _hand_over(broker, reader, writer)

        server: asyncio.Server | None = None
        try:
            server = await asyncio.start_server(accept, LOOPBACK, self._asked_port)
            self._port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._stop.wait()
        finally:
            if server is not None:
                server.close()
            await self._end(broker)

    async def _end(self, broker: Broker) -> None:
        try:
            await asyncio.wait_for(broker.shutdown(), _STOP_TIMEOUT_S)
        except asyncio.TimeoutError:
            logger.debug("embedded broker: a client did not let go in time")
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


def _report(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # What a client sends may upset amqtt's parser: that ends this client's connection only.
    logger.debug("embedded broker: %s", context.get("message"), exc_info=context.get("exception"))


async def _hand_over(
    broker: Broker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        beginning, asks_for_5 = await _beginning(reader)
        if asks_for_5:
            writer.write(_REFUSED_LEVEL)
            await writer.drain()
            return
        await broker.external_connected(
            _Reader(reader, beginning), StreamWriterAdapter(writer), _LISTENER
        )
    except asyncio.IncompleteReadError:
        logger.debug("embedded broker: a client left before it said who it is")
    except RuntimeError as exc:
        # amqtt walks its table of subscriptions while others may add to it. The client that met
        # this would be acknowledged and never heard: close it, so that it connects again.
        logger.debug("embedded broker: dropped a connection: %s", exc)
    except OSError as exc:
        logger.debug("embedded broker: a client went away: %s", exc)
    finally:
        writer.close()
