"""Run the import contracts; fail also when a module was not looked at, for an unseen import breaks no contract."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import grimp
from check_types import ROOT, source_files


def main() -> int:
    # Its own count, "Analyzed n files", includes numpy and the like; the graph it builds knows the names.
    missing = expected_modules() - set(grimp.build_graph("thermodl", cache_dir=None).modules)
    if missing:
        print(f"lint-imports does not see {', '.join(sorted(missing))}: are they in the installed thermodl?")
        return 1
    command = [str(Path(sysconfig.get_path("scripts")) / "lint-imports"), "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def expected_modules() -> set[str]:
    """The modules of the source, `thermodl.record.store` for record/store.py."""
    parts = [Path(name).with_suffix("").parts for name in source_files()]
    return {".".join(("thermodl", *part)).removesuffix(".__init__") for part in parts}


if __name__ == "__main__":
    sys.exit(main())
