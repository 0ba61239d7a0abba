"""Debian's Chromium, driven by ChromeDriver: what a page looks like on a screen, what it asks for and complains of."""

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from selenium import webdriver
from selenium.webdriver.chrome.remote_connection import ChromeRemoteConnection

from tests.support.guarded import Guarded
from tests.support.waiting import wait_until

CHROMIUM: Final = shutil.which("chromium")
DRIVER: Final = shutil.which("chromedriver")
"""Debian's, where `make extras` has installed them; None without."""

FLAGS: Final = (
    *("--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-quic", "--disable-dev-shm-usage"),
    # Whatever a page asks for elsewhere fails at once, and is complained of.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


class Screen(NamedTuple):
    """What is emulated: CSS pixels, device pixels for each, and whether it is a hand-held device's."""

    width: int
    height: int
    ratio: float
    mobile: bool


DESKTOP: Final = Screen(1280, 800, 1.0, mobile=False)
PHONE: Final = Screen(390, 844, 3.0, mobile=True)

LOOK: Final = """
const width = document.documentElement.clientWidth;
const scrolls = element => ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
const within = element => element && (scrolls(element) || within(element.parentElement));
const cut = [...document.querySelectorAll("article *")].filter(
    element => element.getBoundingClientRect().right > width + 1 && !within(element.parentElement)
        && element.checkVisibility({visibilityProperty: true}));
return {
    title: document.title,
    heading: document.querySelector("h1").firstChild.textContent.trim(),
    width: width,
    content: document.scrollingElement.scrollWidth,
    cut: cut.map(element => element.outerHTML.slice(0, 120)),
};
"""


@dataclass(frozen=True)
class Seen:
    """A page as it was seen.

    Attributes:
        title, heading: the window's and the page's own.
        width, content: how wide the screen is, and what is on it, in CSS pixels.
        cut: elements that reach beyond the screen and scroll in nothing.
        requests: all URLs that a network was asked for.
        complaints: what the console says in earnest.
    """

    title: str
    heading: str
    width: int
    content: int
    cut: list[str]
    requests: list[str]
    complaints: list[str]


class Browser:
    """One that runs."""

    def __init__(self, driver: webdriver.Remote) -> None:
        self._driver = driver

    def look(self, url: str, screen: Screen) -> Seen:
        """Load a page on a screen of that kind, and look at it once it is loaded."""
        self._emulate(screen)
        self._driver.get(url)
        seen: dict[str, Any] = self._driver.execute_script(LOOK)
        complaints = [entry["message"] for entry in self._log("browser") if entry["level"] == "SEVERE"]
        return Seen(**seen, requests=list(self._requests()), complaints=complaints)

    def picture(self, file: Path) -> None:
        """Write what is on the screen now to a PNG."""
        self._driver.get_screenshot_as_file(str(file))

    def _emulate(self, screen: Screen) -> None:
        metrics = {"width": screen.width, "height": screen.height, "deviceScaleFactor": screen.ratio}
        self._command("Emulation.setDeviceMetricsOverride", {**metrics, "mobile": screen.mobile})
        self._command("Emulation.setTouchEmulationEnabled", {"enabled": screen.mobile})

    def _command(self, name: str, parameters: dict[str, Any]) -> None:
        self._driver.execute("executeCdpCommand", {"cmd": name, "params": parameters})

    def _log(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._driver.execute("getLog", {"type": kind})["value"]
        return found

    def _requests(self) -> Iterator[str]:
        for entry in self._log("performance"):
            message = json.loads(entry["message"])["message"]
            url = ""
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
            if message["method"] == "Network.webSocketCreated":
                url = message["params"]["url"]
            if url.startswith(("http", "ws")):  # other schemes ask no network: what is in the page, or in the browser
                yield url


@contextmanager
def running(folder: Path) -> Iterator[Browser]:
    """Run one for as long as the context lasts; its files go to `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {**os.environ, "TMPDIR": str(folder), "HOME": str(folder)}
    with (folder / "chromedriver.log").open("wb") as log:
        process = Guarded([DRIVER or "chromedriver", f"--port={port}"], output=log, env=environ)
        try:
            wait_until(lambda: _listens(port), what="ChromeDriver listens")
            driver = webdriver.Remote(ChromeRemoteConnection(f"http://127.0.0.1:{port}"), options=_options(folder))
            try:
                yield Browser(driver)
            finally:
                driver.quit()
        finally:
            process.end(grace=5)


def _listens(port: int) -> bool:
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) == 0


def _options(folder: Path) -> webdriver.ChromeOptions:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or "chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Root's processes cannot be put into the sandbox.
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}", *(["--no-sandbox"] if os.geteuid() == 0 else [])):
        options.add_argument(flag)
    return options
