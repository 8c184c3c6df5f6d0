"""The pages as a site, and what messages link to: every code and every check has its place."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lps import manifests, model, pipeline
from lps.cli.audit.main import full_suite
from lps.cli.common import SEE_CODES
from lps.cli.docs.codes_page import MEANING, REMEDY, codes_page
from lps.manifests.codes import Code, PairFallback, code_link
from lps.manifests.names import DOCS_URL, check_link
from tests.pages import NO_AXE, assert_accessible

ROOT = Path(__file__).parents[2]
CODES = (*Code, *PairFallback)


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub gives a page: those of its headings, and its own."""
    text = "".join((ROOT / "docs" / page).read_text().split("```")[::2])
    headings = (re.sub(r"<[^>]+>", "", line) for line in re.findall(r"^#+ (.+)$", text, re.MULTILINE))
    own = re.findall(r'<a id="([^"]+)"></a>', text)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in headings} | {*own}


def test_codes_page_is_current() -> None:
    assert (ROOT / "docs/codes.md").read_text() == codes_page(), "run `make docs`"


def test_every_code_has_its_meaning_and_what_to_do_on_the_page() -> None:
    page = " ".join((ROOT / "docs/codes.md").read_text().split())
    assert set(MEANING) == set(REMEDY) == set(CODES)
    for code in CODES:
        found = re.search(rf"### {code} (.+?)\. .*?\*What to do:\* (.+?)(?= ##|$)", page)
        assert found is not None, code
        assert (found[1].lower(), found[2]) == (MEANING[code].lower(), REMEDY[code])


def test_what_messages_link_to_is_there() -> None:
    """On GitHub by these names; that the site gives the same ones is found when it is built."""
    links = [code_link(), *map(code_link, CODES), *map(check_link, full_suite().ids), SEE_CODES.split(": ")[1]]
    assert len(set(links)) > 80
    for link in links:
        page, _, anchor = link.removeprefix(f"{DOCS_URL}/").partition("#")
        assert not anchor or anchor in anchors(page), link


def test_a_code_of_another_version_leads_to_the_page() -> None:
    assert code_link("E_NEW") == code_link() == f"{DOCS_URL}/codes.md"


def test_the_address_of_the_docs_is_that_of_the_project() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    url = config["metadata"]["url"]
    assert f"{url}/blob/main/docs" == DOCS_URL
    assert f"Documentation = {url}/tree/main/docs\n" in config["metadata"]["project_urls"]
    assert f"repo_url: {url}\n" in (ROOT / "docs/site/mkdocs.yml").read_text()


class Ids(HTMLParser):
    """The ids of a built page, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids |= {found["id"]} if "id" in found else set()
        if tag in ("script", "link", "img", "iframe"):
            self.loaded += [found[name] for name in ("src", "href") if name in found]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make site` does."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "--quiet", "build", "--strict"]
    command += ["--config-file", "docs/site/mkdocs.yml", "--site-dir", str(folder)]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def built(site: Path) -> Iterator[tuple[str, Ids]]:
    """Yield the name of every page and what is in it."""
    for path in sorted(site.glob("*.html")):
        yield path.name, Ids(path.read_text(encoding="utf-8"))


@pytest.mark.slow  # 8 s
def test_site_builds_without_warnings_and_has_everything(site: Path) -> None:
    pages = dict(built(site))
    assert {path.with_suffix(".html").name for path in (ROOT / "docs").glob("*.md")} <= set(pages)
    assert {code.lower() for code in CODES} <= pages["codes.html"].ids
    assert {check_id.lower() for check_id in full_suite().ids} <= pages["audit.html"].ids
    for face in (manifests, pipeline, model):
        own = pages[f"{face.__name__}.html"].ids
        assert not [name for name in face.__all__ if not any(anchor.endswith(f".{name}") for anchor in own)]
    loaded = {address for page in pages.values() for address in page.loaded}
    assert len(loaded) > 3
    assert not [address for address in loaded if "//" in address], "nothing comes from elsewhere"
    for path in site.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert 'data-md-component="source"' not in text, "the theme's script asks GitHub for what it counts"
        assert 'role="dialog" aria-label="Search"' in text
    assert {"search_index.json", "search_index.js"} <= {path.name for path in (site / "search").iterdir()}


@pytest.mark.slow  # 20 s
@pytest.mark.skipif(NO_AXE, reason="no Chromium here, or no axe.min.js in LPS_AXE")
@pytest.mark.parametrize("name", ["index", "codes", "audit"])
def test_site_keeps_the_rules_of_accessibility(site: Path, name: str) -> None:
    """A link, a table and a long block of code each, whose theme has its own script; as the system is light or dark."""
    assert_accessible(site, (site / f"{name}.html").read_text(encoding="utf-8"))
