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
    """A settings file has an unknown key or a value outside its range."""


class InputError(SoundpostError):
    """A file or folder that was given cannot be used."""

    exit_code = 3


class BundleError(InputError):
    """A model bundle is damaged, unsafe or made for something else."""


class BrokerError(SoundpostError):
    """The MQTT broker is absent, refused us or went away."""

    exit_code = 4


class CaptureError(SoundpostError):
    """A sound device is absent, busy or ambiguous."""

    exit_code = 5


class ExportError(SoundpostError):
    """A converted model does not reproduce the trained one."""

    exit_code = 6


class MissingExtraError(SoundpostError):
    """A command needs packages of an extra that is not installed."""

    exit_code = 7
