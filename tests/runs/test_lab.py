"""JupyterLab itself: started, a notebook opened, Run All, the verdict on screen."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from opslib.runs.lab import LANDING
from tests.runs.browser import open_browser, open_page
from tests.runs.makers import make_project, publish_cell
from tests.waiting import await_that

ROOT = Path(__file__).resolve().parents[2]
WAIT_MS = 150_000


@contextmanager
def lab_server(project: Path, folder: Path) -> Iterator[str]:
    """Start `pillops lab` on a free port with its own settings; yield the address it prints."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {name: str(folder / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")}
    own |= {f"JUPYTERLAB_{name}_DIR": str(folder / name) for name in ("SETTINGS", "WORKSPACES")}
    arguments = ["--no-browser", "--port", str(port), "--config", str(project / "config.yaml")]
    command = [sys.executable, "-m", "opslib.cli", "lab", *arguments]
    found = re.compile(rf"http://localhost:{port}/\S*token=\w+")
    log = folder / "lab.log"  # a pipe that nobody reads would fill up and hold the server up
    with log.open("wb") as sink:
        server = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **own}, stderr=sink)
    try:
        await_that(lambda: found.search(log.read_text()), "the server's address", 60)
        yield found.findall(log.read_text())[0]
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(10)


@pytest.mark.chromium
def test_run_all_in_jupyterlab_shows_the_verdict_however_often(tmp_path: Path) -> None:
    """Saving it changes nothing in the file: what a run found belongs into a report."""
    project = tmp_path / "project"
    make_project(project, publish_cell())
    (project / LANDING).write_text((ROOT / LANDING).read_text())
    with (
        lab_server(project, tmp_path) as address,
        open_browser() as browser,
        open_page(browser) as watched,
    ):
        page = watched.page
        page.goto(address)
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=WAIT_MS)
        assert page.locator(".jp-Notebook h1").inner_text().startswith("Can I start?")
        # What is asked of a kernel that is not there yet may be forgotten.
        ready = ".jp-Notebook-ExecutionIndicator[data-status=idle]"
        page.locator(ready).first.wait_for(timeout=WAIT_MS)
        for last in (6, 12):
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_text("Run All Cells", exact=True).click()
            count = f"[{last}]:"
            page.locator(".jp-InputPrompt").get_by_text(count).wait_for(timeout=WAIT_MS)
        before = (project / LANDING).stat().st_mtime_ns
        page.get_by_role("menuitem", name="File", exact=True).click()
        page.get_by_text("Save Notebook", exact=True).click()
        give_up = time.monotonic() + WAIT_MS / 1000
        expected = (ROOT / LANDING).read_text()
        while time.monotonic() < give_up and (
            (project / LANDING).stat().st_mtime_ns == before
            or (project / LANDING).read_text() != expected  # it is being written
        ):
            page.wait_for_timeout(50)
        assert (project / LANDING).stat().st_mtime_ns > before
        assert (project / LANDING).read_text() == expected
        badge = page.locator(".jp-OutputArea .badge.inconclusive")
        assert badge.inner_text() == "Inconclusive"
        assert (
            page.get_by_text("make the demo with pillops demo")
            .or_(page.get_by_text("make the demo with `pillops demo`"))
            .first.is_visible()
        )
        assert page.get_by_text("Does the toy work?").first.is_visible()
        assert page.locator(".jp-OutputArea [data-mime-type*=error]").count() == 0
        outputs = page.locator(".jp-OutputArea-output").all_inner_texts()
        assert not [text for text in outputs if "mimetype" in text.lower().replace(" ", "")]
