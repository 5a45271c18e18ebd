"""Cadences: each form against its definition, and what is none."""

from itertools import pairwise

import pytest

from thermodl.record.schedule import Schedule, compile_schedule, count_due, due_stretches


def due(schedule: Schedule, steps: int) -> list[int]:
    """The steps of a run that are due."""
    is_due = compile_schedule(schedule)
    return [step for step in range(steps) if is_due(step)]


def test_each_form() -> None:
    """Every n, never, logarithmic, bursts, named steps."""
    assert due(3, 10) == [0, 3, 6, 9]
    assert due(0, 10) == []
    assert due("burst:2/5", 12) == [0, 1, 5, 6, 10, 11]
    assert due([4, 1, 99], 12) == [1, 4]
    for per_decade in (1, 4, 10, 30):
        rungs = {round(10 ** (i / per_decade)) for i in range(5 * per_decade)}
        assert due(f"log:{per_decade}", 20_000) == sorted(rung for rung in {0, *rungs} if rung < 20_000)


@pytest.mark.parametrize(
    "schedule", [0, 1, 7, "log:1", "log:10", "burst:3/10", "burst:10/10", "burst:1/4", [], [0, 4, 5, 5, 6, 30, 99]]
)
def test_counts_and_stretches_are_those_of_the_steps(schedule: Schedule) -> None:
    """However many steps there are."""
    for steps in (0, 1, 2, 3, 10, 11, 100, 101, 1000):
        at = due(schedule, steps)
        assert count_due(schedule, steps) == len(at)
        parts = due_stretches(schedule, steps)
        assert [step for start, stop in parts for step in range(start, stop)] == at
        assert all(stop < start for (_, stop), (start, _) in pairwise(parts))


@pytest.mark.parametrize("schedule", ["often", "log:0", "burst:9/8", "burst:8", -1, [1, -2], True, 2.5])
def test_what_is_no_schedule(schedule) -> None:
    """The error names what came and what is allowed."""
    with pytest.raises(ValueError, match="is no schedule; expected"):
        compile_schedule(schedule)
