"""Builds the docs as a site, by `make docs`: build/site, strictly. The pages stay as they are read on the forge.

Around them it puts README, changelog and CONTRIBUTING as pages, and the files of the checkout that pages link to.
Then every link is followed, and nothing may be loaded from elsewhere. `--reference` writes instead what is made of the
code in docs/reference: the resource, of its definition, and the plugin's commands, of its command line.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Container, Iterator, Mapping
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import rules
import yaml

ROOT: Final = Path(__file__).parents[1]
BUILD: Final = ROOT / "build"
PAGES: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
REFERENCE: Final = ROOT / "docs" / "reference"
LINK: Final = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")
LOADED: Final = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
NO_LOADS: Final = frozenset({"canonical", "next", "prev", "alternate"})
"""Of <link>: what names a page and loads nothing."""


def main() -> int:
    """Build and check the site; return 1 where a link leads nowhere."""
    if sys.argv[1:] == ["--reference"]:
        for name, text in made().items():
            (REFERENCE / name).write_text(text, encoding="utf-8")
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
    (folder / "reference" / "rules.md").write_text(rules.table(rules.documented(), rules.marked()), encoding="utf-8")
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


# The reference --------------------------------------------------------------------------------------------------------


def made() -> dict[str, str]:
    """The pages of docs/reference that are made of the code, by name."""
    return {"resource.md": resource_page(), "plugin.md": plugin_page()}


def resource_page() -> str:
    """The reference of the resource, from its definition."""
    definition = yaml.safe_load((ROOT / "crds" / "tuinlycredentials.yaml").read_text(encoding="utf-8"))
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    lines = [
        "# The resource",
        "",
        "Every field of a `TuinlyCredential` (`tuinly.com/v1alpha1`), as its definition has it, from which",
        "`make reference` makes this page. `kubectl explain tuinlycredential.spec` tells the same.",
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


def plugin_page() -> str:
    """The reference of the plugin, from its command line."""
    sys.path.insert(0, str(ROOT / "plugin"))
    from kubectl_tuinly import arguments  # noqa: PLC0415 -- the plugin is no part of the environment

    top = arguments.parser()
    common = {each.dest for each in top._actions}  # noqa: SLF001 -- argparse has no other way
    [commands] = [each.choices for each in top._actions if each.dest == "command"]  # noqa: SLF001 -- the same
    lines = [
        "# The plugin's commands",
        "",
        "All commands and flags of [`kubectl tuinly`](../plugin.md), as its `--help` has them, from which",
        "`make reference` makes this page. The exit statuses are [there](../plugin.md#exit-status).",
        "",
        "Each command takes, after the plugin's name, what it takes to log in:",
        "",
        *arguments_of(top, {"help", "command"}),
    ]
    for name, command in commands.items():
        summary, examples, _ = arguments.COMMANDS[name]
        lines += ["", f"## {name}", "", f"{summary[0].upper()}{summary[1:]}.", ""]
        lines += arguments_of(command, common)
        lines += ["", "```sh", *(f"{arguments.PROGRAM} {line}" for line in examples), "```"]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def arguments_of(command: argparse.ArgumentParser, without: Container[str]) -> list[str]:
    """A table of a command's arguments, without some; nothing where there are none."""
    found = [each for each in command._actions if each.dest not in without]  # noqa: SLF001 -- argparse has no other way
    table = ["| Argument | What it does |", "|---|---|", *(f"| {called(each)} | {meant(each)} |" for each in found)]
    return table if found else []


def called(action: argparse.Action) -> str:
    """How an argument is written."""
    if not action.option_strings:
        return f"`{action.metavar}{'…' if action.nargs in {'*', '+'} else ''}`"
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    return ", ".join(f"`{each}{value}`" for each in action.option_strings)


def meant(action: argparse.Action) -> str:
    """What an argument is for."""
    choices = f" ({', '.join(f'`{each}`' for each in action.choices)})" if action.choices else ""
    return f"{action.help}{choices}"


if __name__ == "__main__":
    sys.exit(main())
