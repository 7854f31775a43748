"""Reads a source while a session is recorded: blocks to the disk, their times to the clock."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from soundpost.device.audio import AudioBlock, FloatArray
from soundpost.device.capture import BlockSource
from soundpost.device.errors import SoundpostError
from soundpost.device.gaps import GapLog, Missing
from soundpost.device.session.audio_writer import AudioWriter
from soundpost.device.session.clock_line import ClockLine
from soundpost.device.session.level_meters import LevelMeters
from soundpost.device.session.lost_parts import LostPart

logger = logging.getLogger(__name__)

LOST_BY_SOURCE: Final = "lost before it reached us"
_END_S = 5.0


class SourceFeed:
    """Takes a source's blocks in a thread of its own, from `start` to `close`.

    source : open
    audio : what writes them
    sound : clock of the sound, to which each block adds its time
    meters : how loud it is
    seconds : how much is wanted, None for all
    ended : called once with the reason, and whether that is how it was meant to end
    heard : called with each block, by its numbering; not to wait

    Attributes
    ----------
    position : samples of the timeline so far, gaps included
    paced : sound comes as time passes; else as fast as it is read
    failure : what the source ended with, None where it did not fail
    """

    def __init__(
        self,
        source: BlockSource,
        audio: AudioWriter,
        sound: ClockLine,
        meters: LevelMeters,
        seconds: float | None,
        ended: Callable[[str, bool], None],
        heard: Callable[[AudioBlock], None],
    ) -> None:
        self._source = source
        self._audio = audio
        self._sound = sound
        self._meters = meters
        self._seconds = seconds
        self._end = None if seconds is None else round(seconds * source.rate_hz)
        self._ended = ended
        self._heard = heard
        self._first: int | None = None
        self._log: GapLog | None = None
        self._closing = False
        self.position = 0
        self.paced = True
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def close(self) -> None:
        """Stop, and close the source."""
        self._closing = True
        self._source.close()
        self._thread.join(_END_S)

    def _listen(self) -> None:
        end, meant = None, True
        try:
            end = self._listen_to_end()
        except SoundpostError as error:
            if not self._closing:
                self.failure = error
                end, meant = str(error), False
        except Exception as error:
            # What was closed while it was read may raise anything: that is no failure of it.
            if not self._closing:
                # A source of another package must not leave a recording without end.
                logger.exception("the source has failed")
                self.failure = error
                end, meant = f"the source has failed: {error}", False
        # Before the writer is told to finish.
        self._state_lost(all_of_it=True)
        if end is not None:
            self._ended(end, meant)

    def _listen_to_end(self) -> str | None:
        """Take blocks until there is enough; why it has ended, None where it was closed."""
        for block in self._source.blocks():
            if self._closing:
                return None
            if not self._take(block):
                return f"{self._seconds:g} s were asked for"
        return "the source has ended"

    def _state_lost(self, *, all_of_it: bool = False) -> None:
        """Pass on what some channels have lacked, once it has ended."""
        if self._log is None or self._first is None:
            return
        parts = [*self._log.gaps, *(self._log.open_gaps() if all_of_it else ())]
        self._log.gaps.clear()
        for part in parts:
            # What no channel has is a gap, and stated as such.
            lost = LostPart(*part).within(self._first, self._first + self.position)
            if part.n_channels < self._source.n_channels and lost is not None:
                self._audio.put_lost(lost)

    def _take(self, block: AudioBlock) -> bool:
        """Pass a block on; False once there is enough."""
        samples, rate_hz, now_s = block.samples, block.rate_hz, time.monotonic()
        if self._first is None:
            self._first = block.first_sample
            self.paced = block.time_s is not None or self._source.live
            self._log = GapLog(block.first_sample)
        assert self._log is not None
        self._log.add(block)
        self._heard(block)
        place = block.first_sample - self._first
        if place > self.position:
            self._audio.put_gap(place - self.position, LOST_BY_SOURCE)
            self.position = place
        elif place < self.position:
            # Told twice: the first stands.
            samples = samples[self.position - place :]
        if self._end is not None:
            samples = samples[: max(0, self._end - self.position)]
        self.position += len(samples)
        if self.paced:
            arrived_s = now_s if block.time_s is None else block.time_s
            self._sound.add((place + len(block.samples)) / rate_hz, arrived_s)
        elif not self._sound:
            self._sound.add(0.0, now_s)
        if len(samples):
            self._put_around(block.missing, samples, self._first + self.position - len(samples))
            self._state_lost()
            self._meters.push(samples)
        return self._end is None or self.position < self._end

    def _put_around(self, missing: tuple[Missing, ...], samples: FloatArray, first: int) -> None:
        """Write samples, but for what all channels lack of them: that is a gap.

        first : of the samples, as the block counts
        """
        done = 0
        for part in missing:
            low = max(part.first_sample - first, done)
            high = min(part.first_sample + part.length - first, len(samples))
            if part.n_channels == self._source.n_channels and low < high:
                if low > done:
                    self._put(samples[done:low])
                self._audio.put_gap(high - low, LOST_BY_SOURCE)
                done = high
        if done < len(samples):
            self._put(samples[done:])

    def _put(self, samples: FloatArray) -> None:
        if not self.paced:
            # A file is read as fast as the disk takes it; a microphone does not wait.
            self._audio.wait_for_room(0.5)
        self._audio.put(samples)
