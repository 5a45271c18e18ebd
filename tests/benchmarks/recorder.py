"""What a recorded step costs beside a plain one: ratios from one process, plain and recorded in turns.

    python tests/benchmarks/recorder.py [--pairs 7] [--threads 2] [--only cnn,mlp,resnet18]

Each pair times the same number of steps of the plain loop and of the recorded loop on the same model and data, one
after the other; the median ratio and its range are printed. A time alone means nothing on a shared machine.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from thermodl.record import Recorder, RecorderSettings
from thermodl.record.models import make_model


@dataclass(frozen=True)
class Case:
    """A network and how long one timed stretch of it is."""

    model: str
    shape: tuple[int, int, int]
    batch: int
    steps: int


CASES = {
    "cnn": Case("cnn", (1, 28, 28), 128, 100),
    "mlp": Case("mlp", (1, 28, 28), 128, 100),
    "resnet18": Case("resnet18", (3, 32, 32), 64, 4),
}
CHANNELS = {
    "inner products": RecorderSettings(probe_every=0, sketch_size=0, snapshot_every=0),
    "+ sketches": RecorderSettings(probe_every=0, snapshot_every=0),
    "default": RecorderSettings(),
}


def make_loop(case: Case, settings: RecorderSettings | None, folder: Path) -> Callable[[int], None]:
    """A training loop over random data; recorded if there are settings."""
    torch.manual_seed(0)
    model = make_model(case.model, case.shape, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    x, y = torch.randn(case.batch, *case.shape), torch.randint(10, (case.batch,))

    def probe() -> torch.Tensor:
        return F.cross_entropy(model(x.flip(0)), y.flip(0))

    recorder = Recorder(model, optimizer, folder, probe=probe, settings=settings) if settings else None

    def run(steps: int) -> None:
        for _ in range(steps):
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if recorder:
                recorder.log(loss=loss)

    return run


def seconds(run: Callable[[int], None], steps: int) -> float:
    """Wall time of some steps."""
    started = time.perf_counter()
    run(steps)
    return time.perf_counter() - started


def measure(case: Case, settings: RecorderSettings, pairs: int) -> tuple[list[float], float]:
    """Ratios of recorded to plain, and the milliseconds of a plain step."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        plain = make_loop(case, None, Path(folder))
        recorded = make_loop(case, settings, Path(folder) / "run")
        # The first steps compile the kernels and warm the caches.
        plain(max(2, case.steps // 10))
        recorded(max(2, case.steps // 10))
        ratios, times = [], []
        for _ in range(pairs):
            a = seconds(plain, case.steps)
            b = seconds(recorded, case.steps)
            ratios.append(b / a)
            times.append(1000 * a / case.steps)
    return ratios, statistics.median(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", default=",".join(CASES))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads, {options.pairs} pairs; recorded ÷ plain")
    for name in options.only.split(","):
        for channel, settings in CHANNELS.items():
            ratios, plain = measure(CASES[name], settings, options.pairs)
            spread = f"{min(ratios):.3f}–{max(ratios):.3f}"
            print(
                f"{name:<9} {channel:<15} {statistics.median(ratios):.3f}  ({spread}), plain {plain:.1f} ms", flush=True
            )


if __name__ == "__main__":
    main()
