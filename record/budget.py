"""What a recording may cost: max_overhead in time and max_bytes on disk, kept by thinning all but the inner products.

The inner products of each due step are never thinned: they are the floor, and it is said, once, if the floor alone
passes a limit. Whenever a channel is due, `Budget.allows` decides:

Time. With W the wall time so far and R what recording took of it, recording may take max_overhead·(W − R), and what
the floor leaves of that,

    A = max_overhead·(W − R) − R_floor

is for the channels. An event is left out while they have taken more than A together, or its channel more than its
share of A. So A is passed by one event at most. Counted is what the training waits for, from the first step on, with
the compiling in it; compression runs beside the training. Which events a recording with max_overhead has depends on
the clock: no two are the same. Its weights are, but not its probes: one that is left out draws nothing, so that the
next one gets its batch.

Bytes. What is on disk is looked up now and then; what came since counts as before compression. If the length of the
training is known,

    B = max_bytes − on disk − held − inner products of the steps to come

is for the events to come. If they fit into B, all are kept; if not, each channel keeps events evenly over the training,
the part that its share of B allows. If the length is not known, events take at most half of what the steps leave, and
are kept half as often each time that a channel has used an eighth of its share. No event is kept that does not fit. All
this depends on the step alone, not on the clock: the disk is looked up at steps that follow from what was kept, after
all before them is written.

Shares are max-min fair: a channel that needs less than an equal part gets what it needs, the others the rest. A burst
is kept whole or left out whole, for its use is in consecutive steps. This module knows nothing of torch.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .schedule import burst_length, count_due
from .settings import RecorderSettings

_BOOKED_AS = {"probe": "probes", "curvature": "curvature", "per_sample": "per_sample", "snapshot": "snapshots"}
"""what the time of a channel is called in `recorder_seconds`; a window takes its time at every step, not when full"""
_WAITING = "waiting"
PLURALS = {
    "probe": "probes",
    "curvature": "curvatures",
    "per_sample": "sets of single samples",
    "window": "windows",
    "snapshot": "snapshots",
}
_METADATA = 2**15
"""bytes for the metadata of arrays that appear later"""
_JUDGED_STEPS = 100
"""after which the floor is judged"""
_SURE_EVENTS, _SURE_STEPS = 4, 128
"""from which on their size on disk is taken for that of the next, to space events evenly"""


@dataclass
class _Channel:
    size: int
    """bytes of an event before compression"""
    planned: int
    """events of the whole training; 0 where its length is not known"""
    together: int
    """consecutive events that belong together"""
    on_disk: float
    """bytes of an event after compression, as far as it is known"""
    asked: int = 0
    kept: int = 0
    held: int = 0
    """kept since the disk was looked up"""
    step: int = -2
    reason: str = ""
    """of the decision at `step`; empty if the event was kept"""
    credit: float = 0.5

    @property
    def to_come(self) -> int:
        return max(0, self.planned - self.asked)

    def pay(self) -> bool:
        """Spend the credit of one event, if there is as much."""
        paid = self.credit >= 1
        self.credit -= paid
        return paid


class Budget:
    """The limits of a recording, and what it has used of them.

    Args:
        settings: with max_overhead or max_bytes; without both everything is allowed.
        sizes: bytes before compression of one entry of `step`, of its `products` at steps that have them, and of each
            channel (`probe`, `curvature`, `per_sample`, `window`, `snapshot`) that there is.
        planned_steps: length of the training, if it is known.
        fixed: bytes that the end of the recording will still add, such as the final parameters.
    """

    def __init__(
        self, settings: RecorderSettings, sizes: Mapping[str, int], planned_steps: int | None = None, fixed: int = 0
    ):
        self._overhead, self._bytes = settings.max_overhead, settings.max_bytes
        self._row, self._products = sizes["step"], sizes.get("products", 0)
        self._products_every = settings.products_every
        self._planned, self._fixed = planned_steps or 0, fixed + _METADATA
        self._channels: dict[str, _Channel] = {}
        schedules = {
            "probe": settings.probe_every,
            "curvature": settings.curvature_every,
            "per_sample": settings.per_sample_every,
            "snapshot": settings.snapshot_every,
        }
        for name, schedule in schedules.items():
            if name in sizes:
                planned = count_due(schedule, self._planned) if self._bytes is not None else 0
                self._channels[name] = _Channel(sizes[name], planned, burst_length(schedule), sizes[name])
        if "window" in sizes:
            planned = -(-self._planned // settings.moments_window)
            self._channels["window"] = _Channel(sizes["window"], planned, 1, sizes["window"])
        self._row_on_disk = float(self._row + self._products)
        self._on_disk, self._looked_up = 0, 0
        self._thinned: dict[str, dict[str, Any]] = {}
        self._start: tuple[int, float, float] | None = None
        self._said: set[str] = set()

    @property
    def thinned(self) -> list[dict[str, Any]]:
        """What was left out: `channel`, `reason`, `from_step`, and how many events were `skipped` for that reason and
        `kept` from that step on."""
        return [dict(entry) for entry in self._thinned.values()]

    def allows(
        self,
        name: str,
        step: int,
        wall_time: float,
        seconds: Mapping[str, float],
        look_up: Callable[[], Mapping[str, int]] | None = None,
    ) -> bool:
        """Decide on an event that is due; a second question about the same step has the same answer.

        Args:
            name: the channel.
            step: the step before which the event would be.
            wall_time: seconds since the start of the recording.
            seconds: what recording took of them, by kind.
            look_up: writes all that is held, and gives the bytes on disk by channel.
        """
        channel = self._channels[name]
        self._note_start(step, wall_time, seconds)
        if step != channel.step:
            reason = self._judge(name, step, wall_time, seconds, look_up)
            channel.asked += 1
            channel.step, channel.reason = step, reason
            self._count(name, step)
        return not channel.reason

    def look_up(self, step: int, on_disk: Mapping[str, int]) -> None:
        """Take note of what is on disk, by channel, when all before the step is written."""
        self._on_disk, self._looked_up = sum(on_disk.values()), step
        if step >= _SURE_STEPS:
            self._row_on_disk = on_disk.get("step", 0) / step
        for name, channel in self._channels.items():
            # What this very step has decided on already is not there yet.
            channel.held = int(channel.step == step and not channel.reason)
            if (written := channel.kept - channel.held) >= _SURE_EVENTS:
                # Of few small events most is metadata, which no further one adds to.
                channel.on_disk = min(max(1.0, on_disk.get(name, 0) / written), channel.size)

    def drop(self, name: str) -> None:
        """A channel has ended: what it would still have got is for the others, and its last event never came."""
        if name in self._channels:
            for entry in self._thinned.values():
                entry["kept"] -= entry["channel"] == name
            del self._channels[name]

    def complaints(self, step: int, wall_time: float, seconds: Mapping[str, float]) -> list[str]:
        """What is to be said of the floor; each once."""
        found = {"max_overhead": self._slow_floor(step, wall_time, seconds), "max_bytes": self._large_floor(step)}
        new = [text for limit, text in found.items() if text and limit not in self._said]
        self._said |= {limit for limit, text in found.items() if text}
        return new

    def state_dict(self) -> dict[str, Any]:
        """What was used, as plain values."""
        return {
            "channels": {name: asdict(channel) for name, channel in self._channels.items()},
            "thinned": {key: dict(entry) for key, entry in self._thinned.items()},
            "on_disk": self._on_disk,
            "looked_up": self._looked_up,
            "row_on_disk": self._row_on_disk,
            "planned": self._planned,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._channels |= {name: _Channel(**values) for name, values in state["channels"].items()}
        self._planned = self._planned or state["planned"]
        self._thinned = {key: dict(entry) for key, entry in state["thinned"].items()}
        self._on_disk, self._looked_up = state["on_disk"], state["looked_up"]
        self._row_on_disk = state["row_on_disk"]

    # ------------------------------------------------------------------------------------------------- deciding

    def _judge(
        self,
        name: str,
        step: int,
        wall_time: float,
        seconds: Mapping[str, float],
        look_up: Callable[[], Mapping[str, int]] | None,
    ) -> str:
        """Why the event is left out; empty if it is kept."""
        channel = self._channels[name]
        if channel.together > 1 and step == channel.step + 1:
            fits = self._bytes is None or self._left(step) >= 2 * channel.size
            return channel.reason or ("" if fits else "max_bytes")
        if self._overhead is not None and name in _BOOKED_AS and self._takes_too_long(name, wall_time, seconds):
            return "max_overhead"
        if self._bytes is not None and self._is_too_large(name, step, look_up):
            return "max_bytes"
        return ""

    def _takes_too_long(self, name: str, wall_time: float, seconds: Mapping[str, float]) -> bool:
        spent = {one: seconds.get(_BOOKED_AS[one], 0.0) for one in self._channels if one in _BOOKED_AS}
        recording = sum(seconds.values())
        left = (self._overhead or 0.0) * (wall_time - recording) - (recording - sum(spent.values()))
        if sum(spent.values()) > left:
            return True
        # What each would have taken by now if nothing had been left out; unknown as long as all was left out.
        needs = {}
        for one, took in spent.items():
            asked, kept = self._channels[one].asked + (one == name), self._channels[one].kept
            needs[one] = asked * took / kept if kept else math.inf if asked else 0.0
        return spent[name] > share(left, needs)[name]

    def _is_too_large(self, name: str, step: int, look_up: Callable[[], Mapping[str, int]] | None) -> bool:
        channel, channels = self._channels[name], self._channels.values()
        # A chunk that is half full takes up to twice the bytes of what is in it, so that there must be room for two.
        left, room = self._left(step), sum(one.size for one in channels)
        if self._planned and left >= sum(one.to_come * one.size for one in channels) + room:
            return False
        # It is looked up only where that can change much, and some hundred times at most.
        held = self._floor(self._looked_up, step) + sum(one.held * one.size for one in channels)
        if look_up is not None and held > max(abs(left) / 8, (self._bytes or 0) / 64):
            self.look_up(step, look_up())
            left = self._left(step)
        if left < (channel.together + 1) * channel.size:
            return True
        if not self._planned:
            channel.credit += 1 / self._spacing(name, left)
            return not channel.pay()
        # Spaced for what things are likely to take; that they fit is certain from above.
        likely = left + sum(one.held * (one.size - one.on_disk) for one in channels)
        # Channels of which no event fits any more need no room.
        likely -= sum(one.size for one in channels if left >= 2 * one.size)
        to_come = max(0, self._planned - self._looked_up)
        likely += max(0.0, self._floor(self._looked_up, self._planned) - to_come * self._row_on_disk)
        needs = {one: max(1, other.to_come) * other.on_disk for one, other in self._channels.items()}
        channel.credit += share(likely, needs)[name] / needs[name]
        return not channel.pay()

    def _spacing(self, name: str, left: float) -> int:
        """Of how many events one is kept, the more the more its channel has used of half of what the steps leave."""
        taken = {one: c.held * c.size + (c.kept - c.held) * c.on_disk for one, c in self._channels.items()}
        needs = {one: taken[one] + (c.asked - c.kept) * c.on_disk for one, c in self._channels.items()}
        most = share((sum(taken.values()) + left) / 2, needs | {name: math.inf})[name]
        return 2 ** min(30, int(8 * taken[name] / max(most, 1.0)))

    def _left(self, step: int) -> float:
        """Bytes for events, when those of the floor are put aside."""
        held = self._floor(self._looked_up, max(self._planned, step + 1))
        held += sum(channel.held * channel.size for channel in self._channels.values())
        return (self._bytes or 0) - self._fixed - self._on_disk - held

    def _count(self, name: str, step: int) -> None:
        channel = self._channels[name]
        if channel.reason:
            first = {"channel": name, "reason": channel.reason, "from_step": step, "kept": 0, "skipped": 0}
            self._thinned.setdefault(f"{name} {channel.reason}", first)["skipped"] += 1
            return
        channel.kept += 1
        channel.held += 1
        for entry in self._thinned.values():
            entry["kept"] += entry["channel"] == name

    # ------------------------------------------------------------------------------------------------- the floor

    def _floor(self, start: int, stop: int) -> int:
        """Bytes of the steps [start, stop) before compression; those without inner products compress to nothing."""
        measured = count_due(self._products_every, stop) - count_due(self._products_every, start)
        return max(0, stop - start) * self._row + max(0, measured) * self._products

    def _slow_floor(self, step: int, wall_time: float, seconds: Mapping[str, float]) -> str:
        start = self._note_start(step, wall_time, seconds)
        if self._overhead is None or start is None:
            return ""
        floor, training = (
            now - then for now, then in zip(_floor_and_training(wall_time, seconds), start[1:], strict=True)
        )
        if step - start[0] < _JUDGED_STEPS or floor <= self._overhead * training:
            return ""
        return (
            f"recorder.max_overhead = {self._overhead:g} is less than what the inner products of each step take "
            f"({floor / max(training, 1e-9):.2g} of the training); they are never thinned, and all else is left out"
        )

    def _note_start(self, step: int, wall_time: float, seconds: Mapping[str, float]) -> tuple[int, float, float] | None:
        """Step, and seconds of the floor and of training, from which on the floor is judged: the first that is asked
        about after the compiling; None before."""
        if self._start is None and step:
            self._start = (step, *_floor_and_training(wall_time, seconds))
        return self._start

    def _large_floor(self, step: int) -> str:
        if self._bytes is None:
            return ""
        taken = self._bytes - self._left(step) - sum(one.held * one.size for one in self._channels.values())
        if taken <= self._bytes:
            return ""
        return (
            f"recorder.max_bytes = {self._bytes:,} is less than the inner products of {max(self._planned, step):,} "
            f"steps may take ({taken:,.0f} bytes before compression, with metadata and the parameters at both ends); "
            "they are never thinned"
        )


def _floor_and_training(wall_time: float, seconds: Mapping[str, float]) -> tuple[float, float]:
    """Seconds that every step took for its inner products, and that the training took without recording."""
    floor = sum(took for kind, took in seconds.items() if kind not in (*_BOOKED_AS.values(), _WAITING))
    return floor, wall_time - sum(seconds.values())


def share(amount: float, needs: Mapping[str, float]) -> dict[str, float]:
    """Max-min fair parts of an amount: nobody gets more than it needs, or more than another that still wants."""
    parts, left, wanting = {}, max(0.0, amount), len(needs)
    for name, need in sorted(needs.items(), key=lambda item: item[1]):
        parts[name] = min(need, left / wanting)
        left, wanting = left - parts[name], wanting - 1
    return parts


def foretell(
    budget: Budget, due: Mapping[str, Callable[[int], bool]], steps: int, each: Mapping[str, float], plain: float
) -> dict[str, int]:
    """How many events of each channel a budget leaves, if every one takes the same time and nothing is compressed.

    Args:
        due: for each channel the function that says of a step whether it is due.
        each: seconds of an entry, of `step` and of each channel.
        plain: seconds of a step without recording.
    """
    kept, wall_time = dict.fromkeys(due, 0), 0.0
    seconds: dict[str, float] = dict.fromkeys(("steps", *_BOOKED_AS.values()), 0.0)
    for step in range(steps):
        for name, is_due in due.items():
            if is_due(step) and budget.allows(name, step, wall_time, seconds):
                kept[name] += 1
                seconds[_BOOKED_AS.get(name, "steps")] += each[name]
                wall_time += each[name]
        seconds["steps"] += each["step"]
        wall_time += each["step"] + plain
    return kept
