"""The docs as a site: what `make docs` makes of the pages, that it finds what leads nowhere, and how it looks."""

import importlib.util
import re
import threading
import tomllib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from tests.support import browser
from tests.support.browser import DESKTOP, PHONE, Browser, Screen
from tests.unit import script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    return script.load("docs")


@pytest.mark.rule("OBS-29")
@pytest.mark.parametrize("page", ["resource.md", "plugin.md"])
def test_a_reference_that_is_made_of_the_code_is_current(docs: ModuleType, page: str) -> None:
    assert (docs.REFERENCE / page).read_text() == docs.made()[page], "run `make reference`"


@pytest.mark.rule("OBS-29")
def test_each_page_is_in_the_navigation_or_linked_from_one_that_is() -> None:
    """Decisions and runbooks have a page that lists them."""
    nav = (ROOT / "docs" / "zensical.toml").read_text()
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    listed = {page for page in pages if page.startswith(("decisions/0", "runbooks/Tuinly"))}
    assert [page for page in sorted(pages - listed) if f'"{page}"' not in nav] == []


@pytest.mark.rule("OBS-29")
@pytest.mark.parametrize(
    ("source", "link", "moved"),
    [
        ("README.md", "docs/image.md#x", "image.md#x"),
        ("README.md", "LICENSE", "files/LICENSE"),
        ("docs/installing.md", "../README.md#install", "index.md#install"),
        ("docs/installing.md", "../deploy/install.yaml", "files/deploy/install.yaml"),
        ("docs/runbooks/README.md", "../reference/reasons.md", "../reference/reasons.md"),
        ("docs/image.md", "https://example.com/a", "https://example.com/a"),
    ],
)
def test_a_link_follows_its_page(docs: ModuleType, tmp_path: Path, source: str, link: str, moved: str) -> None:
    page = tmp_path / docs.PAGES.get(source, source.removeprefix("docs/"))
    found = docs.LINK.search(f"[text]({link})")
    assert docs.moved(ROOT / source, page, tmp_path, found) == moved
    assert (page.parent / re.sub("#.*", "", moved)).exists() == moved.startswith("files/")


@pytest.mark.rule("OBS-29")
@pytest.mark.parametrize(
    ("html", "slip"),
    [
        ('<a href="b.html#here">', ""),
        ('<a href="https://example.com/">', ""),
        ('<link rel="canonical" href="https://example.com/">', ""),
        ('<a href="c.html">', "a.html: c.html leads nowhere"),
        ('<a href="b.html#there">', "a.html: b.html#there leads nowhere"),
        ('<a href="#nowhere">', "a.html: #nowhere leads nowhere"),
        ('<script src="https://example.com/x.js">', "a.html: loads https://example.com/x.js"),
        ('<link rel="stylesheet" href="//example.com/x.css">', "a.html: loads //example.com/x.css"),
    ],
)
def test_what_leads_nowhere_or_is_loaded_is_found(docs: ModuleType, tmp_path: Path, html: str, slip: str) -> None:
    (tmp_path / "a.html").write_text(html)
    (tmp_path / "b.html").write_text('<h1 id="here">')
    assert list(docs.check(tmp_path)) == [slip][: bool(slip)]


@pytest.mark.rule("OBS-29")
def test_a_font_from_elsewhere_is_found(docs: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("a { src: url('https://example.com/a.woff2') } b { src: url(a.png) }")
    assert list(docs.check(tmp_path)) == ["a.css: loads https://example.com/a.woff2"]


# In a browser ---------------------------------------------------------------------------------------------------------

MISSING = [
    *([] if browser.CHROMIUM and browser.DRIVER else ["no chromium with its chromedriver (make extras)"]),
    *([] if importlib.util.find_spec("zensical") else ["no zensical (make docs)"]),
]
in_a_browser = pytest.mark.skipif(bool(MISSING), reason=", ".join(MISSING))


def pages(nav: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """The pages of a navigation, with their titles."""
    for entry in nav:
        for title, place in entry.items():
            yield from [(title, place)] if isinstance(place, str) else pages(place)


NAV = tomllib.loads((ROOT / "docs" / "zensical.toml").read_text())["project"]["nav"]
OTHERS = [
    ("0001: kopf for events only, with a queue and timers of our own", "decisions/0001-kopf-for-events-only.md"),
    ("TuinlyTokenExpired", "runbooks/TuinlyTokenExpired.md"),
]
"""Of those that are listed on a page of the navigation, one each: they are alike."""


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, and tells nobody."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its own name
        """Say nothing."""


class Site(NamedTuple):
    """Where it is served, and where its pages' sources are."""

    address: str
    sources: Path


@pytest.fixture(scope="module")
def site(docs: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = docs.build(tmp_path_factory.mktemp("site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Site(f"http://127.0.0.1:{server.server_port}/", folder.parent / "docs")
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser.running(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.mark.rule("OBS-29")
@in_a_browser
@pytest.mark.timeout(400)  # seconds: the first one builds the site, which takes minutes on a machine that is very busy
@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize(("title", "page"), [*pages(NAV), *OTHERS])
def test_a_page_fits_the_screen_and_asks_nobody_else(
    chromium: Browser, site: Site, title: str, page: str, screen: Screen
) -> None:
    """Wide tables and blocks of code scroll within themselves."""
    seen = chromium.look(site.address + page.replace("README.md", "index.md").replace(".md", ".html"), screen)
    assert (seen.content <= seen.width <= screen.width, seen.cut) == (True, [])
    assert [url for url in seen.requests if not url.startswith(site.address)] == []
    assert seen.complaints == []
    assert seen.title == f"{title} - tuinly-operator"
    assert (site.sources / page).read_text().startswith(f"# {seen.heading}\n")
