"""Runs larger than memory: the same digits whatever fits into it, and no sums that wait."""

import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from made_up import make_run, write_run

from thermodl.analyze import analyze, modes, open_results, open_run, physics, tails
from thermodl.analyze.blocks import as_estimate, each, over_groups
from thermodl.analyze.execution import within_memory
from thermodl.analyze.pipeline import estimate
from thermodl.analyze.settings import AnalysisError
from thermodl.record import store

STEPS, GROUPS, SKETCH = 2048, 3, 32
SERIES_IN_BLOCK = 8


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of eight series, so that a short run has several to a group."""
    monkeypatch.setattr(store, "BLOCK_BYTES", SERIES_IN_BLOCK * STEPS * 8)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "large"
    write_run(folder, STEPS, groups=GROUPS, sketch=SKETCH)
    return folder


def differing(left: xr.Dataset, right: xr.Dataset) -> list[str]:
    """Names of variables that are not bit for bit alike."""
    assert set(left.variables) == set(right.variables)
    return [
        str(name)
        for name in left.variables
        if not np.array_equal(left[name].values, right[name].values, equal_nan=left[name].dtype.kind == "f")
    ]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", physics.names())
def test_digits_are_those_of_arrays_in_memory(large: Path, name: str) -> None:
    """Read block by block on one thread and on all, and from arrays in memory: bit for bit."""
    assert store.features_per_block(STEPS) == SERIES_IN_BLOCK
    in_memory = estimate(open_run(large).load(), name)
    for settings, memory in (("limited", "1GiB"), ("free", None)):
        assert analyze(large, [name], name=settings, memory=memory) == {}
        assert differing(open_results(large, settings)[name].load(), in_memory) == []


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.usefixtures("small_blocks")
def test_sums_are_those_of_all_coordinates(chunked: bool) -> None:
    """Against sums written out, with an array that has no coordinates and a last block that is not full."""
    rng = np.random.default_rng(0)
    run = make_run(rng.standard_normal((GROUPS, 21, STEPS)))
    rates = xr.DataArray(np.arange(1.0, 1 + GROUPS), dims="group")
    positions = run["parameter_sketch"].chunk({"group": 1, "sketch": 5}) if chunked else run["parameter_sketch"]
    seen: list[tuple[int, ...]] = []

    def add(group: int, x: np.ndarray, rate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append((group, *x.shape))
        return float(rate) * np.sum(x**2, axis=0), np.array(float(len(x)))

    found = over_groups(add, each("squares", "count"), [positions, rates])
    of_groups = np.sum(run["parameter_sketch"].values ** 2, axis=1) * rates.values[:, None]
    np.testing.assert_allclose(found["squares"], np.concatenate([of_groups.sum(0)[None], of_groups]), rtol=1e-14)
    np.testing.assert_array_equal(found["count"], [21.0 * GROUPS, *[21.0] * GROUPS])
    assert sorted(seen) == [(group, size, STEPS) for group in range(GROUPS) for size in (5, 8, 8)]

    def finish(row: int, squares: np.ndarray, _: np.ndarray) -> dict[str, tuple[float, float, float]]:
        return {"mean": (float(squares.mean()), float(row), 2.0)}

    value, error, samples = as_estimate(over_groups(add, finish, [positions, rates])["mean"], run)
    assert value["group"].values.tolist() == ["all", "group0", "group1", "group2"]
    assert error.values.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert samples.values.tolist() == [2.0] * 4
    np.testing.assert_allclose(value, found["squares"].mean(1), rtol=1e-14)


def test_memory_does_not_grow_with_the_groups() -> None:
    """Sums of every step at 64 lags, of 64 groups: the memory of a few of them, never of those of all groups."""
    groups, lags = 64, 64
    positions = xr.DataArray(np.ones((groups, 1, STEPS)), dims=("group", "sketch", "step")).chunk({"group": 1})

    def add(_: int, x: np.ndarray) -> tuple[np.ndarray]:
        return (np.repeat(x, lags, axis=0),)

    with within_memory("1GiB", STEPS, 10):
        tracemalloc.start()
        over_groups(add, lambda _, sums: {"mean": sums.mean()}, [positions])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 10 * lags * STEPS * 8


def test_a_limit_is_kept_by_tasks_at_a_time(large: Path) -> None:
    """One task where no two fit; a limit that is no size, or too small, is refused with what to do."""
    at_once: list[int] = []
    lock, running = threading.Lock(), [0]

    def add(_: int, x: np.ndarray) -> tuple[np.ndarray]:
        with lock:
            running[0] += 1
            at_once.append(running[0])
        threading.Event().wait(0.01)
        with lock:
            running[0] -= 1
        return (x.sum(0),)

    positions = open_run(large)["parameter_sketch"].chunk({"group": 1, "sketch": 4})
    with within_memory("800MiB", STEPS, 10):
        over_groups(add, each("sums"), [positions])
    assert max(at_once) == 1
    for limit, message in (
        ("much", "memory 'much': expected a size such as 4GB or 500MiB"),
        ("300MB", r"memory 300MB: 2048 steps with \d+ lags take \d+\.\d+ MiB at least; allow more"),
    ):
        with pytest.raises(AnalysisError, match=message):
            analyze(large, ["noise"], memory=limit)


def test_directions_of_all_groups_lose_no_motion_where_few_steps_choose_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups that move along one direction each: both are kept whole, whichever steps tell of them."""
    rng = np.random.default_rng(1)
    moved = rng.standard_normal((2, 8, 1)) * np.cumsum(rng.standard_normal((2, 1, STEPS)), axis=-1)
    positions = xr.DataArray(moved, dims=("group", "sketch", "step"))
    monkeypatch.setattr(modes, "_CHOSEN", 100)
    *own, together = modes.principal_motions(positions, 4, [positions])
    assert [len(one.positions) for one in own] == [1, 1]
    np.testing.assert_array_equal(together.positions, together.others[0])
    np.testing.assert_allclose(together.positions.var(-1).sum(), moved.var(-1).sum(), rtol=1e-12)
    np.testing.assert_allclose(together.variance, moved.var(-1).sum(), rtol=1e-12)


def test_tails_of_groups_are_those_of_all_their_coordinates() -> None:
    """Added up group by group, of different sizes, as if side by side; one that is not finite spoils all."""
    rng = np.random.default_rng(2)
    groups = [rng.standard_t(5, (size, 128)) for size in (3, 5)]
    together = tails.tail_statistics(tails.tail_sums(np.concatenate(groups)))
    for one, other in zip(tails.tail_statistics(*map(tails.tail_sums, groups)), together, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    groups[1][0, 0] = np.inf
    assert np.isnan(tails.tail_statistics(*map(tails.tail_sums, groups))).all()
