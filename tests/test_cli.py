"""The command line: what goes wrong ends in one clear sentence and exit code 2, with nothing overwritten."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from thermodl import cli
from thermodl.analyze.results import open_results
from thermodl.record.errors import UserError
from thermodl.record.format import GROWING
from thermodl.record.settings import RecorderSettings, RunSettings
from thermodl.record.store import open_run
from thermodl.record.writer import RunWriter

SMALL = ("--steps", "80", "--batch-size", "32", "--set", "recorder.probe_every=4", "--set", "recorder.sketch_size=8")


def run(*arguments: str) -> tuple[int, str, str]:
    """The command in a process of its own: exit code, output, errors."""
    command = [sys.executable, "-W", "error", "-m", "thermodl.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence that a mistake ends in, within this process."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def succeeds(*arguments: str) -> None:
    """The command within this process, ending with code 0."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    assert stopped.value.code == 0


def test_help_teaches() -> None:
    """The overview names every verb, each verb explains itself; neither needs torch or streamlit."""
    code, out, _ = run("--help")
    assert code == 0
    assert all(verb in out for verb in cli.VERBS)
    for verb in cli.VERBS:
        code, out, error = run(verb, "--help")
        assert code == 0, error
        assert "Usage: thermodl" in out


def test_unknown_verbs_and_missing_packages(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verb that is none; a verb whose extra is not installed names the command that installs it."""
    assert "there is no verb 'recrod'; expected one of record" in fails(capsys, "recrod")

    def without_torch(_: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(cli, "import_module", without_torch)
    assert 'needs the package torch: pip install "thermodl[record]"' in fails(capsys, "record")


def test_reading_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No run, an empty folder, no folder of runs; several runs are all tried, and the broken ones named."""
    (tmp_path / "empty").mkdir()
    assert "no such folder" in fails(capsys, "analyze", str(tmp_path / "none"))
    assert "holds no recording" in fails(capsys, "analyze", str(tmp_path / "empty"))
    both = fails(capsys, "analyze", str(tmp_path / "empty"), str(tmp_path / "none"))
    # Each is named once, where the sentence names it.
    assert [line.count(str(tmp_path)) for line in both.splitlines()] == [1, 1]
    assert "there is no folder" in fails(capsys, "ls", str(tmp_path / "none"))
    assert "expected one of ageing, correlation" in fails(
        capsys, "analyze", str(tmp_path / "empty"), "--only", "temprature"
    )


def test_a_training_goes_on_where_nobody_reads_any_more(tmp_path: Path) -> None:
    """As after `thermodl record … | head -1`."""
    pytest.importorskip("torch")
    command = [sys.executable, "-W", "error", "-m", "thermodl.cli", "record", "--runs-dir", str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "--name", "one", *SMALL], **pipes) as recording:
        assert recording.stdout
        assert recording.stderr
        assert "80 steps of 32" in recording.stdout.readline()
        recording.stdout.close()
        assert recording.stderr.read() == ""
    assert recording.returncode == 0
    assert open_run(tmp_path / "one").attrs["state"] == "finished"
    assert open_run(tmp_path / "one").sizes["step"] == 80


@pytest.mark.slow
def test_from_training_to_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """record, record again (skipped), other settings (refused), a batch with a bad file, analyze, ls."""
    pytest.importorskip("torch")
    runs = str(tmp_path / "runs")
    succeeds("record", "--runs-dir", runs, "--name", "one", *SMALL)
    first, *_, last = capsys.readouterr().out.splitlines()
    options = "learning_rate 0.05, momentum 0.9, weight_decay 0.005, schedule constant"
    what = f"cnn on fashion-mnist-10k, 80 steps of 32 (shuffle), SGD ({options}), 20 probes"
    assert (first, last) == (f"{runs}/one: {what}", f"next: thermodl analyze {runs}/one")
    assert open_run(tmp_path / "runs" / "one").sizes["step"] == 80
    assert (tmp_path / "runs" / "one" / "model.safetensors").stat().st_size > 400_000
    before = {path: path.read_bytes() for path in Path(runs).rglob("*") if path.is_file()}
    capsys.readouterr()
    succeeds("record", "--runs-dir", runs, "--name", "one", *SMALL)
    assert "already recorded with these settings, skipped" in capsys.readouterr().out
    refused = fails(capsys, "record", "--runs-dir", runs, "--name", "one", *SMALL, "--seed", "1")
    assert "has other settings (seed is 0 there, and 1 here); choose another --name, or" in refused
    assert before == {path: path.read_bytes() for path in Path(runs).rglob("*") if path.is_file()}

    (tmp_path / "good.toml").write_text("steps = 70\nbatch_size = 16\n[recorder]\nsketch_size = 8\n", "utf-8")
    (tmp_path / "bad.toml").write_text("lerning_rate = 1\n", "utf-8")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["record", "--runs-dir", runs, str(tmp_path / "bad.toml"), str(tmp_path / "good.toml")])
    out, error = capsys.readouterr()
    assert "2 probes; fewer than 20 leave the noise of half the run unresolved" in out
    assert "unknown setting 'lerning_rate'; did you mean 'learning_rate'?" in error
    assert "failed: " in error.splitlines()[-1]
    assert open_run(tmp_path / "runs" / "good").sizes["step"] == 70

    succeeds("analyze", f"{runs}/one", f"{runs}/good")
    assert set(open_results(tmp_path / "runs" / "good")) == set(open_results(tmp_path / "runs" / "one"))
    assert set(open_results(tmp_path / "runs" / "one")) >= {"temperature", "diffusion"}
    capsys.readouterr()
    succeeds("ls", runs, "--json")
    listed = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["state"], row["steps"]) for row in listed] == [
        ("good", "finished", 70),
        ("one", "finished", 80),
    ]


@pytest.mark.slow
def test_a_dry_run_says_what_would_be_recorded_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Entries follow from the schedules, bytes from the format: what a real run then holds."""
    pytest.importorskip("torch")
    runs = tmp_path / "runs"
    arguments = ("record", "--runs-dir", str(runs), "--name", "one", *SMALL, "--set", "recorder.snapshot_every=log:3",
                 "--set", "recorder.moments_window=30", "--set", "recorder.curvature_every=50", "--set",
                 "recorder.per_sample_every=40")  # fmt: skip
    succeeds(*arguments, "--dry-run")
    assert not runs.exists()
    printed = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    succeeds(*arguments)
    run = open_run(runs / "one")
    for dim in GROWING:
        assert int(printed[dim][1]) == run.sizes[dim], dim
    assert int(printed["snapshot"][2].replace(",", "")) == 4 * run.sizes["parameter"] + 8 + 12 * run.sizes["layer"]
    assert set(run.attrs["recorder_seconds"]) == {
        "steps",
        "products",
        "probes",
        "curvature",
        "per_sample",
        "moments",
        "snapshots",
        "waiting",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "imagnet"], "--data 'imagnet' is unknown; expected fashion-mnist-10k"),
        (["--data", "nowhere.npz"], "nowhere.npz: there is no such file"),
        (["--optimizer", "Adam", "--momentum", "0.5"], "--momentum 0.5 goes to SGD only, not to Adam"),
        (["--model", "resnett"], "--model 'resnett' is unknown"),
        (["--optimizer", "Adamm"], "expected a class of torch.optim"),
        (["--batch-size", "9999"], "larger than the data set"),
        (["--device", "tpu9"], "device = 'tpu9' is not to be had"),
        (["--name", "../x"], "cannot be a run's name"),
        (["nothing.toml"], "settings file nothing.toml cannot be read"),
    ],
)
def test_recording_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """Each names what came and what is expected, and leaves no run behind."""
    pytest.importorskip("torch")
    assert message in fails(capsys, "record", "--runs-dir", str(tmp_path / "runs"), *arguments)
    assert not list((tmp_path / "runs").rglob("run.zarr"))


def test_ctrl_c_while_packages_are_imported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line and code 130, as later in the work."""

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "import_module", interrupt)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["analyze", "runs/any"])
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "thermodl: interrupted; what was written before is safe\n"


def test_help_of_record_lists_every_setting() -> None:
    """With default and description, `recorder.*` included; torch is not imported for it."""
    code = "from thermodl import cli; import sys, atexit; atexit.register(lambda: print('torch' in sys.modules))"
    code += "; cli.main(['record', '--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    shown = " ".join(done.stdout.split())
    for model, prefix in ((RunSettings, ""), (RecorderSettings, "recorder.")):
        for name, field in model.model_fields.items():
            if name != "recorder":
                assert f" {prefix}{name} " in shown
                assert str(field.description) in shown
    assert "recorder.probe_every = 50" in shown
    assert 'sampling = "shuffle"' in shown


def test_ls_says_what_is_broken_and_what_is_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason in table and JSON; folders without a recording; a single run; the width of the terminal."""
    (tmp_path / "nothing").mkdir()
    (tmp_path / "cut" / "run.zarr").mkdir(parents=True)
    (tmp_path / "cut" / "run.zarr" / "zarr.json").write_text("{")
    writer = RunWriter(tmp_path / "good", {"layer": 1}, ["step"], {"layers": [], "groups": []})
    writer.close("finished")
    succeeds("ls", str(tmp_path), "--json")
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["state"]) for row in rows] == [
        ("cut", "broken"),
        ("good", "finished"),
        ("nothing", "empty"),
    ]
    assert "metadata of" in rows[0]["reason"]
    assert rows[1]["reason"] == rows[2]["reason"] == ""
    monkeypatch.setenv("COLUMNS", "60")
    succeeds("ls", str(tmp_path))
    out = capsys.readouterr().out
    assert rows[0]["reason"] in out
    assert max(map(len, out.split("cut: ")[0].splitlines())) <= 60
    monkeypatch.chdir(tmp_path / "good")
    succeeds("ls", ".", "--json")
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["good"]


HOSTILE = (
    None,
    True,
    -1,
    3,
    10**400,
    float("nan"),
    float("inf"),
    "x",
    "\ud800",
    "\x1b[2J",
    "[/red]",
    [],
    ["x"],
    {},
    {"x": [1]},
)


def test_ls_lists_runs_whatever_their_attributes_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line for each run; what is no text of a terminal reaches none."""
    # The workers of the tests have one, of whatever terminal they were started from.
    monkeypatch.delenv("COLUMNS", raising=False)
    RunWriter(tmp_path / "good", {"layer": 1}, ["step"], {"layers": [], "groups": []}).close("finished")
    metadata = json.loads((tmp_path / "good" / "run.zarr" / "zarr.json").read_bytes())
    names = ["good"]
    fields = (
        "settings",
        "started",
        "last_commit",
        "state",
        "sampling",
        "committed",
        "layers",
        "groups",
        "model",
        "data",
    )
    for field in fields:
        for value in HOSTILE:
            names.append(f"{field}-{len(names)}")
            changed = {"settings": {field: value}} if field in ("model", "data") else {field: value}
            if field == "last_commit":
                changed["state"] = "running"
            changed = metadata | {"attributes": metadata["attributes"] | changed}
            (tmp_path / names[-1] / "run.zarr").mkdir(parents=True)
            (tmp_path / names[-1] / "run.zarr" / "zarr.json").write_text(json.dumps(changed))
    (tmp_path / "good" / "results.zarr" / "default" / "[/x]\x1b").mkdir(parents=True)
    (tmp_path / "good" / "results.zarr" / "default" / "[/x]\x1b" / "zarr.json").write_text('{"attributes": {}}')
    succeeds("ls", str(tmp_path), "--json")
    out = capsys.readouterr().out
    rows = {row["name"]: row for row in json.loads(out)}
    assert sorted(rows) == sorted(names)
    assert rows["good"]["state"] == "finished"
    assert {row["state"] for name, row in rows.items() if name.startswith(("settings", "started"))} == {"finished"}
    assert all(row["reason"] for row in rows.values() if row["state"] == "broken")
    succeeds("ls", str(tmp_path))
    table = capsys.readouterr().out
    assert all(name in table for name in names)
    for text in (out, table):
        assert text.encode()
        assert "\x1b" not in text


@pytest.mark.parametrize(
    ("runs", "lines"),
    [
        (["runs/x", "runs/y/run.zarr"], ["next: thermodl view runs"]),
        (["x"], ["next: thermodl view ."]),
        (["my runs/x", "other/y"], ["next: thermodl view 'my runs'", "next: thermodl view other"]),
    ],
)
def test_analyze_ends_with_the_next_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, runs: list[str], lines: list[str]
) -> None:
    """To look at the folder of the runs, in words that a shell takes."""
    monkeypatch.setattr("thermodl.analyze.cli.analyze_run", lambda *_, **__: {})
    succeeds("analyze", *runs)
    assert capsys.readouterr().out.splitlines() == [*runs, *lines]


def test_analyze_in_the_run_itself_names_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is `.` there, which has no folder by name."""
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path / "x")
    monkeypatch.setattr("thermodl.analyze.cli.analyze_run", lambda *_, **__: {})
    succeeds("analyze", ".")
    assert capsys.readouterr().out.splitlines()[-1] == f"next: thermodl view {tmp_path}"


def test_a_reason_that_several_analyses_share_is_said_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line per run and reason."""

    def refuse(*_: object, **__: object) -> dict[str, Exception]:
        return {"diffusion": UserError("segment 0:9: too short"), "temperature": UserError("segment 0:9: too short")}

    monkeypatch.setattr("thermodl.analyze.cli.analyze_run", refuse)
    assert fails(capsys, "analyze", "runs/x") == "thermodl: runs/x diffusion, temperature: segment 0:9: too short\n"
    assert "segment = 'a:b': expected auto, or start:stop such as 1000:3000\n" in fails(
        capsys, "analyze", "runs/x", "--segment", "a:b"
    )
