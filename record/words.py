"""Words that go with numbers in messages."""


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 window`, `2,000 windows`; a plural that is not just an s more is given."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
