"""What the HTML pages share: how a template is filled, and how values are spelled in it.

Whatever a page shows comes from records that others may have written, so all of it is escaped unless it was made here.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from lps.manifests.canonical import visible
from lps.manifests.pages.charts import bar

MAX_URI = 90


@dataclass(frozen=True, slots=True)
class Mark:
    """How a state or verdict looks: a word, a sign and a tone, so that none depends on the others."""

    word: str
    symbol: str
    tone: str

    @property
    def style(self) -> str:
        """Its word as a name of style sheets."""
        return re.sub(r"[^a-z]+", "-", self.word.lower()).strip("-") or "other"


def render_page(package: str, page: object) -> str:
    """Return the page that `page.html.j2` of a package makes of a record; all of its values are escaped.

    Values that are `Markup` are not: only charts and what is made here may be.
    """
    env = Environment(
        loader=ChoiceLoader([PackageLoader(name, "") for name in (package, __package__)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.globals["bar"] = bar
    env.filters |= {"breakable": _breakable, "coded": _coded}
    text = env.get_template("page.html.j2").render(page=page)
    # JSON can hold halves of characters, which no file can, and characters that turn the text beside them.
    return visible(text.encode("utf-8", "replace").decode("utf-8"))


def spelled(value: Any) -> str:
    """Spell a JSON value for a table's cell."""
    if value is None or value == "":
        return "none"
    if isinstance(value, Mapping):
        return "; ".join(f"{str(name).replace('_', ' ')}: {spelled(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(spelled(item) for item in value) or "none"
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def shortened(uri: str) -> str:
    """Keep the end of a long path: it tells videos apart."""
    return uri if len(uri) <= MAX_URI else "…" + uri[1 - MAX_URI :]


def is_page_address(address: str) -> bool:
    """Tell whether a page may link to an address that a user gave: a relative path, or a file, http or https URL."""
    try:
        scheme = urlsplit(address).scheme
    except ValueError:
        return False
    return address.isprintable() and address == address.strip() and scheme in ("", "file", "http", "https")


def gallery_address(given: str, folder: Path | None) -> str:
    """Return the address of a gallery's page, as a page in `folder` names it (None: not known yet).

    `given` is an address, as the page sees it, or a folder of this machine that has an `index.html`.
    """
    if folder is not None and given and "://" not in given and Path(given, "index.html").is_file():
        return quote(os.path.relpath(Path(given, "index.html"), folder).replace(os.sep, "/"))
    return f"{given}index.html" if given.endswith("/") else given


def gallery_link(gallery: str, key: str) -> str:
    """Return the address of a clip or video in the page of `lps-prep preview --html`; empty without one."""
    return f"{gallery.partition('#')[0]}#{quote(key, safe='')}" if gallery and key else ""


def _breakable(text: str) -> Markup:
    """Let a path break after its folders, and names after their underscores."""
    return Markup(re.sub(r"([/_])", r"\1<wbr>", str(escape(text))))


def _coded(text: str) -> Markup:
    """Set what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
