"""A headless Chromium that opens the pages of a built site, in a frame of a page of its own, and reports on them."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import pathlib
import queue
import shutil
import subprocess
import tempfile
import threading

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
"""Under what name Chromium may be installed."""
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0")
SCRIPT = pathlib.Path(__file__).with_name("browser.html")
TIMEOUT = 600


def find() -> str | None:
    """The path of the browser; None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def look(site: pathlib.Path, jobs: list[dict]) -> list[dict]:
    """What the browser reports for each job; see browser.html for the kinds of jobs."""
    reports: queue.Queue = queue.Queue()
    handler = functools.partial(Handler, reports, json.dumps(jobs), directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with browser(f"http://127.0.0.1:{server.server_port}{Handler.SCRIPT}"):
                return reports.get(timeout=TIMEOUT)
        finally:
            server.shutdown()


@contextlib.contextmanager
def browser(url: str):
    """A browser that shows a page, with a profile of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [find(), *OPTIONS, f"--user-data-dir={profile}", "--window-size=1400,1000", url]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the site, the script with its jobs, and takes the reports."""

    SCRIPT, JOBS, REPORTS = "/__browser__", "/__jobs__", "/__reports__"

    def __init__(self, reports, jobs, *args, **kwargs):
        self.reports, self.jobs = reports, jobs
        super().__init__(*args, **kwargs)

    def do_GET(self):
        """Answer with the script, its jobs or a file of the site."""
        if self.path == self.SCRIPT:
            self.answer("text/html", SCRIPT.read_bytes())
        elif self.path == self.JOBS:
            self.answer("application/json", self.jobs.encode())
        else:
            super().do_GET()

    def do_POST(self):
        """Take the reports."""
        self.reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.answer("text/plain", b"")

    def answer(self, kind, body):
        """Send a body."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Say nothing."""
