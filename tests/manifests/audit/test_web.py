"""Audits behind plain web servers: what such a server does not tell is asked for or read, and never guessed."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lps.cli.audit.main import main
from lps.manifests.audit.core.seal import seal_dataset
from lps.manifests.audit.run import Audit
from lps.manifests.errors import UnreadableError
from lps.manifests.storage import Store

Answers = Mapping[str, str]
"""Check -> state."""
TAR = "shards/train/train-000000.tar"


@dataclass(slots=True)
class Site:
    """A server of a folder, and how it answers."""

    root: Path
    url: str = ""
    listing: bool = False
    ranges: bool = False
    head: int = 200
    """Status of every answer to HEAD, if it is not 200."""
    head_length: int | None = None
    """Content-Length of every answer to HEAD; None for the true one."""
    body: str = "length"
    """How the end of a body is known: `length`, `chunked`, or `closed`, the end of the connection."""
    redirects: bool = False
    most: int | None = None
    """Bytes of a range that are sent at most."""
    refused: dict[str, int] = field(default_factory=dict)
    """End of a path -> status."""
    requests: list[str] = field(default_factory=list)


class Handler(SimpleHTTPRequestHandler):
    """Answers as a site says."""

    protocol_version = "HTTP/1.1"
    site: Site

    def do_HEAD(self) -> None:
        if self.site.head != 200:
            self._end(self.site.head)
            return
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        site, path = self.site, self.path.partition("?")[0]
        site.requests.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
        if site.redirects and not path.startswith("/moved"):
            self._end(302, Location=f"/moved{path}")
            return
        self.path = path = path.removeprefix("/moved")
        refused = [status for end, status in site.refused.items() if path.endswith(end)]
        file = site.root / path.lstrip("/")
        if refused:
            self._end(refused[0])
        elif file.is_dir() and site.listing:
            SimpleHTTPRequestHandler.do_GET(self)
        elif file.is_file():
            self._send(file.read_bytes())
        else:
            self._end(403 if file.is_dir() else 404)

    def _send(self, data: bytes) -> None:
        site, asked = self.site, self.headers.get("Range")
        if asked and site.ranges:
            low, _, high = asked.removeprefix("bytes=").partition("-")
            if int(low) >= len(data):
                self._end(416)
                return
            part = data[int(low) : int(high) + 1][: site.most]
            self._headers(206, part, **{"Content-Range": f"bytes {low}-{int(low) + len(part) - 1}/{len(data)}"})
        else:
            part = data
            self._headers(200, part)
        if self.command == "GET" and site.body == "chunked":
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(part), part) if part else b"0\r\n\r\n")
        elif self.command == "GET":
            self.wfile.write(part)

    def _headers(self, status: int, data: bytes, **more: str) -> None:
        self.send_response(status)
        for name, value in more.items():
            self.send_header(name, value)
        if self.command == "HEAD" and self.site.head_length is not None:
            self.send_header("Content-Length", str(self.site.head_length))
        elif self.site.body == "length":
            self.send_header("Content-Length", str(len(data)))
        elif self.site.body == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()

    def _end(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Says nothing of clients that have read enough."""

    def handle_error(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[..., Site]]:
    """Return a function that serves a folder until the test ends; options are fields of `Site`."""
    running: list[tuple[Server, threading.Thread]] = []

    def start(root: Path, **options: Any) -> Site:
        site = Site(root, **options)
        handler = type("SiteHandler", (Handler,), {"site": site})
        server = Server(("127.0.0.1", 0), lambda *words: handler(*words, directory=str(root)))
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        running.append((server, thread))
        site.url = f"http://127.0.0.1:{server.server_address[1]}"
        return site

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


SERVERS: dict[str, dict[str, Any]] = {
    "python's own": {"listing": True},
    "ranges, no listing": {"ranges": True},
    "ranges and listing": {"ranges": True, "listing": True},
    "no HEAD": {"ranges": True, "head": 405},
    "HEAD forbidden": {"head": 403},
    "HEAD says 0": {"head_length": 0},
    "chunked": {"body": "chunked"},
    "chunked, listing": {"body": "chunked", "listing": True},
    "no length": {"body": "closed", "head": 501},
    "redirects": {"redirects": True, "ranges": True},
}


def check(*words: object) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, words)])


def states(url: object, report: Path, *words: object) -> tuple[Answers, Result]:
    """Audit by the command and return the state of each check."""
    ended = check(url, "--json", report, *words)
    assert report.exists(), ended.output
    return {found["id"]: found["state"] for found in json.loads(report.read_bytes())["checks"]}, ended


@pytest.fixture(scope="module")
def local(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[Answers, int]]:
    """Return states and exit code of the audit of the folder itself, by level."""
    report = tmp_path_factory.mktemp("local") / "report.json"
    found = {}
    for level in ("quick", "full"):
        answers, ended = states(dataset, report, "--level", level, "--checks", "A,T,C,R")
        found[level] = (answers, ended.exit_code)
    return found


@pytest.mark.parametrize("level", ["quick", pytest.param("full", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", sorted(SERVERS))
def test_answers_are_those_of_the_folder(
    dataset: Path,
    serve: Callable[..., Site],
    local: Mapping[str, tuple[Answers, int]],
    tmp_path: Path,
    name: str,
    level: str,
) -> None:
    site = serve(dataset, **SERVERS[name])
    answers, ended = states(site.url, tmp_path / "report.json", "--level", level, "--checks", "A,T,C,R")
    expected, code = local[level]
    unlisted = {} if site.listing else {"A5": "unknown"}
    assert answers == {**expected, **unlisted}, ended.output
    assert ended.exit_code == code


def test_versions_are_compared_without_a_listing(dataset: Path, serve: Callable[..., Site]) -> None:
    for one, other in ((dataset, serve(dataset).url), (serve(dataset).url, dataset)):
        ended = CliRunner().invoke(main, ["diff", str(one), str(other)])
        assert ended.exit_code == 0, ended.output
        assert "removed" not in ended.output


def test_a_server_without_ranges_sends_each_shard_once_for_the_pixels(
    dataset: Path, serve: Callable[..., Site]
) -> None:
    site = serve(dataset)
    assert "C4" in check(site.url, "--level", "full", "--checks", "C4").stdout
    sent = [line.split()[1] for line in site.requests if line.startswith("GET /shards/")]
    assert len(sent) == len(set(sent)) == len(list(dataset.rglob("*.tar")))


@pytest.mark.parametrize("level", ["quick", "full"])
@pytest.mark.parametrize("status", [403, 500])
def test_of_a_shard_that_is_refused_nothing_is_known(
    dataset: Path, serve: Callable[..., Site], tmp_path: Path, level: str, status: int
) -> None:
    site = serve(dataset, ranges=True, refused={TAR: status})
    answers, ended = states(site.url, tmp_path / "report.json", "--level", level, "--checks", "A2,A3,A4,A6,C4")
    ran = answers if level == "full" else {"A2": answers["A2"]}
    assert set(ran.values()) == {"unknown"}
    assert ended.exit_code == 6
    assert (
        f"cannot look for {TAR}: HTTP {status}"
        in json.loads((tmp_path / "report.json").read_bytes())["checks"][0]["note"]
    )


def test_less_than_the_range_that_was_asked_for_is_no_damage(
    dataset: Path, serve: Callable[..., Site], tmp_path: Path
) -> None:
    site = serve(dataset, ranges=True, most=1000)
    answers, ended = states(site.url, tmp_path / "report.json", "--level", "full", "--checks", "A2,C4")
    assert answers == {"A2": "pass", "C4": "unknown"}, ended.output
    assert ended.exit_code == 6
    note = json.loads((tmp_path / "report.json").read_bytes())["checks"][1]["note"]
    assert "the server sent 1000 of the" in note


@pytest.mark.parametrize("level", ["quick", "full"])
def test_a_shard_that_is_not_there_fails(dataset: Path, serve: Callable[..., Site], tmp_path: Path, level: str) -> None:
    site = serve(dataset, refused={TAR: 404})
    answers, ended = states(site.url, tmp_path / "report.json", "--level", level, "--checks", "A2")
    assert (answers["A2"], ended.exit_code) == ("fail", 5)


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_a_cut_shard_fails_whoever_serves_it(
    mutated: Callable[..., Path], serve: Callable[..., Site], tmp_path: Path, name: str
) -> None:
    site = serve(mutated(files={TAR: lambda data: data[:-512]}), **SERVERS[name])
    answers, ended = states(site.url, tmp_path / "report.json", "--checks", "A2")
    assert (answers["A2"], ended.exit_code) == ("fail", 5)


@pytest.mark.parametrize(
    "path", ["commits/train-000000.json", "manifests/splits/ranked.parquet", "manifests/splits/ranked.json"]
)
def test_rows_that_are_refused_are_not_known_to_agree(
    dataset: Path, serve: Callable[..., Site], tmp_path: Path, path: str
) -> None:
    site = serve(dataset, refused={path: 500})
    answers, ended = states(site.url, tmp_path / "report.json", "--level", "full", "--checks", "T4")
    assert (answers["T4"], ended.exit_code) == ("unknown", 6)


@pytest.mark.parametrize("path", ["index.json", "plan/plan.json", "plan/videos.parquet", "manifests/clips.parquet"])
@pytest.mark.parametrize("status", [403, 500])
def test_what_no_audit_can_do_without_is_one_line(
    dataset: Path, serve: Callable[..., Site], path: str, status: int
) -> None:
    ended = check(serve(dataset, refused={path: status}).url)
    assert ended.exit_code == 4
    assert len(ended.stderr.strip().splitlines()) == 1
    assert f"{path}: HTTP {status}" in ended.stderr


def test_a_finding_is_not_lost_where_something_else_is_refused(
    dataset: Path, serve: Callable[..., Site], tmp_path: Path
) -> None:
    other = sorted(path.relative_to(dataset).as_posix() for path in dataset.rglob("*.tar"))[-1]
    site = serve(dataset, refused={TAR: 404, other: 500})
    answers, ended = states(site.url, tmp_path / "report.json", "--checks", "A2")
    assert (answers["A2"], ended.exit_code) == ("fail", 5)


# ---- seals -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sealed(dataset: Path, tmp_path: Path) -> Path:
    """Return a sealed copy."""
    out = shutil.copytree(dataset, tmp_path / "sealed")
    seal_dataset(Store(str(out)))
    return out


@pytest.mark.parametrize("level", ["quick", "full"])
@pytest.mark.parametrize(("listing", "state"), [(True, "pass"), (False, "unknown")])
def test_a_seal_is_found_without_a_listing(
    sealed: Path, serve: Callable[..., Site], tmp_path: Path, listing: bool, state: str, level: str
) -> None:
    site = serve(sealed, listing=listing)
    answers, ended = states(site.url, tmp_path / "report.json", "--checks", "T", "--level", level)
    assert answers == {"T1": state, "T2": "pass", "T3": "skip", "T4": "pass"}
    assert ended.exit_code == 0
    (sealed / "plan/splits.parquet").write_bytes(b"other")
    answers, ended = states(site.url, tmp_path / "report.json", "--checks", "T1", "--level", level)
    assert (answers["T1"], ended.exit_code) == ("fail", 5)


def test_a_file_that_no_seal_names_is_found_where_files_are_listed(sealed: Path, serve: Callable[..., Site]) -> None:
    (sealed / "manifests/more.txt").write_text("more")
    assert check(serve(sealed, listing=True).url, "--checks", "T1").exit_code == 5
    assert check(serve(sealed).url, "--checks", "T1").exit_code == 6  # not known, and nothing else was asked


# ---- sources ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["python's own", "ranges, no listing", "chunked"])
def test_sources_behind_a_server(
    dataset: Path, dataset_source: Path, serve: Callable[..., Site], audit: Callable[..., Audit], name: str
) -> None:
    site = serve(dataset_source, **SERVERS[name])
    source: Any = site.url
    found = {result.id: result for result in audit(dataset, "A7,A8", source=source).results}
    assert {str(result.state) for result in found.values()} == {"pass"}, found
    first = min(path.relative_to(dataset_source).as_posix() for path in dataset_source.rglob("*.mp4"))
    site.refused[first] = 500
    found = {result.id: result for result in audit(dataset, "A8", source=source).results}
    assert (found["A8"].state, found["A8"].unread) == ("unknown", True)


# ---- the store -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_sizes_ranges_and_absent_files(tmp_path: Path, serve: Callable[..., Site], name: str) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "a.bin").write_bytes(data)
    (tmp_path / "empty").write_bytes(b"")
    store = Store(serve(tmp_path, **SERVERS[name]).url)
    assert store.sizes(["a.bin", "empty", "none"]) == {"a.bin": len(data), "empty": 0, "none": None}
    ranges = [
        (0, 5),
        (3, 9),
        (9, 9),
        (700_000, 900_001),
        (len(data) - 3, len(data) + 5),
        (len(data) + 1, len(data) + 9),
    ]
    assert list(store.read_ranges("a.bin", ranges)) == [data[start:end] for start, end in ranges]
    assert store.read("a.bin") == b"".join(store.chunks("a.bin")) == data
    store.fetch("a.bin", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    assert store.exists("a.bin")
    assert not store.exists("none")
    with pytest.raises(UnreadableError, match="cannot read .*/none: HTTP 404"):
        store.read("none")


def test_a_file_that_is_as_long_as_the_range_is_not_taken_for_it(tmp_path: Path, serve: Callable[..., Site]) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    assert Store(serve(tmp_path).url).read_range("a", 5, 15) == b"56789"


def test_a_listing_tells_no_sizes_and_no_file_is_taken_for_unchanged(
    tmp_path: Path, serve: Callable[..., Site]
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/a").write_bytes(b"1")
    store = Store(serve(tmp_path, listing=True).url)
    [first], [second] = store.walk(), store.walk()
    assert (first.path, first.n_bytes) == ("x/a", None)
    assert first.mark != second.mark


def test_a_server_that_refuses_is_no_absent_file(tmp_path: Path, serve: Callable[..., Site]) -> None:
    store = Store(serve(tmp_path, refused={"a": 403}).url)
    for use in (store.exists, store.size, store.read):
        with pytest.raises(UnreadableError, match="/a: HTTP 403"):
            use("a")
