"""Open every notebook in a real JupyterLab, choose Run All, wait for the verdict, print a table.

    python tools/run_all_in_lab.py [NAME ...]      on the configured experiment, no arguments given

It needs Debian's chromium and the packages of requirements-dev.txt.
"""

import re
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.runs.browser import open_browser, open_page  # noqa: E402
from tests.runs.test_lab import lab_server  # noqa: E402

LIMIT_MS = 600_000
# What is out of sight has no innerText.
PROMPTS = """[...document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt')]
  .map(prompt => prompt.textContent)"""


def run_all(page: object, address: str, name: str) -> tuple[str, str]:
    """Return the verdict's badge and the number of cells that raised."""
    from playwright.sync_api import Page

    assert isinstance(page, Page)
    page.goto(
        f"{address.partition('/lab')[0]}/lab/tree/notebooks/{name}?reset&{address.split('?')[1]}"
    )
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=LIMIT_MS)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    give_up = time.monotonic() + LIMIT_MS / 1000
    # JupyterLab's content policy forbids the function that Playwright would wait with.
    while not all(re.fullmatch(r"\[\d+\]:", one) for one in page.evaluate(PROMPTS)):
        assert time.monotonic() < give_up, f"{name} did not end"
        page.wait_for_timeout(500)
    errors = page.locator(".jp-OutputArea [data-mime-type*=error]").count()
    badges = page.locator(".jp-OutputArea .badge")
    return ((badges.last.text_content() or "none") if badges.count() else "none"), f"{errors}"


def main() -> int:
    """Run the named notebooks, or all of them."""
    names = sys.argv[1:] or [path.stem for path in sorted((ROOT / "notebooks").glob("0*.ipynb"))]
    failed = False
    shots = Path(tempfile.mkdtemp(prefix="pillops-lab-"))
    with (
        tempfile.TemporaryDirectory() as folder,
        lab_server(ROOT, Path(folder)) as address,
        open_browser() as browser,
    ):
        for name in names:
            started = time.perf_counter()
            with open_page(browser) as watched:
                badge, errors = run_all(watched.page, address, f"{name}.ipynb")
                watched.page.screenshot(path=str(shots / f"{name}.png"))
            took = time.perf_counter() - started
            print(f"{name:22} {badge:14} cells that raised: {errors}   {took:.0f} s", flush=True)
            failed = failed or errors != "0" or badge == "none"
    print(f"what each looked like in the end: {shots}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
