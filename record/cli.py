"""`thermodl record`: train and record one run, or many from settings files."""

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, SupportsFloat

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .budget import PLURALS
from .errors import LostError, RunError, UserError
from .format import MIN_STEPS, SETTINGS_OF_SGD
from .schedule import count_due
from .settings import RunSettings, SettingsError, assign, check_name, make_settings, name_differences, read_toml
from .store import read_attributes, run_state
from .words import command_line, counted

_FLAGS = ("model", "data", "data_root", "image_size", "augmentation", "steps", "batch_size", "sampling", "optimizer",
          "learning_rate", "momentum", "weight_decay", "schedule", "seed", "device")  # fmt: skip
_SHOW_EVERY_SECONDS = 0.5
_ENOUGH_PROBES = 20
"""analyses want ten in the segment that they choose, which is half the run where that is stationary"""


def record(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Settings files (TOML), one run each. None: the defaults and the flags.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run's folder. Default: the file's name.")] = None,
    runs_dir: Annotated[Path, typer.Option(help="Folder that receives the run folders.")] = Path("runs"),
    model: Annotated[
        str | None, typer.Option(help="cnn, mlp, a torchvision name such as resnet50, or package.module:function.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="fashion-mnist-10k (embedded), mnist, fashion-mnist, cifar10, cifar100, a folder or .zip of class "
            "folders, a .npz file, or package.module:function."
        ),
    ] = None,
    data_root: Annotated[
        str | None,
        typer.Option(help="Folder that holds the data set's files, or receives the download or what a zip holds."),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Resize the images to this width and height. [default: as they are]")
    ] = None,
    augmentation: Annotated[
        str | None, typer.Option(help="none, flip or crop-flip, of the training images. [default: none]")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps. [default: 3000]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples per step. [default: 64]")] = None,
    sampling: Annotated[
        str | None,
        typer.Option(
            help="shuffle (every example once per epoch) or replacement (independent). It changes the physics."
        ),
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="A class of torch.optim. [default: SGD]")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Learning rate η. [default: 0.05 of SGD, 0.001 of others]")
    ] = None,
    momentum: Annotated[float | None, typer.Option(help="Momentum μ, SGD only. [default: 0.9]")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay. [default: 0.005]")] = None,
    schedule: Annotated[
        str | None,
        typer.Option(help="Learning rate over the run: constant, cosine, warmup-cosine or step. [default: constant]"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, batches and probes.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting as key=value, such as recorder.probe_every=10. May be repeated."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace recordings that are there.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run, from its last checkpoint.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Try some steps, say what each channel would take and hold, write nothing."),
    ] = False,
) -> None:
    """Train a model and record its trajectory into RUNS_DIR/NAME.

    Without arguments a small CNN is trained on the embedded Fashion-MNIST part with SGD and momentum; it takes a
    minute or two. Settings come from TOML files and flags; a flag wins over the file. A run that is finished with the
    same settings is skipped; one that fails does not stop the others.

    \b
    thermodl record
    thermodl record --sampling replacement --set recorder.probe_every=10
    thermodl record --model resnet50 --data cifar10
    thermodl record a.toml b.toml
    """
    given = locals()
    flags = {flag: given[flag] for flag in _FLAGS if given[flag] is not None}
    if name is not None and files and len(files) > 1:
        raise SettingsError(f"--name {name} names one run, but {len(files)} settings files were given")
    if resume and (overwrite or dry_run):
        raise SettingsError(
            f"--resume goes on with a recording; it does not go with {'--overwrite' if overwrite else '--dry-run'}"
        )
    failures: dict[str, int] = {}
    recorded: list[Path] = []
    for file in files or [None]:
        label = str(file or name or "run")
        try:
            folder, settings = _plan(file, name, flags, set_ or [], runs_dir)
            if momentum and settings.optimizer != "SGD":
                raise SettingsError(f"--momentum {momentum:g} goes to SGD only, not to {settings.optimizer}")
            if dry_run:
                from .plan import describe_plan, make_plan

                _say(describe_plan(settings, folder, make_plan(settings)))
            elif record_run(settings, folder, overwrite=overwrite, resume=resume):
                recorded.append(folder)
        except LostError as error:
            print(f"thermodl: {label}: {error}", file=sys.stderr)
            failures[label] = 1
        except UserError as error:
            if not files or len(files) == 1:
                raise
            print(f"thermodl: {label}: {error}", file=sys.stderr)
            failures[label] = 2
        except Exception:
            traceback.print_exc()
            failures[label] = 1
    if recorded:
        _say(f"next: {command_line(['thermodl', 'analyze', *map(str, recorded)])}")
    if failures:
        print(f"thermodl: failed: {', '.join(failures)}", file=sys.stderr)
        raise typer.Exit(min(failures.values()))


def record_run(settings: RunSettings, folder: Path, *, overwrite: bool = False, resume: bool = False) -> bool:
    """Record one run with progress on the terminal; False if it was there already with the same settings.

    Raises:
        RunError: if the folder holds another recording, or one that is not finished, and `overwrite` is false; with
            `resume`, if it cannot be gone on with.
        SettingsError: if the settings cannot be met.
        LostError: if the recording stopped before the training.
    """
    checkpoint = None
    if resume:
        from .checkpoint import read_checkpoint

        checkpoint = read_checkpoint(folder, settings)
        if checkpoint is None:
            _say(f"{folder}: finished, there is nothing to resume")
            return False
        _say(f"{folder}: goes on from step {checkpoint['recorder']['step']}")
    elif not overwrite and (folder / "run.zarr" / "zarr.json").exists():
        attributes = read_attributes(folder)
        state = run_state(attributes)
        if attributes.get("run_id") == settings.run_id() and state == "finished":
            _say(f"{folder}: already recorded with these settings, skipped")
            return False
        if attributes.get("run_id") != settings.run_id():
            why = f"has other settings ({name_differences(attributes, settings)}); choose another --name"
        elif state == "running":
            why = "is running; choose another --name"
        else:
            why = f"is {state}; go on with it with --resume, choose another --name"
        raise RunError(f"{folder} holds a recording that {why}, or --overwrite to replace it")
    from .train import train

    _say(f"{folder}: {_describe(settings)}")
    with _progress(folder.name, settings.steps) as advance:
        train(settings, folder, overwrite=overwrite, resume=checkpoint, progress=advance)
    if thinned := read_attributes(folder).get("thinned"):
        parts = [f"{_count(entry)} from step {entry['from_step']:,} on ({entry['reason']})" for entry in thinned]
        _say(f"{folder}: left out were {', '.join(parts)}")
    _say(f"{folder}: recorded {counted(settings.steps, 'step')}")
    return True


def _say(line: str) -> None:
    """Print a line; a training goes on where nobody reads any more, as after `| head`."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # What else is printed, and what waits in the stream, goes nowhere without a complaint.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _describe(settings: RunSettings) -> str:
    """What the physics depends on, and how often the noise is measured, which cannot be mended afterwards."""
    names = ["learning_rate", *(SETTINGS_OF_SGD if settings.optimizer == "SGD" else ()), "weight_decay"]
    values = {name: value for name in names if (value := getattr(settings, name)) or name == "learning_rate"}
    options = ", ".join(name if value is True else f"{name} {value:g}" for name, value in values.items())
    probes = count_due(settings.recorder.probe_every, settings.steps)
    few = f"; fewer than {_ENOUGH_PROBES} leave the noise of half the run unresolved, see recorder.probe_every"
    return (
        f"{settings.model} on {settings.data}, {counted(settings.steps, 'step')} of {settings.batch_size} "
        f"({settings.sampling}), {settings.optimizer} ({options}, schedule {settings.schedule}), "
        f"{counted(probes, 'probe')}{few if 0 < probes < _ENOUGH_PROBES else ''}"
        f"{f'; an analysis takes at least {MIN_STEPS} steps' if settings.steps < MIN_STEPS else ''}"
    )


def _count(entry: dict[str, Any]) -> str:
    channel = entry["channel"]
    return counted(entry["skipped"], "set of single samples" if channel == "per_sample" else channel, PLURALS[channel])


def _plan(
    file: Path | None, name: str | None, flags: dict[str, Any], assignments: list[str], runs_dir: Path
) -> tuple[Path, RunSettings]:
    table = read_toml(file) if file else {}
    table |= flags
    for assignment in assignments:
        assign(table, assignment)
    in_file = table.pop("name", None)
    settings = make_settings(table, str(file or "settings"))
    name = name or in_file or (file.stem if file else f"{_plain(settings.model)}-{settings.run_id()[:6]}")
    return runs_dir / check_name(str(name)), settings


def _plain(name: str) -> str:
    return name.rpartition(":")[2]


@contextlib.contextmanager
def _progress(name: str, steps: int) -> Iterator[Callable[[int, SupportsFloat], None]]:
    """A bar on a terminal; elsewhere a line for every tenth. The device is waited for only where a loss is shown."""
    console = Console()
    if not console.is_terminal:
        tenth = max(1, steps // 10)

        def print_line(done: int, loss: SupportsFloat) -> None:
            if done % tenth == 0 or done == steps:
                _say(f"{name}: step {done} of {steps}, mini-batch loss {float(loss):.3f}")

        yield print_line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("mini-batch loss {task.fields[loss]:.3f}"), console=console) as bar:
        task, shown = bar.add_task(name, total=steps, loss=float("nan")), 0.0

        def move_bar(done: int, loss: SupportsFloat) -> None:
            nonlocal shown
            bar.update(task, completed=done)
            if time.monotonic() - shown > _SHOW_EVERY_SECONDS or done == steps:
                shown = time.monotonic()
                bar.update(task, loss=float(loss))

        yield move_bar
