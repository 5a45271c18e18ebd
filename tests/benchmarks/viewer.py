"""How long the viewer keeps one waiting: medians from a headless Chromium, beside the targets and TensorBoard.

    python tests/benchmarks/viewer.py [--steps 1000000] [--runs 1000] [--repeats 5] [--tensorboard COMMAND]

Recordings are made up in the run format: ten of a million steps, and a folder of a thousand small ones. Each time is
from the click, or the call of the address, to the instant at which the script has run and every chart is painted; a
new browser context has an empty cache. TensorBoard, which wants an environment of its own, gets the loss of two of the
runs, in the same run of this script, ours and theirs in turns:

    python -m venv tb && tb/bin/pip install tensorboard "setuptools<81"
    python tests/benchmarks/viewer.py --tensorboard tb/bin/tensorboard
"""

import argparse
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# In place of this folder, where `viewer` is this file.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from browser.server import chromium, open_page, served
from playwright.sync_api import Browser, Page
from viewer.synthetic import write_all_results, write_run

from thermodl.record.store import open_run

_PAINTED = (
    "[...document.querySelectorAll('[data-testid=stVegaLiteChart]')].every(c => c.querySelector('.marks, canvas'))"
)
_WRITE_EVENTS = """
import sys
import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

for folder, file in zip(sys.argv[1::2], sys.argv[2::2]):
    writer = EventFileWriter(folder, max_queue_size=10**6, flush_secs=10**6)
    for step, loss in enumerate(np.load(file)):
        value = Summary.Value(tag="loss", simple_value=loss)
        writer.add_event(Event(step=step, wall_time=step * 1e-3, summary=Summary(value=[value])))
    writer.close()
"""


def write_runs(place: Path, steps: int, runs: int) -> tuple[Path, Path]:
    """A folder of ten long runs, and one of many short ones."""
    long, many = place / "long", place / "many"
    first = write_all_results(write_run(long / "run0", steps=steps))
    for index in range(1, 10):
        shutil.copytree(first, long / f"run{index}")
    first = write_all_results(write_run(many / "run0", steps=200))
    for index in range(1, runs):
        shutil.copytree(first, many / f"run{index}")
    return long, many


def waited(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def settle(page: Page) -> None:
    """Wait until the script has run and the charts are painted."""
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=60_000)
    page.wait_for_function(_PAINTED, timeout=60_000)


def change_axis(page: Page) -> None:
    """The other time axis, by the selector in the sidebar."""
    shown = page.get_by_label("Time axis")
    other = "optimizer step" if "SGD" in (shown.input_value() or "") else "SGD time"
    shown.click()
    page.get_by_role("option", name=other).click()
    page.wait_for_url(lambda url: ("axis=sgd_time" in url) == (other == "SGD time"))
    settle(page)


def change_page(page: Page, name: str, title: str) -> None:
    """Another page, by its link."""
    page.locator("[data-testid=stSidebarNavLink]").filter(has_text=name).first.click()
    page.wait_for_function("title => document.querySelector('h1')?.innerText === title", arg=title)
    settle(page)


def change_pages(page: Page, pages: list[tuple[str, str]], repeats: int) -> list[float]:
    """Seconds of each change, going round the pages."""
    return [waited(lambda p=p: change_page(page, *p)) for _ in range(repeats) for p in pages]


def first_chart(browser: Browser, address: str, warm: bool = False) -> float:
    """From the address to the painted chart, with an empty cache or one that has seen the app before."""
    context = browser.new_context()
    page = context.new_page()
    if warm:
        open_page(page, address, charts=1)
    seconds = waited(lambda: open_page(page, address, charts=1))
    context.close()
    return seconds


def first_load_bytes(browser: Browser, address: str) -> float:
    """Megabytes over the wire for a first visit."""
    context = browser.new_context()
    page = context.new_page()
    session, total = context.new_cdp_session(page), [0.0]
    session.send("Network.enable")

    def add(event: dict) -> None:
        total[0] += event["encodedDataLength"]

    session.on("Network.loadingFinished", add)
    open_page(page, address, charts=1)
    context.close()
    return total[0] / 1e6


def report(what: str, values: list[float], target: str, unit: str = "s") -> None:
    """One line of the table."""
    print(
        f"{what:<58} {statistics.median(values):7.2f} {unit:<2} ({min(values):.2f}–{max(values):.2f})  {target}",
        flush=True,
    )


def measure_viewer(browser: Browser, long: Path, many: Path, repeats: int) -> None:
    """Everything but the peer."""
    with contextlib.ExitStack() as stack:
        ready = waited(lambda: stack.enter_context(served(long)))
    report("server ready", [ready], "≤ 1.5")
    with served(long) as address:
        two = f"{address}/overview?run=run0&other=run1"
        cold = [first_chart(browser, two) for _ in range(repeats)]
        report("first chart, two long runs, empty cache", cold, "≤ 3")
        report("the same, warm cache", [first_chart(browser, two, warm=True) for _ in range(repeats)], "≤ 1.2")
        report("first visit over the wire", [first_load_bytes(browser, two)], "≤ 1.8", "MB")
        # A list that is open closes when the window scrolls.
        page = browser.new_page(viewport={"width": 1280, "height": 1600})
        open_page(page, two, charts=1)
        report(
            "another time axis, two long runs", [waited(lambda: change_axis(page)) for _ in range(2 * repeats)], "≤ 0.4"
        )
        pages = [("Temperature", "Temperature"), ("Overview", "Overview")]
        report("another page", change_pages(page, pages, repeats), "≤ 0.3")
        without = [("New recording", "New recording"), ("Overview", "Overview")]
        report("a page without charts, what Streamlit takes by itself", change_pages(page, without, repeats)[::2], "")
        page.close()
        report("run list, ten long runs", [waited(lambda: visit(browser, address)) for _ in range(repeats)], "")
    with served(many) as address:
        times = [waited(lambda: visit(browser, address)) for _ in range(repeats)]
        report(f"run list, {len(list(many.iterdir()))} runs, empty cache", times, "≤ 3")
        page = browser.new_page(viewport={"width": 1280, "height": 1600})
        open_page(page, f"{address}/temperature", charts=1)
        report("another page among them", change_pages(page, pages, repeats), "")


def visit(browser: Browser, address: str) -> None:
    """The first page, with an empty cache."""
    context = browser.new_context()
    open_page(context.new_page(), address)
    context.close()


@contextlib.contextmanager
def tensorboard(command: str, logs: Path) -> Iterator[str]:
    """TensorBoard on a free port; gives its address once it answers and has loaded what there is."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = [command, "--logdir", str(logs), "--port", str(port), "--reload_interval", "1000"]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def peer_first_chart(browser: Browser, address: str) -> float:
    """From the address to TensorBoard's first painted line."""
    context = browser.new_context()
    page = context.new_page()

    def wait() -> None:
        page.goto(f"{address}/#timeseries")
        page.wait_for_selector("line-chart svg path, line-chart canvas", timeout=120_000, state="attached")

    seconds = waited(wait)
    context.close()
    return seconds


def measure_peer(browser: Browser, command: str, long: Path, place: Path, repeats: int) -> None:
    """TensorBoard on the loss of two runs, and ours beside it, in turns."""
    arguments = []
    for name in ("run0", "run1"):
        losses = place / f"{name}.npy"
        np.save(losses, open_run(long / name)["loss"].values)
        arguments += [str(place / "logs" / name), str(losses)]
    python = Path(command).with_name("python")
    subprocess.run([python, "-c", _WRITE_EVENTS, *arguments], check=True, stderr=subprocess.DEVNULL)
    theirs, ours = [], []
    with served(long) as address:
        for _ in range(repeats):
            with tensorboard(command, place / "logs") as peer:
                theirs.append(peer_first_chart(browser, peer))
            ours.append(first_chart(browser, f"{address}/overview?run=run0&other=run1"))
    report("first chart, ours beside it", ours, "")
    report("first chart, TensorBoard, from a new server", theirs, "")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10**6)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tensorboard", default=shutil.which("tensorboard"), help="its command")
    options = parser.parse_args()
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place, chromium() as browser:
        long, many = write_runs(Path(place), options.steps, options.runs)
        print(f"{options.steps:,} steps, medians (and range), target in seconds; Chromium {browser.version}")
        measure_viewer(browser, long, many, options.repeats)
        if options.tensorboard:
            measure_peer(browser, options.tensorboard, long, Path(place), options.repeats)
        else:
            print("TensorBoard is not measured: no such command (--tensorboard)")


if __name__ == "__main__":
    main()
