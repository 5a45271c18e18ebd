"""Which Chromium the browser tests take."""

import pytest

pytest.importorskip("playwright")

from browser.server import find_chromium


def test_the_chromium_that_setup_found_comes_first(tmp_path, monkeypatch):
    """It may lie where PATH does not lead; without it one on PATH is taken."""
    program = tmp_path / "chromium"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("THERMODL_CHROMIUM", "/elsewhere/Chromium.app/Contents/MacOS/Chromium")
    assert find_chromium() == "/elsewhere/Chromium.app/Contents/MacOS/Chromium"
    monkeypatch.delenv("THERMODL_CHROMIUM")
    assert find_chromium() == str(program)
