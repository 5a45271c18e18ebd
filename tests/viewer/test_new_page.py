"""The page that composes a recording: what is typed arrives in the command, and what is wrong is said."""

import shlex
import tomllib

import pytest
from viewer.synthetic import write_run
from viewer.test_app import go_to, open_app, words

from thermodl.record.settings import make_settings
from thermodl.viewer.pages import layout, new


def _page(root, monkeypatch, **query):
    return go_to(open_app(root, monkeypatch, **query), "new")


def _rerun(at):
    at.run()
    return go_to(at, "new")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_what_is_typed_arrives_in_command_and_file(tmp_path, monkeypatch, lang):
    at = _page(tmp_path, monkeypatch, lang=lang)
    at.selectbox(key="new-sampling").set_value("replacement")
    for key, text in (("learning_rate", "1e-3"), ("probe_every", "log:10"), ("snapshot_every", "0, 10"),
                      ("max_bytes", "2GB"), ("name", "mine")):  # fmt: skip
        at.text_input(key=f"new-{key}").set_value(text)
    at = go_to(at, "new")
    assert not at.exception
    command, file = (code.value for code in at.code[-2:])
    wanted = make_settings(
        {"sampling": "replacement", "learning_rate": 1e-3,
         "recorder": {"probe_every": "log:10", "snapshot_every": [0, 10], "max_bytes": 2 * 10**9}}
    )  # fmt: skip
    table = tomllib.loads(file)
    assert table.pop("name") == "mine"
    assert make_settings(table) == wanted
    assert shlex.split(command)[:6] == ["thermodl", "record", "--name", "mine", "--runs-dir", str(tmp_path)]
    # Nothing was recorded before, so only a dry run knows the time.
    assert at.code[0].value == f"{command} --dry-run"


@pytest.mark.parametrize(
    ("key", "text"),
    [("learning_rate", "-1"), ("steps", "many"), ("probe_every", "now"), ("max_bytes", "2 apples"), ("name", "../x"),
     ("momentum", ""), ("batch_size", "1.5"), ("sketch_size", "**x**")],
)  # fmt: skip
def test_what_is_wrong_is_said_and_gives_no_command(tmp_path, monkeypatch, key, text):
    at = _page(tmp_path, monkeypatch)
    at.text_input(key=f"new-{key}").set_value(text)
    at = go_to(at, "new")
    assert not at.exception
    assert "not valid" in at.error[0].value
    assert not at.code


def test_the_learning_rate_follows_the_optimizer_until_one_is_typed(tmp_path, monkeypatch):
    at = _page(tmp_path, monkeypatch)
    for optimizer, typed, shown in (
        ("Adam", None, "0.001"),
        ("SGD", None, "0.05"),
        ("SGD", "0.3", "0.3"),
        ("Adam", None, "0.3"),
    ):
        at.selectbox(key="new-optimizer").set_value(optimizer)
        if typed:
            at.text_input(key="new-learning_rate").set_value(typed)
        at = go_to(at, "new")
        assert not at.exception
        assert at.text_input(key="new-learning_rate").value == shown
        assert ("--learning-rate" in at.code[-2].value) == (shown == "0.3")


def test_a_recorded_run_is_a_start_and_an_unknown_model_is_asked_for(tmp_path, monkeypatch):
    write_run(tmp_path / "old", learning_rate=0.02)
    at = _page(tmp_path, monkeypatch)
    at.selectbox(key="new-base").set_value("old")
    at = go_to(at, "new")
    assert "--learning-rate 0.02" in at.code[-2].value
    assert "parameters\\: 105,866" in " ".join(words(at))
    at.selectbox(key="new-model").set_value("resnet18")
    at = go_to(at, "new")
    assert not at.exception
    at.number_input(key="new-size_parameters").set_value(1000)
    at = go_to(at, "new")
    assert "parameters\\: 1,000, layers\\: 60, groups\\: 10 \\(as given above\\)" in " ".join(words(at))


def test_a_link_to_a_composed_recording_shows_it_in_either_language(tmp_path, monkeypatch):
    """What was typed is in the address and nowhere else; another start begins anew, and nonsense does no harm."""
    write_run(tmp_path / "old", learning_rate=0.02)
    at = _page(tmp_path, monkeypatch, base="old")
    for key, text in (("probe_every", "log:10"), ("name", "mine & yours?"), ("name", "mine")):
        at.text_input(key=f"new-{key}").set_value(text)
        at = go_to(at, "new")
    at.selectbox(key="new-sampling").set_value("replacement")
    at.selectbox(key="new-model").set_value("resnet18")
    at = go_to(at, "new")
    at.number_input(key="new-size_layers").set_value(7)
    at = go_to(at, "new")
    query = dict(at.query_params)
    for lang in ("en", "zh"):
        linked = _page(tmp_path, monkeypatch, **{**query, "lang": lang})
        assert not linked.exception
        assert linked.code[-2].value == at.code[-2].value
        assert linked.number_input(key="new-size_layers").value == 7
    assert all(word in at.code[-2].value for word in ("log:10", "resnet18", "replacement", "0.02"))
    at.selectbox(key="new-base").set_value("")
    at = go_to(at, "new")
    assert "entries" not in at.query_params
    assert at.code[-2].value.split()[:4] == ["thermodl", "record", "--name", "new"]
    own = _page(tmp_path, monkeypatch, entries="model=package.module%3Amake&size_parameters=1000")
    assert "--model package.module:make" in own.code[-2].value
    for entries in ("&&&=", "size_layers=x&model=resnet18", "sampling=none&steps=" + "9" * 500, "%ff%00=%zz"):
        assert not _page(tmp_path, monkeypatch, base="gone", entries=entries).exception


@pytest.mark.parametrize(
    ("count", "shown"),
    [(999, "0.999 kB"), (999_999_999, "1 GB"), (1_500_000_000_000, "1.5 TB"), (2_340_000, "2.34 MB")],
)
def test_bytes_for_people(count, shown):
    assert layout.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(90, "90 s"), (105 * 60, "105 min"), (3 * 3600, "3 h"), (150, "2.5 min")]
)
def test_times_for_people(seconds, shown):
    assert new._duration(seconds) == shown
