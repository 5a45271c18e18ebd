"""The real server in a process of its own, and a Chromium to look at it with."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

PAGES = (
    "",
    "overview",
    "temperature",
    "dissipation",
    "noise",
    "diffusion",
    "correlation",
    "response",
    "stationarity",
    "ageing",
    "entropy_production",
    "flatness",
    "events",
    "layers",
    "compare",
    "data",
    "new",
)
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def find_chromium() -> str | None:
    """A Chromium: the one that setup_env found, one on PATH, or the one that playwright has downloaded."""
    on_path = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    found = next(filter(None, (os.environ.get("THERMODL_CHROMIUM"), *on_path)), None)
    if found is None:
        with sync_playwright() as playwright:
            own = playwright.chromium.executable_path
        found = own if Path(own).is_file() else None
    return found


CHROMIUM = find_chromium()


@contextmanager
def served(root: Path) -> Iterator[str]:
    """Run `thermodl view` on a free port; gives its address, and ends it by Ctrl-C."""
    command = [sys.executable, "-m", "thermodl.cli", "view", str(root), "--port", "0", "--no-browser"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert "http://" in line, f"the server did not start: {line!r}"
        yield line.split(" at ")[1].split()[0]
    finally:
        process.send_signal(2)
        assert process.wait(20) == 0, "Ctrl-C must end the viewer cleanly"
        process.stdout.close()  # type: ignore[union-attr]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium of the system."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        yield browser
        browser.close()


def open_page(page: Page, address: str, charts: int = 0) -> None:
    """Go to an address and wait until it is there as a whole."""
    page.goto(address)
    await_page(page, charts)


def await_page(page: Page, charts: int = 0) -> None:
    """Wait until the script has run, no table or box is still to come, and all charts are drawn, of which there are at
    least some.

    An app says that it is not running before it starts, too: a page that must have charts is waited for until it does.
    """
    page.wait_for_selector("h1", timeout=30_000)
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=30_000)
    page.wait_for_function(
        "least => { const charts = [...document.querySelectorAll('[data-testid=stVegaLiteChart]')];"
        " return !document.querySelector('[data-testid=stSkeleton]') && charts.length >= least &&"
        " charts.every(chart => chart.querySelector('.marks, canvas')); }",
        arg=charts,
        timeout=30_000,
    )
