"""At most so many a minute."""

from __future__ import annotations

import time
from collections.abc import Callable


class TokenBucket:
    """At most so many a minute, and as many at once after a quiet minute."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._tokens = float(per_minute)
        self._filled_s = clock()

    def take(self) -> bool:
        """Whether one more is allowed now; it counts if so."""
        now_s = self._clock()
        gained = (now_s - self._filled_s) * self.per_minute / 60.0
        self._tokens = min(float(self.per_minute), self._tokens + gained)
        self._filled_s = now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
