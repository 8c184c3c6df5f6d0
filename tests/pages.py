"""What a browser finds in the HTML pages: by a parser, and in Chromium where that is installed."""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

from lps.manifests.names import DOCS_URL

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)

AXE = os.environ.get("LPS_AXE", "")
"""axe.min.js of axe-core, which is no part of this repository; without it or a browser nobody looks for violations."""
NO_AXE = not CHROMIUM or not Path(AXE).is_file()
WIDTHS_PX = (360, 768, 1280)


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.words.append(data)

    def images(self) -> list[str]:
        return [attrs["src"] for tag, attrs in self.tags if tag == "img"]

    def ids(self) -> set[str]:
        return {attrs["id"] for _, attrs in self.tags if "id" in attrs}


def assert_self_contained(text: str, images: tuple[str, ...] = ("data:image/jpeg;base64,",)) -> None:
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object", "embed", "form", "base")]
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        for name in ("src", "href", "srcset", "action", "poster", "data", "xlink:href"):
            links = (DOCS_URL,) if (tag, name) == ("a", "href") else ()  # where a reader may go: nothing is loaded
            assert attrs.get(name, "#").startswith(("#", *images, *links)), (tag, attrs)
    assert "url(" not in text
    assert "@import" not in text
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def browse(folder: Path, text: str, *options: str) -> str:
    """Open a page in headless Chromium and return what that prints."""
    page = folder / "page.html"
    page.write_text(text, encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={folder / 'profile'}", *options, page.as_uri()]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "LANG": "C"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_fits_a_telephone(folder: Path, text: str) -> None:
    """A frame of 400 px around the page measures it; the page itself stays without script."""
    (folder / "inner.html").write_text(text, encoding="utf-8")
    outer = """<iframe src="inner.html" width="400" height="900" style="border:0"></iframe><p id="width"></p><script>
    onload = () => { const inner = document.querySelector("iframe").contentDocument.documentElement;
      document.querySelector("#width").textContent =
        "scroll width " + inner.scrollWidth + " of " + inner.clientWidth; }</script>"""
    dom = browse(folder, outer, "--allow-file-access-from-files", "--dump-dom")
    found = re.search(r'"width">scroll width (\d+) of (\d+)<', dom)
    assert found is not None
    assert int(found[1]) <= int(found[2]) <= 400


def assert_dark_and_printable(folder: Path, text: str) -> None:
    """The page follows the reader's light or dark, and prints."""
    corners = {}
    for name, scheme in (("light", 1), ("dark", 0)):
        shot = folder / f"{name}.png"
        browse(folder, text, f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={shot}")
        with Image.open(shot) as image:
            corners[name] = sum(image.convert("RGB").getpixel((2, 2))) / 3  # type: ignore[arg-type]
    assert corners["light"] > 240
    assert corners["dark"] < 40
    browse(folder, text, "--no-pdf-header-footer", f"--print-to-pdf={folder / 'page.pdf'}")
    assert (folder / "page.pdf").read_bytes().startswith(b"%PDF")


def axe_violations(folder: Path, text: str, *, dark: bool, widths: tuple[int, ...] = WIDTHS_PX) -> dict[int, list[str]]:
    """Return what axe-core finds wrong with a page by width of the window, everything on it unfolded.

    A copy of the page runs in frames of these widths, without its policy, if it has one, which allows nobody's script.
    `folder` is where its pictures and scripts are.
    """
    script = "<script src='axe.min.js'></script><script>onload = () => parent.look(frameElement, window)</script>"
    inner = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", text, count=1)
    shutil.copyfile(AXE, folder / "axe.min.js")
    (folder / "inner.html").write_text(inner.replace("</body>", f"{script}</body>"), encoding="utf-8")
    frames = "".join(f'<iframe src="inner.html" width="{width}" height="900"></iframe>' for width in widths)
    outer = """<html style="color-scheme: light dark"><p id="found"></p><script>
    const found = {};
    async function look(frame, page) {
      for (const fold of page.document.querySelectorAll("details")) fold.open = true;
      const result = await page.axe.run(page.document, { resultTypes: ["violations"] });
      found[frame.width] = result.violations.map((each) => each.id + ": " + each.nodes[0].html + " (" +
        each.nodes.length + ")");
      found[frame.width].unshift(page.getComputedStyle(page.document.body).backgroundColor);
      document.querySelector("#found").textContent = JSON.stringify(found);
    }</script>"""
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    options = ("--allow-file-access-from-files", "--virtual-time-budget=600000", scheme, "--dump-dom")
    dom = browse(folder, outer + frames, *options)
    told = re.search(r'<p id="found">(.*?)</p>', dom)
    assert told is not None
    found = {int(width): each for width, each in json.loads(unescape(told[1]) or "{}").items()}
    assert set(found) == set(widths), dom[:2000]
    for colour, *_ in found.values():
        assert (sum(map(int, re.findall(r"\d+", colour)[:3])) < 120) is dark, colour
    return {width: each for width, (_, *each) in found.items()}


def assert_accessible(folder: Path, text: str) -> None:
    """The page has no violation of axe-core's rules, narrow or wide, light or dark; colours do not depend on widths."""
    assert axe_violations(folder, text, dark=False) == {width: [] for width in WIDTHS_PX}
    assert axe_violations(folder, text, dark=True, widths=WIDTHS_PX[1:2]) == {WIDTHS_PX[1]: []}


def scripted(folder: Path, text: str, script: str) -> str:
    """Return what a script says that looks at a page in a frame, as `page`; the page itself stays without it."""
    (folder / "inner.html").write_text(text, encoding="utf-8")
    outer = f"""<iframe src="inner.html" width="800" height="900"></iframe><p id="said"></p><script>onload = () => {{
    const page = document.querySelector("iframe").contentDocument;
    document.querySelector("#said").textContent = (() => {{ {script} }})(); }}</script>"""
    found = re.search(r'"said">(.*?)</p>', browse(folder, outer, "--allow-file-access-from-files", "--dump-dom"))
    assert found is not None
    return unescape(found[1])
