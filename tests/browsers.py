"""A real browser, and a server for it to ask."""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright import sync_api as playwright
from playwright.sync_api import Browser

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser that runs meanwhile, without a window."""
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Watched:
    """A tab of which nothing bad goes unseen: errors on its console, in its scripts, and requests to others."""

    def __init__(self, browser, **settings) -> None:
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.tab = browser.new_page(**{"viewport": {"width": 1200, "height": 900}} | settings)
        self.tab.on("console", lambda said: said.type == "error" and self.wrong.append(said.text))
        self.tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.on("requestfailed", lambda request: self.wrong.append(f"failed: {request.url}"))

    def open(self, base: str, page: str):
        self.asked.clear()
        self.tab.goto("about:blank")
        self.tab.goto(f"{base}/{page}")
        self.ready()
        return self.tab

    def ready(self) -> None:
        """Wait until the page has drawn what was asked of it last."""
        self.tab.wait_for_timeout(50)
        self.tab.wait_for_selector("#main[data-done]")

    def fine(self, base: str) -> None:
        assert self.wrong == []
        assert [url for url in self.asked if not url.startswith((base, "data:", "about:"))] == []
