"""Coded snapshots: exact or within the stated error, readable without our code, whole whenever the writer dies."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from thermodl.record.snapshots import SnapshotEncoder, decode
from thermodl.record.store import open_run
from thermodl.record.writer import RunWriter

SIZES = [400, 30, 1]
LAYER = np.repeat(np.arange(3), SIZES)
PERIOD = 16


def walk(rng: np.random.Generator, count: int, dtype: str = "f4") -> np.ndarray:
    """A random walk (parameter, count) with another step in each layer, as a training might make it."""
    step = np.array([1e-3, 1e-2, 1e-1])[LAYER, None] * rng.normal(size=(LAYER.size, count))
    return (0.1 * rng.normal(size=(LAYER.size, 1)) + np.cumsum(step, axis=1)).astype(dtype)


def there_and_back(theta: np.ndarray, tolerance: float, blocks: tuple[int, ...] = (1, 7, 30)):
    """Code in blocks, decode at once: what comes back, the quanta and the errors."""
    encoder = SnapshotEncoder(theta[:, 0].copy(), SIZES, tolerance, PERIOD)
    edges = [0, *blocks, theta.shape[1]]
    parts = [encoder.encode(theta[:, start:stop]) for start, stop in pairwise(edges) if start < stop]
    codes, quanta, errors = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    return decode(codes, quanta, LAYER, theta[:, 0].copy(), PERIOD), quanta, errors


def displacement(theta: np.ndarray) -> np.ndarray:
    """Rms displacement since the snapshot before, (layer, snapshot − 1), written out."""
    moved = np.diff(theta.astype("f8"), axis=1)
    return np.stack([np.sqrt(np.mean(moved[layer == LAYER] ** 2, axis=0)) for layer in range(3)])


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("tolerance", [0.1, 0.01, 1e-9])
def test_every_error_is_within_the_tolerance(rng: np.random.Generator, tolerance: float, dtype: str) -> None:
    """Of every parameter in every snapshot, whatever the blocks; its rms is tolerance/√3 and stored."""
    theta = walk(rng, 50, dtype)
    back, quanta, errors = there_and_back(theta, tolerance)
    assert back.dtype == theta.dtype
    moved = displacement(theta)
    error = np.abs(back.astype("f8") - theta)[:, 1:]
    rounding = np.spacing(np.abs(theta)).astype("f8")[:, 1:] / 2
    assert np.all(error <= 1.000001 * tolerance * moved[LAYER] + rounding)
    np.testing.assert_array_equal(back[:, 0], theta[:, 0])
    measured = np.stack([np.sqrt(np.mean(error[layer == LAYER] ** 2, axis=0)) for layer in range(3)]) / moved
    np.testing.assert_allclose(errors[:, 1:], measured, rtol=1e-5, atol=1e-30)
    if tolerance > 1e-6:
        np.testing.assert_allclose(quanta[:, 1:], 2 * tolerance * moved, rtol=1e-12)
        # 400 × 49 uniform errors: the rms is known to 0.3 %.
        assert np.sqrt(np.mean(errors[0, 1:] ** 2)) == pytest.approx(tolerance / np.sqrt(3), rel=0.02)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_no_tolerance_is_lossless(rng: np.random.Generator, dtype: str) -> None:
    """Bit for bit, zeros of both signs, infinities, NaN with their payload and subnormal numbers too."""
    theta = walk(rng, 40, dtype)
    theta[3, 5:20] = [0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-310, -1e-40, 1e-44, 3e38, -3e38, 0, 1, -1, 0]
    back, quanta, errors = there_and_back(theta, 0.0)
    assert back.tobytes() == theta.tobytes()
    assert np.isnan(quanta).all()
    assert not errors.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_exact(rng: np.random.Generator, value: float) -> None:
    """The layer is stored exactly there and once more; before, after and beside it nothing changes."""
    theta = walk(rng, 40)
    theta[7, 11] = value
    back, quanta, _ = there_and_back(theta, 0.1)
    assert np.isnan(quanta[0, [0, 11, 12]]).all()
    assert np.isfinite(np.delete(quanta[0], [0, 11, 12])).all()
    assert np.isfinite(quanta[1:, 1:]).all()
    np.testing.assert_array_equal(back[LAYER == 0][:, 11:13], theta[LAYER == 0][:, 11:13])
    rest = np.delete(np.arange(40), [11, 12])
    assert np.abs(back[:, rest] - theta[:, rest]).max() < 0.1 * displacement(theta[:, rest]).max()


def test_layers_that_do_not_move_are_exact(rng: np.random.Generator) -> None:
    """From the start, and from when they stop; all codes are then zero."""
    theta = walk(rng, 40)
    theta[LAYER == 0] = theta[LAYER == 0][:, :1]
    theta[LAYER == 1, 20:] = theta[LAYER == 1][:, 19:20]
    back, quanta, _ = there_and_back(theta, 0.1)
    assert np.isnan(quanta[0]).all()
    assert np.isnan(quanta[1, 20:]).all()
    np.testing.assert_array_equal(back[LAYER == 0], theta[LAYER == 0])
    np.testing.assert_array_equal(back[LAYER == 1, 20:], theta[LAYER == 1, 20:])
    codes, _, _ = SnapshotEncoder(theta[:, 0].copy(), SIZES, 0.1, PERIOD).encode(theta)
    assert not codes[LAYER == 0].any()


def test_a_sudden_change_of_pace_keeps_the_tolerance(rng: np.random.Generator) -> None:
    """A learning rate that drops by 10⁶ and comes back: each snapshot by its own displacement."""
    theta = walk(rng, 30).astype("f8")
    pace = np.where(np.arange(29) // 10 == 1, 1e-6, 1.0)
    theta = theta[:, :1] + np.concatenate([np.zeros((LAYER.size, 1)), np.cumsum(pace * np.diff(theta), axis=1)], axis=1)
    back, _, _ = there_and_back(theta, 0.1)
    assert np.all(np.abs(back - theta)[:, 1:] <= 0.1000001 * displacement(theta)[LAYER])


# ------------------------------------------------------------------------------------------------- in the store


def writer(folder: Path, theta: np.ndarray, tolerance: float) -> RunWriter:
    """A run whose every step has a snapshot, and nothing else."""
    layers = [
        {"name": str(i), "shape": [n], "size": n, "group": "g", "optimizer_group": 0} for i, n in enumerate(SIZES)
    ]
    dtypes = dict.fromkeys(("parameters", "initial_parameters"), theta.dtype.str[1:])
    sizes = {"layer": 3, "parameter": LAYER.size}
    run = RunWriter(folder, sizes, ["step"], {"layers": layers, "groups": ["g"]}, dtypes, snapshot_tolerance=tolerance)
    run.write_fixed("initial_parameters", theta[:, 0])
    run.append("step", {"step": np.arange(theta.shape[1])})
    return run


def append(run: RunWriter, theta: np.ndarray, start: int, stop: int) -> None:
    """Some of the snapshots."""
    run.append("snapshot", {"snapshot_step": np.arange(start, stop), "parameters": theta[:, start:stop]})


def read_as_documented(path: Path) -> np.ndarray:
    """The parameters by the lines of docs/format.md alone."""
    text = (Path(__file__).parents[2] / "docs" / "format.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(import numpy.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names: dict[str, np.ndarray] = {}
    exec(code.replace("runs/mine/run.zarr", path.as_posix()), names)
    return np.stack(names["parameters"], axis=1)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("tolerance", [0.0, 0.1])
def test_numpy_and_zarr_read_what_open_run_reads(
    tmp_path: Path, rng: np.random.Generator, dtype: str, tolerance: float
) -> None:
    """Bit for bit, over several chunks, with a layer that jumps between exact and coded."""
    theta = walk(rng, 150, dtype)
    theta[5, 70] = np.nan
    theta[9, 90:95] = -0.0
    run = writer(tmp_path / "run", theta, tolerance)
    for start, stop in pairwise([0, 1, 2, 60, 64, 65, 150]):
        append(run, theta, start, stop)
        half = open_run(tmp_path / "run")
        assert half["parameters"].shape == (LAYER.size, stop)
        if stop > 60 and not tolerance:
            assert half["parameters"].values.tobytes() == np.ascontiguousarray(theta[:, :stop]).tobytes()
    run.close("finished")
    opened = open_run(tmp_path / "run")
    assert "parameters_code" not in opened
    assert opened["parameters"].attrs["units"] == "parameter"
    assert opened["parameters"].chunks is not None
    values = opened["parameters"].values
    assert values.dtype == theta.dtype
    assert read_as_documented(tmp_path / "run" / "run.zarr").tobytes() == np.ascontiguousarray(values).tobytes()
    at = opened["parameters"].isel(parameter=slice(5, 9), snapshot=[3, 100]).values
    np.testing.assert_array_equal(at, values[5:9, [3, 100]])


def test_one_snapshot_and_none(tmp_path: Path, rng: np.random.Generator) -> None:
    """A displacement needs two."""
    theta = walk(rng, 1)
    run = writer(tmp_path / "run", theta, 0.1)
    assert "parameters" not in open_run(tmp_path / "run")
    append(run, theta, 0, 1)
    run.close("finished")
    np.testing.assert_array_equal(open_run(tmp_path / "run")["parameters"].values, theta)


def test_what_was_committed_is_never_coded_anew(tmp_path: Path, rng: np.random.Generator) -> None:
    """A writer that dies between the arrays of a flush: entries before are bit for bit what they were."""
    theta = walk(rng, 40)
    theta[3, 25] = np.nan
    run = writer(tmp_path / "run", theta, 0.1)
    append(run, theta, 0, 20)
    before = open_run(tmp_path / "run")["parameters"].values
    written = []

    def dies(name: str, start: int, values: np.ndarray) -> None:
        if len(written) == 1:
            raise OSError(28, "No space left on device")
        written.append(name)
        RunWriter._append_array(run, name, start, values)

    run._append_array = dies  # type: ignore[method-assign]
    with pytest.raises(OSError, match="No space left"):
        append(run, theta, 20, 40)
    after = open_run(tmp_path / "run")["parameters"].values
    assert after.tobytes() == before.tobytes()


@pytest.mark.parametrize(("tolerance", "least"), [(0.1, 6.0), (0.01, 3.8)])
def test_gaussian_motion_takes_few_bits(
    tmp_path: Path, rng: np.random.Generator, tolerance: float, least: float
) -> None:
    """On the disk, scales and all; their entropy is log₂(√(2πe)/(2·tolerance)), 4.4 and 7.7 bits of 32."""
    size, count = 2**15, 64
    theta = 0.02 * rng.normal(size=(size, 1)) + np.cumsum(1e-3 * rng.normal(size=(size, count)), axis=1)
    theta = np.ascontiguousarray(theta.astype("f4"))
    layers = [{"name": "all", "shape": [size], "size": size, "group": "g", "optimizer_group": 0}]
    sizes = {"layer": 1, "parameter": size}
    run = RunWriter(
        tmp_path / "run", sizes, ["step"], {"layers": layers, "groups": ["g"]}, snapshot_tolerance=tolerance
    )
    run.write_fixed("initial_parameters", theta[:, 0])
    append(run, theta, 0, count)
    run.close("finished")
    names = ("parameters_code", "snapshot_quantum", "snapshot_error")
    files = [file for name in names for file in (tmp_path / "run" / "run.zarr" / name).rglob("*") if file.is_file()]
    assert theta.nbytes / sum(file.stat().st_size for file in files) > least
