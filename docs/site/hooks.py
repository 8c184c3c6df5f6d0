"""What the site has beside the pages of docs/: public names with their docstrings, CONTRIBUTING and the changelog."""

import re
from importlib import import_module
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

FETCHES_FACTS = 'data-md-component="source"'
"""Mark of the link to the repository that makes the theme's script ask GitHub for its stars."""
DIALOG = 'data-md-component="search" role="dialog"'
"""Mark of the search, which the theme gives no name."""

ROOT = Path(__file__).parents[2]
FACES = ("lps.manifests", "lps.pipeline", "lps.model")
BESIDE = ("CONTRIBUTING.md", "CHANGELOG.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each public package, and those files at the top of the repository that people read."""
    for face in FACES:
        files.append(File.generated(config, f"{face}.md", content=_reference(face)))
    for name in BESIDE:
        files.append(File.generated(config, name, content=(ROOT / name).read_text().replace("](docs/", "](")))
    return files


def _reference(face: str) -> str:
    """Return the page of a package: what it says of itself, then each of its public names."""
    names = import_module(face).__all__
    hidden = ("show_root_heading", "show_root_toc_entry", "members")
    lines = [f"# {face}", "", f"::: {face}", "    options:", *(f"      {option}: false" for option in hidden)]
    return "\n".join([*lines, *(f"\n::: {face}.{name}" for name in names), ""])


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Send links out of docs/ to the page that the site has, or else to the repository."""

    def outside(found: re.Match[str]) -> str:
        target = found[1] if found[1] in BESIDE else f"{config.repo_url}/blob/main/{found[1]}"
        return f"]({target}"

    return re.sub(r"\]\(\.\./([\w./-]+)", outside, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make the empty corner of a table a cell: a header that says nothing is read aloud as one."""
    return re.sub(r"<th([^>]*)></th>", r"<td\1></td>", html)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Make the theme's frame of a page load nothing from elsewhere, and name its search."""
    return _framed(output)


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    """Do the same with pages that have no Markdown, such as 404.html."""
    return _framed(output_content)


def on_post_build(config: MkDocsConfig) -> None:
    """Write the search's index as a script, too: without it the theme's own script stops on pages opened from disk."""
    folder = Path(config.site_dir) / "search"
    text = (folder / "search_index.json").read_text(encoding="utf-8")
    (folder / "search_index.js").write_text(f"var __index = {text}", encoding="utf-8")


def _framed(html: str) -> str:
    return html.replace(FETCHES_FACTS, "").replace(DIALOG, f'{DIALOG} aria-label="Search"')
