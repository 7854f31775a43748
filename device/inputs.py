"""Sound inputs and their names: which of them is meant, whatever order they were plugged in.

The capture process imports this for every microphone: nothing but the standard library, and
little of that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from soundpost.device.errors import CaptureError, DeviceAbsentError, DeviceBusyError

ASOUND = Path("/proc/asound")
CLASS_SOUND = Path("/sys/class/sound")

# An ALSA device in PortAudio's name for it; the card's number may change at every start.
_PLACE = re.compile(r"(.*?) ?\(hw:(\d+),(\d+)\)")
# As udev writes serial numbers into names.
_NO_NAME = re.compile(r"[^A-Za-z0-9#+.:=@_-]+")


class Card(NamedTuple):
    """A sound card that can capture, as the kernel describes it.

    number : may change at every start
    names : most stable first: USB serial number, USB port, USB port and interface, ALSA's id; the
        id of one of two equal microphones depends on which was found first
    devices : numbers of its capture devices
    users : by device, the process that captures from it
    """

    number: int
    names: tuple[str, ...]
    devices: tuple[int, ...]
    users: Mapping[int, int]

    @property
    def id(self) -> str:
        """ALSA's name of the card."""
        return self.names[-1]


def read_cards(asound: Path = ASOUND, class_sound: Path = CLASS_SOUND) -> list[Card]:
    """Cards with a capture device, by the kernel's files; without ALSA there are none.

    asound : ALSA's folder in /proc; cardN/id, cardN/pcmDc/sub0/status
    class_sound : folder of /sys in which cardN/device leads to the USB interface of card N
    """
    cards = []
    for folder in _found(asound, "card[0-9]*"):
        number = int(folder.name[4:])
        devices = sorted(int(path.name[3:-1]) for path in _found(folder, "pcm*c"))
        card_id = _text(folder / "id")
        if not devices or not card_id:
            continue
        names = (*_usb_names(class_sound / folder.name / "device"), card_id)
        users = {
            device: user
            for device in devices
            if (user := _user(folder / f"pcm{device}c/sub0/status")) is not None
        }
        cards.append(Card(number, names, tuple(devices), users))
    return cards


def _found(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:  # A card may be unplugged at any moment.
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _usb_names(link: Path) -> list[str]:
    """Names by USB serial number and port, of the device whose interface a link leads to."""
    try:
        interface = link.resolve(strict=True)
    except OSError:
        return []
    usb = interface.parent
    if not (usb / "idVendor").exists():
        return []
    serial = _NO_NAME.sub("_", _text(usb / "serial"))
    by_serial = [f"serial-{serial}"] if serial else []
    return [*by_serial, f"usb-{usb.name}", f"usb-{interface.name}"]


def _user(status: Path) -> int | None:
    found = re.search(r"^owner_pid\s*:\s*(\d+)", _text(status), re.MULTILINE)
    return int(found[1]) if found else None


class InputDevice(NamedTuple):
    """A sound input.

    name : the most stable of its names that no other input has, or PortAudio's for an input that is
        no card (pulse, default)
    other_names : what else means this input now
    portaudio_name : as PortAudio reports it; "hw:1,0" in it may change at the next start; "" while
        it cannot be opened
    portaudio_index : PortAudio's number, for its process only; -1 while it cannot be opened
    alsa_card : id of the ALSA card or None
    n_channels : most that can be captured; 0 while it cannot be opened
    default_rate_hz : the rate it prefers; 0 while it cannot be opened
    is_default : whether `mic:` means it
    user : process that captures from it now, None where there is none or it shares (a sound server)
    """

    name: str
    other_names: tuple[str, ...]
    portaudio_name: str
    portaudio_index: int
    alsa_card: str | None
    n_channels: int
    default_rate_hz: int
    is_default: bool
    user: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All that it is called, the most stable first."""
        return (self.name, *self.other_names)


def describe_inputs(
    devices: Sequence[Mapping[str, Any]], default: int, cards: Sequence[Card]
) -> list[InputDevice]:
    """Inputs among PortAudio's devices, and those of cards that it could not open, with names.

    devices : PortAudio's list, each with name, index, max_input_channels, default_samplerate
    default : index of the default input, or -1
    """
    heard = [device for device in devices if device["max_input_channels"] > 0]
    # With no default of the system's, one microphone alone leaves no doubt.
    if default < 0 and len(heard) == 1:
        default = heard[0]["index"]
    by_number = {card.number: card for card in cards}
    found: list[tuple[list[str], InputDevice]] = []
    listed = set()
    for device in heard:
        portaudio_name = device["name"]
        place = _PLACE.fullmatch(portaudio_name)
        card = by_number.get(int(place[2])) if place else None
        names = [portaudio_name]
        if place and card:
            listed.add((card.number, int(place[3])))
            names = [*_device_names(card, int(place[3])), portaudio_name, place[1]]
        elif place:
            names.append(place[1])
        found.append(
            (
                names,
                InputDevice(
                    name="",
                    other_names=(),
                    portaudio_name=portaudio_name,
                    portaudio_index=device["index"],
                    alsa_card=card.id if card else None,
                    n_channels=device["max_input_channels"],
                    default_rate_hz=round(device["default_samplerate"]),
                    is_default=device["index"] == default,
                ),
            )
        )
    for card in cards:
        for number in card.devices:
            if (card.number, number) not in listed:
                closed = InputDevice("", (), "", -1, card.id, 0, 0, False, card.users.get(number))
                found.append((_device_names(card, number), closed))
    taken = [name for names, _ in found for name in set(names)]
    inputs = []
    for names, item in found:
        own = list(dict.fromkeys(name for name in names if name and taken.count(name) == 1))
        name, *others = own or names
        inputs.append(item._replace(name=name, other_names=tuple(others)))
    return inputs


def _device_names(card: Card, device: int) -> list[str]:
    """Names of one capture device of a card, which has the card's own if it is the only one."""
    return [name if len(card.devices) == 1 else f"{name},{device}" for name in card.names]


def find_input(name: str, inputs: Sequence[InputDevice], cards: Sequence[Card] = ()) -> InputDevice:
    """Return the one input of that name ("": the default).

    Raises DeviceAbsentError listing the candidates where none or several fit, DeviceBusyError where
    the one that fits cannot be opened.
    """
    if name:
        found = [item for item in inputs if name in item.names] or _by_card(name, inputs, cards)
    else:
        found = [item for item in inputs if item.is_default]
    if len(found) == 1:
        if found[0].portaudio_index < 0:
            raise _busy(found[0])
        return found[0]
    if not inputs:
        raise DeviceAbsentError(
            f"{_microphone(name)} not found, nor any other: plug one in and see `arecord -l`, or "
            "replay a recording with file:PATH"
        )
    problem = "names several inputs" if found else "no input has this name" if name else "choose"
    listed = ", ".join(f"mic:{item.name}" for item in found or inputs)
    raise DeviceAbsentError(
        f"{_microphone(name)}: {problem}: expected one of {listed} (`soundpost devices`)"
    )


def _microphone(name: str) -> str:
    return f"microphone {name!r}" if name else "default microphone"


def _by_card(name: str, inputs: Sequence[InputDevice], cards: Sequence[Card]) -> list[InputDevice]:
    """All inputs of the cards of that name: a card with several devices, or cards with one name."""
    ids = {card.id for card in cards if name in card.names}
    return [item for item in inputs if item.alsa_card in ids]


def _busy(item: InputDevice) -> CaptureError:
    if item.user is not None:
        return DeviceBusyError(
            f"microphone {item.name!r} is in use by process {item.user}, and an ALSA device has "
            "one reader: end that program, or let both read through a sound server (mic:pulse) or "
            "a dsnoop device (hardware.md)"
        )
    return DeviceBusyError(
        f"microphone {item.name!r} is plugged in and cannot be opened: add the user to the group "
        "`audio` (sudo usermod -aG audio USER, then log in again), or see `dmesg` for its driver"
    )
