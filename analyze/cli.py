"""`thermodl analyze`, `thermodl unpack` and `thermodl ls`."""

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from thermodl.record.archive import unpack_run
from thermodl.record.errors import RunError, UserError
from thermodl.record.format import NAME, is_run_name
from thermodl.record.store import list_runs, read_attributes, run_folder, run_state
from thermodl.record.words import command_line

from . import physics
from .execution import ClusterError, on_cluster
from .pipeline import analyze as analyze_run
from .results import list_settings_names, read_result_attributes
from .settings import AnalysisError, AnalysisSettings, NotDefinedError, make_settings


def analyze(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, such as runs/*.")],
    only: Annotated[
        str | None, typer.Option(help=f"Analyses, separated by commas: {', '.join(physics.names())}. [default: all]")
    ] = None,
    segment: Annotated[
        str, typer.Option(help="Steps to use, start:stop, or auto: the longest stationary end of the run.")
    ] = "auto",
    windows: Annotated[int, typer.Option(help="Windows of the curves over time, at most.")] = 32,
    lags_per_decade: Annotated[int, typer.Option(help="Time lags in each factor of ten.")] = 10,
    diffusion_lag: Annotated[
        int | None, typer.Option(help="Lag ℓ at which D is taken from MSD(2ℓ) − MSD(ℓ). [default: 5/(1−μ)]")
    ] = None,
    waiting_times: Annotated[int, typer.Option(help="Origins of the two-time displacement.")] = 6,
    name: Annotated[str, typer.Option(help="Name under which these settings' results are kept.")] = "default",
    force: Annotated[bool, typer.Option("--force", help="Compute again even what is there.")] = False,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a dask.distributed cluster to compute on, such as tcp://host:8786.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="Memory that this process may take, such as 4GB; the numbers do not depend on it."),
    ] = None,
) -> None:
    """Turn recorded runs into temperatures, dissipation, diffusion coefficients and correlations, with error bars.

    Results go to results.zarr in each run folder. What was computed before from the same recording with the same
    settings is not computed again. Beside each analysis stands what of it is not to be trusted; thermodl view says why.
    A run that cannot be analyzed does not stop the others; it is named at the end.

    Exit code: 0 if all is well (a quantity that is not defined for the optimizer is no failure), 1 if an analysis
    broke, 2 if there is something to mend.

    \b
    thermodl analyze runs/*
    thermodl analyze runs/mine --only diffusion,temperature --segment 1000:3000
    thermodl analyze runs/large --memory 4GB
    thermodl analyze runs/* --scheduler tcp://host:8786
    """
    if not NAME.fullmatch(name):
        raise AnalysisError(f"{name!r} cannot name settings: expected letters, digits, '.', '_' or '-'")
    settings = make_settings(
        segment=segment,
        windows=windows,
        lags_per_decade=lags_per_decade,
        diffusion_lag=diffusion_lag,
        waiting_times=waiting_times,
    )
    wanted = [part.strip() for part in only.split(",")] if only else None
    analyze_runs(runs, wanted, settings, name=name, force=force, scheduler=scheduler, memory=memory)
    for folder in dict.fromkeys(map(_folder_of_runs, runs)):
        print(f"next: {command_line(['thermodl', 'view', str(folder)])}")


def analyze_runs(
    runs: Sequence[Path],
    wanted: Sequence[str] | None = None,
    settings: AnalysisSettings | None = None,
    *,
    name: str = "default",
    force: bool = False,
    scheduler: str | None = None,
    memory: str | None = None,
) -> None:
    """Analyze runs one after the other with progress on the terminal, and name what failed at the end.

    Raises:
        typer.Exit: if something failed.
    """
    failures: list[Exception] = []
    named: list[str] = []
    with on_cluster(scheduler):
        for run in runs:
            print(f"{run}", flush=True)
            try:
                lines = _Lines(run, name)
                errors = analyze_run(run, wanted, settings, name=name, force=force, progress=lines, memory=memory)
            except (BrokenPipeError, ClusterError):  # nothing that follows could be printed, or computed
                raise
            except Exception as error:  # whatever is wrong with one run, the others are analyzed
                errors = {"": error}
            # Several analyses may fail for one reason, which is said once.
            reasons: dict[str, list[str]] = {}
            made = [analysis for analysis in wanted or physics.names() if analysis not in errors and "" not in errors]
            for line in _segments(run, name, made):
                print(f"  {line}", flush=True)
            for analysis, error in errors.items():
                if isinstance(error, NotDefinedError):
                    continue
                failures.append(error)
                if not isinstance(error, UserError):
                    traceback.print_exception(error)
                kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
                reasons.setdefault(f"{kind}{error}", []).append(analysis)
            named += [describe_failure(run, ", ".join(analyses), reason) for reason, analyses in reasons.items()]
    for line in named:
        print(f"thermodl: {line}", file=sys.stderr)
    if failures:
        raise typer.Exit(2 if all(isinstance(error, UserError) for error in failures) else 1)


def _segments(run: Path, name: str, made: Sequence[str]) -> list[str]:
    """The segments that these results of a run come from, with a word where one is not known to be stationary."""
    try:
        stored = read_result_attributes(run, name).values()
    except RunError:
        return []
    segments = {
        (*one["segment"], bool(one.get("segment_stationary")))
        for one in stored
        # Of this package's analyses; what others write is theirs.
        if one.get("analysis") in made and "segment" in one
    }
    return [
        f"from steps {start}–{stop - 1}{'' if stationary else ', which are not shown to be stationary'}"
        for start, stop, stationary in sorted(segments)
    ]


def _folder_of_runs(run: Path) -> Path:
    """The folder that holds a run, which may be given as `.` or `..`."""
    folder = run_folder(run)
    return (folder if folder.name not in ("", "..") else folder.resolve()).parent


def describe_failure(run: Path, analysis: str, message: str) -> str:
    """`runs/x temperature: message`; a message that names the run itself is not told it twice."""
    named = re.search(rf"(?<![\w./\\-]){re.escape(str(run))}(?![\w-])", message)
    where = [analysis] if named else [str(run), analysis]
    return ": ".join([" ".join(filter(None, where)), message]) if any(where) else message


def unpack(
    archive: Annotated[Path, typer.Argument(help="Zip of a run, as thermodl export --to zip writes it.")],
    runs_dir: Annotated[Path, typer.Option(help="Folder that receives the run folder.")] = Path("runs"),
) -> None:
    """Make a run folder of a zip. A run that is there already is left alone.

    A zip with paths out of its folder, links or too much content is refused as a whole. To only look at a run, give
    its zip to thermodl view.

    \b
    thermodl unpack mine.zip
    """
    for run in unpack_run(archive, runs_dir):
        print(run)


def ls(
    runs_dir: Annotated[Path, typer.Argument(help="Folder that holds the run folders, or a single run folder.")] = Path(
        "runs"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """List what lies where, in which state: running, finished, stopped, failed, silent (no sign of life), broken (with
    the reason), or empty: a folder that holds no recording.

    \b
    thermodl ls
    thermodl ls runs/first
    thermodl ls runs --json
    """
    missing = runs_dir == Path("runs") and not runs_dir.exists()
    rows = [] if missing else [_describe(folder) for folder in _folders(runs_dir)]
    if as_json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    if not rows:
        print(f"no runs in {runs_dir}; thermodl record makes one")
        return
    columns = ("name", "state", "steps", "model", "data", "sampling", "recorded")
    table = Table(*columns, "analyzed")
    for row in rows:
        table.add_row(*(escape(str(row[column])) for column in columns), escape(", ".join(row["analyzed"])) or "—")
    # Without a terminal the width is unknown, and a narrow guess would cut names; COLUMNS decides.
    unknown = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    console = Console(width=160 if unknown else None)
    console.print(table)
    for row in rows:
        if row["reason"]:
            console.print(escape(f"{row['name']}: {row['reason']}"), highlight=False, soft_wrap=True)


def _folders(place: Path) -> list[Path]:
    """The run folders below a folder and those that hold nothing, or the one that it is itself."""
    place = run_folder(place)
    if (place / "run.zarr").is_dir():
        return [place]
    runs = list_runs(place)
    others = (entry for entry in place.iterdir() if is_run_name(entry.name) and not entry.is_symlink())
    return sorted({*runs, *(entry for entry in others if entry.is_dir())})


class _Lines:
    """One line per analysis, with the seconds that it took, the number of cautions, and what is not to be trusted."""

    def __init__(self, run: Path, name: str) -> None:
        self._run, self._name = run, name
        self._started = time.monotonic()

    def __call__(self, analysis: str, state: str) -> None:
        if state == "start":
            self._started = time.monotonic()
            return
        took = f" in {time.monotonic() - self._started:.1f} s" if state == "computed" else ""
        doubts = self._doubts(analysis) if state in ("computed", "cached") else []
        print(f"  {'; '.join([f'{analysis}: {state}{took}', *doubts])}", flush=True)

    def _doubts(self, analysis: str) -> list[str]:
        """How many cautions there are, and quantities that are untrusted with the codes of the verdicts that say so.

        `cautions: 2` and `not to be trusted: response, fdt_ratio (sampler-limited)`
        """
        verdicts = json.loads(read_result_attributes(self._run, self._name)[analysis].get("verdicts", "[]"))
        cautions = sum(one["status"] == "caution" for one in verdicts)
        codes: dict[str, list[str]] = {}
        for one in verdicts:
            if one["status"] == "untrusted":
                codes.setdefault(one["quantity"] or "all of it", []).append(one["code"])
        alike: dict[str, list[str]] = {}
        for quantity, found in codes.items():
            alike.setdefault(", ".join(dict.fromkeys(found)), []).append(quantity)
        untrusted = [_printable(f"{', '.join(quantities)} ({found})") for found, quantities in alike.items()]
        return [
            *([f"cautions: {cautions}"] if cautions else []),
            *([f"not to be trusted: {', '.join(untrusted)}"] if untrusted else []),
        ]


def _describe(folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"name": folder.resolve().name, "analyzed": [], "reason": ""}
    row |= dict.fromkeys(("steps", "model", "data", "sampling", "recorded"), "")
    try:
        found = {
            analysis
            for name in list_settings_names(folder)
            for analysis, stored in read_result_attributes(folder, name).items()
            if stored.get("defined", True)
        }
        row["analyzed"] = sorted(map(_printable, found))
        if not (folder / "run.zarr").exists():
            return row | {"state": "empty"}
        attributes = read_attributes(folder)
        state = run_state(attributes)
    except RunError as error:
        return row | {"state": "broken", "reason": _printable(error)}
    except Exception as error:  # whatever is wrong with one run, the others are listed
        return row | {"state": "broken", "reason": _printable(f"{folder}: {type(error).__name__}: {error}")}
    settings = attributes.get("settings")
    if not isinstance(settings, dict):
        settings = {}
    return row | {
        "state": _printable(state),
        "steps": attributes["committed"]["step"],
        "model": _printable(settings.get("model", "")),
        "data": _printable(settings.get("data", "")),
        "sampling": _printable(attributes.get("sampling", "unknown")),
        "recorded": _moment(attributes.get("started")),
    }


def _moment(started: Any) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(float(started)))
    except (TypeError, ValueError, OverflowError, OSError):
        return ""


def _printable(value: object) -> str:
    """Text of a file that may be anybody's, without what steers a terminal or no terminal can show."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(value))
