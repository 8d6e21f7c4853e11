"""Photograph pages of the built site at two widths, light and dark, with a headless browser.

    python -m tools.docs_shots [FOLDER]

The default folder is docs-shots. `make docs` builds the site first.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "site"
BROWSERS = ("chromium", "google-chrome")
PAGES = ("index", "regions", "api/regions", "drop-ins", "benchmarks")
# a desktop and a phone, in CSS pixels
SIZES = ((1440, 2400), (390, 2600))


def main(folder: Path) -> int:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"docs_shots: install one of the browsers {', '.join(BROWSERS)}")
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    for page in PAGES:
        for theme in ("light", "dark"):
            for width, height in SIZES:
                target = folder / f"{page.replace('/', '-')}-{width}-{theme}.png"
                _photograph(browser, page, theme, width, height, target)
                print(target)
    return 0


def _photograph(browser: str, page: str, theme: str, width: int, height: int, target: Path) -> None:
    """The page in a frame of that width: browsers do not open windows as narrow as a phone."""
    frame = (
        f'<body style="margin:0"><iframe src="{(SITE / page).as_uri()}.html" style="border:0;'
        f'width:{width}px;height:{height}px"></iframe>'
    )
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "frame.html").write_text(frame)
        # for the preference of the system, which the site follows
        dark = ("--blink-settings=preferredColorScheme=0",) if theme == "dark" else ()
        # without a sandbox, which root does not have in a container
        subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                "--virtual-time-budget=4000", f"--user-data-dir={scratch}/profile", *dark,
                f"--window-size={max(width, 500)},{height}", f"--screenshot={target}",
                f"{scratch}/frame.html",
            ],
            check=True, capture_output=True,
        )  # fmt: skip
    with Image.open(target) as image:
        image.crop((0, 0, width, height)).save(target)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs-shots"))
