"""Takes the pictures of the page for the documents: docs/images/page*.png. Not a test; it needs Debian's chromium,
and a font with Chinese characters.

Usage: python serve.py --weights static.pt dynamic.pt --imgsz 384 &
       python tests/page_pictures.py [--address http://127.0.0.1:8000] [--picture another.jpg]
"""

import argparse
import shutil
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
VIEWS = {
    "page": {"viewport": {"width": 1280, "height": 800}, "locale": "en-US", "color_scheme": "light"},
    "page-dark": {"viewport": {"width": 1280, "height": 800}, "locale": "zh-CN", "color_scheme": "dark"},
    "page-phone": {"viewport": {"width": 360, "height": 780}, "locale": "en-US", "is_mobile": True, "has_touch": True},
}


def take(browser: object, address: str, name: str, *, picture: Path | None, folder: Path) -> Path:
    """One picture of the page, with the sample or another picture in it. Returns its file."""
    context = browser.new_context(**VIEWS[name])
    page = context.new_page()
    page.goto(address)
    if picture:
        page.set_input_files("#files", picture)
    else:
        page.locator("#sample").click()
    page.locator("body:not(.working) .pane:last-child[data-state=done]").wait_for()
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)  # the last redraw
    file = folder / f"{name}.png"
    page.screenshot(path=file, full_page="phone" not in name)
    context.close()
    small = Image.open(file).convert("RGB").quantize(256, kmeans=2)  # else small parts lose their colours
    small.save(file, optimize=True)  # a third of the size
    return file


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="http://127.0.0.1:8000", help="where serve.py listens")
    parser.add_argument("--picture", type=Path, help="a picture instead of the sample")
    parser.add_argument("--folder", type=Path, default=IMAGES, help="where the pictures go")
    opt = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name in VIEWS:
            file = take(browser, opt.address, name, picture=opt.picture, folder=opt.folder)
            print(f"{file}: {file.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
