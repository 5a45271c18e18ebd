"""What a recorded step costs beside a plain one, and what the peers cost: ratios from one process, in turns.

    python tests/benchmarks/recorder.py [--pairs 7] [--threads 2] [--only cnn,mlp,resnet18,resnet50]

Each pair times the same number of steps of the plain loop and of the recorded loop on the same model and data, one
after the other; the median ratio and its range are printed, and the tensors that the recorder holds, in units of the
parameters. A time alone means nothing on a shared machine.

A step where nothing is due costs less than such ratios can tell, which vary by some per cent. What it takes is timed
itself: between hooks of the benchmark's own, registered before and after the recorder's, and around `log`; in a
training, whose work has emptied the caches by then, and in 10,000 steps of the optimizer alone. The mean holds the
handing over of rows to the writer, and what the machine did else; the median does not.

BackPACK and Cockpit are measured in the same way where
they can be imported; a folder of their own keeps their requirements apart:

    pip install --no-deps --target peers backpack-for-pytorch cockpit-for-pytorch unfoldNd einops json-tricks \
        matplotlib seaborn kiwisolver cycler fonttools contourpy pyparsing "setuptools<81"
    PYTHONPATH=peers python tests/benchmarks/recorder.py
"""

import argparse
import gc
import itertools
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from thermodl.record import Recorder, RecorderSettings
from thermodl.record.models import make_model

Loop = Callable[[int], None]
"""a training loop, called with a number of steps"""


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
    "resnet18": Case("resnet18", (3, 32, 32), 64, 10),
    "resnet50": Case("resnet50", (3, 32, 32), 32, 10),
}
_OFF = {"probe_every": 0, "sketch_size": 0, "snapshot_every": 0}
CHANNELS = {
    "nothing": RecorderSettings(**_OFF | {"products_every": 0}),
    "gaps of bursts": RecorderSettings(**_OFF | {"sketch_size": 256, "products_every": "burst:1/1000000"}),
    "inner products": RecorderSettings(**_OFF),
    "+ sketches": RecorderSettings(**_OFF | {"sketch_size": 256}),
    "+ snapshots": RecorderSettings(**_OFF | {"snapshot_every": 200}),
    "+ moments": RecorderSettings(**_OFF | {"moments_window": 200}),
    "+ probe every 10": RecorderSettings(**_OFF | {"probe_every": 10}),
    "+ micro-batches": RecorderSettings(**_OFF),
    "default": RecorderSettings(),
    "everything": RecorderSettings(probe_every=10, moments_window=200),
}

_QUIET = ("nothing", "gaps of bursts")
_ACCUMULATED = {"+ micro-batches": 2}
"""micro-batches of a step, in the plain loop as well"""


def make_model_and_data(case: Case) -> tuple[nn.Module, torch.optim.Optimizer, torch.Tensor, torch.Tensor]:
    """The network with its optimizer, and one batch of random data."""
    torch.manual_seed(0)
    model = make_model(case.model, case.shape, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    return model, optimizer, torch.randn(case.batch, *case.shape), torch.randint(10, (case.batch,))


def recorded(case: Case, settings: RecorderSettings | None, folder: Path, accumulate: int = 1) -> Loop:
    """A training loop; recorded if there are settings. The noise of accumulated micro-batches is recorded as well."""
    model, optimizer, x, y = make_model_and_data(case)
    flips = itertools.cycle((0, -1))

    def probe() -> torch.Tensor:
        return F.cross_entropy(model(x.flip(next(flips))), y)

    recorder = Recorder(model, optimizer, folder, probe=probe, settings=settings) if settings else None

    parts = list(zip(x.chunk(accumulate), y.chunk(accumulate), strict=True))

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            for inputs, targets in parts:
                loss = F.cross_entropy(model(inputs), targets) / accumulate
                loss.backward()
                if recorder and accumulate > 1:
                    recorder.micro_batch()
            optimizer.step()
            if recorder:
                recorder.log(loss=loss)

    return run


def with_backpack(case: Case, extension: str) -> Loop:
    """The loop with one of BackPACK's second-order extensions at every step."""
    from backpack import backpack, extend, extensions  # type: ignore[import-not-found]

    model, optimizer, x, y = make_model_and_data(case)
    model, loss_function = extend(model, use_converter=False), extend(nn.CrossEntropyLoss())
    what = getattr(extensions, extension)()

    def run(steps: int) -> None:
        for _ in range(steps):
            loss = loss_function(model(x), y)
            optimizer.zero_grad()
            with backpack(what):
                loss.backward()
            optimizer.step()

    return run


def with_cockpit(case: Case) -> Loop:
    """The loop with Cockpit's economy preset."""
    from backpack import extend  # type: ignore[import-not-found]
    from cockpit import Cockpit  # type: ignore[import-not-found]
    from cockpit.utils.configuration import configuration  # type: ignore[import-not-found]

    model, optimizer, x, y = make_model_and_data(case)
    model, loss_function = extend(model), extend(nn.CrossEntropyLoss())
    cockpit = Cockpit(model.parameters(), configuration("economy"))
    done = 0

    def run(steps: int) -> None:
        nonlocal done
        for _ in range(steps):
            optimizer.zero_grad()
            output = model(x)
            loss = loss_function(output, y)
            each = F.cross_entropy(output, y, reduction="none")
            facts = {"batch_size": len(x), "individual_losses": each, "loss": loss, "optimizer": optimizer}
            with cockpit(done, info=facts):
                loss.backward(create_graph=cockpit.create_graph(done))
            optimizer.step()
            done += 1

    return run


PEERS: dict[str, Callable[[Case], Loop]] = {
    "BackPACK SumGradSquared": lambda case: with_backpack(case, "SumGradSquared"),
    "BackPACK Variance": lambda case: with_backpack(case, "Variance"),
    "Cockpit economy": with_cockpit,
}


def seconds(run: Loop, steps: int) -> float:
    """Wall time of some steps."""
    started = time.perf_counter()
    run(steps)
    return time.perf_counter() - started


def ratios(plain: Loop, other: Loop, case: Case, pairs: int) -> tuple[list[float], float]:
    """Ratios of the other loop to the plain one in turns, and the milliseconds of a plain step."""
    # The first steps compile the kernels and warm the caches.
    for run in (plain, other):
        run(max(2, case.steps // 10))
    found, times = [], []
    for _ in range(pairs):
        first = seconds(plain, case.steps)
        found.append(seconds(other, case.steps) / first)
        times.append(1000 * first / case.steps)
    return found, statistics.median(times)


def own_seconds(
    case: Case, settings: RecorderSettings, folder: Path
) -> tuple[list[tuple[float, float]], list[tuple[float, float]], float]:
    """What the recorder's hooks and `log` take of each step, in a training and where the optimizer alone is called;
    and what all else takes of a step of that training."""
    model, optimizer, x, y = make_model_and_data(case)
    marks: list[float] = []

    def mark(*_: object) -> None:
        marks.append(time.perf_counter())

    registers = optimizer.register_step_pre_hook, optimizer.register_step_post_hook
    for register in registers:
        register(mark)
    recorder = Recorder(model, optimizer, folder, settings=settings)
    for register in registers:
        register(mark)

    def step(loss: torch.Tensor) -> tuple[float, float]:
        marks.clear()
        optimizer.step()
        mark()
        recorder.log(loss=loss)
        mark()
        before, measured, after, noted, begun, logged = marks
        return measured - before + noted - after, logged - begun

    training, rest = [], []
    for _ in range(2 * case.steps):
        started = time.perf_counter()
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        training.append(step(loss))
        rest.append(time.perf_counter() - started - sum(training[-1]))
    alone = [step(loss) for _ in range(10_000)]
    recorder.close()
    return training[1:], alone, statistics.median(rest)


def quiet_cost(case: Case, settings: RecorderSettings) -> str:
    """In words."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        training, alone, rest = own_seconds(case, settings, Path(folder))

    def both(average: Callable[..., float], seconds: list[tuple[float, float]]) -> str:
        return " + ".join(f"{1e6 * average(column):.0f}" for column in zip(*seconds, strict=True))

    hooks = statistics.median(hooks for hooks, _ in training)
    return (
        f"hooks + log: {both(statistics.median, training)} µs in a training, mean {both(statistics.fmean, training)}, "
        f"{both(statistics.median, alone)} alone; hooks {100 * hooks / rest:.3f} % of a step of {1000 * rest:.1f} ms"
    )


def tensor_bytes() -> int:
    """Bytes of all tensors that are alive."""
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # looking at every object touches deprecated ones
        alive = [thing for thing in gc.get_objects() if isinstance(thing, torch.Tensor)]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in alive}
    return sum(storages.values())


def measure(case: Case, channel: str, pairs: int) -> tuple[list[float], float, float]:
    """As `ratios`, and the memory that recording takes, in units of the parameters."""
    accumulate = _ACCUMULATED.get(channel, 1)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        plain = recorded(case, None, Path(folder), accumulate)
        before = tensor_bytes()
        loop = recorded(case, CHANNELS[channel], Path(folder) / "run", accumulate)
        after = tensor_bytes()
        found, milliseconds = ratios(plain, loop, case, pairs)
        parameters = sum(4 * parameter.numel() for parameter in make_model_and_data(case)[0].parameters())
        data = 4 * case.batch * int(torch.tensor(case.shape).prod()) + 8 * case.batch
        return found, milliseconds, (after - before - data) / parameters - 1


def _row(case: str, what: str, found: list[float], milliseconds: float, memory: str = "") -> str:
    spread = f"({min(found):.3f}–{max(found):.3f})"
    return f"{case:<9} {what:<24} {statistics.median(found):6.3f} {spread:<16} {memory:<8} plain {milliseconds:.1f} ms"


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} not installed"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", default=",".join(CASES), help="networks")
    parser.add_argument("--channels", default=",".join(CHANNELS), help="channels")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    peers = ", ".join(_version(name) for name in ("torch", "backpack-for-pytorch", "cockpit-for-pytorch"))
    print(f"{peers}; {options.threads} threads, {options.pairs} pairs; time ÷ plain, tensors held ÷ parameters")
    for name in options.only.split(","):
        case = CASES[name]
        for channel in options.channels.split(","):
            found, milliseconds, memory = measure(case, channel, options.pairs)
            print(_row(name, channel, found, milliseconds, f"{memory:.2f} P"), flush=True)
            if channel in _QUIET:
                print(f"{'':<9} {quiet_cost(case, CHANNELS[channel])}", flush=True)
        for peer, make in PEERS.items():
            try:
                found, milliseconds = ratios(recorded(case, None, Path()), make(case), case, options.pairs)
            except ImportError as error:
                print(f"{name:<9} {peer:<24} not measured: {error}")
            except Exception as error:  # what a peer raises on a network that it does not support is its answer
                print(f"{name:<9} {peer:<24} refuses: {str(error).splitlines()[0][:80]}")
            else:
                print(_row(name, peer, found, milliseconds), flush=True)


if __name__ == "__main__":
    main()
