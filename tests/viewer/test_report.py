"""One file that needs no network, in both languages, whatever the run is called."""

import json
import re

import pytest
from typer.testing import CliRunner
from viewer.synthetic import write_all_results, write_run

from thermodl.record.errors import UserError
from thermodl.viewer import tables
from thermodl.viewer.report import _script_json, build_report, write_report


@pytest.fixture(scope="module", params=["en", "zh"])
def report(request, world):
    return request.param, build_report(world / "good", request.param)


def test_the_report_fetches_nothing(report):
    _, html = report
    markup = re.sub(r"<script>.*?</script>", "", html, flags=re.S)
    assert not re.search(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//""", markup)
    assert not re.search(r"<(?:link|img|iframe)\b|@import|url\(\s*['\"]?http", markup)
    assert "default-src 'none'" in html


def test_the_report_is_small(report):
    """Less than 3 MB of eight charts and all they need; each further one adds a spec and a picture."""
    html = report[1]
    specs = re.search(r'id="specs">(.*?)</script>', html, re.S)[1]
    pictures = re.findall(r"<noscript>(<svg.*?</svg>)</noscript>", html, re.S)
    of_charts = len(specs.encode()) + sum(len(picture.encode()) for picture in pictures)
    assert len(pictures) == len(json.loads(specs)) > 16
    assert len(html.encode()) - of_charts * (1 - 8 / len(pictures)) < 3e6
    assert len(html.encode()) < 4e6


def test_the_report_has_a_live_chart_and_a_still_one_for_each_figure(report):
    lang, html = report
    specs = json.loads(re.search(r'id="specs">(.*?)</script>', html, re.S)[1])
    assert len(specs) >= 16
    assert all(f'id="chart-{name}"' in html for name in specs)
    assert html.count("<noscript><svg") == len(specs)
    assert f'lang="{"zh-Hans" if lang == "zh" else "en"}"' in html


def test_the_report_says_what_to_trust_and_how_it_was_made(report):
    lang, html = report
    words = {"en": ["✗ untrusted", "Methods and references", "Provenance", "learning_rate", "Wolff"],
             "zh": ["✗ 不可信", "方法与参考文献", "来源", "learning_rate", "Wolff"]}  # fmt: skip
    assert all(word in html for word in words[lang])


def test_the_report_has_the_tables_of_the_pages(report):
    """Events, directions, currents and segments: charts say that some rows are in the table only."""
    lang, html = report
    assert all(f"<h3>{title(lang)}</h3>" in html for title, *_ in tables.DETAILS.values())


def test_a_hostile_setting_stays_text(tmp_path):
    folder = write_all_results(write_run(tmp_path / "run"), only=["temperature"])
    metadata = folder / "run.zarr" / "zarr.json"
    content = json.loads(metadata.read_bytes())
    attack = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    content["attributes"]["settings"]["model"] = attack
    content["attributes"]["provenance"][attack] = attack
    metadata.write_text(json.dumps(content))
    html = build_report(folder)
    assert attack not in html
    assert "&lt;/script&gt;" in html
    assert "</script" not in _script_json({attack: attack})
    assert json.loads(_script_json({attack: attack})) == {attack: attack}


def test_a_run_without_results_names_the_command(world):
    with pytest.raises(UserError, match=r"thermodl analyze .*no-results"):
        build_report(world / "no-results")


@pytest.mark.parametrize("name", ["empty", "truncated-metadata", "newer-format", "damaged-results", "nowhere"])
def test_what_cannot_be_read_is_an_error_of_the_user(world, name):
    with pytest.raises(UserError):
        build_report(world / name)


def test_writing_is_all_or_nothing(world, tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    assert write_report(world / "truncated-chunk", target) == target
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    monkeypatch.setattr("thermodl.viewer.report.build_report", lambda *_: "made")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "folder", target / "below-a-file.html"):
        with pytest.raises(UserError, match="cannot be written"):
            write_report(world / "good", place, overwrite=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "report.html"]


def test_the_command_puts_the_report_into_the_run_folder(tmp_path, monkeypatch):
    import typer

    from thermodl.viewer.cli import report as command

    folder = write_all_results(write_run(tmp_path / "run"), only=["temperature"])
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(folder), "--lang", "zh"])
    assert result.exit_code == 0, result.output
    assert result.output.strip() == str(folder / "report.zh.html")
    assert (folder / "report.zh.html").stat().st_size > 1e6

    write_all_results(folder, name="other", only=["temperature"])
    monkeypatch.chdir(folder)
    assert CliRunner().invoke(app, [".", "--results", "other"]).output.strip() == "report.other.html"
    html = (folder / "report.other.html").read_text("utf-8")
    assert "<title>run ·" in html
    assert "results: other" in html
    with pytest.raises(UserError, match="no results named 'thrid'; expected one of default, other"):
        build_report(folder, results_name="thrid")


def test_only_a_report_is_written_over(tmp_path):
    run, target = write_all_results(write_run(tmp_path / "run"), only=["temperature"]), tmp_path / "notes.html"
    target.write_text("mine")
    with pytest.raises(UserError, match="is there and no thermodl report"):
        write_report(run, target)
    assert target.read_text() == "mine"
    write_report(run, target, overwrite=True)
    assert write_report(run, target, "zh") == target
    assert 'lang="zh-Hans"' in target.read_text("utf-8")
