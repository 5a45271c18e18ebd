"""`thermodl demo`: record two runs, analyze them, write a report, say what came out; all on embedded data."""

from pathlib import Path
from typing import Annotated

import typer

NAMES = ("demo-shuffle", "demo-replacement")


def demo(
    runs_dir: Annotated[Path, typer.Option(help="Folder that receives the two run folders.")] = Path("runs"),
) -> None:
    """Train a small CNN twice on the embedded Fashion-MNIST part, with shuffled epochs and with independent batches,
    analyze both, write a report, and print in five lines what was found. What is there already is not made again.

    \b
    thermodl demo
    """
    from thermodl.analyze.cli import analyze
    from thermodl.data import DEMO
    from thermodl.record.cli import record
    from thermodl.viewer.cli import report

    print("1/3 recording two trainings", flush=True)
    record(files=sorted(DEMO.glob("*.toml"), reverse=True), runs_dir=runs_dir)
    print("2/3 analyzing both", flush=True)
    folders = [runs_dir / name for name in NAMES]
    analyze(runs=folders)
    print("3/3 writing the report", flush=True)
    report(run=folders[0])
    print("\nWhat was found:")
    for line in findings(*folders):
        print(f"  {line}")
    where = "" if runs_dir == Path("runs") else f" {runs_dir}"
    print(f"\nLook at it: thermodl view{where}")


def findings(shuffle: Path, replacement: Path) -> list[str]:
    """Five lines about two analyzed runs that differ in their sampling."""
    from thermodl.analyze import open_results, open_run
    from thermodl.viewer.text import with_error

    pair = {"shuffled": shuffle, "independent": replacement}
    results = {name: open_results(folder) for name, folder in pair.items()}

    def both(analysis: str, quantity: str) -> str:
        values = []
        for name, found in results.items():
            where = found[analysis].sel(group="all")
            values.append(f"{with_error(float(where[quantity]), float(where[f'{quantity}_stderr']))} ({name})")
        return ", ".join(values)

    accuracy = ", ".join(
        f"{float(open_run(folder)['test_accuracy'][-1]):.1%} ({name})" for name, folder in pair.items()
    )
    closed = max(float(found["stationarity"]["identity_residual"].sel(group="all")) for found in results.values())
    return [
        f"test accuracy {accuracy}; both recordings close the FDR1 identity to {closed:.0e}",
        f"noise temperature {both('temperature', 'temperature_noise')} per parameter, in loss units",
        f"kinetic over noise temperature {both('temperature', 'kinetic_over_noise')}; 1 if fluctuations are thermal",
        f"part of η‖g‖² that descends {both('dissipation', 'descent_fraction')}; the rest is stirred by noise",
        f"diffusion coefficient {both('diffusion', 'diffusion_coefficient')}: shuffled epochs cancel their noise",
    ]
