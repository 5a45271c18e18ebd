"""Settings: the id is that of their content, and a mistake is named."""

import hashlib
import json
from pathlib import Path

import pytest

from thermodl.record.settings import RunSettings, SettingsError, assign, check_name, make_settings, read_toml


def test_the_id_is_that_of_the_content(tmp_path: Path) -> None:
    """Order and source do not matter, every value does."""
    file = tmp_path / "a.toml"
    file.write_text("[recorder]\nprobe_every = 10\nsketch_size = 64\n", "utf-8")
    one = make_settings(read_toml(file))
    two = make_settings({"recorder": {"sketch_size": 64, "probe_every": 10}, "steps": RunSettings().steps})
    assert one.run_id() == two.run_id()
    assert one.run_id() != make_settings({"recorder": {"sketch_size": 64}}).run_id()
    # They came after the first recordings, whose ids must stay.
    older = one.model_dump()
    for later in (
        "products_every",
        "snapshot_tolerance",
        "curvature_every",
        "per_sample_every",
        "max_overhead",
        "max_bytes",
    ):
        del older["recorder"][later]
    assert one.run_id() == hashlib.sha256(json.dumps(older, sort_keys=True).encode()).hexdigest()[:16]
    for later in ({"products_every": 2}, {"snapshot_tolerance": 0.1}, {"max_overhead": 0.1}, {"max_bytes": "2GB"}):
        assert one.run_id() != make_settings(older | {"recorder": older["recorder"] | later}).run_id()


@pytest.mark.parametrize(
    ("table", "rate"),
    [
        ({}, 0.05),
        ({"optimizer": "SGD"}, 0.05),
        ({"optimizer": "Adam"}, 0.001),
        ({"optimizer": "AdamW", "steps": 5}, 0.001),
        ({"optimizer": "Adam", "learning_rate": 0.05}, 0.05),
    ],
)
def test_the_default_learning_rate_is_that_of_the_optimizer(table: dict, rate: float) -> None:
    """Written down like any other, so that a kept table says the same later."""
    settings = make_settings(table)
    assert settings.learning_rate == settings.model_dump()["learning_rate"] == rate
    assert make_settings(settings.model_dump()) == settings


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"lerning_rate": 0.1}, r"unknown setting 'lerning_rate'; did you mean 'learning_rate'\?"),
        ({"recorder": {"probe_evry": 1}}, r"unknown setting 'recorder.probe_evry'; did you mean 'probe_every'\?"),
        ({"learning_rate": -1}, "learning_rate = -1: input should be greater than 0"),
        ({"sampling": "both"}, "sampling = 'both': input should be 'shuffle' or 'replacement'"),
        ({"steps": "many"}, "steps = 'many': input should be a valid integer"),
    ],
)
def test_a_mistake_is_named(table: dict, message: str) -> None:
    """The key, what came and what is allowed."""
    with pytest.raises(SettingsError, match=message):
        make_settings(table)


def test_assignments() -> None:
    """TOML values, plain text, nested keys; no equals sign is a mistake."""
    table: dict = {}
    for text in ("steps=10", "recorder.probe_every=5", "data=my.module:load", "clip_norm=0.5"):
        assign(table, text)
    assert table == {"steps": 10, "recorder": {"probe_every": 5}, "data": "my.module:load", "clip_norm": 0.5}
    with pytest.raises(SettingsError, match="key=value"):
        assign(table, "steps")


@pytest.mark.parametrize(
    "name", ["../x", "", "a/b", ".hidden", "-x", "a\n", "a" * 200, "实" * 100, "con", "a.", "a ", "a:b"]
)
def test_names_that_are_no_names(name: str) -> None:
    """A run's name is a plain file name."""
    with pytest.raises(SettingsError, match="cannot be a run's name"):
        check_name(name)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing and malformed files."""
    with pytest.raises(SettingsError, match="cannot be read"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("steps = = 3", "utf-8")
    with pytest.raises(SettingsError, match="not valid TOML"):
        read_toml(tmp_path / "bad.toml")
