"""A microphone keeps its names when cards change their order, and equal ones are told apart."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.errors import DeviceAbsentError, DeviceBusyError
from soundpost.device.inputs import Card, InputDevice, describe_inputs, find_input, read_cards


class Plugged(NamedTuple):
    """A card as it is plugged in: port "1-1.2" (None: not USB), serial number, who captures."""

    card_id: str
    port: str | None = None
    serial: str | None = None
    captures: tuple[int, ...] = (0,)
    user: int | None = None
    interface: int = 0


def plug(root: Path, cards: Sequence[Plugged]) -> list[Card]:
    """The kernel's /proc/asound and /sys/class/sound for cards found in this order."""
    asound, class_sound = root / "proc/asound", root / "sys/class/sound"
    asound.mkdir(parents=True)
    class_sound.mkdir(parents=True)
    for number, card in enumerate(cards):
        folder = asound / f"card{number}"
        folder.mkdir()
        (folder / "id").write_text(f"{card.card_id}\n")
        (folder / "pcm0p").mkdir()
        for device in card.captures:
            (folder / f"pcm{device}c/sub0").mkdir(parents=True)
            status = "closed\n"
            if card.user is not None:
                status = f"state: RUNNING\nowner_pid   : {card.user}\ntrigger_time: 12.5\n"
            (folder / f"pcm{device}c/sub0/status").write_text(status)
        if card.port is None:
            device_folder = root / f"sys/devices/platform/soc/{card.card_id}"
        else:
            usb = root / f"sys/devices/platform/scb/pci0000:00/usb1/{card.port}"
            device_folder = usb / f"{card.port}:1.{card.interface}"
            device_folder.mkdir(parents=True, exist_ok=True)
            (usb / "idVendor").write_text("0d8c\n")
            if card.serial is not None:
                (usb / "serial").write_text(f"{card.serial}\n")
        sound = device_folder / f"sound/card{number}"
        sound.mkdir(parents=True)
        (sound / "device").symlink_to("../../../" + device_folder.name)
        (class_sound / f"card{number}").symlink_to(sound)
    (asound / "cards").write_text("")
    return read_cards(asound, class_sound)


def device(index: int, name: str, n_inputs: int = 1) -> dict[str, Any]:
    return {
        "index": index,
        "name": name,
        "max_input_channels": n_inputs,
        "default_samplerate": 44_100.0,
    }


def opened(cards: Sequence[Plugged]) -> list[dict[str, Any]]:
    """As PortAudio names what it can open of cards in this order."""
    return [
        device(number, f"USB Audio Device: - (hw:{number},{capture})")
        for number, card in enumerate(cards)
        for capture in card.captures
        if card.user is None
    ]


def names(inputs: Sequence[InputDevice]) -> list[str]:
    return [item.name for item in inputs]


LEFT = Plugged("Device", "1-1.2")
RIGHT = Plugged("Device_1", "1-1.3")


@given(order=st.permutations(range(4)))
def test_every_name_finds_its_microphone_in_whatever_order_cards_were_found(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    """Two equal ones, one with a serial number, one that is no USB device."""
    ports = {"1-1.2": None, "1-1.3": None, "1-1.4": "A0 17/F2"}
    kinds = [*ports, None]
    cards, equal = [], 0
    for kind in (kinds[place] for place in order):
        if kind is None:
            cards.append(Plugged("seeed2micvoicec"))
        elif ports[kind]:
            cards.append(Plugged("C615", kind, ports[kind]))
        else:  # The kernel numbers equal cards as it finds them.
            cards.append(Plugged(f"Device_{equal}" if equal else "Device", kind))
            equal += 1
    inputs = describe_inputs(opened(cards), -1, plug(tmp_path_factory.mktemp("system"), cards))
    for name, place in [
        ("usb-1-1.2", 0),
        ("usb-1-1.3", 1),
        ("serial-A0_17_F2", 2),
        ("usb-1-1.4", 2),
        ("usb-1-1.4:1.0", 2),
        ("C615", 2),
        ("seeed2micvoicec", 3),
    ]:
        assert find_input(name, inputs).portaudio_index == order.index(place), name
    expected = {0: "usb-1-1.2", 1: "usb-1-1.3", 2: "serial-A0_17_F2", 3: "seeed2micvoicec"}
    assert names(inputs) == [expected[place] for place in order]


def test_a_serial_number_that_several_share_names_none_of_them(tmp_path: Path) -> None:
    """Cheap microphones all have the same."""
    twins = [LEFT._replace(serial="0001"), RIGHT._replace(serial="0001")]
    cards = plug(tmp_path, twins)
    inputs = describe_inputs(opened(twins), -1, cards)
    assert names(inputs) == ["usb-1-1.2", "usb-1-1.3"]
    with pytest.raises(
        DeviceAbsentError, match=r"'serial-0001': names several .* mic:usb-1-1.2, mic:usb-1-1.3 \("
    ):
        find_input("serial-0001", inputs, cards)


def test_cards_of_one_usb_device_differ_by_interface(tmp_path: Path) -> None:
    both = [Plugged("Box", "1-2"), Plugged("Box_1", "1-2", interface=3)]
    inputs = describe_inputs(opened(both), -1, plug(tmp_path, both))
    assert names(inputs) == ["usb-1-2:1.0", "usb-1-2:1.3"]


def test_a_card_keeps_its_name_when_its_number_changes(tmp_path: Path) -> None:
    headphones, usb, camera = Plugged("Headphones", captures=()), LEFT, Plugged("C615")
    before = describe_inputs(
        [
            device(0, "bcm2835 Headphones: - (hw:0,0)", 0),
            device(1, "USB Audio Device: - (hw:1,0)"),
            device(2, "HD Webcam C615: USB Audio (hw:2,0)"),
            device(3, "default", 32),
        ],
        3,
        plug(tmp_path / "before", [headphones, usb, camera]),
    )
    after = describe_inputs(
        [
            device(0, "HD Webcam C615: USB Audio (hw:0,0)"),
            device(1, "USB Audio Device: - (hw:1,0)"),
        ],
        -1,
        plug(tmp_path / "after", [camera, usb]),
    )
    assert names(before) == ["usb-1-1.2", "C615", "default"]
    assert [item.is_default for item in before] == [False, False, True]
    assert [item.alsa_card for item in before] == ["Device", "C615", None]
    for name in ("C615", "HD Webcam C615: USB Audio", "HD Webcam C615: USB Audio (hw:0,0)"):
        assert find_input(name, after).portaudio_index == 0
    assert find_input("C615", before).portaudio_index == 2
    assert find_input("", before).name == "default"


def test_a_name_that_fits_none_or_several_lists_the_candidates(tmp_path: Path) -> None:
    cards = plug(tmp_path, [Plugged("Codec", captures=(0, 2))])
    inputs = describe_inputs(
        [device(0, "Codec: ADC (hw:0,0)"), device(1, "Codec: Line (hw:0,2)"), device(2, "pulse")],
        -1,
        cards,
    )
    assert find_input("Codec,2", inputs, cards).portaudio_index == 1
    with pytest.raises(DeviceAbsentError, match=r"several inputs: .* mic:Codec,0, mic:Codec,2 \("):
        find_input("Codec", inputs, cards)
    with pytest.raises(
        DeviceAbsentError, match=r"'codec'.*one of mic:Codec,0, mic:Codec,2, mic:pulse"
    ):
        find_input("codec", inputs, cards)
    with pytest.raises(DeviceAbsentError, match=r"default microphone: choose.*mic:Codec,0"):
        find_input("", inputs, cards)
    with pytest.raises(DeviceAbsentError, match="not found, nor any other: plug one in"):
        find_input("", [])
    assert find_input("", describe_inputs([device(4, "pulse")], -1, [])).portaudio_index == 4


def test_a_microphone_that_cannot_be_opened_is_told_from_one_that_is_away(tmp_path: Path) -> None:
    """PortAudio leaves out what it cannot open."""
    taken, forbidden = LEFT._replace(user=4_711), Plugged("C615")
    cards = plug(tmp_path, [taken, forbidden])
    inputs = describe_inputs([], -1, cards)
    assert names(inputs) == ["usb-1-1.2", "C615"]
    with pytest.raises(DeviceBusyError, match=r"'usb-1-1.2' is in use by process 4711, .*dsnoop"):
        find_input("Device", inputs, cards)
    with pytest.raises(DeviceBusyError, match=r"'C615' is plugged in .*group `audio`"):
        find_input("C615", inputs, cards)
    with pytest.raises(DeviceAbsentError, match=r"one of mic:usb-1-1.2, mic:C615"):
        find_input("Device_1", inputs, cards)


def test_a_machine_without_alsa_has_no_cards(tmp_path: Path) -> None:
    assert read_cards(tmp_path / "asound", tmp_path / "sound") == []


def test_cards_that_come_and_go_while_they_are_looked_at_are_there_or_not(tmp_path: Path) -> None:
    card = Card(1, ("Mic",), (0,), {})
    ended = threading.Event()

    def flap() -> None:
        while not ended.is_set():
            (tmp_path / "card1/pcm0c/sub0").mkdir(parents=True)
            (tmp_path / "card1/id").write_text("Mic\n")
            shutil.rmtree(tmp_path / "card1")

    flapping = threading.Thread(target=flap)
    flapping.start()
    try:
        until_s = time.monotonic() + 1.0
        while time.monotonic() < until_s:
            assert read_cards(tmp_path, tmp_path) in ([], [card])
    finally:
        ended.set()
        flapping.join()
