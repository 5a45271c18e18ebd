"""The demo: begun anew after an interruption, and saying no more than its error bars allow."""

import json
import re
from pathlib import Path

import pytest
from viewer.synthetic import write_all_results, write_run

from thermodl import cli
from thermodl.demo import compare_sampling, findings, is_left_over
from thermodl.record.errors import RunError
from thermodl.record.store import open_run


@pytest.mark.parametrize(
    ("shuffled", "independent", "claim"),
    [
        ((1.0, 0.1), (2.0, 0.1), "shuffled epochs cancel their noise"),
        ((1.0, 0.3), (2.0, 0.3), "not told apart at three standard errors"),
        ((1.0, float("nan")), (2.0, 0.1), "not told apart at three standard errors"),
        ((2.0, 0.1), (1.0, 0.1), "with shuffled epochs it is larger"),
    ],
)
def test_a_claim_needs_three_combined_errors(shuffled, independent, claim):
    assert compare_sampling(shuffled, independent) == claim


def test_every_number_carries_its_verdict(tmp_path):
    runs = [write_all_results(write_run(tmp_path / name)) for name in ("demo-shuffle", "demo-replacement")]
    lines = findings(*runs)
    assert len(lines) == 5
    assert lines[0].startswith("test accuracy 89.0% (shuffled), 89.0% (independent)")
    assert "1.47(4)×10⁻⁵ ✓ (shuffled)" in lines[1]
    assert lines[4].count("✗") == 2
    assert lines[4].endswith("not told apart at three standard errors")


@pytest.mark.parametrize(
    ("state", "run_id", "left_over"),
    [
        ("finished", "0" * 16, False),
        ("finished", "1" * 16, False),
        ("stopped", "0" * 16, True),
        ("stopped", "1" * 16, False),
        ("failed", "", False),
    ],
)
def test_only_what_a_demo_has_left_is_replaced(tmp_path, state, run_id, left_over):
    assert not is_left_over(tmp_path / "nothing", run_id)
    (tmp_path / "killed" / "run.zarr").mkdir(parents=True)
    assert is_left_over(tmp_path / "killed", run_id)
    assert is_left_over(write_run(tmp_path / "run", steps=50, state=state), run_id) == left_over


def test_a_demo_that_is_being_recorded_is_left_alone(tmp_path):
    with pytest.raises(RunError, match="is being recorded"):
        is_left_over(write_run(tmp_path / "run", steps=50, state="running"), "0" * 16)
    assert is_left_over(write_run(tmp_path / "killed", steps=50, state="running", last_commit=0.0), "0" * 16)


@pytest.mark.slow
def test_an_interrupted_demo_can_be_begun_anew(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    import thermodl.data

    small = tmp_path / "settings"
    small.mkdir()
    for name in ("shuffle", "replacement"):
        text = re.sub(r"steps = \d+", "steps = 400", (thermodl.data.DEMO / f"{name}.toml").read_text("utf-8"))
        (small / f"{name}.toml").write_text(text + "sketch_size = 8\n", "utf-8")
    monkeypatch.setattr(thermodl.data, "DEMO", small)
    runs: Path = tmp_path / "runs"
    (runs / "demo-shuffle" / "run.zarr").mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["demo", "--runs-dir", str(runs)])
        assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert printed.count("next: ") == 2  # one for each demo, at its end
    assert printed.endswith(f"next: thermodl view {runs}\n")
    assert printed.count("already recorded with these settings, skipped") == 2
    assert open_run(runs / "demo-shuffle").sizes["step"] == 400
    assert json.loads((runs / "demo-shuffle" / "results.zarr" / "zarr.json").read_bytes())
    assert (runs / "demo-shuffle" / "report.html").is_file()
