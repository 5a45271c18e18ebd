"""Words of messages."""

import os
import shlex

import pytest

from thermodl.record.words import command_line, counted


def test_one_is_no_plural() -> None:
    assert counted(1, "stretch", "stretches") == "1 stretch"
    assert counted(2000, "stretch", "stretches") == "2,000 stretches"
    assert counted(0, "step") == "0 steps"


def test_a_command_comes_back_from_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["thermodl", "view", "my runs/it's; ls", ""]
    assert shlex.split(command_line(words)) == words
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        windows = command_line(["thermodl", "view", r"C:\my runs"]), command_line(["thermodl", "view", r"runs\first"])
    assert windows == (r'thermodl view "C:\my runs"', r"thermodl view runs\first")
