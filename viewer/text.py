"""Words in two languages, and numbers with their errors."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

MISSING = "—"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_UNIT_WORDS = {"loss": "损失", "parameter": "参数", "step": "步", "epoch": "轮"}


class Text(NamedTuple):
    """One text in both languages; leaving one out is a type error."""

    en: str
    zh: str

    def __call__(self, lang: str) -> str:
        return self.zh if lang == "zh" else self.en

    def fill(self, **values: object) -> "Text":
        """The text with its `{placeholders}` filled in, in both languages."""
        return Text(self.en.format(**values), self.zh.format(**values))


UNRESOLVED = Text("{value} (unresolved)", "{value}（未分辨）")
COLON = Text(": ", "：")


def attribute(attrs: Mapping[Any, Any], name: str, lang: str) -> str:
    """The attribute `name` in the language asked for (`name_zh` for Chinese), else the English one, else ''."""
    chosen = attrs.get(f"{name}_zh") if lang == "zh" else None
    return str(chosen or attrs.get(name, ""))


def unit(units: str, lang: str) -> str:
    """A unit for people: `loss2 parameter-2` becomes `loss² parameter⁻²`; nothing for the unit 1."""
    if units in ("", "1"):
        return ""
    words = (re.fullmatch(r"([^\d-]+)(-?\d+(?:/\d+)?)?", word) for word in units.split())
    parts = [(_UNIT_WORDS.get(m[1], m[1]) if lang == "zh" else m[1], m[2] or "") for m in words if m]
    # There is no raised stroke of fractions.
    raised = (f"^({power.replace('-', '−')})" if "/" in power else power.translate(_SUPERSCRIPTS) for _, power in parts)
    return " ".join(word + power for (word, _), power in zip(parts, raised, strict=True))


def quantity_title(attrs: Mapping[Any, Any], lang: str) -> str:
    """Name and unit of a variable, as on an axis: `noise temperature (loss)`."""
    name, units = attribute(attrs, "long_name", lang), unit(str(attrs.get("units", "1")), lang)
    # `mini-batch loss (loss)` says nothing that `mini-batch loss` does not.
    return f"{name} ({units})" if units and not name.endswith(units) else name


def sentence_case(name: str) -> str:
    """A name as a title: `mini-batch loss` becomes `Mini-batch loss`; symbols stay as they are."""
    return name[:1].upper() + name[1:] if name[:2].isascii() and name[:2].isalpha() else name


def number(value: float, digits: int = 4) -> str:
    """A number without an error; a value that is not defined is shown as a dash."""
    if not math.isfinite(value):
        return MISSING
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    return f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPTS)}" if exponent else mantissa


def is_resolved(value: float, stderr: float | None) -> bool:
    """Whether the error is known and smaller than the value; a quantity that has none (None) is exact."""
    return stderr is None or stderr <= 0 or stderr < abs(value)


def with_error(value: float, stderr: float | None = None, lang: str = "en") -> str:
    """A value with its standard error in units of the last digit: `1.23(4)`.

    One digit of the error is shown, two if the first is 1. A value whose error is not known (NaN) or as large as
    itself is marked as unresolved; without an error (None) it stands alone.
    """
    if not math.isfinite(value):
        return MISSING
    text = _with_error(value, stderr) if stderr and math.isfinite(stderr) and stderr > 0 else number(value)
    return text if is_resolved(value, stderr) else UNRESOLVED.fill(value=text)(lang)


def _with_error(value: float, stderr: float) -> str:
    exponent = math.floor(math.log10(max(abs(value), stderr)))
    power = exponent if exponent < -3 or exponent >= 5 else 0
    value, stderr = value / 10.0**power, stderr / 10.0**power
    place = math.floor(math.log10(stderr))
    digits = max(0, -place + (stderr / 10.0**place < 2))
    text = f"{value:.{digits}f}({round(stderr * 10**digits)})"
    return f"{text}×10{str(power).translate(_SUPERSCRIPTS)}" if power else text


def escape_markdown(text: str) -> str:
    """Untrusted text, such as a run's name, for places where Streamlit reads Markdown."""
    # Addresses are made links in the finished text, where nothing is escaped any more: a word joiner, which has no
    # width, keeps them from being any.
    text = re.sub(r"(www(?=\.)|https?:(?=//)|@)", "\\1\u2060", text, flags=re.IGNORECASE)
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|<>$:~^])", r"\\\1", text).replace("\n", " ")
