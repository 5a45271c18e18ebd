"""Words of messages: numbers with their nouns, and commands to type."""

import os
import re
import shlex
from collections.abc import Sequence


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 window`, `2,000 windows`; a plural that is not just an s more is given."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def command_line(words: Sequence[str]) -> str:
    """A command to paste into a POSIX shell, or on Windows into PowerShell; safe whatever the words are."""
    return " ".join(map(_for_powershell, words)) if os.name == "nt" else shlex.join(words)


def _for_powershell(word: str) -> str:
    # Plain names stay bare, which cmd.exe can read as well; PowerShell cuts a bare option at a point or colon.
    if re.fullmatch(r"(?!-.*[.:])[\w+=:./\\-]+", word, re.ASCII):
        return word
    # To PowerShell curly single quotes are single quotes, too.
    doubled = re.sub("(['\u2018-\u201b])", r"\1\1", word)
    return f"'{doubled}'"
