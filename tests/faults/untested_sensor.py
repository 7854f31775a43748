"""`soundpost run` as it is, but new models come without self-test and shadow.

What these would refuse must still be found out while it is heard with. With TESTED=1 in the
environment they are done. The clock counts as synchronised.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Any

from soundpost.device import clock

clock.clock_synchronised = lambda: True

from soundpost.device.cli import main  # noqa: E402 (what it imports asks for the clock)
from soundpost.device.updates.self_test import SelfTestResult  # noqa: E402
from soundpost.device.updates.update_settings import UpdateSettings  # noqa: E402
from soundpost.device.updates.updater import Updater  # noqa: E402

updater_begins = Updater.__init__


def passed(*_arguments: Any, **_more: Any) -> SelfTestResult:
    """Not tried here."""
    return SelfTestResult(True, "not tried here")


def begins(self: Updater, settings: UpdateSettings, *rest: Any, **more: Any) -> None:
    """An updater without what comes before the swap."""
    updater_begins(self, replace(settings, shadow_s=0.0), *rest, self_test=passed, **more)


if os.environ.get("TESTED") != "1":
    Updater.__init__ = begins  # type: ignore[method-assign]
sys.exit(main())
