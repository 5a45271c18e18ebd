"""`thermodl demo`: record two runs, analyze them, write a report, say what came out; all on embedded data."""

import math
from pathlib import Path
from typing import Annotated

import typer

NAMES = ("demo-shuffle", "demo-replacement")


def demo(
    runs_dir: Annotated[Path, typer.Option(help="Folder that receives the two run folders.")] = Path("runs"),
) -> None:
    """Train a small CNN twice on the embedded Fashion-MNIST part, with shuffled epochs and with independent batches,
    analyze both, write a report, and print in five lines what was found. What is there already is not made again; a
    demo that was interrupted goes on from its last checkpoint, or is begun anew where there is none.

    \b
    thermodl demo
    """
    from thermodl.analyze.cli import analyze_runs
    from thermodl.data import DEMO
    from thermodl.record.cli import record_run
    from thermodl.record.format import CHECKPOINT
    from thermodl.record.settings import make_settings, read_toml
    from thermodl.record.words import command_line
    from thermodl.viewer.cli import report

    print("1/3 recording two trainings", flush=True)
    folders = [runs_dir / name for name in NAMES]
    for folder in folders:
        file = DEMO / f"{folder.name.removeprefix('demo-')}.toml"
        table = read_toml(file)
        del table["name"]
        settings = make_settings(table, str(file))
        left_over = is_left_over(folder, settings.run_id())
        resumable = left_over and (folder / CHECKPOINT).is_file()
        record_run(settings, folder, resume=resumable, overwrite=left_over and not resumable)
    print("2/3 analyzing both", flush=True)
    analyze_runs(folders)
    print("3/3 writing the report", flush=True)
    report(run=folders[0])
    print("\nWhat was found (✓ ok, ⚠ caution, ✗ untrusted: the verdicts, explained in the report):")
    for line in findings(*folders):
        print(f"  {line}")
    print(f"\nnext: {command_line(['thermodl', 'view', str(runs_dir)])}")


def is_left_over(folder: Path, run_id: str) -> bool:
    """Whether a folder holds what an interrupted demo of these settings has left; nothing else is to be replaced.

    Raises:
        RunError: if it is being recorded, or cannot be read.
    """
    from thermodl.record.errors import RunError
    from thermodl.record.store import SILENT_AFTER_SECONDS, read_attributes, run_state

    recording = folder / "run.zarr"
    if not (recording / "zarr.json").exists():
        # Killed before anything was recorded.
        return recording.is_dir()
    attributes = read_attributes(folder)
    state = run_state(attributes)
    if state == "running":
        raise RunError(
            f"{folder} is being recorded, or was killed less than {SILENT_AFTER_SECONDS:.0f} s ago; "
            "wait, or choose another --runs-dir"
        )
    return state != "finished" and attributes.get("run_id") == run_id


def findings(shuffle: Path, replacement: Path) -> list[str]:
    """Five lines about two analyzed runs that differ in their sampling, each number with its verdict."""
    from thermodl.analyze import open_results, open_run
    from thermodl.viewer.tables import STATUS_SIGNS, worst_status
    from thermodl.viewer.text import with_error

    pair = {"shuffled": shuffle, "independent": replacement}
    results = {name: open_results(folder) for name, folder in pair.items()}

    def value(name: str, analysis: str, quantity: str) -> tuple[float, float]:
        where = results[name][analysis].sel(group="all")
        return float(where[quantity]), float(where[f"{quantity}_stderr"])

    def both(analysis: str, quantity: str) -> str:
        return ", ".join(
            f"{with_error(*value(name, analysis, quantity))} "
            f"{STATUS_SIGNS[worst_status(found[analysis], quantity)]} ({name})"
            for name, found in results.items()
        )

    accuracy = ", ".join(
        f"{float(open_run(folder)['test_accuracy'][-1]):.1%} ({name})" for name, folder in pair.items()
    )
    closed = max(float(found["stationarity"]["identity_residual"].sel(group="all")) for found in results.values())
    coefficients = [value(name, "diffusion", "diffusion_coefficient") for name in pair]
    return [
        f"test accuracy {accuracy}; both recordings close the FDR1 identity to {closed:.0e}",
        f"noise temperature {both('temperature', 'temperature_noise')} per parameter, in loss units",
        f"kinetic over noise temperature {both('temperature', 'kinetic_over_noise')}; 1 if fluctuations are thermal",
        f"part of η‖g‖² that descends {both('dissipation', 'descent_fraction')}; the rest is stirred by noise",
        f"diffusion coefficient {both('diffusion', 'diffusion_coefficient')}: {compare_sampling(*coefficients)}",
    ]


def compare_sampling(shuffled: tuple[float, float], independent: tuple[float, float]) -> str:
    """What two diffusion coefficients, (value, standard error) each, allow to say: a claim needs three errors."""
    difference = independent[0] - shuffled[0]
    error = math.hypot(shuffled[1], independent[1])
    if not abs(difference) > 3 * error:
        return "not told apart at three standard errors"
    return "shuffled epochs cancel their noise" if difference > 0 else "with shuffled epochs it is larger"
