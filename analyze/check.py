"""`thermodl check`: the certificate of a recording, or every defect by name."""

import sys
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from thermodl.record.check import Check, check_recording
from thermodl.record.errors import UserError
from thermodl.record.format import measured_stretches
from thermodl.record.store import open_run
from thermodl.record.words import counted

from .cli import describe_failure
from .physics.stationarity import identity
from .quantities import is_nesterov, is_sgd
from .segments import constant_stretches

_WINDOW = 256
_SHOWN = 5


def check(runs: Annotated[list[Path], typer.Argument(help="Run folders, such as runs/*.")]) -> None:
    """Say whether a recording is whole, and to what precision it is the optimizer's true trajectory.

    Every run is held against itself: the schema; each chunk and its checksum; values that are not finite; the clocks;
    snapshots against sketches; the replay of the optimizer's recursion in the sketch, step by step (SGD); and Yaida's
    telescoping identity between ‖θ‖², θ·g and ‖v‖² (SGD without Nesterov). Each line says ok, DEFECT with its place
    and number, or a dash where there is nothing to check. A run that is being recorded may be checked too.

    Exit code: 0 if all is well, 1 if there is a defect, 2 if a run cannot be read.

    \b
    thermodl check runs/mine
    thermodl check runs/*
    """
    failures: dict[str, int] = {}
    named: list[str] = []
    for run in runs:
        print(f"{run}", flush=True)
        try:
            attributes, checks = check_run(run)
        except UserError as error:
            named.append(describe_failure(run, "", str(error)))
            failures[str(run)] = 2
            continue
        for one in checks:
            _print(one)
        defects = [f"{run}: {one.name}: {defect}" for one in checks for defect in one.defects]
        named += defects
        if defects:
            failures[str(run)] = 1
        if "failure" in attributes:
            print(f"  {'state':<10} {attributes['state']}: {attributes['failure']}")
        print(f"  {_certificate(attributes, checks)}", flush=True)
    for line in named:
        print(f"thermodl: {line}", file=sys.stderr)
    if failures:
        raise typer.Exit(min(failures.values()))


def check_run(path: str | Path) -> tuple[dict[str, Any], list[Check]]:
    """All checks of one run: those of the recording itself, and the identity of the physics.

    Raises:
        RunError: if there is no run, or its root metadata cannot be read.
    """
    attributes, checks = check_recording(path)
    damaged = any(one.defects for one in checks if one.name in ("schema", "chunks"))
    if damaged:
        identities = Check("identity", found="not done: the recording is damaged", done=False)
    else:
        identities = _check_identity(path)
    return attributes, [*checks, identities]


def _check_identity(path: str | Path) -> Check:
    """The FDR1 identity in windows of constant hyper-parameters and consecutive measured steps, `_WINDOW` at most."""
    one, run = Check("identity"), open_run(path)
    if not is_sgd(run) or is_nesterov(run):
        kind = f"{run.attrs['optimizer']['class']}{' with Nesterov momentum' if is_nesterov(run) else ''}"
        return Check("identity", found=f"not done: it is not defined for {kind}", done=False)
    if "parameter_squared" not in run:
        found = f"not done, it needs parameter_squared: {run.attrs['not_recorded'].get('parameter_squared', 'missing')}"
        return Check("identity", found=found, done=False)
    # At the first step torch fills the velocity undamped, and where the momentum was 0 before.
    mu, nu = run["momentum"].values, run["dampening"].values
    begins = (mu != 0) & (np.concatenate([np.zeros_like(mu[:, :1]), mu[:, :-1]], axis=1) == 0)
    filled = np.flatnonzero((begins & (nu != 0)).any(axis=0))
    start, last = int(0 in filled), run.sizes["step"] - 1
    edges = sorted(
        {
            place
            for a, b in constant_stretches(run)
            for c, d in measured_stretches(run.attrs, last + 1)
            for place in (*range(max(a, c, start), min(b, d - 1), _WINDOW), *(filled + 1).tolist(), min(b, d - 1))
            # What lies between two stretches has no numbers, and is not defined.
            if max(a, c, start) <= place <= min(b, d - 1)
        }
    )
    if len(edges) < 2:
        return Check("identity", found="not done: there are fewer than two steps", done=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        residual, floor = (values.values for values in identity(run, edges))
    defined = np.isfinite(residual) & ~np.isin(edges[:-1], filled)
    windows = list(pairwise(edges))
    for group, window in np.argwhere(defined & (residual > floor))[:_SHOWN]:
        a, b = windows[window]
        name = ["all", *run["group"].values][group]
        one.defects.append(
            f"steps {a} to {b}: the identity of {name} is open by {residual[group, window]:.3g}, rounding allows "
            f"{floor[group, window]:.3g}"
        )
    open_windows = int((defined & (residual > floor)).sum())
    if open_windows > _SHOWN:
        one.defects.append(f"… and {open_windows - _SHOWN} more")
        one.beyond = open_windows - _SHOWN - 1
    if defined.any():
        at = np.nanargmax(np.where(defined, residual, np.nan))
        one.precision = float(np.median(residual[defined]))
        where = counted(int(defined.any(0).sum()), "window")
        one.found = (
            f"closes in {where}; half of the residuals are below {one.precision:.1e} of η(1+μ)/(2(1−ν))⟨‖v‖²⟩, the "
            f"largest is {float(residual.flat[at]):.1e}, where rounding allows {float(floor.flat[at]):.1e}"
        )
    else:
        one.done, one.found = False, "not done: nothing moves"
    return one


def _print(one: Check) -> None:
    for defect in one.defects:
        print(f"  {one.name:<10} DEFECT  {defect}")
    if not one.defects:
        print(f"  {one.name:<10} {'ok' if one.done else '—':<7} {one.found}")


def _certificate(attributes: dict[str, Any], checks: list[Check]) -> str:
    """One sentence: what holds, and to what precision."""
    count, steps = sum(len(one.defects) + one.beyond for one in checks), attributes["committed"]["step"]
    if count:
        return f"no certificate: {counted(count, 'defect')} in {counted(steps, 'step')}"
    if not steps:
        return "no certificate: no step was recorded"
    by_name = {one.name: one for one in checks}
    replay, identities = by_name["replay"], by_name["identity"]
    if replay.done and replay.precision is not None:
        parts = measured_stretches(attributes, steps)
        measured = sum(stop - start for start, stop in parts)
        which = counted(steps, "step")
        if measured != steps:
            which = f"{measured:,} of {which}, in {counted(len(parts), 'stretch', 'stretches')},"
        which += " is" if measured == 1 else " are"
        also = f", its identity to {identities.precision:.1e}" if identities.precision is not None else ""
        return (
            f"certificate: {which} the optimizer's trajectory, its updates to {replay.precision:.1e}"
            f"{also} in half of all cases, and in all within rounding"
        )
    whole = f"{counted(steps, 'step')} {'is' if steps == 1 else 'are'} whole"
    return f"certificate: {whole}; the optimizer's recursion was not replayed"
