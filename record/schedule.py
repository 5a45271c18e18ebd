"""When a channel records: every n steps, at steps spread evenly on a logarithmic axis, at named steps, or in bursts.

Correlations and responses need consecutive steps, ageing needs logarithmic ones; both are dear at every step. A
schedule is written as

    50              every 50 steps, from step 0 on; 0 is never
    "log:10"        steps 0, 1, 2, …, about 10 in each factor of ten
    "burst:8/200"   8 consecutive steps every 200
    [0, 10, 500]    these steps
"""

import re
from collections.abc import Callable
from math import ceil, log10

import numpy as np

Schedule = int | str | list[int]
_LOG = re.compile(r"log:([1-9]\d*)")
_BURST = re.compile(r"burst:([1-9]\d*)/([1-9]\d*)")


def compile_schedule(schedule: Schedule) -> Callable[[int], bool]:
    """The function that says of a step whether it is due.

    Raises:
        ValueError: naming what came and what is allowed.
    """
    if isinstance(schedule, list) and all(isinstance(step, int) and step >= 0 for step in schedule):
        steps = frozenset(schedule)
        return lambda step: step in steps
    if isinstance(schedule, str):
        if match := _LOG.fullmatch(schedule):
            per_decade = int(match[1])
            return lambda step: step == 0 or _rung(step, per_decade)
        if (match := _BURST.fullmatch(schedule)) and int(match[1]) <= int(match[2]):
            length, period = int(match[1]), int(match[2])
            return lambda step: step % period < length
    if isinstance(schedule, int) and not isinstance(schedule, bool) and schedule >= 0:
        return lambda step: schedule > 0 and step % schedule == 0
    raise ValueError(
        f"{schedule!r} is no schedule; expected a number of steps (0: never), 'log:10', 'burst:8/200', "
        "or a list of steps"
    )


def count_due(schedule: Schedule, steps: int) -> int:
    """How many of the first steps are due; not by looking at each, since a budget asks of long trainings often."""
    if isinstance(schedule, list):
        return sum(step < steps for step in set(schedule))
    if isinstance(schedule, int):
        return -(-steps // schedule) if schedule else 0
    if match := _BURST.fullmatch(schedule):
        length, period = int(match[1]), int(match[2])
        return steps // period * length + min(steps % period, length)
    per_decade = int(schedule.removeprefix("log:"))
    rungs = range(1 + ceil(per_decade * log10(steps))) if steps > 1 else ()
    return len({step for step in (0, *(round(10 ** (rung / per_decade)) for rung in rungs)) if step < steps})


def due_stretches(schedule: Schedule, steps: int) -> list[tuple[int, int]]:
    """Stretches [start, stop) of consecutive due steps among the first `steps`."""
    if schedule == 1:
        return [(0, steps)] if steps else []
    if (length := burst_length(schedule)) > 1:
        period = int(str(schedule).partition("/")[2])
        return [(start, min(start + length, steps)) for start in range(0, steps, period)]
    due = np.flatnonzero([*map(compile_schedule(schedule), range(steps))])
    parts = np.split(due, np.flatnonzero(np.diff(due) > 1) + 1) if due.size else []
    return [(int(part[0]), int(part[-1]) + 1) for part in parts]


def burst_length(schedule: Schedule) -> int:
    """How many consecutive steps belong together, with gaps between; 1 where it has no bursts."""
    match = _BURST.fullmatch(schedule) if isinstance(schedule, str) else None
    return int(match[1]) if match and int(match[1]) < int(match[2]) else 1


def _rung(step: int, per_decade: int) -> bool:
    """Whether some power of 10^(1/per_decade) rounds to the step."""
    nearest = round(per_decade * log10(step))
    return any(round(10 ** (rung / per_decade)) == step for rung in (nearest - 1, nearest, nearest + 1) if rung >= 0)
