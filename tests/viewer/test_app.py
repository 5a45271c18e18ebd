"""The whole app without a browser: every page, both languages, runs in every condition."""

import ast
import json
import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash
from viewer.synthetic import GROUPS, write_all_results, write_run, write_undefined

import thermodl.viewer
from thermodl.viewer import app
from thermodl.viewer.cli import LANG, PACKED, ROOT
from thermodl.viewer.pages import temperature
from thermodl.viewer.report import build_report

FOLDER = Path(thermodl.viewer.__file__).parent
PAGES = (
    "",
    "overview",
    "temperature",
    "dissipation",
    "noise",
    "diffusion",
    "correlation",
    "response",
    "stationarity",
    "ageing",
    "entropy_production",
    "flatness",
    "events",
    "layers",
    "compare",
    "data",
    "new",
)
RUNS = ("good", "running", "silent", "no-results", "no-steps", "empty", "truncated-metadata", "newer-format",
        "truncated-chunk", "damaged-results")  # fmt: skip
CJK = re.compile("[\u4e00-\u9fff]")


def open_app(root, monkeypatch, **query):
    """The app after its first rerun."""
    monkeypatch.setenv(ROOT, str(root))
    monkeypatch.delenv(LANG, raising=False)
    at = AppTest.from_file(str(FOLDER / "pages" / "start.py"), default_timeout=60)
    for key, value in query.items():
        at.query_params[key] = value
    return at.run()


def go_to(at, page):
    # Pages given as functions have no file that AppTest.switch_page could name.
    at._page_hash = calc_hash(page)
    return at.run()


def words(at):
    """All text of ours on the page, without tables, code and what comes from results."""
    elements = (*at.title, *at.subheader, *at.markdown, *at.error, *at.warning, *at.info, *at.success)
    return [element.value for element in elements] + [box.label for box in (*at.selectbox, *at.expander, *at.toggle)]


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("run", RUNS)
def test_every_page_shows_every_run_without_an_exception(world, monkeypatch, run, lang):
    at = open_app(world, monkeypatch, run=run, lang=lang)
    for page in PAGES:
        go_to(at, page)
        assert not at.exception, (page, at.exception[0].stack_trace)
        assert at.title, page
        shown = " ".join(words(at))
        if lang == "zh":
            assert all(CJK.search(text) for text in words(at)), (page, words(at))
        if page == "new":  # it is about no run
            continue
        if run in ("empty", "truncated-metadata", "newer-format"):
            assert ("无法读取" if lang == "zh" else "cannot be read") in shown
        if run == "damaged-results":
            # One of them is damaged; the others are shown.
            damaged = page in ("overview", "temperature", "compare", "data")
            assert (("无法读取分析结果" if lang == "zh" else "results cannot be read") in shown) == damaged, page
        if page and run in ("running", "silent"):
            assert {"running": "recorded", "silent": "silent"}[run] in shown or lang == "zh"
    assert at.query_params["run"] == run


def test_a_page_without_results_names_the_command_that_makes_them(world, monkeypatch):
    at = go_to(open_app(world, monkeypatch, run="no-results"), "diffusion")
    assert at.code[0].value == f"thermodl analyze {world / 'no-results'}"


def test_a_run_that_is_too_short_is_not_told_to_be_analyzed(tmp_path, monkeypatch):
    write_run(tmp_path / "short", steps=20)
    at = go_to(open_app(tmp_path, monkeypatch, run="short"), "diffusion")
    assert not at.code
    assert "takes at least 64 recorded steps; this run has 20 so far" in " ".join(words(at))


def test_a_run_of_any_name_is_shown_and_linked(tmp_path, monkeypatch):
    name = "实验 1 (lr=0.1, μ=0.9)"
    write_all_results(write_run(tmp_path / name))
    at = go_to(open_app(tmp_path, monkeypatch, run=name), "diffusion")
    assert not at.exception
    assert at.query_params["run"] == name


def test_what_is_not_defined_is_said_where_it_would_be(tmp_path, monkeypatch):
    """The page of an analysis that this training has none of gives the reason, in its language; no page trips."""
    write_all_results(write_run(tmp_path / "adam"))
    undefined = ("dissipation", "entropy_production", "flatness", "events")
    for analysis in undefined:
        write_undefined(tmp_path / "adam", analysis, "not for Adam.", "对 Adam 没有定义。")
    for lang, reason in (("en", "not for Adam."), ("zh", "对 Adam 没有定义。")):
        at = open_app(tmp_path, monkeypatch, run="adam", lang=lang)
        for page in (*undefined, "temperature", "compare", "overview", "data"):
            go_to(at, page)
            assert not at.exception, (page, at.exception[0].stack_trace)
            assert (reason in " ".join(words(at)).replace("\\", "")) == (page in undefined), page


@pytest.mark.parametrize("page", ["data", "new", "diffusion"])
def test_commands_outlive_the_folder_that_a_zip_is_unpacked_into(world, monkeypatch, page):
    monkeypatch.setenv(PACKED, "my runs.zip")
    at = go_to(open_app(world, monkeypatch, run="no-results"), page)
    assert at.code
    assert not any(str(world) in code.value for code in at.code)
    if page != "new":
        assert all(code.value.startswith("thermodl unpack 'my runs.zip'\nthermodl ") for code in at.code)
        assert any(f"{Path('runs/no-results')}" in code.value for code in at.code)


def test_charts_and_verdicts_stand_on_the_page(world, monkeypatch):
    at = go_to(open_app(world, monkeypatch, run="good", other="other"), "diffusion")
    assert len(at.get("vega_lite_chart")) == 4
    assert "✗ untrusted" in at.error[0].value
    spec = json.loads(at.get("vega_lite_chart")[0].proto.spec)
    assert any("· other" in series for series in spec["layer"][0]["encoding"]["color"]["sort"])


def test_the_address_follows_the_widgets_and_survives_nonsense(world, monkeypatch):
    at = open_app(world, monkeypatch, run="../etc", axis="<script>", group="nosuch", lang="xx", v="1")
    assert not at.exception
    at.selectbox(key="axis").select("sgd_time").run()
    assert at.query_params["axis"] == "sgd_time"
    assert at.query_params["lang"] == "en"


def test_switching_the_language_keeps_the_view(world, monkeypatch):
    at = open_app(world, monkeypatch, run="other", group="fc1")
    at.selectbox(key="lang").select("zh").run()
    assert at.query_params == {"v": "1", "run": "other", "axis": "step", "group": "fc1", "lang": "zh"}
    assert at.title[0].value == "实验列表"


def test_a_click_made_while_the_page_is_being_drawn_is_not_taken_back(world, monkeypatch):
    """It ends the rerun before the address is written; and the browser may send it with the address before."""
    with monkeypatch.context() as being_drawn:
        being_drawn.setattr(app, "_write_address", lambda state: None)  # noqa: ARG005
        at = open_app(world, monkeypatch, run="good", steps="100-200")
    before = dict(at.query_params)
    at.button(key="all-steps").click().run()
    assert "steps" not in at.query_params
    at.selectbox(key="group").select("fc1")
    _go_to_address(at, before).run()
    assert at.query_params["group"] == "fc1"
    assert "steps" not in at.query_params
    # The back button changes no widget.
    assert _go_to_address(at, before).run().query_params["steps"] == "100-200"


def _go_to_address(at, query):
    at.query_params.clear()
    at.query_params.update(query)
    return at


def test_results_of_several_names_are_chosen_in_the_sidebar_and_by_the_address(tmp_path, monkeypatch):
    folder = write_all_results(write_run(tmp_path / "good"))
    write_run(tmp_path / "plain")
    write_all_results(folder, name="middle")
    _edit_result(folder / "results.zarr" / "middle" / "diffusion", segment=[100, 500])
    at = go_to(open_app(tmp_path, monkeypatch, run="good", results="middle"), "diffusion")
    assert at.selectbox(key="results").options == ["default", "middle"]
    assert "100–499; settings: segment = auto" in " ".join(words(at)).replace("\\", "")
    at.selectbox(key="results").select("default").run()
    assert at.query_params["results"] == "default"
    assert "1,000–2,999; settings" in " ".join(words(at)).replace("\\", "")
    at.selectbox(key="run").select("plain").run()
    assert "results" not in [box.key for box in at.selectbox]
    assert "results" not in at.query_params


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_what_is_stale_or_of_another_segment_says_so(tmp_path, monkeypatch, lang):
    folder = write_all_results(write_run(tmp_path / "good"))
    at = open_app(tmp_path, monkeypatch, run="good", lang=lang)
    mark = {"en": "⟳ stale", "zh": "⟳ 已过期"}[lang]
    fresh = write_all_results(write_run(tmp_path / "elsewhere" / "fresh"), only=["temperature"])
    assert mark not in " ".join(words(go_to(at, "diffusion"))) + build_report(fresh, lang)
    results = folder / "results.zarr" / "default"
    _edit_result(results / "temperature", committed_steps=2000)
    _edit_result(results / "dissipation", analysis_version=0)
    _edit_result(results / "correlation", run_id="another")
    for analysis in ("diffusion", "stationarity"):
        _edit_result(results / analysis, segment=[100, 500])
    report = build_report(folder, lang)
    said = {
        "temperature": ("covers 2,000 of 3,000", "该结果只涵盖已记录 3,000 步中的 2,000 步"),
        "dissipation": ("older version of this analysis", "旧版本的分析程序"),
        "correlation": ("another recording", "另一次记录"),
        "diffusion": ("this analysis used steps 100–499, ", "该分析使用第 100–499 步，而"),
    }
    assert report.count(mark) >= len(said)
    for analysis, sentences in said.items():
        at = go_to(open_app(tmp_path, monkeypatch, run="good", lang=lang), analysis)
        warnings = [box.value.replace("\\", "") for box in at.warning if mark in box.value]
        sentence = sentences[lang == "zh"]
        assert any(sentence in warning for warning in warnings), (analysis, warnings)
        assert sentence in report


def _edit_result(group, **attributes):
    content = json.loads((group / "zarr.json").read_bytes())
    content["attributes"].update(attributes)
    (group / "zarr.json").write_text(json.dumps(content))


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_an_empty_and_a_vanished_folder_get_a_sentence(tmp_path, monkeypatch, lang):
    for page in PAGES:
        assert not go_to(open_app(tmp_path, monkeypatch, lang=lang), page).exception
    at = open_app(tmp_path / "gone", monkeypatch, lang=lang)
    assert not at.exception
    assert at.error


def _calls(tree, name):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name]


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: path.name)
def test_every_text_has_both_languages_with_the_same_placeholders(path):
    for call in _calls(ast.parse(path.read_text("utf-8")), "Text"):
        if not all(isinstance(argument, ast.Constant) for argument in call.args):
            continue
        en, zh = (argument.value for argument in call.args)
        assert sorted(re.findall(r"{\w+", en)) == sorted(re.findall(r"{\w+", zh))
        if re.search("[A-Za-z]{3}", en):
            assert CJK.search(zh), (en, zh)


MAY = {"report.py": {"open(", "write_text"}, "pictures.py": {"write_bytes"}, "cli.py": {"open("}}
"""what the commands `report`, `export` and `view` do: a file that is asked for, and a tab of the browser"""


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: path.name)
def test_the_viewer_has_no_way_to_write_or_to_run_what_it_shows(path):
    source = path.read_text("utf-8")
    forbidden = ["unsafe_allow_html", "html(", "components", "pickle", "eval(", "exec(", "file_uploader", "to_zarr",
                 "data_editor", "import torch"]  # fmt: skip
    forbidden += ["open(", "write_text", "write_bytes", "mkdir", "unlink", "rmtree", "mkstemp"]
    found = {word for word in forbidden if re.search(rf"(?<!\w){re.escape(word)}", source)}
    assert found == MAY.get(path.name, set())


def test_the_same_verdict_on_several_quantities_is_one_line_and_more_than_a_few_are_one_click_away(
    tmp_path, monkeypatch
):
    folder = write_all_results(write_run(tmp_path / "good"))
    names = ("mean_squared_displacement", "local_exponent")
    verdicts = [{"quantity": name, "status": "untrusted", "en": "Too short.", "zh": "太短。"} for name in names]
    verdicts += [{"quantity": "", "status": "untrusted", "en": f"Reason {i}.", "zh": f"原因 {i}。"} for i in range(4)]
    _edit_result(folder / "results.zarr" / "default" / "diffusion", verdicts=json.dumps(verdicts))
    at = go_to(open_app(tmp_path, monkeypatch, run="good"), "diffusion")
    assert [box.value.count("Too short") for box in at.error] == [1, 0]
    assert [box.value.count("Reason") for box in at.error] == [2, 2]
    assert "more verdicts: 2" in [expander.label for expander in at.expander]


def test_an_overlaid_run_says_its_worst_verdict_and_lends_its_fdt_temperature(tmp_path, monkeypatch):
    for name in ("good", "other"):
        write_all_results(write_run(tmp_path / name))
    bad = [{"quantity": "fdt_temperature", "status": "untrusted", "code": "x", "en": "Far off.", "zh": "相差太远。"}]
    _edit_result(tmp_path / "other" / "results.zarr" / "default" / "response", verdicts=json.dumps(bad))
    drawn = []
    monkeypatch.setattr(temperature, "fdt_thermometer", lambda sources, _: drawn.extend(sources) or [])
    at = go_to(open_app(tmp_path, monkeypatch, run="good", other="other"), "temperature")
    assert {source.run for source in drawn} == {"good", "other"}
    assert any("untrusted" in box.value and "other" in box.value for box in at.error)
    assert any("caution" in box.value and "other" in box.value for box in at.warning)
    alone = go_to(open_app(tmp_path, monkeypatch, run="good"), "temperature")
    assert not alone.error


def test_an_interval_of_a_longer_run_is_let_go(tmp_path, monkeypatch):
    write_run(tmp_path / "short", steps=1000)
    at = open_app(tmp_path, monkeypatch, run="short", steps="5000-6000")
    assert [at.number_input(key=key).value for key in ("first-step", "last-step")] == [0, 999]
    assert "steps" not in at.query_params


@pytest.mark.parametrize("attribute", [{"started": "yesterday"}, {"settings": 3}, {"recorder_seconds": []}])
def test_a_run_with_odd_attributes_breaks_no_page(tmp_path, monkeypatch, attribute):
    folder = write_run(tmp_path / "odd", steps=300)
    write_run(tmp_path / "plain", steps=300)
    _edit_result(folder / "run.zarr", **attribute)
    for page in PAGES:
        assert not go_to(open_app(tmp_path, monkeypatch, run="odd"), page).exception, page


@pytest.mark.parametrize(
    "attribute",
    [{"last_commit": float("nan")}, {"groups": 5}, {"layers": 7}, {"layers": [1, 2]}, {"layers": None},
     {"optimizer": "SGD"}, {"groups": [*GROUPS, "all"]}],
    ids=str,
)  # fmt: skip
def test_a_run_whose_attributes_nobody_can_rely_on_says_so_on_every_page(tmp_path, monkeypatch, attribute):
    folder = write_all_results(write_run(tmp_path / "odd", steps=300))
    write_run(tmp_path / "plain", steps=300)
    _edit_result(folder / "run.zarr", **attribute)
    at = open_app(tmp_path, monkeypatch, run="odd")
    for page in PAGES:
        go_to(at, page)
        assert not at.exception, (page, at.exception[0].stack_trace)
        if page != "new":  # it is about no run
            shown = " ".join(words(at)).replace("\\", "")
            assert "cannot be read" in shown, page
            assert f"an attribute {next(iter(attribute))}" in shown or "groups that cannot be told apart" in shown
            assert str(tmp_path) not in shown


def test_a_formula_with_dollars_stays_text(tmp_path, monkeypatch):
    folder = write_all_results(write_run(tmp_path / "good"))
    formula = "x$$ ![](https://example.org/x.png)"
    _edit_result(folder / "results.zarr" / "default" / "noise", formula=formula)
    at = go_to(open_app(tmp_path, monkeypatch, run="good"), "noise")
    assert formula in [code.value for code in at.code]
    assert not at.latex


def test_the_parts_of_a_formula_are_drawn_one_by_one_and_so_fit_the_page(tmp_path, monkeypatch):
    folder = write_all_results(write_run(tmp_path / "good", steps=300))
    _edit_result(folder / "results.zarr" / "default" / "noise", formula=r"a=b\qquad c=d")
    at = go_to(open_app(tmp_path, monkeypatch, run="good"), "noise")
    assert [part.value.strip("$\n") for part in at.latex] == [r"\;\;a=b\;\;", r"\;\; c=d\;\;"]
