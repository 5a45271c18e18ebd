"""What the kernels of the analyses cost beside their peers': ratios of CPU time from one process, in turns.

    PYTHONPATH=peers:tests OMP_NUM_THREADS=1 python tests/benchmarks/analysis.py [--pairs 7] [--only msd,all,acf,zarr]

Each pair runs the peer and the kernel on the same array, one after the other, on one thread; the median ratio and its
range are printed beside the target. Agreement is with differences written out in float64, also at offset 100 and steps
of 1e-4. The end-to-end figure is for a recording in the page cache: reading, decoding and the MSD on log lags.

Peers that cannot be imported are left out; a folder of their own keeps their requirements apart:

    pip install --no-deps --target peers tidynamics emcee statsmodels patsy pandas freud-analysis rowan \
        parsnip-cif more-itertools MDAnalysis GridDataFormats mrcfile mmtf-python mda-xdrlib
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask.config
import numpy as np
import xarray as xr
from made_up import write_run

from thermodl.analyze import displacements, open_run, series

Call = Callable[[], Any]
_SHAPES = ((3, 10_000), (64, 10_000), (3, 100_000), (64, 100_000))
_LONGEST = 4096
"""lag of the autocorrelation"""


def cpu(call: Call) -> float:
    """Seconds of CPU time."""
    start = time.process_time()
    call()
    return time.process_time() - start


def compare(title: str, ours: Call, peer: Call, target: float, pairs: int) -> None:
    """Print how many times as long the peer takes, in turns."""
    ours(), peer()
    ratios = sorted(1 / (cpu(ours) / cpu(peer)) for _ in range(pairs))
    print(f"{title:56s} {statistics.median(ratios):7.1f} × [{ratios[0]:.1f}–{ratios[-1]:.1f}]  target ≥ {target:g}")


def load(name: str) -> Any:
    """A peer, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(name)
    except ImportError as error:
        print(f"{name} is left out: {error}")
        return None


def mdanalysis_msd(x: np.ndarray) -> Call | None:
    """EinsteinMSD by FFT on particles of three coordinates each."""
    mda, msd = load("MDAnalysis"), load("MDAnalysis.analysis.msd")
    if mda is None or msd is None:
        return None
    frames = np.ascontiguousarray(x[: len(x) // 3 * 3].reshape(-1, 3, x.shape[1]).transpose(2, 0, 1), dtype=np.float32)
    universe = mda.Universe.empty(frames.shape[1], trajectory=True)
    universe.load_new(frames)
    return lambda: msd.EinsteinMSD(universe, msd_type="xyz", fft=True).run()


def freud_msd(x: np.ndarray) -> Call | None:
    """freud's MSD of the same particles."""
    freud = load("freud.msd")
    if freud is None:
        return None
    frames = np.ascontiguousarray(x[: len(x) // 3 * 3].reshape(-1, 3, x.shape[1]).transpose(2, 0, 1), dtype=np.float32)
    return lambda: freud.MSD(mode="window").compute(frames)


def walks(rng: np.random.Generator, count: int, steps: int, step: float = 1e-3, offset: float = 0.0) -> np.ndarray:
    """Random walks (coordinate, N) away from an offset."""
    return offset + step * np.cumsum(rng.standard_normal((count, steps)), axis=1)


def bench_msd(rng: np.random.Generator, pairs: int) -> None:
    """Log lags against tidynamics, MDAnalysis and freud."""
    tidynamics = load("tidynamics")
    for count, steps in _SHAPES:
        x = walks(rng, count, steps)
        lags = series.log_lags(steps // 4, 10)
        where = f"{steps:.0e} × {count}"
        # Only multiples of three coordinates make particles.
        used = x[: count // 3 * 3]
        calls = {
            "tidynamics": (tidynamics and (lambda x=x: tidynamics.msd(x.T)), x, 25),
            "MDAnalysis": (mdanalysis_msd(x), used, 70),
            "freud": (freud_msd(x), used, 60),
        }
        for name, (peer, same, target) in calls.items():
            if peer:
                title = f"MSD, {len(lags)} log lags, {where}, {name}"
                compare(
                    title,
                    lambda same=same, lags=lags: displacements.mean_squared_displacement_at(same, lags),
                    peer,
                    target,
                    pairs,
                )


def bench_all_lags(rng: np.random.Generator, pairs: int) -> None:
    """All lags by FFT against tidynamics."""
    tidynamics = load("tidynamics")
    for count, steps in _SHAPES:
        x = walks(rng, count, steps)
        if tidynamics:
            title = f"MSD, all lags, {steps:.0e} × {count}, tidynamics"
            ours = lambda x=x: displacements.mean_squared_displacement(x)  # noqa: E731
            compare(title, ours, lambda x=x: tidynamics.msd(x.T), 4, pairs)


def bench_acf(rng: np.random.Generator, pairs: int) -> None:
    """Autocorrelation of a million steps against emcee and statsmodels."""
    x = rng.standard_normal(1_000_000)
    emcee, statsmodels = load("emcee.autocorr"), load("statsmodels.tsa.stattools")

    def ours() -> np.ndarray:
        return series.autocovariance(x, _LONGEST)

    title = f"autocorrelation, 1e6 to lag {_LONGEST}, "
    if emcee:
        compare(title + "emcee", ours, lambda: emcee.function_1d(x), 7, pairs)
    if statsmodels:
        compare(title + "statsmodels", ours, lambda: statsmodels.acf(x, nlags=_LONGEST, fft=True), 7, pairs)


def bench_agreement(rng: np.random.Generator) -> None:
    """Largest relative difference from differences written out."""
    for offset, step in ((0.0, 1.0), (100.0, 1e-4)):
        x = walks(rng, 16, 10_000, step, offset)
        lags = series.log_lags(2500, 10)
        exact = np.array([np.sum((x[:, lag:] - x[:, :-lag]) ** 2) / (x.shape[1] - lag) for lag in lags])
        direct = np.max(np.abs(displacements.mean_squared_displacement_at(x, lags) / exact - 1))
        by_fft = np.max(np.abs(displacements.mean_squared_displacement(x)[lags] / exact - 1))
        print(f"offset {offset:g}, step {step:g}: log lags {direct:.0e}, all lags {by_fft:.0e}  target ≤ 1e-9")


def bench_growth(rng: np.random.Generator) -> None:
    """CPU time in nanoseconds per element against N, 16 coordinates."""
    for steps in (1_000, 10_000, 100_000, 1_000_000):
        x = walks(rng, 16, steps)
        lags = series.log_lags(steps // 4, 10)
        found = []
        calls = (
            lambda x=x, lags=lags: displacements.mean_squared_displacement_at(x, lags),
            lambda x=x: displacements.mean_squared_displacement(x),
        )
        for call in calls:
            call()
            found.append(min(cpu(call) for _ in range(3)) / x.size * 1e9)
        print(f"N = {steps:8d}: log lags {found[0]:6.1f} ns per element, all lags {found[1]:6.1f}")


def bench_zarr(pairs: int) -> None:
    """From the recording to the MSD on log lags of every group, one thread."""
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="synchronous"):
        write_run(Path(folder) / "run", 8192, groups=16, sketch=256)
        run = open_run(Path(folder) / "run")["parameter_sketch"]
        lags = series.log_lags(run.sizes["step"] // 4, 10)

        def read_all() -> None:
            for group in range(run.sizes["group"]):
                run.isel(group=group).values  # noqa: B018

        def whole() -> None:
            # Block by block, as the analyses do it.
            xr.apply_ufunc(
                lambda x: displacements.mean_squared_displacement_at(x, lags),
                run,
                input_core_dims=[["sketch", "step"]],
                output_core_dims=[["lag"]],
                vectorize=True,
                dask="parallelized",
                output_dtypes=[float],
                dask_gufunc_kwargs={"output_sizes": {"lag": len(lags)}},
            ).compute()

        for title, call in (("read", read_all), ("read and MSD", whole)):
            call()
            rates = sorted(run.nbytes / cpu(call) / 1e9 for _ in range(pairs))
            target = "" if call is read_all else "  target ≥ 0.5"
            print(
                f"Zarr, {title}: {statistics.median(rates):.2f} GB/s per core [{rates[0]:.2f}–{rates[-1]:.2f}]{target}"
            )


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--only", default="agreement,msd,all,acf,growth,zarr")
    arguments = parser.parse_args()
    parts = {
        "agreement": lambda rng: bench_agreement(rng),
        "msd": lambda rng: bench_msd(rng, arguments.pairs),
        "all": lambda rng: bench_all_lags(rng, arguments.pairs),
        "acf": lambda rng: bench_acf(rng, arguments.pairs),
        "growth": lambda rng: bench_growth(rng),
        "zarr": lambda _: bench_zarr(arguments.pairs),
    }
    print(f"thermodl {version('thermodl')}, numpy {version('numpy')}")
    for name in arguments.only.split(","):
        parts[name](np.random.default_rng(0))


if __name__ == "__main__":
    main()
