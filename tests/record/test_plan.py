"""What a dry run foretells: finite numbers, whatever the clock said."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from thermodl.record.plan import Channel, Plan, describe_plan, make_plan, plain_step
from thermodl.record.settings import RunSettings, make_settings


def test_a_plain_step_is_positive_and_forgives_pauses() -> None:
    """Steps of 3 ms of which 1 ms is recording, 5 ms more at a probe, and a second in which the machine did else."""
    recording = np.full(40, 0.001)
    recording[::2] += 0.005
    took = 0.002 + recording
    took[[7, 8]] += 1.0
    wall_time = np.cumsum(np.append(0.0, took))[:-1]
    assert plain_step(wall_time, recording) == pytest.approx(0.002)
    # A clock that stood still, or recording that seems to have taken longer than the steps themselves.
    for seconds in (plain_step(np.zeros(2), np.zeros(2)), plain_step(wall_time, recording + 1.0)):
        plan = Plan(10, 1, 1, seconds, [Channel("step", 1, 8, 0.001)])
        assert 0 < plan.overhead < np.inf
        assert "recording adds" in describe_plan(RunSettings(), Path("run"), plan)


def test_a_plan_of_one_step() -> None:
    """It is made, of numbers that make sense."""
    table = {"steps": 1, "batch_size": 4, "device": "cpu", "recorder": {"sketch_size": 8}}
    plan = make_plan(make_settings(table))
    assert {one.name: one.entries for one in plan.channels}["step"] == 1
    assert plan.seconds_per_step > 0
    assert np.isfinite(plan.overhead)
