"""The certificate: a clean recording passes whatever the optimizer, and every kind of damage is named by its place."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from thermodl import cli  # noqa: E402
from thermodl.analyze.check import check_run  # noqa: E402
from thermodl.record import Recorder, RecorderSettings, open_run  # noqa: E402
from thermodl.record.check import Check  # noqa: E402

STEPS = 300
SGD = torch.optim.SGD


def record(
    folder: Path,
    make: Callable[[nn.Sequential], torch.optim.Optimizer],
    *,
    double: bool = False,
    schedule: Callable[[int], float] | None = None,
    steps: int = STEPS,
    tolerance: float = 0.0,
) -> None:
    """A small network on random data; 16 numbers keep up to 132 parameters of a layer."""
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 12), nn.Tanh(), nn.Linear(12, 3))
    dtype = torch.float64 if double else torch.float32
    model.to(dtype)
    optimizer = make(model)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule) if schedule else None
    settings = RecorderSettings(sketch_size=16, snapshot_every=50, snapshot_tolerance=tolerance, probe_every=20)
    others = torch.Generator().manual_seed(2)

    def probe() -> torch.Tensor:
        return model(torch.randn(8, 10, generator=others, dtype=dtype)).square().mean()

    with Recorder(model, optimizer, folder, settings=settings, probe=probe) as run:
        for _ in range(steps):
            x = torch.randn(8, 10, generator=generator, dtype=dtype)
            loss = F.cross_entropy(model(x), torch.randint(3, (8,), generator=generator))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss)
            if scheduler:
                scheduler.step()


def found(folder: Path) -> dict[str, Check]:
    """What each check says."""
    return {one.name: one for one in check_run(folder)[1]}


def defects(folder: Path) -> dict[str, list[str]]:
    """The defects of each check that found some."""
    return {name: one.defects for name, one in found(folder).items() if one.defects}


OPTIMIZERS = {
    "plain": lambda m: SGD(m.parameters(), lr=0.1),
    "without momentum": lambda m: SGD(m.parameters(), lr=0.1, dampening=0.3),
    "momentum": lambda m: SGD(m.parameters(), lr=0.1, momentum=0.9),
    "decay": lambda m: SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01),
    "dampening": lambda m: SGD(m.parameters(), lr=0.1, momentum=0.9, dampening=0.3),
    "nesterov": lambda m: SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "maximize": lambda m: SGD(m.parameters(), lr=0.001, momentum=0.5, maximize=True, weight_decay=0.01),
}
SCHEDULES = {"constant": None, "stairs": lambda t: 0.5 ** (t // 64), "smooth": lambda t: 1 / (1 + t / 50)}


@pytest.mark.parametrize(
    ("name", "schedule", "double"),
    [(name, "constant", double) for name in OPTIMIZERS for double in (False, True)]
    + [(name, schedule, False) for name in ("plain", "momentum", "nesterov") for schedule in ("stairs", "smooth")],
)
def test_clean_recordings_pass(name: str, schedule: str, double: bool, tmp_path: Path) -> None:
    """All steps are replayed, to a precision that belongs to the parameters' type."""
    record(tmp_path / "run", OPTIMIZERS[name], double=double, schedule=SCHEDULES[schedule])
    checks = found(tmp_path / "run")
    assert not defects(tmp_path / "run")
    assert f"{2 * STEPS} updates" in checks["replay"].found
    assert "left out" not in checks["replay"].found
    assert checks["replay"].precision is not None
    assert checks["replay"].precision < (1e-10 if double else 5e-3)
    assert checks["identity"].done is (name != "nesterov")
    assert checks["snapshots"].done


def test_the_clock_without_momentum(tmp_path: Path) -> None:
    """Torch leaves the dampening out where there is no momentum to damp: SGD time is Σ η."""
    record(tmp_path / "run", OPTIMIZERS["without momentum"], steps=20)
    np.testing.assert_allclose(open_run(tmp_path / "run")["sgd_time"], 0.1 * np.arange(20))


def test_what_cannot_be_replayed_says_so(tmp_path: Path) -> None:
    """Adam; groups of layers that several optimizer groups share; a group of their own is replayed."""
    record(tmp_path / "adam", lambda m: torch.optim.Adam(m.parameters(), lr=1e-3))
    assert not defects(tmp_path / "adam")
    assert "recursion of Adam needs more" in found(tmp_path / "adam")["replay"].found

    def mixed(model: nn.Sequential) -> torch.optim.Optimizer:
        rest = [model[0].bias, *model[2].parameters()]
        return SGD([{"params": [model[0].weight], "lr": 0.1}, {"params": rest, "lr": 0.01}], momentum=0.9)

    record(tmp_path / "mixed", mixed)
    assert not defects(tmp_path / "mixed")
    assert "left out: 0, of several optimizer groups" in found(tmp_path / "mixed")["replay"].found
    assert f" {STEPS} updates" in " " + found(tmp_path / "mixed")["replay"].found


def test_gradients_that_come_and_go(tmp_path: Path) -> None:
    """Torch leaves a layer alone that has no gradient, and fills a new buffer undamped; neither is a defect."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, dampening=0.5)
    with Recorder(model, optimizer, tmp_path / "run", settings=RecorderSettings(sketch_size=4)):
        for step in range(40):
            optimizer.zero_grad()
            x = model["a"](torch.randn(2, 4))
            (model["b"](x) if step % 10 > 4 else x).square().mean().backward()
            optimizer.step()
    checks = found(tmp_path / "run")
    assert not checks["replay"].defects
    assert "left out, where the velocity before is not known" in checks["replay"].found


def test_what_happens_outside_the_optimizer_shows(tmp_path: Path) -> None:
    """Weights that shrink behind its back, at the step where they do."""
    model = nn.Linear(6, 4)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    with Recorder(model, optimizer, tmp_path / "run", settings=RecorderSettings(sketch_size=4)):
        for step in range(100):
            optimizer.zero_grad()
            model(torch.randn(4, 6)).square().mean().backward()
            optimizer.step()
            if step == 50:
                model.weight.data *= 0.99
    named = defects(tmp_path / "run")
    assert named["replay"][0].startswith("step 50: the motion of weight")
    assert set(named) == {"replay", "identity"}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One recording, to be copied before it is damaged."""
    folder = tmp_path_factory.mktemp("clean") / "run"
    record(folder, OPTIMIZERS["decay"])
    return folder


@pytest.fixture
def run(clean: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(clean, tmp_path / "run"))


def change(folder: Path, name: str, edit: Callable[[np.ndarray], object]) -> None:
    """Write values as a clumsy program would: with valid checksums."""
    array = zarr.open_array(folder / "run.zarr" / name, mode="r+")
    values = np.asarray(array[...])
    edit(values)
    array[...] = values


def test_every_single_flipped_byte_is_found(run: Path, rng: np.random.Generator) -> None:
    """At any place of any chunk; the array and the chunk are named."""
    files = sorted(path for path in (run / "run.zarr").rglob("*") if path.is_file() and path.name != "zarr.json")
    for file in [file for file in files if "loss" in file.parts] + list(rng.choice(np.array(files), 40)):
        whole = file.read_bytes()
        spoiled = bytearray(whole)
        spoiled[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        file.write_bytes(spoiled)
        array, _, key = file.relative_to(run / "run.zarr").as_posix().partition("/")
        assert f"{array}: chunk {key} is damaged" in defects(run)["chunks"][0]
        file.write_bytes(whole)
    assert not defects(run)


def test_a_missing_chunk_is_found(run: Path) -> None:
    """Zarr reads it as missing values; here it is a defect, also where there are nothing but missing values."""
    (run / "run.zarr" / "gradient_sketch" / "c" / "1" / "0" / "1").unlink()
    (named,) = defects(run)["chunks"]
    assert named == f"gradient_sketch: chunk c/1/0/1 is missing, steps 256 to {STEPS - 1}"
    assert "it is missing or damaged" in found(run)["replay"].found


def swap(values: np.ndarray) -> None:
    """Rows 100 and 101 in the place of each other."""
    values[..., [100, 101]] = values[..., [101, 100]]


def test_a_swapped_step_is_found(run: Path) -> None:
    """In every array it shows in the clocks; in the measured ones alone in the replay, which names the step."""
    names = [path.name for path in (run / "run.zarr").iterdir() if path.is_dir()]
    over_step = [n for n in names if "step" in zarr.open_array(run / "run.zarr" / n, mode="r").metadata.dimension_names]
    measured = [name for name in over_step if name not in ("step", "wall_time", "sgd_time")]
    for name in measured:
        change(run, name, swap)
    named = defects(run)
    assert named["replay"][0].startswith("step 99: the motion of ")
    assert "rounding allows" in named["replay"][0]
    for name in ("step", "wall_time", "sgd_time"):
        change(run, name, swap)
    assert "row 100 says step 101" in defects(run)["clocks"]


def test_one_swapped_sketch_is_found(run: Path) -> None:
    """Only the gradient of two steps."""
    change(run, "gradient_sketch", swap)
    assert [line.partition(":")[0] for line in defects(run)["replay"]] == ["step 100"] * 2 + ["step 101"] * 2


@pytest.mark.parametrize("name", ["learning_rate", "momentum", "dampening"])
def test_a_wrong_learning_rate_is_found(run: Path, name: str) -> None:
    """At one step by a percent; the clock and the replay name the step."""

    def edit(values: np.ndarray) -> None:
        values[0, 200] = values[0, 200] * 1.01 + (0.01 if name == "dampening" else 0)

    change(run, name, edit)
    named = defects(run)
    assert named["clocks"][0].startswith("step 200: SGD time advances by 1, but the logged learning rate")
    assert named["replay"][0].startswith("step 200: ")


def test_a_wrong_learning_rate_throughout_is_found(run: Path) -> None:
    """Even with an SGD time that fits: the motion and the identity tell."""
    change(run, "learning_rate", lambda values: np.multiply(values, 1.01, out=values))
    change(run, "sgd_time", lambda values: np.multiply(values, 1.01, out=values))
    assert set(defects(run)) >= {"replay", "identity"}


def test_inner_products_snapshots_and_ends_are_held_against_the_rest(run: Path) -> None:
    """One number off: θ·g in the identity, a snapshot, the final parameters."""
    change(run, "parameter_dot_gradient", lambda values: np.copyto(values[0, 150:151], 7.0))
    change(run, "parameters_code", lambda values: np.bitwise_xor(values[3, 2:], 2**20, out=values[3, 2:]))
    change(run, "final_parameters", lambda values: np.copyto(values[4:5], 1.0))
    named = defects(run)
    assert named["identity"][0].startswith("steps 0 to 256: the identity of all is open")
    assert named["snapshots"][0].startswith("snapshot 2: ‖θ‖² of 0.weight is")
    assert named["replay"][0].startswith(f"step {STEPS - 1}: the motion of 0 ")


@pytest.mark.parametrize("double", [False, True])
def test_coded_snapshots_are_held_to_their_tolerance(tmp_path: Path, double: bool) -> None:
    """What they lack is no defect; a number that is off, an error above the tolerance, a wrong quantum are."""
    record(tmp_path / "run", OPTIMIZERS["decay"], double=double, tolerance=0.1)
    assert not defects(tmp_path / "run")
    assert "snapshots to 0.1 of the motion between them" in found(tmp_path / "run")["snapshots"].found
    for name, edit, message in (
        ("parameters_code", lambda v: np.bitwise_xor(v[3, 4:5], 128, out=v[3, 4:5]), "snapshot 4: "),
        ("snapshot_error", lambda v: np.copyto(v[0, 2:3], 0.2), "snapshot 2: the rms error of 0.weight is 0.2 of its"),
        ("snapshot_error", lambda v: np.copyto(v[0, 2:3], np.nan), "snapshot 2: the rms error of 0.weight is nan of"),
        ("snapshot_quantum", lambda v: np.multiply(v[2, 5:6], 1.2, out=v[2, 5:6]), "snapshot 5: "),
    ):
        copy = Path(shutil.copytree(tmp_path / "run", tmp_path / "copy"))
        change(copy, name, edit)
        assert defects(copy)["snapshots"][0].startswith(message), defects(copy)["snapshots"]
        shutil.rmtree(copy)


def test_values_that_are_not_finite(run: Path) -> None:
    """A lost loss is counted, a lost inner product is a defect."""
    change(run, "loss", lambda values: np.copyto(values[10:12], np.nan))
    assert not defects(run)
    assert "2 steps have no loss" in found(run)["finite"].found
    change(run, "gradient_squared", lambda values: np.copyto(values[1, 20:21], np.nan))
    assert "gradient_squared: 1 value of chunk c/0/0 is not finite, from step 20" in defects(run)["finite"][0]


def test_one_is_no_plural(tmp_path: Path) -> None:
    """Two steps have one window of the identity between them, and one step is alone."""
    record(tmp_path / "run", lambda model: SGD(model.parameters(), lr=0.1), steps=2)
    checks = found(tmp_path / "run")
    assert checks["identity"].found.startswith("closes in 1 window;")
    record(tmp_path / "single", lambda model: SGD(model.parameters(), lr=0.1), steps=1)
    assert found(tmp_path / "single")["clocks"].found.startswith("1 step one by one")


def test_the_schema(run: Path) -> None:
    """A missing array, a wrong unit, wrong dimensions, metadata that cannot be read."""
    shutil.rmtree(run / "run.zarr" / "wall_time")
    for name, edit in (
        ("sgd_time", lambda m: m["attributes"].update(units="s")),
        ("momentum", lambda m: m.update(dimension_names=["layer", "step"])),
        ("snapshot_step", lambda m: m.update(codecs=[{"name": "nothing"}])),
    ):
        path = run / "run.zarr" / name / "zarr.json"
        metadata = json.loads(path.read_text())
        edit(metadata)
        path.write_text(json.dumps(metadata))
    named = "\n".join(defects(run)["schema"])
    assert "wall_time is missing, and not_recorded gives no reason" in named
    assert "sgd_time has the unit 's', not 'parameter2 loss-1'" in named
    assert "momentum has dimensions layer, step, not optimizer_group, step" in named
    assert "snapshot_step cannot be opened" in named


def test_the_command_checks_all_and_names_the_defects_at_the_end(
    clean: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit codes 0, 1 and 2; a defect in one run stops no other."""

    def check(*paths: Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["check", *map(str, paths)])
        code = stopped.value.code
        assert isinstance(code, int)
        said = capsys.readouterr()
        return code, said.out, said.err

    code, out, err = check(clean)
    assert (code, err) == (0, "")
    assert f"certificate: {STEPS} steps are the optimizer's trajectory, its updates to " in out
    change(run, "gradient_sketch", swap)
    code, out, err = check(tmp_path / "none", run, clean)
    assert code == 1
    assert "no certificate: 4 defects" in out
    assert "certificate: 300 steps are" in out
    assert f"{run}: replay: step 100: the motion of 0 misses the recursion by" in err
    assert "no such folder" in err
    assert check(tmp_path / "none")[0] == 2
    # All are counted, of which some are named.
    change(run, "gradient_sketch", lambda values: np.multiply(values, 1.01, out=values))
    _, out, err = check(run)
    more = re.search(r"replay: … and (\d+) more", err)
    count = re.search(r"no certificate: ([\d,]+) defects", out)
    assert more
    assert count
    assert int(count[1].replace(",", "")) > int(more[1]) > 100


def test_a_recording_of_nothing_has_no_certificate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says in which state the recording is and why, and does not call it whole."""

    def fail() -> torch.Tensor:
        raise ArithmeticError("no data")

    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = Recorder(model, optimizer, tmp_path / "run", probe=fail)
    model(torch.ones(1, 2)).sum().backward()
    with pytest.warns(RuntimeWarning, match="no data"):
        optimizer.step()
    recorder.close()
    with pytest.raises(SystemExit):
        cli.main(["check", str(tmp_path / "run")])
    said = capsys.readouterr().out
    assert "failed: ArithmeticError: no data" in said
    assert "no certificate: no step was recorded" in said
