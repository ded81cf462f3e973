"""Pictures of a report for the documentation: ``python docs/screenshots.py report.html docs/report``.

Writes ``NAME-light.png``, ``NAME-dark.png`` (the top of the page, 1280 px wide), ``NAME-moments-light.png`` and
``-dark.png`` (the list, its first moment open), ``NAME-training-light.png`` and ``-dark.png`` where there are curves,
and ``NAME-narrow.png`` (400 px wide). Needs Playwright and Chromium:
``pip install -c constraints.txt '.[browser]'`` in a clone, and Debian's ``chromium``.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

COLOURS = 256  # of the palette: keeps a picture below 300 kB


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="an HTML file of timelens report")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--name", default="report", help="how their names begin (default: %(default)s)")
    parser.add_argument("--state", default="", help="filters of the list, as the page's address has them after #")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser (default: %(default)s)")
    args = parser.parse_args()
    if args.chromium is None:
        parser.error("no chromium on this machine: apt-get install chromium, or --chromium PATH")
    args.folder.mkdir(parents=True, exist_ok=True)
    address = args.report.resolve().as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.chromium, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(color_scheme=scheme, viewport={"width": 1280, "height": 860})
            page.goto(f"{address}#{args.state}")
            save(page, args.folder / f"{args.name}-{scheme}.png")
            if page.locator("#training").count():
                page.locator("#training").evaluate("node => node.scrollIntoView()")
                save(page, args.folder / f"{args.name}-training-{scheme}.png")
            page.locator(".sample > button").first.click()
            page.locator("#samples").evaluate("node => node.querySelector('.distribution').open = false")
            page.locator("#samples").evaluate("node => node.scrollIntoView()")
            save(page, args.folder / f"{args.name}-moments-{scheme}.png")
            page.close()
        page = browser.new_page(color_scheme="light", viewport={"width": 400, "height": 900})
        page.goto(address)
        save(page, args.folder / f"{args.name}-narrow.png")
        browser.close()


def save(page: Page, path: Path) -> None:
    """What the window shows, with a reduced palette."""
    page.wait_for_timeout(300)  # pictures and charts
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(COLOURS, kmeans=4, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
