"""The set-up scripts on machines that lack something: each lack ends in one clear sentence and an exit code.

Nothing is installed here. The machine is a folder of links to the few tools the script uses, and a `python3` made of
shell that answers what the script asks.
"""

import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import check_types
import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = (
    "awk",
    "bash",
    "cat",
    "cp",
    "cut",
    "df",
    "dirname",
    "env",
    "find",
    "grep",
    "head",
    "id",
    "ln",
    "mkdir",
    "rm",
    "sed",
    "sleep",
    "tail",
    "touch",
    "uname",
    "wc",
)
# Answers like a Python; {version}, {new} and {ensurepip} are what it claims, {pip} what its pip does.
PYTHON = """#!/usr/bin/env bash
echo "$*" >>"$CALLS"
case "$*" in
  *hashlib*) cat pyproject.toml | wc -c ;;
  *ensurepip*) exit {ensurepip} ;;
  *version_info*) echo {version}; exit {new} ;;
  *"-m venv"*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  *"pip install"*) {pip} ;;
esac
"""
posix_only = pytest.mark.skipif(os.name == "nt", reason="setup_env.ps1 is for Windows")


class Machine:
    """A clone with spaces in its path, and a PATH with nothing but TOOLS and what a test adds."""

    def __init__(self, folder: Path):
        self.clone = folder / "a clone"
        self.bin = folder / "bin"
        self.calls = folder / "calls"
        self.clone.mkdir()
        self.bin.mkdir()
        for name in ("setup_env.sh", "pyproject.toml"):
            shutil.copy(ROOT / name, self.clone)
        for tool in TOOLS:
            path = shutil.which(tool)
            assert path, f"the test needs {tool}"
            (self.bin / tool).symlink_to(path)

    def add(self, name: str, script: str) -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(script, encoding="utf-8")
        path.chmod(0o755)

    def add_python(self, name="python3", version="3.12.1", new=True, ensurepip=True, pip="true") -> None:
        self.add(name, PYTHON.format(version=version, new=int(not new), ensurepip=int(not ensurepip), pip=pip))

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Start the script from another folder, without a home and without a terminal."""
        self.calls.write_text("", encoding="utf-8")
        return subprocess.run(
            [self.bin / "bash", self.clone / "setup_env.sh", *arguments],
            cwd=self.bin,
            env={"PATH": str(self.bin), "CALLS": str(self.calls), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def pip_calls(self) -> list[str]:
        return [line for line in self.calls.read_text(encoding="utf-8").splitlines() if "pip install" in line]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def one_sentence(process: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """What a failed run says: one line on stderr that ends like a sentence."""
    assert process.returncode == code, process.stdout + process.stderr
    lines = process.stderr.splitlines()
    assert len(lines) == 1, process.stderr
    assert lines[0].startswith("setup_env.sh: ")
    assert lines[0].endswith(".")
    return lines[0]


@posix_only
def test_no_python(machine):
    assert "no Python was found; install Python 3.11 or newer" in one_sentence(machine.run())
    assert not (machine.clone / ".venv").exists()


@posix_only
def test_old_python_is_named_with_its_version(machine):
    machine.add_python(version="3.9.18", new=False)
    assert "found only python3 (3.9.18)" in one_sentence(machine.run("demo"))


@posix_only
def test_a_shim_without_its_python_is_passed_over(machine):
    machine.add("python3.13", "#!/usr/bin/env bash\necho no such version >&2\nexit 127\n")
    machine.add_python("python3.12")
    assert machine.run().returncode == 0


@posix_only
def test_chosen_python_that_does_not_start(machine):
    machine.add_python()
    assert "PYTHON=/no/such/python does not start" in one_sentence(machine.run(PYTHON="/no/such/python"))


@posix_only
def test_python_without_venv_module(machine):
    machine.add_python(ensurepip=False)
    assert "python3 has no venv module; install it" in one_sentence(machine.run())


@posix_only
def test_a_complete_python_is_preferred_to_one_without_venv_module(machine):
    machine.add_python("python3.12", ensurepip=False)
    machine.add_python("python3")
    assert machine.run().returncode == 0


@posix_only
def test_little_disk_space_is_seen_before_anything_is_made(machine):
    machine.add_python()
    machine.add("df", "#!/usr/bin/env bash\necho Filesystem Blocks\necho 'a disk' 9000000 7500000 1500000 83% '/a b'\n")
    assert "the disk has 1.5 GB free and about 10 GB are needed" in one_sentence(machine.run())
    assert not (machine.clone / ".venv").exists()


@posix_only
@pytest.mark.parametrize(
    ("pip_says", "sentence"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk got full while updating pip"),
        ("NewConnectionError: Temporary failure in name resolution", "a download failed while updating pip"),
        ("ERROR: No matching distribution found for torch>=2.6", "pip finds no torch>=2.6 for Python 3.12.1"),
        ("ERROR: something else", "an error came up while updating pip in .venv: ERROR: something else"),
    ],
)
def test_pip_failure_is_explained_and_its_log_kept(machine, pip_says, sentence):
    machine.add_python(pip=f"echo '{pip_says}'; exit 1")
    said = one_sentence(machine.run())
    assert sentence in said
    assert "(log: .venv/setup.log)" in said
    assert pip_says in (machine.clone / ".venv/setup.log").read_text(encoding="utf-8")


@posix_only
def test_failure_while_making_the_environment(machine):
    machine.add_python()
    script = (machine.bin / "python3").read_text(encoding="utf-8")
    machine.add("python3", script.replace('mkdir -p "$3/bin"', "echo 'Error: ensurepip died'; false"))
    assert "while making .venv: Error: ensurepip died" in one_sentence(machine.run())


@posix_only
def test_second_run_only_refreshes_the_code(machine):
    machine.add_python()
    first = machine.run()
    assert first.returncode == 0, first.stderr
    assert "-e .[all]" in machine.pip_calls()[-1]
    second = machine.run()
    assert second.returncode == 0, second.stderr
    assert second.stderr == ""
    assert len(machine.pip_calls()) == 1
    assert "--no-deps" in machine.pip_calls()[0]


@posix_only
def test_changed_dependencies_are_installed(machine):
    machine.add_python()
    assert machine.run().returncode == 0
    with (machine.clone / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert machine.run().returncode == 0
    assert "-e .[all]" in machine.pip_calls()[-1]


@posix_only
def test_failed_download_does_not_cost_the_environment(machine):
    machine.add_python(pip='if [ -e "$CALLS.down" ]; then echo ReadTimeoutError; exit 1; fi')
    down = Path(f"{machine.calls}.down")
    down.touch()
    one_sentence(machine.run())
    (machine.clone / ".venv/mine").touch()
    down.unlink()
    assert machine.run().returncode == 0
    assert (machine.clone / ".venv/mine").exists()


@posix_only
@pytest.mark.parametrize("leftover", [".unfinished", "nothing at all"])
def test_unfinished_environment_is_made_anew(machine, leftover):
    machine.add_python()
    venv = machine.clone / ".venv"
    venv.mkdir()
    (venv / leftover).touch()
    (venv / "debris").touch()
    assert machine.run().returncode == 0
    assert not (venv / "debris").exists()
    assert not (venv / ".unfinished").exists()


@posix_only
def test_moved_folder_gets_a_new_environment(machine):
    machine.add_python()
    assert machine.run().returncode == 0
    machine.clone = machine.clone.rename(machine.clone.with_name("moved"))
    assert "Removing .venv" in machine.run().stdout


@posix_only
def test_unknown_argument(machine):
    assert "unknown argument 'tests'; expected nothing, demo or test" in one_sentence(machine.run("tests"), code=2)


@posix_only
def test_demo_runs_the_verb_and_passes_its_failure_on(machine):
    verb = (
        r"printf '#!/usr/bin/env bash\necho ran $1 >&2; exit 3\n' >.venv/bin/thermodl; env chmod +x .venv/bin/thermodl"
    )
    (machine.bin / "chmod").symlink_to(shutil.which("chmod") or "chmod")
    machine.add_python(pip=verb)
    process = machine.run("demo")
    assert process.returncode == 1
    assert process.stderr.splitlines()[0] == "ran demo"
    assert "thermodl demo ended with exit code 3" in process.stderr


@posix_only
def test_ci_refuses_to_go_on_without_a_browser(machine):
    machine.add_python(pip="true")
    script = (machine.bin / "python3").read_text(encoding="utf-8")
    machine.add("python3", script.replace("esac", "  *playwright*) exit 1 ;;\nesac"))
    machine.add("fc-list", "#!/usr/bin/env bash\necho a font\n")
    assert "the browser tests need a Chromium" in one_sentence(machine.run("test", CI="true"))


@posix_only
def test_missing_browser_is_installed_by_apt(machine):
    machine.add_python()
    script = (machine.bin / "python3").read_text(encoding="utf-8")
    machine.add("python3", script.replace("esac", "  *playwright*) exit 1 ;;\nesac"))
    machine.add("id", "#!/usr/bin/env bash\necho 0\n")
    machine.add("fc-list", "#!/usr/bin/env bash\n")
    apt = 'echo "$*" >>"$CALLS"; [ "$1" = update ] || ln -s "$(command -v uname)" "$(dirname "$0")/${@: -1}"'
    machine.add("apt-get", f"#!/usr/bin/env bash\n{apt}\n")
    said = machine.run("test", CI="true")
    assert "need a Chromium" not in said.stderr
    installed = [line.split()[-1] for line in machine.calls.read_text(encoding="utf-8").splitlines() if "-y" in line]
    assert installed == ["fonts-noto-cjk", "chromium"]


@posix_only
@pytest.mark.parametrize("script", ["setup_env.sh", ".ci/run"])
def test_shell_syntax(script):
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_ci_runs_what_the_readme_says():
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    command = lines[-1]
    assert command == "bash setup_env.sh test"
    blocks = (ROOT / "README.md").read_text(encoding="utf-8").split("```")[1::2]
    readme = [line.strip() for block in blocks for line in block.splitlines()]
    assert command in readme
    assert "bash setup_env.sh demo" in readme


def test_windows_script_has_the_same_steps():
    """Nothing here can run it: at least no check may be added to one script only."""
    windows = (ROOT / "setup_env.ps1").read_text(encoding="ascii")
    for line in (ROOT / "setup_env.sh").read_text(encoding="utf-8").splitlines():
        words = line.split('"')
        if words[0].strip() == "check":
            assert words[1].split("$")[0] in windows


def test_source_files_are_the_packages_only():
    files = check_types.source_files()
    assert "cli.py" in files
    assert "record/store.py" in files
    assert not [name for name in files if name.startswith("tests/")]


def test_a_type_checker_that_saw_no_files_fails(monkeypatch, capsys):
    output = '{"generalDiagnostics": [], "summary": {"filesAnalyzed": 0, "errorCount": 0, "warningCount": 0}}'
    process = subprocess.CompletedProcess([], 0, stdout=output, stderr="")
    monkeypatch.setattr(check_types, "source_files", lambda: ["cli.py"])
    monkeypatch.setattr(check_types.subprocess, "run", lambda *_, **__: process)
    assert check_types.main() == 1
    assert "looked at 0 files, but 1 are tracked" in capsys.readouterr().out


def test_import_contracts_that_miss_a_module_fail(monkeypatch, capsys):
    check_imports = pytest.importorskip("check_imports", reason="needs import-linter")
    monkeypatch.setattr(check_imports, "source_files", lambda: ["record/__init__.py", "record/new.py"])
    monkeypatch.setattr(
        check_imports.grimp, "build_graph", lambda *_, **__: SimpleNamespace(modules={"thermodl.record"})
    )
    assert check_imports.main() == 1
    assert "does not see thermodl.record.new" in capsys.readouterr().out
