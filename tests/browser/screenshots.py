"""Save a picture of every page in both languages and both themes: `python screenshots.py OUT_DIR RUNS_DIR [RUN]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser.server import PAGES, chromium, open_page, served


def main(out: Path, runs: Path, run: str = "") -> None:
    """Take the pictures."""
    out.mkdir(parents=True, exist_ok=True)
    with served(runs) as address, chromium() as browser:
        for theme in ("light", "dark"):
            page = browser.new_page(color_scheme=theme, viewport={"width": 1280, "height": 900})
            for lang in ("en", "zh"):
                for name in PAGES:
                    open_page(page, f"{address}/{name}?v=1&lang={lang}&run={run}")
                    height = page.evaluate("document.querySelector('[data-testid=stMainBlockContainer]').scrollHeight")
                    page.set_viewport_size({"width": 1280, "height": max(900, int(height) + 80)})
                    page.wait_for_timeout(400)
                    page.screenshot(path=out / f"{name or 'runs'}-{lang}-{theme}.png")
                    page.set_viewport_size({"width": 1280, "height": 900})
            page.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:4])
