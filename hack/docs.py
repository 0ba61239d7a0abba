"""Builds the docs as a site, by `make docs`: build/site, strictly. The pages stay as they are read on the forge.

Around them it puts README, changelog and CONTRIBUTING as pages, and the files of the checkout that pages link to.
Then every link is followed, and nothing may be loaded from elsewhere. `--resource` writes docs/reference/resource.md
instead, which is made of the definition.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[1]
BUILD: Final = ROOT / "build"
PAGES: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
RESOURCE: Final = ROOT / "docs" / "reference" / "resource.md"
LINK: Final = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")
LOADED: Final = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
NO_LOADS: Final = frozenset({"canonical", "next", "prev", "alternate"})
"""Of <link>: what names a page and loads nothing."""


def main() -> int:
    """Build and check the site; return 1 where a link leads nowhere."""
    if sys.argv[1:] == ["--resource"]:
        RESOURCE.write_text(resource_page(), encoding="utf-8")
        return 0
    site = build(BUILD)
    slips = list(check(site))
    print("\n".join(slips) if slips else f"{site}/index.html")
    return 1 if slips else 0


def build(folder: Path) -> Path:
    """Build the site within a folder, strictly; return where it is.

    Raises:
        subprocess.CalledProcessError: zensical says no.
    """
    gather(folder / "docs")
    shutil.copy(ROOT / "docs" / "zensical.toml", folder / "zensical.toml")
    shutil.rmtree(folder / "site", ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(folder / "zensical.toml")]
    subprocess.run(command, check=True, env={**os.environ, "NO_COLOR": "1"})  # noqa: S603 -- words of our own
    return folder / "site"


# Pages ----------------------------------------------------------------------------------------------------------------


def gather(folder: Path) -> None:
    """Put together what the site is made of."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder, ignore=shutil.ignore_patterns("zensical.toml"))
    for name, page in PAGES.items():
        shutil.copy(ROOT / name, folder / page)
    sources = {folder / page: ROOT / name for name, page in PAGES.items()}
    for page in sorted(folder.rglob("*.md")):
        source = sources.get(page, ROOT / "docs" / page.relative_to(folder))
        text = page.read_text(encoding="utf-8")
        page.write_text(LINK.sub(partial(moved, source, page, folder), text), encoding="utf-8")


def moved(source: Path, page: Path, folder: Path, link: re.Match[str]) -> str:
    """A link as it must be from the page's new place; a file that is no page is put beside the pages."""
    target, anchor = link[1], link[2] or ""
    if "://" in target:
        return link[0]
    there = (source.parent / target).resolve()
    name = there.relative_to(ROOT)
    if str(name) in PAGES:
        new = folder / PAGES[str(name)]
    elif name.parts[0] == "docs":
        new = folder / Path(*name.parts[1:])
    else:
        new = folder / "files" / name
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(there, new)
    return os.path.relpath(new, page.parent) + anchor


# Links ----------------------------------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """What a page links to, what it loads, and the places in it that can be linked to."""

    def __init__(self) -> None:
        """Nothing is read yet."""
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.places: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of a tag."""
        found = {name: value or "" for name, value in attrs}
        self.places.update(found[name] for name in ("id", "name") if found.get(name))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        kind = found.get("rel", "")
        if tag in LOADED and LOADED[tag] in found and kind not in NO_LOADS:
            self.loads.append(found[LOADED[tag]])


def check(site: Path) -> Iterator[str]:
    """What is wrong with links, and what would be loaded from elsewhere."""
    pages = {page: read(page) for page in sorted(site.rglob("*.html"))}
    for page, found in pages.items():
        where = page.relative_to(site)
        yield from (f"{where}: loads {each}" for each in found.loads if re.match(r"(https?:)?//", each))
        # What is not found is shown at any address, so its links are absolute.
        links = [] if page.name == "404.html" else [each for each in found.links if not re.match(r"[a-z]+:|//", each)]
        for link in links:
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            target = target / "index.html" if target.is_dir() else target
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].places):
                yield f"{where}: {link} leads nowhere"
    for style in sorted(site.rglob("*.css")):
        loads = re.findall(r"url\(\s*[\"']?((?:https?:)?//[^)\"']+)", style.read_text(encoding="utf-8"))
        yield from (f"{style.relative_to(site)}: loads {each}" for each in loads)


def read(page: Path) -> Reader:
    """Read a page."""
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    return reader


# The resource ---------------------------------------------------------------------------------------------------------


def resource_page() -> str:
    """The reference of the resource, from its definition."""
    definition = yaml.safe_load((ROOT / "crds" / "tuinlycredentials.yaml").read_text(encoding="utf-8"))
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    lines = [
        "# The resource",
        "",
        "Every field of a `TuinlyCredential` (`tuinly.com/v1alpha1`), as its definition has it, from which",
        "`make resource` makes this page. `kubectl explain tuinlycredential.spec` tells the same.",
    ]
    for part in ("spec", "status"):
        lines += ["", f"## {part}", "", "| Field | Type | Default | What it is |", "|---|---|---|---|"]
        lines += list(rows(schema["properties"][part], part))
    return "\n".join(lines) + "\n"


def rows(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    """A row for each field below."""
    needed = schema.get("required") or ()
    for name, field in (schema.get("properties") or {}).items():
        kind = field.get("format") or field["type"]
        if "enum" in field:
            kind = " or ".join(f"`{each}`" for each in field["enum"])
        default = json.dumps(field["default"]).strip('"') if "default" in field and kind != "object" else ""
        about = " ".join(field.get("description", "").split()).replace("|", "\\|").replace("<", "&lt;")
        yield f"| `{path}.{name}` | {kind} | {'required' if name in needed else default and f'`{default}`'} | {about} |"
        yield from rows(field, f"{path}.{name}")
        items = field.get("items")
        if items is not None:
            yield from rows(items, f"{path}.{name}[]")


if __name__ == "__main__":
    sys.exit(main())
