"""Take the README's pictures of a run, figures/{demo.svg,report.png,explorer.png}: python docs/pictures.py RUN.

Needs Chromium and the packages of the extra `dev`. The run's report is written anew.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from refusal import figures
from refusal.records import read_json, write_text
from refusal.report import write_report

PICTURES = Path(__file__).resolve().parent / "figures"
WHOLE = (
    "document.querySelector('#strips .token') && "
    "![...document.querySelectorAll('#answers .answer')].some((a) => a.getAttribute('aria-busy') === 'true')"
)


def main(run: Path) -> None:
    """Draw the headline of a run, and take the pictures of its report and of what `make explore` opens."""
    write_text(PICTURES / "demo.svg", figures.headline(read_json(run / "results.json")))
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        take(browser, write_report(run).as_uri(), "report.png", size=(1240, 1480), colours=256)
        with explorer() as url:
            take(browser, url, "explorer.png", size=(1280, 1010), colours=256, ready=WHOLE)
        browser.close()


def take(browser: Browser, url: str, name: str, *, size: tuple[int, int], colours: int, ready: str = "true") -> None:
    """Write the picture of a page, once it is `ready`, in at most so many colours."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme="light")
    page.goto(url)
    page.wait_for_timeout(1000)
    page.wait_for_function(ready, timeout=120_000)
    page.screenshot(path=PICTURES / name)
    Image.open(PICTURES / name).convert("RGB").quantize(colours).save(PICTURES / name, optimize=True)


@contextmanager
def explorer() -> Iterator[str]:
    """Serve the explorer of the bundled model on a free port; its direction is found anew."""
    words = [sys.executable, "-m", "refusal", "explore", "--port", "0"]
    with TemporaryDirectory() as here, subprocess.Popen(words, cwd=here, stderr=subprocess.PIPE, text=True) as serving:
        assert serving.stderr is not None
        try:
            yield next(line.split()[1] for line in serving.stderr if line.startswith("Explorer: "))
        finally:
            serving.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
