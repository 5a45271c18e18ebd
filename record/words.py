"""Words of messages: numbers with their nouns, and commands to type."""

import os
import shlex
import subprocess
from collections.abc import Sequence


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 window`, `2,000 windows`; a plural that is not just an s more is given."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def command_line(words: Sequence[str]) -> str:
    """A command as the shell of this system takes it, quoted where it must be."""
    # cmd.exe takes single quotes for a part of the name.
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
