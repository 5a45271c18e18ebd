"""Numbers with errors, units and escaping."""

import math
import re

import pytest

from thermodl.viewer.text import escape_markdown, quantity_title, unit, with_error


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (1.2345, 0.04, "1.23(4)"),
        (1.2345, 0.014, "1.234(14)"),
        (-0.5, 0.2, "-0.5(2)"),
        (1234.5, 56.0, "1234(56)"),
        (2.1e-5, 6e-7, "2.10(6)×10⁻⁵"),
        (0.0, 3e-8, "0(3)×10⁻⁸ (unresolved)"),
        (1.012, math.inf, "1.012 (unresolved)"),
        (-0.1, 0.1, "-0.10(10) (unresolved)"),
        (1.0, 0.0096, "1.000(10)"),
        (3.0, math.nan, "3 (unresolved)"),
        (3.0, None, "3"),
        (1e-13, 0.0, "1×10⁻¹³"),
        (math.nan, 0.1, "—"),
        (math.inf, math.nan, "—"),
    ],
)
def test_an_error_stands_in_units_of_the_last_digit(value, stderr, text):
    assert with_error(value, stderr) == text
    assert with_error(value, stderr, "zh") == text.replace(" (unresolved)", "（未分辨）")


def test_units_are_written_for_people_in_both_languages():
    assert unit("loss2 parameter-2", "en") == "loss² parameter⁻²"
    assert unit("loss2 parameter-2", "zh") == "损失² 参数⁻²"
    assert unit("parameter loss-1/2", "en") == "parameter loss^(−1/2)"
    assert unit("1", "en") == ""


def test_a_title_repeats_no_unit_that_ends_the_name():
    attrs = {"long_name": "mini-batch loss", "long_name_zh": "小批量损失", "units": "loss"}
    assert quantity_title(attrs, "en") == "mini-batch loss"
    assert quantity_title({**attrs, "long_name": "temperature"}, "en") == "temperature (loss)"


def test_markdown_of_a_hostile_name_is_inert():
    escaped = escape_markdown("[click](http://x) :red[a] $x$ <b> `c`")
    assert all(f"\\{mark}" in escaped for mark in "[]():$<>`")


@pytest.mark.parametrize(
    "text", ["www.example.org", "WWW.example.org", "see http://example.org", "https://x", "me@example.org"]
)
def test_what_looks_like_an_address_is_no_link(text):
    """In the finished text, without the backslashes, where links are looked for."""
    finished = escape_markdown(text).replace("\\", "")
    assert not re.search(r"https?://|www\.|[-.\w+]+@[-\w]", finished, re.IGNORECASE)
    assert finished.replace("\u2060", "") == text
