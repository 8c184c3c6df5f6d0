"""Files of a plain web server. fsspec takes any error there for an absent file, and any answer for the range asked for.

Functions take fsspec's file system for HTTP, which keeps the connections, and the URL of a file. They raise OSError, or
aiohttp's ClientError, where the server does not answer or refuses.
"""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60.0
"""Without a byte, after which a server does not answer. aiohttp's own limit is five minutes for the whole file."""
ABSENT = (404, 410)
NO_SUCH_RANGE = 416
PARTIAL = 206


def web_exists(fs: Any, url: str) -> bool:
    """Return whether a file is there."""
    try:
        with _answer(fs, url):
            return True
    except FileNotFoundError:
        return False


def web_size(fs: Any, url: str) -> int | None:
    """Return how many bytes a file has; None where it is not there.

    HEAD says it, or GET where the server has no HEAD; where neither does, the file is read. A size of 0 is believed
    only of what was read: some servers give it to all that they do not know.
    """
    try:
        with _answer(fs, url, "HEAD") as head:
            if known := _declared_size(head):
                return known
    except _errors():
        pass  # GET is what decides: HEAD is often refused, or forgotten
    try:
        with _answer(fs, url) as response:
            return _declared_size(response) or sum(map(len, _body(fs, response)))
    except FileNotFoundError:
        return None


def web_chunks(fs: Any, url: str) -> Iterator[bytes]:
    """Yield a file from its first byte to its last, in one answer."""
    with _answer(fs, url) as response:
        yield from _body(fs, response)


def web_ranges(fs: Any, url: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Yield bytes `start` to `end` (exclusive) of each range, fewer where the file ends before; starts must not fall.

    A server that knows no ranges sends the whole file: the rest of them is then cut from that one answer.
    """
    for k, (start, end) in enumerate(ranges):
        with _answer(fs, url, asked=f"bytes={start}-{end - 1}") as response:
            if response.status == NO_SUCH_RANGE:
                yield b""
            elif response.status == PARTIAL:
                part = b"".join(_body(fs, response))[: end - start]
                _require_range(response.headers.get("Content-Range", ""), start, end, len(part))
                yield part
            else:
                yield from _cut(_body(fs, response), ranges[k:])
                return


def _require_range(sent: str, start: int, end: int, n_bytes: int) -> None:
    """Raise OSError where `sent`, the Content-Range of an answer, is not what was asked for, or ends too early."""
    place, _, size = sent.partition("/")
    if sent and not place.startswith(f"bytes {start}-"):
        raise OSError(errno.EIO, "the server sent another range than was asked for")
    if size.isdecimal() and n_bytes < min(end, int(size)) - start:
        raise OSError(errno.EIO, f"the server sent {n_bytes} of the {end - start} bytes that were asked for")


def _cut(chunks: Iterator[bytes], ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Cut ranges out of a whole file; no more of it is read or held than they need."""
    held, at = bytearray(), 0
    for start, end in ranges:
        while True:
            unwanted = min(len(held), start - at)
            del held[:unwanted]
            at += unwanted
            chunk = next(chunks, b"") if at + len(held) < end else b""
            if not chunk:
                break
            held += chunk
        yield bytes(held[: end - at])


def _declared_size(response: Any) -> int | None:
    """Return the size that the headers declare; that of a compressed answer is not the file's."""
    plain = response.headers.get("Content-Encoding", "identity") in ("identity", "")
    return response.content_length if plain else None


def _body(fs: Any, response: Any) -> Iterator[bytes]:
    from fsspec.asyn import sync

    while data := sync(fs.loop, response.content.read, CHUNK_BYTES):
        yield data


@contextmanager
def _answer(fs: Any, url: str, method: str = "GET", *, asked: str = "") -> Iterator[Any]:
    """Ask for a file, or a range of it, and give the answer; its body is not read yet.

    Raises FileNotFoundError for a file that is not there, OSError for other refusals.
    """
    from aiohttp import ClientTimeout
    from fsspec.asyn import sync

    options = {"timeout": ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S), **fs.kwargs}
    headers = {"Accept-Encoding": "identity", **options.pop("headers", {}), **({"Range": asked} if asked else {})}

    async def ask() -> Any:
        session = await fs.set_session()
        return await session.request(method, fs.encode_url(url), headers=headers, allow_redirects=True, **options)

    response = sync(fs.loop, ask)
    try:
        if response.status >= 400 and not (asked and response.status == NO_SUCH_RANGE):
            number = errno.ENOENT if response.status in ABSENT else errno.EIO
            raise OSError(number, f"HTTP {response.status} {response.reason}")
        yield response
    finally:
        fs.loop.call_soon_threadsafe(response.close)


def _errors() -> tuple[type[Exception], ...]:
    from aiohttp import ClientError

    return OSError, ClientError
