"""The verbs `thermodl view`, `report` and `export`. Each imports what it needs; Streamlit only the viewer."""

import os
import socket
import sys
import webbrowser
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args
from urllib.parse import urlencode

import typer

from thermodl.record.errors import UserError
from thermodl.record.format import RUN_NAMES, is_run_name
from thermodl.record.store import list_runs, run_folder

from .state import VERSION

if TYPE_CHECKING:
    from thermodl.analyze.export import Format

# The script `app.py` reads these: it runs inside Streamlit and takes no arguments.
ROOT = "THERMODL_VIEW_ROOT"
PACKED = "THERMODL_VIEW_PACKED"
LANG = "THERMODL_VIEW_LANG"


ChartFormat = Literal["png", "svg", "pdf", "vega"]
AnyFormat = Literal["netcdf", "parquet", "csv", "zip", "safetensors", "png", "svg", "pdf", "vega"]
CHART_FORMATS = get_args(ChartFormat)


class ViewError(UserError):
    """The viewer cannot start."""


class Language(StrEnum):
    """Languages of the viewer and the report."""

    en = "en"
    zh = "zh"


def view(
    runs: Annotated[Path, typer.Argument(help="Folder that holds the run folders, one of these, at which it opens, or "
                                              "a zip of a run.")] = Path("runs"),
    host: Annotated[str, typer.Option(help="Address to listen on. Any other than the default opens your runs to the "
                                           "network; there is no password.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.", min=0, max=65535)] = 8501,
    sample: Annotated[bool, typer.Option("--sample", help="Show the recorded sample that comes with thermodl; no "
                                                          "recording of your own is needed.")] = False,
    lang: Annotated[Language | None, typer.Option(help="Language to start in; by default the browser's. A switch is in "
                                                       "the sidebar.")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser, only print the "
                                                                  "address.")] = False,
) -> None:  # fmt: skip
    """Look at runs in the browser. Nothing is written: the viewer only reads. Ctrl-C ends it."""
    if sample:
        from thermodl.data import SAMPLE, unpack_sample

        with TemporaryDirectory(prefix="thermodl-sample-") as folder:
            unpack_sample(Path(folder))
            _serve(Path(folder), "the sample", host, port, lang, no_browser, packed=SAMPLE)
    elif runs.is_file():
        from thermodl.record.archive import unpack_run

        with TemporaryDirectory(prefix="thermodl-zip-") as folder:
            unpack_run(runs, Path(folder))
            _serve(Path(folder), str(runs), host, port, lang, no_browser, packed=runs)
    else:
        list_runs(runs)  # a missing folder is better said here than in the browser
        folder = run_folder(runs)
        if (folder / "run.zarr").is_dir():
            folder = folder.resolve()
            if not is_run_name(folder.name):
                raise ViewError(f"{folder.name!r} is no name of a run ({RUN_NAMES}); rename the folder")
            _serve(folder.parent, str(runs), host, port, lang, no_browser, first=folder.name)
        else:
            _serve(runs, str(runs), host, port, lang, no_browser)


def _serve(
    root: Path,
    name: str,
    host: str,
    port: int,
    lang: Language | None,
    no_browser: bool,
    packed: Path | None = None,
    first: str = "",
) -> None:
    """Serve a folder of runs; `first` is the run that the address opens."""
    listener = _listen(host, port)
    os.environ[ROOT] = str(root)
    os.environ[PACKED] = str(packed or "")
    if lang:
        os.environ[LANG] = lang.value
    if host not in ("127.0.0.1", "localhost", "::1"):
        print(f"thermodl: {host} is reachable from the network, and there is no password", file=sys.stderr)
    shown = "localhost" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}"
    if first:
        address += f"/?{urlencode({'v': VERSION, 'run': first})}"

    def announce() -> None:
        print(f"ThermoDL shows {name}{' and its neighbours' * bool(first)} at {address} (Ctrl-C ends it)", flush=True)
        if not no_browser:
            webbrowser.open(address)

    from .asgi import serve

    with listener, suppress(KeyboardInterrupt):
        serve(listener, host, announce)


def report(
    run: Annotated[Path, typer.Argument(help="Run folder, such as runs/first.")],
    output: Annotated[Path | None, typer.Option("--output", "--out", "-o",
                                                help="File to write; by default report.html, with the name and "
                                                     "language in it, in the run folder.")] = None,
    lang: Annotated[Language, typer.Option(help="Language of the report.")] = Language.en,
    results: Annotated[str, typer.Option("--results", "--name",
                                         help="Name under which analyze kept the results (its --name). [default: "
                                              "default, or the first there is]", show_default=False)] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file even if it is no thermodl "
                                                                "report.")] = False,
) -> None:  # fmt: skip
    """Write one HTML file about an analyzed run: it opens anywhere without a network, and prints."""
    from .report import write_report

    parts = ["report", results if results != "default" else "", lang.value if lang is not Language.en else "", "html"]
    output = output or run_folder(run) / ".".join(filter(None, parts))
    print(write_report(run_folder(run), output, lang.value, results, overwrite=overwrite))


def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    to: Annotated[AnyFormat, typer.Option(help="Format of the file.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "--output", "-o", help="The file. [default: named after the run, in the working directory]"
        ),
    ] = None,
    name: Annotated[
        str, typer.Option("--name", "--results", help="Name under which the results are kept.")
    ] = "default",
    only: Annotated[
        str | None, typer.Option(help="Analyses, separated by commas. [default: all that there are]")
    ] = None,
    series: Annotated[
        bool, typer.Option("--series", help="The recorded series of every step instead of results, without sketches.")
    ] = False,
    chart: Annotated[
        str,
        typer.Option(help="A chart, such as diffusion-msd; a name that there is not lists all.", show_default=False),
    ] = "",
    lang: Annotated[Language, typer.Option(help="Language of the chart.")] = Language.en,
    axis: Annotated[
        Literal["step", "sgd_time", "epoch", "wall_time", "noise_time"], typer.Option(help="Time axis of the chart.")
    ] = "step",
    steps: Annotated[
        str,
        typer.Option(
            help="First and last step of charts over time, such as 1000-2000. [default: all]", show_default=False
        ),
    ] = "",
    scale: Annotated[
        Literal["", "x", "y", "xy"],
        typer.Option(
            help="Axes of charts over time that are logarithmic. [default: as the chart needs]", show_default=False
        ),
    ] = "",
    group: Annotated[str, typer.Option(help="Group of layers that the chart shows.")] = "all",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write results, the recorded series, a chart, the trained model or the whole run to one file.

    netcdf keeps everything: a group for each analysis, with units, methods and verdicts as attributes; xarray opens
    it with xr.open_datatree. parquet and csv are one long table: a row for each value, with its analysis, coordinates,
    error bar, unit, and the worst verdict on it. png, svg, pdf and vega (Vega-Lite) are of the chart that --chart
    names; in Chinese, png and pdf need a font that has it, and are in English otherwise. safetensors is the trained
    model. zip is the whole run without its checkpoint; thermodl view and thermodl unpack open it anywhere.

    netcdf, parquet and safetensors need pip install "thermodl[export]", charts pip install "thermodl[view]".

    \b
    thermodl export runs/mine --to csv
    thermodl export runs/mine --to netcdf --only diffusion,temperature --out mine.nc
    thermodl export runs/mine --to parquet --series
    thermodl export runs/mine --to pdf --chart diffusion-msd
    thermodl export runs/mine --to svg --chart training-loss --steps 1000-2000 --scale y
    thermodl export runs/mine --to zip
    """
    wanted = [part.strip() for part in only.split(",")] if only else None
    if to not in CHART_FORMATS:
        from thermodl.analyze.export import doubts_about
        from thermodl.analyze.export import export as export_run

        if chart:
            raise ViewError(f"--chart goes with --to {', '.join(CHART_FORMATS)}; got --to {to}")
        print(export_run(run, cast("Format", to), out, name=name, only=wanted, series=series, overwrite=overwrite))
        for line in doubts_about(run, cast("Format", to), name, wanted, series=series):
            print(f"thermodl: {line}", file=sys.stderr)
        return
    if not chart or only or series:
        raise ViewError(f"--to {to} needs --chart, such as --chart diffusion-msd, and goes without --only and --series")
    try:
        from .pictures import write_picture
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("thermodl"):
            raise
        raise ViewError(f'a chart needs the package {error.name}: pip install "thermodl[view]"') from error
    state = {"lang": lang.value, "axis": axis, "steps": steps, "scale": scale, "group": group, "results": name}
    print(write_picture(run_folder(run), chart, to, out, state, overwrite=overwrite))


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket, so that a port in use is known before anything is started."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
    except OSError as error:
        raise ViewError(f"cannot listen on {host}: {error.strerror}; use --host 127.0.0.1") from None
    try:
        if os.name != "nt":  # on Windows the option would let two programs share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ViewError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another port with --port, or --port 0 for any"
        ) from None
    return listener
