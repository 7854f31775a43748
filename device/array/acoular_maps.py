"""Maps beyond delay-and-sum, made by Acoular (Sarradj and Herold, 2017) from a recording.

Slow and offline: seconds a map. Acoular gives what it is asked for, the mean square pressure that
each pixel contributes to a band; pixels far away are put at 5 m, for its phases are float32.
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from typing import Any, Final

import numpy as np

from soundpost.device.array.beamforming import FloatArray
from soundpost.device.array.geometry import ArrayGeometry, ImageGrid
from soundpost.device.errors import InputError, MissingExtraError, UsageError

# Name, class of Acoular, and what differs from its defaults. Without the diagonal where its own
# literature takes it away.
METHODS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "base": ("BeamformerBase", {}),
    "eig": ("BeamformerEig", {"n": -1}),
    "orth": ("BeamformerOrth", {"n": 4}),
    "functional": ("BeamformerFunctional", {"gamma": 10, "r_diag": False}),
    "mvdr": ("BeamformerCapon", {}),
    "music": ("BeamformerMusic", {"n": 4}),
    "clean": ("BeamformerClean", {}),
    "clean-sc": ("BeamformerCleansc", {}),
    "damas": ("BeamformerDamas", {"n_iter": 50}),
}
_FAR_M: Final = 5.0


def acoular_map(
    samples: FloatArray,
    sample_rate_hz: float,
    geometry: ArrayGeometry,
    grid: ImageGrid,
    sound_m_s: float,
    *,
    method: str,
    frequency_hz: float,
    bandwidth: int = 3,
    block_length: int = 1_024,
) -> FloatArray:
    """Map of one band, by Acoular.

    Parameters
    ----------
    samples : (n_samples, n_mics), of the microphones of geometry
    method : name in METHODS
    frequency_hz, bandwidth : middle of the band, and 1 for an octave, 3 for a third, 0 for a bin

    Returns
    -------
    (rows, columns) float32, mean square in each pixel, 0 or more

    Raises MissingExtraError without Acoular, UsageError for an unknown method or a band without a
    bin, InputError for too little sound.
    """
    if method not in METHODS:
        raise UsageError(f"method {method!r}; expected one of {', '.join(METHODS)}")
    if len(samples) < block_length:
        raise InputError(
            f"{len(samples)} samples; expected at least {block_length}, one block of the spectra"
        )
    bin_hz = sample_rate_hz / block_length
    if not bin_hz <= frequency_hz <= sample_rate_hz / 2:
        raise UsageError(
            f"frequency {frequency_hz:g} Hz; expected {bin_hz:g} to {sample_rate_hz / 2:g} Hz"
        )
    acoular = _acoular()
    points_m = grid.points_m()
    if points_m is None:
        points_m = grid.directions() * _FAR_M
    steering = acoular.SteeringVector(
        grid=acoular.ImportGrid(pos=points_m.T),
        mics=acoular.MicGeom(pos_total=geometry.positions_m.T),
        env=acoular.Environment(c=sound_m_s),
    )
    # Acoular cuts into whole blocks only.
    source = acoular.TimeSamples(
        data=np.ascontiguousarray(samples, np.float64), sample_freq=float(sample_rate_hz)
    )
    spectra = acoular.PowerSpectra(
        source=source, block_size=block_length, window="Hanning", overlap="50%"
    )
    name, changes = METHODS[method]
    beamformer = getattr(acoular, name)(freq_data=spectra, steer=steering, **changes)
    # It prints and shows bars of its own.
    with redirect_stdout(io.StringIO()):
        power = np.asarray(beamformer.synthetic(frequency_hz, bandwidth))
    if not power.size:
        raise UsageError(f"frequency {frequency_hz:g} Hz: no bin lies in its band")
    image: FloatArray = np.maximum(power.reshape(grid.rows, grid.columns), 0).astype(np.float32)
    return image


def _acoular() -> Any:
    try:
        import acoular
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Acoular's methods: need the package {error.name}: pip install acoular"
        ) from error
    # No files beside the user's: Acoular would cache in the working folder.
    acoular.config.global_caching = "none"
    return acoular
