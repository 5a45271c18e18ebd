"""Buckets lose nothing: every point lies inside its band, and every value is counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from viewer.synthetic import STEPS

from thermodl.record.writer import RunWriter
from thermodl.viewer.series import BUCKETS, band, edges, read_series, reduce

values = arrays(
    float, st.integers(1, 400), elements=st.floats(-1e100, 1e100) | st.sampled_from([np.nan, np.inf, -np.inf])
)


@given(values, st.floats(1e-3, 1e3), st.floats(1e-6, 1e6), st.integers(2, 50), st.booleans())
def test_band_holds_every_point_and_counts_add_up(y, start, spacing, buckets, log):
    x = start + spacing * np.arange(len(y))
    places = edges(x[0], x[-1], buckets, log)
    frame = reduce(x, y, places)
    assert len(frame) <= len(places) - 1 <= buckets
    assert frame["count"].sum() + frame["missing"].sum() == len(y)
    assert frame["missing"].sum() == (~np.isfinite(y)).sum()
    owner = np.searchsorted(places, x, side="right") - 1
    for (_, row), bucket in zip(frame.iterrows(), np.unique(owner), strict=True):
        inside = y[(owner == bucket) & np.isfinite(y)]
        assert row["count"] == len(inside)
        if len(inside):
            assert row["low"] == inside.min()
            assert row["high"] == inside.max()
            assert row["low"] <= row["mean"] <= row["high"]
        else:
            assert np.isnan(row["mean"])


@given(st.integers(10, 10**7), st.integers(1, 1000))
def test_a_growing_run_keeps_its_buckets(steps, more):
    before, after = edges(0, steps), edges(0, steps + more)
    if np.isclose(before[1] - before[0], after[1] - after[0]):
        np.testing.assert_array_equal(before[:-1], after[: len(before) - 1])


def test_edges_on_a_log_axis_are_equal_fractions_of_a_decade():
    ratios = np.diff(np.log10(edges(1, 1e6, 100, log=True)[1:-1]))
    np.testing.assert_allclose(ratios, ratios[0])


def test_a_million_steps_become_a_thousand_buckets_and_no_spike_is_lost():
    y = np.zeros(10**6)
    y[123_456] = 7.0
    frame = band(np.arange(10.0**6), y)
    assert len(frame) <= BUCKETS
    assert frame["high"].max() == 7.0


@given(values, st.integers(1, 30))
def test_buckets_are_those_of_a_search_for_each_entry(y, buckets):
    """Also at the edges themselves, which belong to the bucket on their right, and beyond the last of them."""
    x = np.sort(np.round(np.abs(np.nan_to_num(y)) % 20))
    places = np.linspace(2, 17, buckets + 1)
    frame = reduce(x, y, places)
    owner = np.searchsorted(places, x, side="right") - 1
    here = [owner == bucket for bucket in range(buckets) if (owner == bucket).any()]
    assert frame["count"].tolist() == [int(np.isfinite(y[one]).sum()) for one in here]
    assert frame["missing"].tolist() == [int((~np.isfinite(y[one])).sum()) for one in here]
    np.testing.assert_array_equal(frame["x"], [(x[one][0] + x[one][-1]) / 2 for one in here])
    for column, extreme in (("low", np.min), ("high", np.max)):
        expected = [extreme(y[one][np.isfinite(y[one])]) if np.isfinite(y[one]).any() else np.nan for one in here]
        np.testing.assert_array_equal(frame[column], expected)


def test_an_empty_series_gives_an_empty_frame():
    assert len(band(np.empty(0), np.empty(0))) == 0
    assert len(band(np.array([0.0]), np.array([1.0]), log=True)) == 0


def test_a_damaged_chunk_costs_only_itself(world):
    whole, cut = (read_series(world / name, "loss") for name in ("good", "truncated-chunk"))
    assert whole.unreadable == 0
    assert 0 < cut.unreadable < len(cut.values)
    assert np.isnan(cut.values).sum() == pytest.approx(cut.unreadable, abs=3)
    assert (len(whole.values), len(cut.values)) == (STEPS, 2 * STEPS)


def test_what_a_run_does_not_record_is_none(world):
    assert read_series(world / "good", "no_such_array") is None


def test_an_unfinished_run_is_clipped_at_its_commit(world):
    assert len(read_series(world / "running", "loss").values) == 1200


def test_after_a_run_was_resumed_nothing_of_the_attempt_that_was_killed_is_shown(tmp_path):
    """Neither what it wrote beyond its last commit, nor what it had committed after the checkpoint."""

    def block(start, stop, value):
        return {"step": np.arange(start, stop), "loss": np.full(stop - start, value)}

    folder = tmp_path / "run"
    first = RunWriter(folder, {}, ["step", "loss"], {})
    first.append("step", block(0, 500, 1.0))
    first._append_array("loss", 500, np.full(100, 13.0))  # killed before it could commit
    assert read_series(folder, "loss").values.tolist() == [1.0] * 500
    again = RunWriter(folder, {}, [], {}, committed={"step": 300})
    assert read_series(folder, "loss").values.tolist() == [1.0] * 300
    again.append("step", block(300, 500, 2.0))
    assert read_series(folder, "loss").values.tolist() == [1.0] * 300 + [2.0] * 200
    again.append("step", block(500, 700, 3.0))
    assert 13.0 not in read_series(folder, "loss").values
