"""The documentation against the code and against itself: verbs, analyses, links, and both languages in step."""

import re
from pathlib import Path

import pytest

from thermodl import cli
from thermodl.analyze import physics

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
PAGES = [*READMES, *sorted((ROOT / "docs").rglob("*.md")), ROOT / "data" / "README.md"]


def code_blocks(page: Path) -> list[str]:
    """What stands between fences."""
    return re.findall(r"^```\w*\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_both_readmes_have_the_same_structure() -> None:
    """The same headings in number and level, the same code, the same formulas in the table."""
    english, chinese = (page.read_text("utf-8") for page in READMES)
    levels = [re.findall(r"^(#+) ", text, re.MULTILINE) for text in (english, chinese)]
    assert levels[0] == levels[1]
    assert code_blocks(READMES[0]) == code_blocks(READMES[1])
    rows = [[line for line in text.splitlines() if line.startswith("|")] for text in (english, chinese)]
    assert len(rows[0]) == len(rows[1])
    links = [re.findall(r"\]\(((?!README)[^)]+)\)", text) for text in (english, chinese)]
    assert [link.replace("-en.png", "-zh.png") for link in links[0]] == links[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of the repository."""
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if not link.startswith("http"):
            assert (page.parent / link).is_file(), link


def test_every_verb_and_analysis_is_in_the_readme() -> None:
    """A verb by its command, an analysis by the word that names it."""
    text = READMES[0].read_text("utf-8")
    for verb in cli.VERBS:
        assert f"thermodl {verb}" in text or f"setup_env.sh {verb}" in text, verb
    for analysis in physics.names():
        assert analysis.removesuffix("ity") in text.lower(), analysis


def test_the_example_of_an_own_loop_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Word for word, twice, since it overwrites; what it hands over is kept with the run."""
    torch = pytest.importorskip("torch")
    from thermodl.record.store import open_run

    example = next(block for block in code_blocks(READMES[0]) if "with Recorder(" in block)
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Linear(4, 2)
    batches = [(torch.randn(8, 4), torch.randint(2, (8,))) for _ in range(30)]
    loss_fn = torch.nn.CrossEntropyLoss()
    names = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loss_fn": loss_fn,
        "loader": batches,
        "data": range(1920),
        "batch_loss": lambda batch: loss_fn(model(batch[0]), batch[1]),
    }
    for _ in range(2):
        exec(example, {**names, "others": iter(batches)})
    run = open_run("runs/mine")
    assert run.sizes["step"] == 30
    assert run["probe_step"].values.tolist() == [0, 10, 20]
    assert (run.attrs["sampling"], run.attrs["batch_size"], run.attrs["steps_per_epoch"]) == ("shuffle", 64, 30)
