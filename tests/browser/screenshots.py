"""Pictures of every page in both languages, for people to look at.

`python screenshots.py OUT_DIR RUNS_DIR [RUN [OTHER_RUN]]` saves every page in both themes; with `--sheet` it saves, as
`contact-sheet-en.png` and `contact-sheet-zh.png`, one small picture of each on one sheet. Chinese pages need a Chinese
font on this computer.
"""

import io
import math
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser.server import PAGES, chromium, open_page, served

WIDTH = 1200
_COLUMNS, _THUMBNAIL, _TALLEST, _GAP = 5, 380, 640, 12


def main(out: Path, runs: Path, run: str = "", other: str = "", *, sheet: bool = False) -> None:
    """Take the pictures."""
    out.mkdir(parents=True, exist_ok=True)
    with served(runs) as address, chromium() as browser:
        for theme in ("light",) if sheet else ("light", "dark"):
            page = browser.new_page(color_scheme=theme, viewport={"width": WIDTH, "height": 900})
            for lang in ("en", "zh"):
                pictures = []
                for name in PAGES:
                    open_page(page, f"{address}/{name}?v=1&lang={lang}&run={run}&other={other}")
                    pictures.append(_picture(page))
                    if not sheet:
                        pictures[-1].save(out / f"{name or 'runs'}-{lang}-{theme}.png")
                if sheet:
                    _on_one_sheet(pictures).save(out / f"contact-sheet-{lang}.png", optimize=True)
            page.close()


def _picture(page: Page) -> Image.Image:
    """The whole page, however long."""
    height = page.evaluate("document.querySelector('[data-testid=stMainBlockContainer]').scrollHeight")
    page.set_viewport_size({"width": WIDTH, "height": max(900, int(height) + 80)})
    page.wait_for_timeout(800)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.set_viewport_size({"width": WIDTH, "height": 900})
    return picture


def _on_one_sheet(pictures: list[Image.Image]) -> Image.Image:
    """Small pictures in rows, cut where a page goes on for long, in 256 colours."""
    small = [picture.resize((_THUMBNAIL, round(picture.height * _THUMBNAIL / picture.width))) for picture in pictures]
    small = [picture.crop((0, 0, _THUMBNAIL, min(picture.height, _TALLEST))) for picture in small]
    rows = math.ceil(len(small) / _COLUMNS)
    across, down = _THUMBNAIL + _GAP, _TALLEST + _GAP
    sheet = Image.new("RGB", (_COLUMNS * across + _GAP, rows * down + _GAP), "#d0d0d0")
    for index, picture in enumerate(small):
        row, column = divmod(index, _COLUMNS)
        sheet.paste(picture, (column * across + _GAP, row * down + _GAP))
    return sheet.quantize(256)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--sheet"]
    main(Path(words[0]), Path(words[1]), *words[2:4], sheet="--sheet" in sys.argv)
