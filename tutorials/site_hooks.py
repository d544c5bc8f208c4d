"""Hooks of the site: files of the repository as pages, notebooks as lessons, a reference page for every room.

Every page keeps the path it has in the repository, so that one relative link works on the site and in a checkout alike.
"""

from __future__ import annotations

import ast
import base64
import json
import logging
import posixpath
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = "tutorials/pages/"
# files beside the pages that a page may link to or show
BESIDE = (
    "LICENSE",
    "transforms/README.md",
    "transforms/*.yaml",
    "transforms/previews/*",
    "tutorials/*.yaml",
    "tutorials/*.ipynb",
    "tutorials/*.md",
    "tutorials/deploy/*",
    "tutorials/federated/*",
    "tutorials/images/*.png",
    "tutorials/images/*.svg",
    "tutorials/presets/*.yaml",
    "bundles/*/LICENSE",
    "bundles/*/configs/*",
    "bundles/*/docs/*",
    "bundles/*/docs/records/*",
)
HIDDEN = ("cli", "demo")  # commands, not a library
LOG = logging.getLogger("mkdocs.hooks.site")


class RepositoryFile(File):
    """File under its path in the repository; Markdown and notebooks become pages."""

    def __init__(self, path: str, config: MkDocsConfig, *, content: str | None = None) -> None:
        super().__init__(path, str(ROOT), config.site_dir, use_directory_urls=False, dest_uri=destination(path))
        if content is not None:
            self._content = content
        elif path.endswith(".ipynb"):
            self._content = lesson(ROOT / path)

    def is_documentation_page(self) -> bool:
        """Markdown or a notebook."""
        return self.src_uri.endswith((".md", ".ipynb"))


def destination(path: str) -> str:
    """Place of a file on the site: pages at the top, cards and lessons in folders of their own."""
    path = re.sub(r"^tutorials/(\w+)\.md$", r"guides/\1.md", re.sub(r"^tutorials/pages/", "", path))
    path = re.sub(r"^bundles/(\w+)/docs/README\.md$", r"bundles/\1.md", path)
    path = re.sub(r"^tutorials/(\w+)\.ipynb$", r"lessons/\1.md", path)
    path = re.sub(r"^transforms/README\.md$", "recipes.md", path)
    return re.sub(r"\.md$", ".html", path)


def lesson(path: Path) -> str:
    """Markdown of a notebook with its outputs; pictures are inside."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += [shown(output) for output in cell.get("outputs", [])]
    return "\n\n".join(part for part in parts if part)


def shown(output: dict[str, Any]) -> str:
    """Markdown of one output of a cell: its picture, else its text."""
    data = output.get("data", {})
    if "image/png" in data:
        picture = base64.b64encode(base64.b64decode("".join(data["image/png"]))).decode()
        return f'<img alt="Output of the cell above" src="data:image/png;base64,{picture}">'
    text = "".join(output.get("text", data.get("text/plain", []))).rstrip()
    return f"```text\n{text}\n```" if text else ""


def public_names(package: Path) -> list[str]:
    """Dotted paths of all that the face of a package gives; of a package without one, its public modules."""
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    stated = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = {f"{node.module}.{alias.name}" for node in stated for alias in node.names if alias.name[0] != "_"}
    own = [path for path in names if path.startswith(f"monai_cl.{package.name}.")]
    modules = [f"monai_cl.{package.name}.{path.stem}" for path in package.glob("[!_]*.py")]
    return sorted(own or modules, key=lambda path: path.rsplit(".", 1)[1].lower())


def rooms() -> dict[str, list[str]]:
    """Packages and public modules of ``monai_cl``, each with the dotted paths of its page."""
    packages = {path.parent.name: public_names(path.parent) for path in (ROOT / "monai_cl").glob("*/__init__.py")}
    modules = {path.stem: [f"monai_cl.{path.stem}"] for path in (ROOT / "monai_cl").glob("[!_]*.py")}
    return {room: names for room, names in sorted((packages | modules).items()) if room not in HIDDEN}


def reference(room: str, names: list[str]) -> str:
    """Page of a room: its docstring, then every public name from its own docstring."""
    face = ROOT / "monai_cl" / room / "__init__.py"
    text = (ast.get_docstring(ast.parse(face.read_text(encoding="utf-8"))) or "") if face.is_file() else ""
    entries = [f"::: {path}\n    options:\n      heading: {path.rsplit('.', 1)[1]}\n" for path in names]
    return "\n".join([f"# monai_cl.{room}", "", text, "", *entries])


def title(path: Path) -> str:
    """First heading of a Markdown file or notebook."""
    text = lesson(path) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    heading = re.search(r"^# (.+)$", text, re.MULTILINE)
    return heading[1] if heading else path.stem


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the parts of the navigation that follow from the files."""
    lessons = [{title(path): f"tutorials/{path.name}"} for path in sorted((ROOT / "tutorials").glob("*.ipynb"))]
    cards = [{title(path): path.relative_to(ROOT).as_posix()} for path in sorted(ROOT.glob("bundles/*/docs/README.md"))]
    guides = [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("tutorials/[!R]*.md"))]
    pages = [{f"monai_cl.{room}": f"{PAGES}reference/{room}.md"} for room in rooms()]
    filled = {"Lessons": lessons, "Bundles": cards, "Reference": pages}
    for entry in config.nav or []:
        for name in entry:
            entry[name] = filled.get(name, entry[name]) + (guides if name == "Guides" else type(entry[name])())
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Give every page its path in the repository, and add the files beside the pages."""
    for file in [each for each in files if each.src_dir == config.docs_dir]:
        files.remove(file)
        files.append(RepositoryFile(PAGES + file.src_uri, config))
    for path in sorted({path for pattern in BESIDE for path in ROOT.glob(pattern) if path.is_file()}):
        if path.suffix != ".j2" and path != ROOT / "tutorials/README.md":
            files.append(RepositoryFile(path.relative_to(ROOT).as_posix(), config))
    for room, names in rooms().items():
        files.append(RepositoryFile(f"{PAGES}reference/{room}.md", config, content=reference(room, names)))
    return files


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Typeset equations as MathML, which browsers draw by themselves."""

    def typeset(match: re.Match[str]) -> str:
        text = match[2].strip()[2:-2]
        for code, sign in (("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#x27;", "'")):
            text = text.replace(code, sign)
        return str(convert(text, display="block" if match[1] == "div" else "inline"))

    return re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', typeset, html, flags=re.DOTALL)
