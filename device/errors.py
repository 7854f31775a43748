"""Errors that a person can act on: one line saying what, where, found, expected, remedy.

Every sub-command ends with the exit code of the error that stopped it (`soundpost --help` lists
them).
"""

from __future__ import annotations


class SoundpostError(Exception):
    """A job cannot go on, and the message says why in one line."""

    exit_code = 1


class UsageError(SoundpostError):
    """An option or a setting is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """A settings file has an unknown key or a value outside its range.

    The message is of the first problem; `problems` has a line for each.
    """

    def __init__(self, problem: str, *more: str) -> None:
        super().__init__(problem)
        self.problems = (problem, *more)


class InputError(SoundpostError):
    """A file or folder that was given cannot be used."""

    exit_code = 3


class BundleError(InputError):
    """A model bundle is damaged, unsafe or made for something else."""


class BrokerError(SoundpostError):
    """The MQTT broker is absent, refused us or went away."""

    exit_code = 4


class CaptureError(SoundpostError):
    """A sound device cannot be used, or can no longer be."""

    exit_code = 5


class DeviceAbsentError(CaptureError):
    """No sound device has this name, or several have."""


class DeviceBusyError(CaptureError):
    """A sound device is there and cannot be opened: in use, forbidden, or unable to do as asked."""


class DeviceLostError(CaptureError):
    """A stream has ended: unplugged, its sound server gone, its driver crashed or hung."""


class StreamStalledError(DeviceLostError):
    """A stream delivers no samples, though nothing says that it has ended."""


class DigitalSilenceError(CaptureError):
    """A stream delivers nothing but zeros; a microphone in a quiet room has noise."""


class SampleRateError(CaptureError):
    """A stream delivers far more or fewer samples in a second than its rate says."""


class ExportError(SoundpostError):
    """A converted model does not reproduce the trained one."""

    exit_code = 6


class MissingExtraError(SoundpostError):
    """A command needs packages of an extra that is not installed."""

    exit_code = 7


class RefusedError(SoundpostError):
    """A sensor does not obey a command, and said why."""

    exit_code = 8


class UpdateError(SoundpostError):
    """A newer model cannot be had from the repository now; the present one goes on."""

    exit_code = 12


class UpdateDeferredError(UpdateError):
    """An update waits for something of this machine: a synchronised clock, free space."""


class UpdateUnreachableError(UpdateError):
    """The repository does not answer, breaks off, or answers too slowly."""


class UpdateRefusedError(UpdateError):
    """The repository answers with something that its keys do not vouch for, or that is not fit."""


class ServiceError(SoundpostError):
    """A step of installing, starting or removing the service failed."""

    exit_code = 11


class RollOutStoppedError(SoundpostError):
    """A model did worse in a fleet than the conditions of its roll-out allow."""

    exit_code = 13
