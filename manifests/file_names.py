"""File names as text. A name of a file system is bytes; one that is not UTF-8 has no text that a table could hold.

Each byte that is no UTF-8 is written as `\\xd6`, as Python does, and a name that holds such a sequence of characters by
itself has its backslash written as `\\x5c`. All other names stay as they are, and each text stands for one name.
"""

import re

_ESCAPE = r"\\x(?:[89a-f][0-9a-f]|5c)"
ESCAPED = re.compile(_ESCAPE)
"""What stands for a byte. No ASCII character but the backslash does: text cannot smuggle in a slash or a dot."""
_BARE = re.compile(f"[\udc80-\udcff]|{_ESCAPE}")
"""How Python holds a byte that is no UTF-8; or a name that looks escaped."""


def escape_name(name: str) -> str:
    """Return a path or name, as Python reads it from the file system, as text without bytes that are no UTF-8."""
    return _BARE.sub(_escaped, name)


def unescape_name(text: str) -> str:
    """Return the path or name that `escape_name` gave as `text`, to open the file by."""
    return ESCAPED.sub(lambda found: _of_byte(int(found[0][2:], 16)), text)


def without_bytes(message: str) -> str:
    """Return a message with the bytes of names in it escaped; what is escaped already stays."""
    return message.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _escaped(found: re.Match[str]) -> str:
    text = found[0]
    return f"\\x5c{text[1:]}" if text[0] == "\\" else f"\\x{ord(text) - 0xDC00:02x}"


def _of_byte(value: int) -> str:
    return chr(value) if value < 0x80 else chr(0xDC00 + value)
