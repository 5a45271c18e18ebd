"""What a cluster of one worker costs beside one thread of this process, and how much of two workers is used.

    PYTHONPATH=tests OMP_NUM_THREADS=1 python tests/benchmarks/cluster.py [--size 1] [--pairs 3] [--only diffusion,…]

A run of so many GiB of sketches is analyzed by one thread of this process, by a cluster of one worker and by one of
two, in turns, workers of one thread each; medians of the ratios of wall time are printed beside the targets. Two
workers take two processors with nothing else on them.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

import dask.config
from local_cluster import WITH_THRESHOLDS, running_cluster
from made_up import write_run

from thermodl.analyze import analyze

_STEPS, _SKETCH = 32_768, 256
_BYTES_PER_VALUE = 12
"""a position in double and a gradient in single precision"""


def measure(folder: Path, analysis: str, scheduler: str | None) -> float:
    """Seconds that an analysis takes from the recording to the stored results."""
    start = time.perf_counter()
    errors = analyze(folder, [analysis], scheduler=scheduler, force=True)
    if errors:
        raise next(iter(errors.values()))
    return time.perf_counter() - start


def describe(ratios: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(ratios):5.2f} [{min(ratios):.2f}–{max(ratios):.2f}]"


def bench(root: Path, only: list[str], size: float, pairs: int) -> None:
    """Wall time of one worker over that of a thread, and how much of two workers is used."""
    groups = max(2, round(size * 2**30 / (_BYTES_PER_VALUE * _SKETCH * _STEPS)))
    run = root / "run"
    write_run(run, _STEPS, groups=groups, sketch=_SKETCH)
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(scheduler="synchronous"))
        environment = WITH_THRESHOLDS | {"OMP_NUM_THREADS": "1"}
        one, two = (stack.enter_context(running_cluster(root / f"{n}", n, environment)) for n in (1, 2))
        for analysis in only:
            for scheduler in (None, one.address, two.address):
                measure(run, analysis, scheduler)
            over, efficiency = [], []
            for _ in range(pairs):
                alone, single, double = (measure(run, analysis, where) for where in (None, one.address, two.address))
                over.append(single / alone)
                efficiency.append(single / (2 * double))
            print(
                f"{analysis:18s} one worker ÷ serial {describe(over)}  target ≤ 1.10   "
                f"efficiency of two {describe(efficiency)}  target ≥ 0.90   ({alone:.1f} s alone)",
                flush=True,
            )


def main() -> None:
    """Print a line for each analysis."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=float, default=1.0, help="GiB of sketches")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--only", default="diffusion,correlation,response,noise", help="separated by commas")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench(Path(scratch), options.only.split(","), options.size, options.pairs)


if __name__ == "__main__":
    main()
