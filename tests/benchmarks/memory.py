"""Whether a run larger than memory is analyzed within a limit, and with the same digits as without one.

    PYTHONPATH=tests OMP_NUM_THREADS=1 python tests/benchmarks/memory.py [--size 8] [--limit 1GiB] [--folder DIR]

A run of so many GiB of sketches is made, Ornstein–Uhlenbeck motion in groups of 256 sketch coordinates. Each analysis
is made in a process of its own with the limit, whose largest resident memory is printed beside it, and in another
without one; the numbers of both are compared bit for bit. A quarter of the groups shows what the peak depends on.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from dask.utils import parse_bytes
from made_up import write_run

from thermodl.analyze import analyze, open_results, physics

_STEPS, _SKETCH = 65_536, 256
_CHILD = "import sys; sys.path[:0] = {paths}; import memory; memory.{function}(*{arguments})"


def measure(folder: str, analysis: str, name: str, memory: str | None) -> None:
    """Make an analysis and print the seconds and the largest resident memory of this process in MiB."""
    start = time.perf_counter()
    errors = analyze(folder, [analysis], name=name, memory=memory, force=True)
    if errors:
        raise next(iter(errors.values()))
    print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def make(folder: str, groups: int) -> None:
    """Write a run."""
    write_run(Path(folder), _STEPS, groups=groups, sketch=_SKETCH)


def apart(function: str, *arguments: object) -> str:
    """What a function of this module prints in a process of its own.

    A process starts with the largest memory of the one that made it, which therefore must hold nothing itself.
    """
    code = _CHILD.format(paths=[str(Path(__file__).parent), *sys.path], function=function, arguments=arguments)
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def measure_apart(folder: Path, analysis: str, name: str, memory: str | None) -> tuple[float, float]:
    """Seconds and MiB of `measure`."""
    seconds, peak = apart("measure", str(folder), analysis, name, memory).split()
    return float(seconds), float(peak)


def count_differences(folder: Path, analysis: str) -> int:
    """Numbers that are not the same bit for bit under both names."""
    limited, free = (open_results(folder, name)[analysis].load() for name in ("limited", "free"))
    pairs = [(limited[name].values, free[name].values) for name in free.variables if free[name].dtype.kind == "f"]
    return sum(int(np.sum(~((one == other) | (np.isnan(one) & np.isnan(other))))) for one, other in pairs)


def main() -> None:
    """Make the runs, and print a line for each analysis."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=float, default=8.0, help="GiB of sketches")
    parser.add_argument("--limit", default="1GiB")
    parser.add_argument("--only", default=",".join(physics.names()), help="analyses, separated by commas")
    parser.add_argument("--folder", type=Path, help="where to make the runs; those that are there are used again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = options.folder or Path(scratch)
        groups = max(4, round(options.size * 2**30 / (12 * _SKETCH * _STEPS)))
        runs = [(root / f"groups-{count}", count) for count in (groups, groups // 4)]
        for folder, count in runs:
            if not folder.exists():
                apart("make", str(folder), count)
        (large, _), (small, _) = runs
        allowed = parse_bytes(options.limit) / 2**20
        print(f"{groups} groups × {_SKETCH} × {_STEPS} steps, {12 * groups * _SKETCH * _STEPS / 2**30:.2f} GiB; limit "
              f"{allowed:.0f} MiB")  # fmt: skip
        for analysis in options.only.split(","):
            seconds, peak = measure_apart(large, analysis, "limited", options.limit)
            _, of_quarter = measure_apart(small, analysis, "limited", options.limit)
            without, free = measure_apart(large, analysis, "free", None)
            differ = count_differences(large, analysis)
            print(f"{analysis:20s} {peak:5.0f} MiB [{of_quarter:.0f} for a quarter; {free:.0f} without a limit]  "
                  f"{'within' if peak <= allowed else 'ABOVE'}  {seconds:5.0f} s [{without:.0f}]  "
                  f"{differ} digits differ")  # fmt: skip


if __name__ == "__main__":
    main()
