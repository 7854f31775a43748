"""Cadence of an alarm: confirms the temporal patterns T3 and T4 in log-mel frames.

One second, which is all that the student hears, cannot tell a smoke alarm from a reversing lorry of
the same pitch. Here every mel band of the last seconds is compared with one group of pulses
(three of 0.5 s, or four of 0.1 s) at every tempo that the standards allow, by normalised
correlation; two groups in the same band, one period apart, of the same level and with quiet between
them and before them, are a pattern. That takes 6.5 s of sound for T3 and 6.6 s for T4. Where other
sounds fill gaps or drown pulses, three groups folded onto one period are asked the same: the median
of the three forgets what happened once (epoch folding, as in the search for pulsars).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from soundpost.device.alarms import TOLERANCE, TemporalPattern

FloatArray = NDArray[np.float32]

# Pairs of 10 ms frames: a pulse of T4 is still five steps long.
FRAMES_PER_STEP = 2
STEP_S = 0.02
# The longest span to look back on is three groups of T4 at its slowest, 13.6 s. The rest is the
# time that may pass before it is looked at.
HISTORY_S = 16.0

# A pulse is told from a gap within this many nepers below its level (13 dB): deeper gaps are all
# the same, and a room of 0.8 s reverberation still falls by half of it within 90 ms.
_DEPTH = 1.5
# Correlation with a group that makes it worth a look; pulses of T4 are blurred by the room.
_LEAST_CORRELATION = 0.74
_LEAST_CORRELATION_SHORT = 0.65
# Bands that change by less than this (3.5 dB) within the span of a group hold no pulses.
_LEAST_CONTRAST = 0.4
# Groups of one device differ in level by less than this (7 dB).
_LEVEL_TOLERANCE = 0.8
# Reverberation keeps the first part of a gap above half level.
_RINGING_S = 0.12
# Each pulse must be loud, and each half second of a gap quiet, for this share of its steps.
_LEAST_AGREEMENT = 0.65
# Correlation of a T4 group's own level with its pulses: noise on one long tone stays below it.
_LEAST_DIP_CORRELATION = 0.6
# Each end of a group is known to this many steps.
_SLACK = 3
# Groups that begin or end this near to each other (0.3 s) are one group, aligned differently.
_SAME = 15
# Pairs of groups, and threes, that are examined per call: bounds the time of a hop.
_MOST_PAIRS = 12
# Bands asked whether a pattern holds: the ones of the highest contrast, down to this share of it.
_MOST_CARRIERS = 5
_CARRIER_SHARE = 0.5
# A further pulse of the rhythm, of which this share of the carriers' contrast is seen in this share
# of them, makes it another rhythm. In one band alone it may be noise.
_FURTHER_PULSE_SHARE = 0.35
_FURTHER_PULSE_VOTE = 0.5
# What rings 0.1 to 0.2 s after a pulse lies this far below it (7 dB) even at 0.8 s reverberation.
_RINGING_DEPTH = 0.8
# Ends looked at in one matrix product: a hop of 250 ms.
_CHUNK = 13


class FrameHistory:
    """The last `HISTORY_S` of log-mel frames at `STEP_S` steps, numbered from the last clear."""

    def __init__(self, n_mels: int = 64) -> None:
        self._capacity = round(HISTORY_S / STEP_S)
        self.n_mels = n_mels
        self._buffer = np.zeros((2 * self._capacity, n_mels), np.float32)
        self._odd: FloatArray | None = None
        self._filled = 0
        self.end = 0

    @property
    def first(self) -> int:
        """Number of the oldest step that is still held."""
        return self.end - min(self._filled, self._capacity)

    def clear(self) -> None:
        """Forget everything: the stream was interrupted."""
        self._filled = self.end = 0
        self._odd = None

    def push(self, frames: FloatArray) -> None:
        """Add frames.

        Parameters
        ----------
        frames : (n_frames, n_mels) float32, log-mel at 10 ms
        """
        if self._odd is not None:
            frames = np.concatenate((self._odd, frames))
            self._odd = None
        if len(frames) % FRAMES_PER_STEP:
            self._odd = frames[-1:].copy()
            frames = frames[:-1]
        steps = 0.5 * (frames[0::FRAMES_PER_STEP] + frames[1::FRAMES_PER_STEP])
        self.end += len(steps)
        steps = steps[-self._capacity :]
        if self._filled + len(steps) > len(self._buffer):
            kept = min(self._filled, self._capacity)
            self._buffer[:kept] = self._buffer[self._filled - kept : self._filled].copy()
            self._filled = kept
        self._buffer[self._filled : self._filled + len(steps)] = steps
        self._filled += len(steps)

    def span(self, start: int, end: int) -> FloatArray:
        """Steps [start, end), (end - start, n_mels); they must still be held."""
        offset = self._filled - self.end
        return self._buffer[start + offset : end + offset]


@dataclass(frozen=True)
class Group:
    """One group of pulses: its first step and the step after its last, band, tempo, correlation."""

    start: int
    end: int
    band: int
    tempo: float
    correlation: float


@dataclass(frozen=True)
class CadenceMatch:
    """The first and the last of two or three groups that make a pattern."""

    first: Group
    last: Group


def _between(first: Group, last: Group) -> Group:
    """A group that was not seen, half-way between two that are two periods apart."""
    return Group(
        (first.start + last.start) // 2,
        (first.end + last.end) // 2,
        last.band,
        0.5 * (first.tempo + last.tempo),
        0.0,
    )


def _clearest(chains: Sequence[tuple[Group, ...]]) -> list[tuple[Group, ...]]:
    """The chains of the highest correlation, best first, as many as a hop has time for."""
    return sorted(chains, key=lambda chain: -sum(g.correlation for g in chain))[:_MOST_PAIRS]


class CadenceCheck:
    """Finds a temporal pattern in a frame history; costs nothing while it is not asked.

    `scan` notes the groups in the steps that came since the last scan; `match` and `continuation`
    then say what the new ones mean.
    """

    def __init__(self, pattern: TemporalPattern) -> None:
        self.pattern = pattern
        self._short = short = pattern.off_s < 2 * _RINGING_S
        self._least_correlation = _LEAST_CORRELATION_SHORT if short else _LEAST_CORRELATION
        self._quiet_before_s = 0.75
        self._quiet_after_s = 0.24 if short else 0.16
        tempos = np.linspace(1 - TOLERANCE, 1 + TOLERANCE, 9)
        self._tempos = tempos
        self._templates, self._lengths = self._build(tempos)
        self._longest = int(self._lengths.max())
        rows = []
        for template, length in zip(self._templates, self._lengths, strict=True):
            centred = (template - template.mean()) / (template.std() * np.sqrt(length))
            for shift in range(_CHUNK):
                row = np.zeros(self._longest + _CHUNK - 1, np.float32)
                row[shift + self._longest - length : shift + self._longest] = centred
                rows.append(row)
        self._rows = np.array(rows, np.float32).reshape(len(tempos), _CHUNK, -1)
        on_share = float(np.mean(self._templates[len(tempos) // 2]))
        self._loud_share = 1 - on_share / 2
        self._quiet_share = (1 - on_share) * 0.6
        self._next = 0
        self._groups: dict[int, list[Group]] = {}
        self._fresh: list[Group] = []

    def reset(self) -> None:
        """Forget the groups: the history was cleared."""
        self._next = 0
        self._groups = {}
        self._fresh = []

    def _build(self, tempos: NDArray[np.float64]) -> tuple[list[FloatArray], NDArray[np.int64]]:
        pattern = self.pattern
        templates = []
        for tempo in tempos:
            group_s = tempo * (pattern.pulses * (pattern.on_s + pattern.off_s) - pattern.off_s)
            length = round((self._quiet_before_s + group_s + self._quiet_after_s) / STEP_S)
            # Share of each step that a pulse fills, sampled at 1 ms.
            time_s = (np.arange(length * 20) + 0.5) * (STEP_S / 20) - self._quiet_before_s
            step_s = tempo * (pattern.on_s + pattern.off_s)
            inside = (time_s >= 0) & (time_s < group_s) & (time_s % step_s < tempo * pattern.on_s)
            templates.append(inside.reshape(length, 20).mean(axis=1).astype(np.float32))
        return templates, np.array([len(template) for template in templates])

    def scan(self, history: FrameHistory) -> None:
        """Look for groups among the steps that were not looked at yet."""
        self._fresh = []
        start = max(self._next, history.first + self._longest)
        while start < history.end + 1:
            ends = min(_CHUNK, history.end + 1 - start)
            self._scan_chunk(history, start, ends)
            start += ends
        self._next = max(self._next, start)
        oldest = history.first
        for band, noted in list(self._groups.items()):
            kept = [group for group in noted if group.start >= oldest]
            if kept:
                self._groups[band] = kept
            else:
                del self._groups[band]

    def correlations(self, history: FrameHistory, start: int, ends: int) -> FloatArray:
        """(n_tempos, ends, n_mels): correlation with a group whose template ends at each step."""
        steps = history.span(start - self._longest, start + ends - 1)
        n_steps = len(steps)
        kths = (int(self._quiet_share * n_steps), int(self._loud_share * n_steps))
        ordered = np.partition(steps, kths, axis=0)
        quiet, loud = ordered[kths[0]], ordered[kths[1]]
        floor = np.maximum(quiet, loud - _DEPTH)
        contrast = loud - floor
        bands = np.flatnonzero(contrast >= _LEAST_CONTRAST)
        out = np.zeros((len(self._tempos), ends, steps.shape[1]), np.float32)
        if not len(bands):
            return out
        level = np.clip((steps[:, bands] - floor[bands]) / contrast[bands], 0.0, 1.0)
        rows = self._rows[:, :ends, :n_steps]
        product = (rows.reshape(-1, n_steps) @ level).reshape(len(rows), ends, -1)
        total = np.zeros((2, n_steps + 1, len(bands)), np.float32)
        np.cumsum(level, axis=0, out=total[0, 1:])
        np.cumsum(level * level, axis=0, out=total[1, 1:])
        last = np.arange(ends) + self._longest
        for index, length in enumerate(self._lengths):
            sums = total[:, last] - total[:, last - length]
            energy = sums[1] - sums[0] ** 2 / length
            # Less than one loud step in the span is no pulse.
            product[index] /= np.sqrt(np.maximum(energy, 1.0))
        out[:, :, bands] = product
        return out

    def _scan_chunk(self, history: FrameHistory, start: int, ends: int) -> None:
        found = self.correlations(history, start, ends)
        n_mels = found.shape[2]
        flat = found.reshape(-1, n_mels)
        best = flat.argmax(axis=0)
        peak = flat[best, np.arange(n_mels)]
        after = round(self._quiet_after_s / STEP_S)
        before = round(self._quiet_before_s / STEP_S)
        for band in np.flatnonzero(peak >= self._least_correlation):
            tempo, shift = divmod(int(best[band]), ends)
            end = start + shift
            length = int(self._lengths[tempo])
            group = Group(
                start=end - length + before,
                end=end - after,
                band=int(band),
                tempo=float(self._tempos[tempo]),
                correlation=float(peak[band]),
            )
            self._note(group)

    def _note(self, group: Group) -> None:
        noted = self._groups.setdefault(group.band, [])
        # The same group is seen at neighbouring ends; the best alignment stays.
        for index, other in enumerate(noted):
            if abs(other.end - group.end) <= _SAME:
                if group.correlation > other.correlation:
                    noted[index] = group
                    self._fresh.append(group)
                return
        noted.append(group)
        self._fresh.append(group)

    def _near_band(self, band: int) -> list[Group]:
        # A sounder's pitch moves with its battery: by a band at most.
        return [
            group for near in (band - 1, band, band + 1) for group in self._groups.get(near, ())
        ]

    def match(self, history: FrameHistory) -> CadenceMatch | None:
        """A pattern whose last group came with the last scan, or None.

        Several bands may carry the alarm: the groups of the highest correlation that hold are it.
        """
        pairs = [
            (first, last)
            for last in self._fresh
            for first in self._near_band(last.band)
            if self._periods_apart(first, last)
        ]
        for groups in _clearest(pairs):
            if self._holds(history, groups[0], groups[-1]):
                return CadenceMatch(groups[0], groups[-1])
        threes = [
            (first, middle, last)
            for middle, last in pairs
            for first in self._near_band(middle.band)
            if self._periods_apart(first, middle)
        ]
        # Of three, the one in the middle may be drowned.
        threes += [
            (first, _between(first, last), last)
            for last in self._fresh
            for first in self._near_band(last.band)
            if self._periods_apart(first, last, 2)
        ]
        for groups in _clearest(threes):
            if self._holds_folded(history, groups):
                return CadenceMatch(groups[0], groups[-1])
        return None

    def continuation(self, start: float, band: int, correlation: float) -> Group | None:
        """The group of the last scan that continues a pattern, or None.

        It begins one or two periods later, since one group may be drowned by other sounds without
        ending the alarm; or it is the last group itself, aligned better now that it is whole.

        Parameters
        ----------
        start : first step of the pattern's last group; it may lie before the history
        band, correlation : of that group
        """
        period = self.pattern.period_s / STEP_S
        found = None
        for group in self._fresh:
            steps = group.start - start
            later = any(abs(steps - n * period) <= n * TOLERANCE * period + _SLACK for n in (1, 2))
            same = abs(steps) <= _SAME and group.correlation > correlation
            nearer = found is None or group.correlation > found.correlation
            if abs(group.band - band) <= 1 and (later or same) and nearer:
                found = group
        return found

    @property
    def release_s(self) -> float:
        """A pattern not seen for this long is over: two periods at the slowest, and a second."""
        return 2 * (1 + TOLERANCE) * self.pattern.period_s + 1.0

    def _periods_apart(self, first: Group, second: Group, n: int = 1) -> bool:
        slack_s = _SLACK * STEP_S
        apart_s = n * self.pattern.period_s
        low_s = (1 - TOLERANCE) * apart_s - slack_s
        high_s = (1 + TOLERANCE) * apart_s + slack_s
        starts_s = (second.start - first.start) * STEP_S
        ends_s = (second.end - first.end) * STEP_S
        gap_s = (second.start - first.end) * STEP_S
        long_s = apart_s - self.pattern.period_s + self.pattern.long_off_s
        # A steady beep of another period has the groups but not the long gap.
        return bool(
            low_s <= starts_s <= high_s
            and low_s <= ends_s <= high_s
            and abs(gap_s - long_s) <= TOLERANCE * long_s + 2 * slack_s
        )

    def _group_between(self, first: Group, second: Group) -> bool:
        """Whether the long gap holds another group, as a pattern of another period does."""
        # Insects and chatter make faint likenesses of a group; only one as clear as these counts.
        least = min(first.correlation, second.correlation) - 0.05
        return any(
            group.correlation >= least
            and group.start > first.end + _SAME
            and group.end < second.start - _SAME
            for group in self._near_band(second.band)
        )

    def _holds(self, history: FrameHistory, first: Group, second: Group) -> bool:
        """Whether pulses are loud and gaps quiet, one by one."""
        before = round(self._quiet_before_s / STEP_S)
        after = round((self.pattern.off_s + self.pattern.on_s) * (1 + TOLERANCE) / STEP_S)
        start = first.start - before
        if start < history.first or self._group_between(first, second):
            return False
        levels = history.span(start, min(history.end, second.end + after))
        spans = [
            [(a - start, b - start) for a, b in self._pulses(group)] for group in (first, second)
        ]
        gap = levels[first.end - start : second.start - start]
        bands = self._carriers(levels, spans, gap, {first.band, second.band})
        # One is enough: a room's notch or a noise of its own spoils a band at a time.
        return any(self._holds_in(levels[:, band], spans) for band in bands)

    def _carriers(
        self,
        levels: FloatArray,
        spans: list[list[tuple[int, int]]],
        gap: FloatArray,
        bands: set[int],
    ) -> list[int]:
        """Bands that carry the sound, loudest first; none where they show another rhythm.

        Parameters
        ----------
        levels : (n_steps, n_mels)
        spans : steps of each pulse of each group
        gap : (n_steps, n_mels) between two groups
        bands : in which the groups were found; none is a carrier where these are too faint, for
            noise fills and opens gaps there
        """
        loud = np.median(np.concatenate([levels[a:b] for group in spans for a, b in group]), axis=0)
        floor = np.median(gap, axis=0)
        contrast = loud - floor
        carriers = np.argsort(contrast)[: -_MOST_CARRIERS - 1 : -1]
        if contrast[carriers[0]] < _LEAST_CONTRAST:
            return []
        least = _CARRIER_SHARE * contrast[carriers[0]]
        if max(contrast[band] for band in bands) < least:
            return []
        carriers = carriers[contrast[carriers] >= least]
        loud, floor, contrast = loud[carriers], floor[carriers], contrast[carriers]
        before = floor + _FURTHER_PULSE_SHARE * contrast
        # The room still rings where a further pulse of T4 would come after its group.
        after = np.maximum(before, loud - _RINGING_DEPTH) if self._short else before
        if self._further_pulse(levels[:, carriers], before, after, spans):
            return []
        return [int(band) for band in carriers]

    def _further_pulse(
        self,
        levels: FloatArray,
        before: FloatArray,
        after: FloatArray,
        spans: list[list[tuple[int, int]]],
    ) -> bool:
        """Whether bands show a further pulse of the rhythm, before or after every group.

        levels : (n_steps, n_bands); before, after : (n_bands,) level above which it is one
        """
        for sign, end, faint in ((-1, 0, before), (1, -1, after)):
            seen = []
            for group in spans:
                step = sign * (group[1][0] - group[0][0])
                a, b = group[end][0] + step, group[end][1] + step
                if a >= 0 and b <= len(levels):
                    seen.append(np.median(levels[a:b], axis=0) > faint)
            if seen and np.all(seen, axis=0).mean() >= _FURTHER_PULSE_VOTE:
                return True
        return False

    def _holds_in(self, level: FloatArray, spans: list[list[tuple[int, int]]]) -> bool:
        """Whether two groups are the pattern in one band."""
        pulses = [float(np.median(level[a:b])) for group in spans for a, b in group]
        louds = [
            float(np.median(pulses[: len(spans[0])])),
            float(np.median(pulses[len(spans[0]) :])),
        ]
        if abs(louds[0] - louds[1]) > _LEVEL_TOLERANCE:
            return False
        ringing = round(_RINGING_S / STEP_S)
        quiet = [(0, spans[0][0][0] - 1), (spans[0][-1][1] + ringing, spans[1][0][0] - 1)]
        gap = level[spans[0][-1][1] : spans[1][0][0]]
        return self._rhythm_holds(level, min(louds), float(np.median(gap)), spans, quiet)

    def _rhythm_holds(
        self,
        level: FloatArray,
        loud: float,
        floor: float,
        groups: list[list[tuple[int, int]]],
        quiet: list[tuple[int, int]],
    ) -> bool:
        """Whether pulses are loud and gaps quiet, one by one, in one band.

        Parameters
        ----------
        level : (n_steps,)
        loud, floor : level of the pulses and of the long gap
        groups : steps of each pulse of each group
        quiet : steps of the gaps between groups
        """
        depth = min(_DEPTH, loud - floor)
        if depth < _LEAST_CONTRAST:
            return False
        is_loud = level > loud - depth / 2
        ringing = round(_RINGING_S / STEP_S)
        # Of a T4 pulse two or three steps are left, one of which may be off by its alignment.
        least = 0.5 if self._short else _LEAST_AGREEMENT
        most = 1 - least
        for group in groups:
            if any(is_loud[a:b].mean() < least for a, b in group):
                return False
            if self._one_too_many(is_loud, group):
                return False
            if self._short:
                # A gap as short as T4's only dips in a room that rings: its shape must tell.
                if not self._dips_between(level, group):
                    return False
            else:
                gaps = [(b, a) for (_, b), (a, _) in pairwise(group)]
                quiet = quiet + [(a + ringing, b - 1) for a, b in gaps]
        # Half a second at a time: one pulse too many in T3's long gap must not be averaged away.
        # T4's gap is so long that other sounds fall into it; its groups are telling enough.
        half = round((self.pattern.long_off_s if self._short else 0.5) / STEP_S)
        for a, b in quiet:
            parts = np.array_split(is_loud[a:b], max(1, round((b - a) / half)))
            if any(part.mean() > most for part in parts):
                return False
        return True

    def _holds_folded(self, history: FrameHistory, groups: tuple[Group, ...]) -> bool:
        """Whether three groups, each with the long gap before it, make the pattern as a median."""
        if any(self._group_between(*pair) for pair in pairwise(groups)):
            return False
        tempo = float(np.median([group.tempo for group in groups]))
        pattern = self.pattern
        ringing = round(_RINGING_S / STEP_S)
        gap = round(tempo * pattern.long_off_s * (1 - TOLERANCE / 2) / STEP_S) - ringing
        length = round(
            tempo * (pattern.pulses * (pattern.on_s + pattern.off_s) + pattern.on_s) / STEP_S
        )
        layers = []
        for group in groups:
            start, end = group.start - gap, group.start + length
            layer = np.full((gap + length, history.n_mels), np.nan, np.float32)
            begin, stop = max(start, history.first), min(end, history.end)
            layer[begin - start : stop - start] = history.span(begin, stop)
            layers.append(layer)
        # The median; where one group is cut off by the end of what was heard, the lower of the
        # other two: what belongs to the rhythm is in both. Sorting puts what was not heard last.
        ordered = np.sort(np.stack(layers), axis=0)
        folded = np.where(np.isnan(ordered[2]), ordered[0], ordered[1])
        pulses = self._pulses(Group(gap, gap + length, groups[-1].band, tempo, 0.0))
        bands = self._carriers(folded, [pulses], folded[:gap], {group.band for group in groups})
        for band in bands:
            level = folded[:, band]
            loud = float(np.median(np.concatenate([level[a:b] for a, b in pulses])))
            floor = float(np.median(level[:gap]))
            # Other sounds add to an alarm: its pulses are loud in every group, seen or drowned.
            faintest = min(np.median(layer[a:b, band]) for layer in layers for a, b in pulses)
            if faintest < loud - _LEVEL_TOLERANCE:
                continue
            if self._rhythm_holds(level, loud, floor, [pulses], [(0, gap - 1)]):
                return True
        return False

    def _dips_between(self, level: FloatArray, group: list[tuple[int, int]]) -> bool:
        """Whether the level within a group follows its pulses: not one long tone in noise."""
        start, end = group[0][0], group[-1][1]
        pulses = np.full(end - start, -1.0)
        for a, b in group:
            pulses[a - 1 - start + (a == start) : b + 1 - start] = 1.0
        pulses -= pulses.mean()
        best = 0.0
        # The group's start is known to a step or so, a fifth of a pulse.
        for shift in (-1, 0, 1):
            part = level[start + shift : end + shift]
            if len(part) < len(pulses):
                continue
            part = part - part.mean()
            scale = float(np.linalg.norm(part) * np.linalg.norm(pulses))
            best = max(best, float(part @ pulses) / scale if scale > 0 else 0.0)
        return best >= _LEAST_DIP_CORRELATION

    def _one_too_many(self, is_loud: NDArray[np.bool_], group: list[tuple[int, int]]) -> bool:
        """Whether a further pulse of the same rhythm stands before or after the group."""
        step = group[1][0] - group[0][0]
        places = [
            (a + sign * step, b + sign * step) for sign, (a, b) in ((-1, group[0]), (1, group[-1]))
        ]
        parts = [is_loud[max(a, 0) : b] for a, b in places]
        return any(len(part) > 0 and part.mean() > 0.5 for part in parts)

    def _pulses(self, group: Group) -> list[tuple[int, int]]:
        on = group.tempo * self.pattern.on_s / STEP_S
        step = group.tempo * (self.pattern.on_s + self.pattern.off_s) / STEP_S
        # The first and last step of a pulse hold its edges.
        return [
            (round(group.start + n * step) + 1, round(group.start + n * step + on) - 1)
            for n in range(self.pattern.pulses)
        ]
