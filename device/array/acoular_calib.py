"""The `<Calib>` XML of Acoular: one factor for each microphone, in pascals per unit.

It has no room for delays and responses, and none for dead microphones but a factor of 0.
"""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

from soundpost.device.array.acoular_xml import read_plain_xml
from soundpost.device.array.calibration_file import Calibration
from soundpost.device.array.calibration_sections import (
    Evidence,
    LevelSection,
    MicrophoneSection,
)
from soundpost.device.array.calibration_use import typical_pa_per_unit
from soundpost.device.array.geometry_files import ArrayDescription
from soundpost.device.errors import InputError
from soundpost.device.files import write_atomically

_METHOD = "factors of Acoular's Calib XML"


def write_acoular_calib(path: Path, array: ArrayDescription, calibration: Calibration) -> None:
    """Write the factors in the order of array.json, 0 for microphones that are dead.

    Without a level the factors are those that make all microphones alike, about 1.

    Raises InputError for a calibration of another array, or where it cannot be written.
    """
    calibration.check_belongs(array.geometry, str(path))
    typical = 1.0 if calibration.level is None else typical_pa_per_unit(array, calibration)
    factors = np.full(array.geometry.n_mics, typical)
    microphones = calibration.microphones
    if microphones is not None:
        factors /= np.where(microphones.inverted, -1.0, 1.0) * np.array(microphones.gain)
        factors[list(microphones.named("dead"))] = 0.0
    lines = [
        f'  <pos Name="Point {number}" factor="{float(factor)!r}"/>'
        for number, factor in enumerate(factors, 1)
    ]
    head = (
        f'<?xml version="1.0" encoding="utf-8"?>\n<Calib name={quoteattr(calibration.array_name)}>'
    )
    write_atomically(path, "\n".join([head, *lines, "</Calib>", ""]).encode())


def read_acoular_calib(
    path: Path, array: ArrayDescription, date: datetime, known: Calibration | None = None
) -> Calibration:
    """The calibration of an array with the gains of such factors.

    date : when they were measured, which the XML does not say
    known : what has been found out before. Delays, channels and faults stay as they are, for the
        XML has no room for them; so does the level. Without one the median of the factors becomes
        it, on the channel of the microphone nearest to it: Acoular takes them for pascals.

    Raises InputError naming the file and the microphone.
    """
    factors = np.array(_factors(path))
    n_mics = array.geometry.n_mics
    if len(factors) != n_mics:
        raise InputError(
            f"{path}: {len(factors)} factors; expected {n_mics}, one for each microphone of "
            f"{array.geometry.name[:60]!r}"
        )
    strength = np.abs(factors)
    alive = strength > 0
    if not alive.any():
        raise InputError(f"{path}: all factors are 0; expected pascals per unit")
    typical = float(np.median(strength[alive]))
    gain = np.where(alive, typical / np.where(alive, strength, 1.0), 1.0)
    nearest = int(np.argmin(np.where(alive, np.abs(np.log(gain)), np.inf)))
    evidence = Evidence(date, _METHOD)
    found = Calibration.of(array.geometry) if known is None else known
    found.check_belongs(array.geometry, str(path))
    old = found.microphones
    microphones = MicrophoneSection(
        evidence,
        tuple(gain.tolist()),
        (0.0,) * n_mics if old is None else old.delay_s,
        tuple((factors < 0).tolist()),
        tuple(
            "dead" if not of else "good" if old is None else old.states[mic]
            for mic, of in enumerate(alive)
        ),
        array.channels if old is None else old.channels,
        found.geometry(array).hash() if old is None else old.positions_sha256,
    )
    found = found.with_section(microphones)
    if found.level is not None:
        return found
    level = LevelSection(evidence, float(strength[nearest]), 0.0, microphones.channels[nearest])
    return found.with_section(level)


def _factors(path: Path) -> list[float]:
    root = read_plain_xml(path, "Calib")
    factors = []
    for number, element in enumerate(root.iter("pos")):
        try:
            factor = float(element.attrib["factor"])
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{path}: <pos> {number}: found {element.attrib}; expected a factor"
            ) from error
        if not math.isfinite(factor):
            raise InputError(f"{path}: <pos> {number}: factor {factor}; expected a finite number")
        factors.append(factor)
    return factors
