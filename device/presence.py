"""One sensor for each device id: who holds it, told between those who claim it.

Two daemons with one device id would take turns in being `online`, and the will of the one would
speak for the other. Each connection has a client id of its own, so a broker ends neither; they ask
each other on `<base>/<device>/status/instance`, where nothing is retained:

    who <instance>     by one who has connected: does anyone hold this device id?
    here <instance>    by the one who holds it; the asker then leaves without a will

An instance is the UUIDv7 of a running daemon. Of those who ask in the same moment the smallest goes
on; where two hold the id after all, the greater leaves.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from soundpost.device.identifiers import uuid7
from soundpost.device.mqtt_client import Client
from soundpost.device.mqtt_faults import Fault
from soundpost.device.topics import Topics

logger = logging.getLogger(__name__)

ONLINE: Final = "online"
OFFLINE: Final = "offline"

# How long the broker may take to give back our question, and then another sensor to answer it.
_ECHO_S: Final = 2.0
_ANSWER_S: Final = 1.0

Send = Callable[[Client, str, str], None]


class Presence:
    """Claims a device id for this daemon; all but `claim` is called in the network thread.

    send : publishes a message that is of use for some seconds only
    on_overruled : called when `status` says something else than `online` while we hold the id: the
        will of an older connection, or a word of a rival that is gone
    """

    def __init__(self, topics: Topics, send: Send, on_overruled: Callable[[], None]) -> None:
        self.instance = uuid7()
        self._topics = topics
        self._send = send
        self._on_overruled = on_overruled
        self._changed = threading.Condition()
        self._client: Client | None = None
        self._holds = False
        self._echoed = False
        self._rival = False
        self._was_online = False
        self._told_deaf = False

    @property
    def filters(self) -> tuple[str, str]:
        """What a connection listens to before it claims."""
        return self._topics.status, self._topics.instance

    def claim(self, client: Client) -> Fault | None:
        """Ask whether another daemon holds the device id, and take it where none does.

        Waits for an answer only where `status` says that someone is online.
        """
        self._send(client, self._topics.instance, f"who {self.instance}")
        with self._changed:
            # What is retained comes before our own question comes back.
            self._changed.wait_for(lambda: self._echoed or self._rival, _ECHO_S)
            if not self._echoed and not self._told_deaf:
                self._told_deaf = True
                logger.info(
                    "the broker does not let this user read %s: a second sensor with this device "
                    "id would not be noticed",
                    self._topics.instance,
                )
            if self._echoed and self._was_online:
                self._changed.wait_for(lambda: self._rival, _ANSWER_S)
            if self._rival:
                return self._taken()
            self._holds = True
        return None

    def release(self, client: Client | None = None) -> None:
        """Forget what the last connection heard; the next is `client`."""
        with self._changed:
            self._client = client
            self._holds = self._echoed = self._rival = self._was_online = False

    @property
    def holds(self) -> bool:
        """Whether the device id is ours, so that `status` has to say `online`."""
        with self._changed:
            return self._holds

    def resign(self) -> None:
        """We leave this broker of our own will: what we say now is not to be contradicted."""
        with self._changed:
            self._holds = False

    def take_status(self, payload: bytes) -> None:
        """Our own status, as the broker has it."""
        with self._changed:
            self._was_online = payload == ONLINE.encode()
            overruled = self._holds and not self._was_online
        if overruled:
            self._on_overruled()

    def take_instance(self, payload: bytes) -> None:
        """A question or an answer; anything else is nobody's."""
        word, _, instance = payload[:64].decode("utf-8", "replace").partition(" ")
        if word not in ("who", "here") or not instance:
            return
        with self._changed:
            if instance == self.instance:
                self._echoed = True
                self._changed.notify_all()
                return
            client, holds = self._client, self._holds
            older = instance < self.instance
            if not holds and (word == "here" or older):
                self._rival = True
                self._changed.notify_all()
                return
        if client is None:
            return
        if not holds:
            # A younger one asks at the same time: it hears that we do too.
            self._send(client, self._topics.instance, f"who {self.instance}")
        elif word == "here" and older:
            client.fail(self._taken(), goodbye=True)
        else:
            self._send(client, self._topics.instance, f"here {self.instance}")

    def _taken(self) -> Fault:
        return Fault(
            f"another sensor uses the device id {self._topics.device_id}",
            "give each sensor a device_id of its own",
            True,
        )
