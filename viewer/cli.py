"""The verbs `thermodl view` and `thermodl report`. Streamlit is imported only when the viewer starts."""

import os
import socket
import sys
import webbrowser
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from thermodl.data import unpack_sample
from thermodl.record.store import UserError, list_runs, run_folder

# The script `app.py` reads these: it runs inside Streamlit and takes no arguments.
ROOT = "THERMODL_VIEW_ROOT"
LANG = "THERMODL_VIEW_LANG"


class ViewError(UserError):
    """The viewer cannot start."""


class Language(StrEnum):
    """Languages of the viewer and the report."""

    en = "en"
    zh = "zh"


def view(
    runs: Annotated[Path, typer.Argument(help="Folder that holds the run folders.")] = Path("runs"),
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
        with TemporaryDirectory(prefix="thermodl-sample-") as folder:
            unpack_sample(Path(folder))
            _serve(Path(folder), "the sample", host, port, lang, no_browser)
    else:
        list_runs(runs)  # a missing folder is better said here than in the browser
        _serve(runs, str(runs), host, port, lang, no_browser)


def _serve(root: Path, name: str, host: str, port: int, lang: Language | None, no_browser: bool) -> None:
    listener = _listen(host, port)
    os.environ[ROOT] = str(root)
    if lang:
        os.environ[LANG] = lang.value
    if host not in ("127.0.0.1", "localhost", "::1"):
        print(f"thermodl: {host} is reachable from the network, and there is no password", file=sys.stderr)
    shown = "localhost" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}"

    def announce() -> None:
        print(f"ThermoDL shows {name} at {address} (Ctrl-C ends it)", flush=True)
        if not no_browser:
            webbrowser.open(address)

    from .asgi import serve

    with listener, suppress(KeyboardInterrupt):
        serve(listener, host, announce)


def report(
    run: Annotated[Path, typer.Argument(help="Run folder, such as runs/first.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; by default report.html, with "
                                                                       "the name and language in it, in the run "
                                                                       "folder.")] = None,
    lang: Annotated[Language, typer.Option(help="Language of the report.")] = Language.en,
    results: Annotated[str, typer.Option(help="Name under which analyze kept the results (its --name). [default: "
                                              "default, or the first there is]", show_default=False)] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file even if it is no thermodl "
                                                                "report.")] = False,
) -> None:  # fmt: skip
    """Write one HTML file about an analyzed run: it opens anywhere without a network, and prints."""
    from .report import write_report

    parts = ["report", results if results != "default" else "", lang.value if lang is not Language.en else "", "html"]
    output = output or run_folder(run) / ".".join(filter(None, parts))
    print(write_report(run_folder(run), output, lang.value, results, overwrite=overwrite))


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
