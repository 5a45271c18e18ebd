"""Run pyright; fail also when it looked at fewer files than there are, for no files have no errors."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("cli.py", "demo.py", "record", "analyze", "viewer", "data")


def source_files() -> list[str]:
    """The tracked Python files of the packages; without git (a source archive) those on disk."""
    git = subprocess.run(["git", "ls-files", "--", *SOURCES], cwd=ROOT, capture_output=True, text=True, check=False)
    if git.returncode == 0:
        return [name for name in git.stdout.splitlines() if name.endswith(".py") and (ROOT / name).is_file()]
    paths = [path for source in SOURCES for path in (ROOT / source, *(ROOT / source).rglob("*"))]
    return [str(path.relative_to(ROOT)) for path in paths if path.suffix == ".py" and path.is_file()]


def main() -> int:
    # -P keeps the folder `data` and its like from hiding packages of the same name.
    command = [sys.executable, "-P", "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    pyright = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        report = json.loads(pyright.stdout)
    except json.JSONDecodeError:
        print(pyright.stdout + pyright.stderr)
        return 1
    for diagnostic in report["generalDiagnostics"]:
        print(_line(diagnostic))
    summary, expected = report["summary"], len(source_files())
    print(f"{summary['filesAnalyzed']} files, {summary['errorCount']} errors, {summary['warningCount']} warnings")
    if summary["filesAnalyzed"] < expected:
        print(f"pyright looked at {summary['filesAnalyzed']} files, but {expected} are tracked: see its include list")
        return 1
    return pyright.returncode


def _line(diagnostic: dict) -> str:
    path = Path(diagnostic["file"])
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    row = diagnostic.get("range", {}).get("start", {}).get("line", 0) + 1
    return f"{name}:{row}: {diagnostic['severity']}: {diagnostic['message']} ({diagnostic.get('rule', 'no rule')})"


if __name__ == "__main__":
    sys.exit(main())
