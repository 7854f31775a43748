"""Which model a sensor that starts hears with.

A model that is tried, beside the present one or in its place, may crash the sensor, or hang it
until the watchdog ends it: each start with it is written down before it is loaded, and each orderly
end too. Starts without an end are counted, in the shadow and on probation together, and after some
of them the model is rejected or taken back; those after which it was heard for long enough are
forgotten. A model that cannot be loaded gives way to the one before it, and in the end to the one
that the settings name. Nothing that is found in the folder keeps the sensor from starting.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from soundpost.device.bundle import open_bundle, starter_bundle_path
from soundpost.device.clock import Moment
from soundpost.device.errors import InputError, MissingExtraError, SoundpostError
from soundpost.device.updates.model_state import Result
from soundpost.device.updates.model_store import ModelStore
from soundpost.device.updates.offers import Installed
from soundpost.device.updates.update_record import RecordFile, UpdateRecord

_LOGGER = logging.getLogger(__name__)

# Of the settings' bundle, where that is the starter: another starter, of a newer soundpost, is
# nobody's choice against a model that was installed.
STARTER = "starter"
# A power cut is not the model's fault; a model that takes the machine down looks the same. It takes
# more of them, and each is forgotten after so much sound of the probation without another one: a
# sensor on a timer hears for longer at a time, and what takes a machine down mostly does so soon.
_MORE_POWER_CUTS = 3
_CUT_FORGOTTEN_S = 1_800.0
# A crash speaks against the model itself. Memory that leaks takes hours to fill: a model that
# crashes several times a day must not be kept for the hours between.
_CRASH_FORGOTTEN_S = 43_200.0


@dataclass
class Boot:
    """What was found, for the sensor and its updater; one process at a time has the folder.

    path : bundle to hear with
    settings_bundle : that the settings name; None: the starter
    store, record : of the folder; None where it cannot be used
    fault : why it cannot, one line; None: all is well
    notices : what was done, a line each
    """

    path: Path
    settings_bundle: Path | None
    store: ModelStore | None = None
    record: RecordFile | None = None
    fault: str | None = None
    notices: list[str] = field(default_factory=list)
    _lock: int | None = None

    @property
    def settings_path(self) -> Path:
        """Bundle of the settings."""
        return self.settings_bundle or starter_bundle_path()

    def bundle_path(self, model: Installed | None) -> Path:
        """File of a model of the store; None: of the settings."""
        if model is None or self.store is None:
            return self.settings_path
        return self.store.path(model)

    def ended(self) -> None:
        """The sensor ends as it should: not in a crash. May be called more than once."""
        if self.record is not None:
            self.record.try_change(running=False)
        self.release()

    def release(self) -> None:
        """Let another process have the folder, as every end of this one does."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def boot(
    folder: Path,
    settings_bundle: Path | None,
    *,
    max_crashes: int = 2,
    runtime: str = "auto",
    threads: int = 1,
) -> Boot:
    """Choose the model to hear with; never raises for what the folder holds.

    Parameters
    ----------
    folder : of models and the state of updates; made where it is missing
    settings_bundle : None: the starter
    max_crashes : a model that is tried is not loaded again after so many
    runtime, threads : of the interpreter

    Call `ended` of what it returns wherever the sensor ends as it should.
    """
    found = Boot(settings_bundle or starter_bundle_path(), settings_bundle)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found._lock = _lock(folder)
        found.store = ModelStore(folder)
        found.record = RecordFile(folder)
    except (OSError, SoundpostError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        found.store = None
        found.release()
        found.fault = reason if isinstance(error, SoundpostError) else f"{folder}: {reason}"
        found.notices.append(f"no updates, and the model of the settings: {found.fault}")
        return found
    _prefer_choice(found, runtime, threads)
    bad = _count_starts(found, max_crashes)
    found.path = _loadable(found, bad, runtime, threads)
    try:
        for model, reason in bad.items():
            _give_up(found, model, reason)
        state = found.store.state
        if state.current is not None and not state.confirmed and not bad:
            note_start(found.record, state.current)
    except InputError as error:
        # The disk is full or read-only: a model on probation waits, for its crashes could not be
        # counted; what has proved itself needs nothing written.
        current = found.store.state.current
        if current is not None and not found.store.state.confirmed:
            bad.setdefault(current, "")
            found.path = _loadable(found, bad, runtime, threads)
        found.notices.append(f"the last model that has proved itself: {error}")
    for line in found.notices:
        _LOGGER.warning("%s", line)
    return found


def note_start(record: RecordFile, model: Installed) -> None:
    """Write down that the sensor hears with a model that is tried, or beside it, before it does.

    Raises InputError where that cannot be written.
    """
    known = record.record.about(model.sha256)
    record.save(replace(known, running=True, boot_id=Moment.now().boot_id))


def ends_too_often(record: UpdateRecord, max_crashes: int) -> str:
    """Why the record's model is not to be loaded again, one line; empty where it may be."""
    if record.crashes >= max_crashes:
        return f"the sensor ended {record.crashes} times without being told to"
    if record.power_cuts >= max_crashes + _MORE_POWER_CUTS:
        return f"the machine went down {record.power_cuts} times"
    return ""


def settings_mark(settings_bundle: Path | None) -> str:
    """What is remembered of the settings' bundle, to see later that someone named another one."""
    if settings_bundle is None:
        return STARTER
    try:
        return hashlib.sha256(settings_bundle.read_bytes()).hexdigest()
    except OSError:
        return ""


def _lock(folder: Path) -> int:
    """A handle that holds the folder for this process; InputError where another one does.

    Of the folder itself, for nothing can be made on a disk that is full or read-only.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(
            f"{folder}: another sensor uses it; stop that one, or give this one a folder of its own"
        ) from None
    except OSError as error:
        # Some network file systems lock no folders.
        _LOGGER.info("%s: cannot be locked (%s)", folder, error)
    return handle


def _prefer_choice(found: Boot, runtime: str, threads: int) -> None:
    """A bundle that somebody has named in the settings since wins over what was installed."""
    assert found.store is not None
    assert found.record is not None
    before, bundle = found.record.record.settings_sha256, found.settings_bundle
    if found.store.state.current is None or bundle is None or not before:
        return
    if settings_mark(bundle) in ("", before):
        return
    try:
        open_bundle(bundle, runtime, threads)
    except SoundpostError as error:
        found.notices.append(f"the settings name another model, which cannot be used: {error}")
        return
    try:
        found.store.use_settings()
    except InputError as error:
        found.notices.append(f"the settings name another model, which waits: {error}")
        return
    found.notices.append(f"the settings name another model: {bundle} in place of the installed one")


def _count_starts(found: Boot, max_crashes: int) -> dict[Installed, str]:
    """The model that is tried and why it is given up, if it has ended the sensor too often.

    Counted in memory where the disk is full: it is not loaded then.
    """
    assert found.store is not None
    assert found.record is not None
    state, file = found.store.state, found.record
    model = state.candidate if state.confirmed else state.current
    if model is None:
        return {}
    record = file.record.about(model.sha256)
    if record.running:
        record = _with_end(record, crashed=record.boot_id == Moment.now().boot_id)
        # At once: counted once, whatever happens next.
        file.try_change(**asdict(record))
    reason = ends_too_often(record, max_crashes)
    return {model: reason} if reason else {}


def _with_end(record: UpdateRecord, *, crashed: bool) -> UpdateRecord:
    """The record with one more end that nobody asked for; those that are long past are forgotten.

    crashed : the sensor ended; else the machine did
    """
    crashes, cuts = record.crashes, record.power_cuts
    heard_s = record.compared_s + record.heard_s
    if heard_s - record.crashed_at_s >= _CRASH_FORGOTTEN_S:
        crashes = 0
    if heard_s - record.cut_at_s >= _CUT_FORGOTTEN_S:
        cuts = 0
    return replace(
        record,
        crashes=crashes + crashed,
        power_cuts=cuts + (not crashed),
        crashed_at_s=heard_s if crashed else record.crashed_at_s,
        cut_at_s=record.cut_at_s if crashed else heard_s,
        running=False,
    )


def _loadable(found: Boot, bad: dict[Installed, str], runtime: str, threads: int) -> Path:
    """File of the first model that can be loaded; the settings' own is left to the sensor.

    bad : models that are not tried; those that cannot be loaded are added, with the reason
    """
    assert found.store is not None
    for model in (found.store.state.current, found.store.state.previous):
        if model is None:
            break
        if model in bad:
            continue
        path = found.store.path(model)
        try:
            open_bundle(path, runtime, threads)
        except MissingExtraError:
            # No model can be loaded then, and none is to blame.
            return path
        except (SoundpostError, OSError, ValueError, RuntimeError, MemoryError) as error:
            bad[model] = " ".join(str(error).split())[:200] or type(error).__name__
        else:
            return path
    return found.settings_path


def _give_up(found: Boot, model: Installed, reason: str) -> None:
    """Reject the candidate, or take the current model back; any other is left as it is."""
    assert found.store is not None
    assert found.record is not None
    result: Result
    if model == found.store.state.candidate:
        found.store.discard(rejected=True)
        result, done = "rejected", "was rejected"
    elif model == found.store.state.current:
        found.store.roll_back()
        result, done = "rolled_back", "was taken back"
    else:
        return
    line = f"{model.name} {model.version} {done}: {reason}"
    found.record.try_change(result=result, reason=line, result_time=datetime.now(timezone.utc))
    found.notices.append(line)
