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
    hostile = ["a&calc", "$(calc)", "%PATH%", "a;b", "", "a,b", "@x", "--rate=0.1", "\u2019; calc; \u2018"]
    words = ["thermodl", "view", "my runs/it's; ls", ""]
    assert shlex.split(command_line(words)) == words
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        windows = [command_line(["thermodl", "view", word]) for word in (r"runs\first", r"C:\my runs", "a'b", *hostile)]
    assert windows[:3] == [r"thermodl view runs\first", r"thermodl view 'C:\my runs'", "thermodl view 'a''b'"]
    assert windows[3:] == [f"thermodl view '{word}'" for word in (*hostile[:-1], "\u2019\u2019; calc; \u2018\u2018")]
