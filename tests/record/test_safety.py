"""What may happen to a store: two recorders, no right to write, no space, no folder any more. The training goes on."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from thermodl.analyze.check import check_run  # noqa: E402
from thermodl.record import Recorder, RecorderSettings, open_run  # noqa: E402
from thermodl.record.errors import RunError  # noqa: E402
from thermodl.record.store import list_runs, read_attributes  # noqa: E402
from thermodl.record.writer import RunWriter  # noqa: E402

ROOT = Path(__file__).parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="limits, user ids and fork are of POSIX")


class Loop:
    """A training whose every step is the same work."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(30, 20)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.optimizer.zero_grad()
            self.model(torch.randn(4, 30)).square().mean().backward()
            self.optimizer.step()


def test_of_recorders_that_start_at_the_same_instant_one_wins(tmp_path: Path) -> None:
    """Eight at once, many times: one makes the run, the others refuse, and the run is whole."""
    sizes = {"layer": 1, "group": 1, "sketch": 2, "parameter": 3, "optimizer_group": 1}
    barrier = threading.Barrier(8)

    def start(folder: Path) -> RunWriter | str:
        barrier.wait()
        try:
            return RunWriter(folder, sizes, ["step", "loss"], {})
        except RunError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        for attempt in range(20):
            results = list(pool.map(start, [tmp_path / f"run{attempt}"] * 8))
            refused = [result for result in results if isinstance(result, str)]
            assert len(refused) == 7
            assert all("holds a recording already" in why for why in refused)
            assert read_attributes(tmp_path / f"run{attempt}")["state"] == "running"


def test_folders_that_cannot_be_made_are_named_before_the_training(tmp_path: Path) -> None:
    """A file where the folder should be, and a file on the way."""
    (tmp_path / "file").write_text("")
    loop = Loop()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunError, match=r"cannot be written \(.*\); choose a folder that can"):
            Recorder(loop.model, loop.optimizer, folder)
    loop.run(1)
    assert not list_runs(tmp_path)


AS_NOBODY = """
import importlib.metadata, os, sys
from test_safety import Loop, RunError, Recorder
importlib.metadata.version("numpy")  # may import what a Python of root alone keeps from others
loop = Loop()
loop.run(1)
os.chmod(sys.argv[1], 0o555)
if os.getuid() == 0:
    os.setuid(65534)
try:
    Recorder(loop.model, loop.optimizer, sys.argv[1] + "/run")
except RunError as error:
    print(error)
loop.run(1)
print("trained on")
"""

LIMITED = """
import resource, sys, warnings
from pathlib import Path
from test_safety import Loop, Recorder, RecorderSettings
loop = Loop()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    recorder = Recorder(loop.model, loop.optimizer, sys.argv[1], settings=RecorderSettings(sketch_size=64))
    with recorder:
        loop.run(300)
        recorder.flush()
        # No file may now become longer than this: as on a full disk, writing fails in the middle of a chunk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        loop.run(700)
print(recorder.step, *(str(one.message) for one in caught), sep="\\n")
"""


def in_a_process_of_its_own(code: str, folder: Path) -> list[str]:
    """What it prints, line by line."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); {code}"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@posix
def test_a_folder_without_the_right_to_write(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Before the training, in one sentence; root gives its rights away, for it may write everywhere."""
    folder = tmp_path_factory.mktemp("closed")
    try:
        refused, after = in_a_process_of_its_own(AS_NOBODY, folder)
    finally:
        folder.chmod(0o755)
    assert refused.endswith("cannot be written (Permission denied); choose a folder that can, with space left")
    assert after == "trained on"


@posix
def test_a_full_disk(tmp_path: Path) -> None:
    """One warning with the number that is safe; so many steps are there, right, and the run says that it failed."""
    first, *said = in_a_process_of_its_own(LIMITED, tmp_path / "run")
    assert len(said) == 1
    assert "File too large" in said[0]
    assert "the training goes on" in said[0]
    attributes, checks = check_run(tmp_path / "run")
    safe = attributes["committed"]["step"]
    assert 300 <= safe < 1000
    assert f"Steps safe on disk: {safe:,} of " in said[0]
    assert attributes["state"] == "failed"
    assert not [defect for one in checks for defect in one.defects]
    assert open_run(tmp_path / "run").sizes["step"] == safe
    assert int(first) <= 1000


@pytest.mark.parametrize("what", ["the run", "the store", "what is in the store"])
def test_a_store_that_disappears(what: str, tmp_path: Path) -> None:
    """One warning that nothing is safe; and no half of a store is made again in its place."""
    folder, loop = tmp_path / "run", Loop()
    recorder = Recorder(loop.model, loop.optimizer, folder, settings=RecorderSettings(sketch_size=8))
    loop.run(300)
    recorder.flush()
    if what == "what is in the store":
        for entry in (folder / "run.zarr").iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    else:
        shutil.rmtree(folder if what == "the run" else folder / "run.zarr")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.run(600)
        recorder.close()
    (warning,) = caught
    assert "run.zarr has disappeared" in str(warning.message)
    assert "the training goes on. Steps safe on disk: 0 of " in str(warning.message)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_store_that_disappears_while_it_is_written(tmp_path: Path) -> None:
    """Again and again at chance moments; what is left is never taken for a whole run.

    The root's attributes may outlive all else: a commit that is under way makes them anew after they were deleted.
    """
    for attempt in range(3):
        folder, loop = tmp_path / f"run{attempt}", Loop()
        recorder = Recorder(loop.model, loop.optimizer, folder, settings=RecorderSettings(sketch_size=8))
        timer = threading.Timer(0.2 + 0.05 * attempt, shutil.rmtree, [folder], {"ignore_errors": True})
        timer.start()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            while timer.is_alive():
                loop.run(20)
            loop.run(600)
            recorder.close()
        assert len(caught) == 1, [str(one.message) for one in caught]
        assert "Steps safe on disk: 0 of " in str(caught[0].message)
        with contextlib.suppress(RunError):
            if read_attributes(folder)["committed"]["step"]:
                assert any(one.defects for one in check_run(folder)[1])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
def test_killing_a_recording_loses_nothing() -> None:
    """The short version of the script that kills 200 times."""
    command = [sys.executable, str(ROOT / "tests" / "benchmarks" / "kill.py"), "--kills", "6", "--steps", "800"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 defects or differences" in done.stdout
