"""Bytes of a landed file brought to UTF-8, so that every reader meets one encoding."""

import codecs

# UTF-32 first: its little-endian mark begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_REPLACEMENT = "\ufffd".encode()


def as_utf8(data: bytes) -> bytes:
    """The same text in UTF-8 and without a byte order mark, which is believed where there is one.

    Without a mark, UTF-16 is known by the NULs beside its first characters; other bytes are returned as they are. What
    is broken in UTF-16 or UTF-32 becomes the byte 0xFF, which UTF-8 never holds: a reader sets that record aside
    (`wrong_encoding`) as it does for broken UTF-8.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :] if name == "utf-8" else from_encoding(data[len(mark) :], name)
    nul_at = [byte == 0 for byte in data[:4]]
    if nul_at == [False, True, False, True]:
        return from_encoding(data, "utf-16-le")
    if nul_at == [True, False, True, False]:
        return from_encoding(data, "utf-16-be")
    return data


def from_encoding(data: bytes, name: str) -> bytes:
    """Bytes in a named encoding as UTF-8; what is broken becomes the byte 0xFF.

    Raises: LookupError for a name that Python does not know.
    """
    try:
        return data.decode(name).encode()
    except UnicodeError:
        text = data.decode(name, "replace")
        return text.encode("utf-8", "replace").replace(_REPLACEMENT, b"\xff")
