"""The built site, served on this machine alone, and a browser that opens it.

`.ci/docs` builds the site and names its folder in SPARSEHOPFIELD_SITE. Then nothing is skipped: what is missing fails.
"""

import contextlib
import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = os.environ.get("SPARSEHOPFIELD_SITE")
SITE = Path(NAMED or ROOT / "build" / "site").absolute()


def missing(what):
    """Skip where nobody asked for these tests, and fail where `.ci/docs` did."""
    (pytest.fail if NAMED else pytest.skip)(f"{what}: .ci/docs builds the site and runs these tests")


def find_site():
    """Return the folder of the built site."""
    if not (SITE / "search.html").exists():
        missing(f"no site in {SITE}")
    return SITE


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serve(site):
    """Serve a folder to this machine, and yield its address."""
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextlib.contextmanager
def chromium():
    """Start the system's Chromium, without a window."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not there, which the extra docs brings")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        missing("no Chromium is installed")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


class Tab:
    """A page of the browser, and what went wrong in it."""

    def __init__(self, browser, address, width=1280, scheme="light"):
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page.set_default_timeout(120_000)
        self.address, self.wrong = address, []
        self.page.on("console", self.hear)
        self.page.on("pageerror", lambda error: self.wrong.append(f"{self.path}: {error}"))
        self.page.on("requestfailed", self.miss)
        self.page.route("**/*", self.check)

    def hear(self, message):
        if message.type in ("error", "warning"):
            self.wrong.append(f"{self.path}: {message.text}")

    def miss(self, request):
        if request.failure != "net::ERR_ABORTED":  # as when the tab moves on, or `check` said no
            self.wrong.append(f"{self.path}: no {request.url}")

    def check(self, route):
        """Let no request leave this machine."""
        if route.request.url.startswith((self.address, "data:", "blob:")):
            route.continue_()
        else:
            self.wrong.append(f"{self.path}: asks for {route.request.url}")
            route.abort()

    def open(self, path):
        self.path = path
        self.page.goto(self.address + path, wait_until="load")
        return self.page

    def value(self, script):
        return self.page.evaluate(script)
