"""X12 interchanges (ANSI ASC X12, releases 004010 and 005010) as transaction sets of segments, control numbers checked.

Our own segment reader, because `pyx12` 4.0 serves a validator and not a landing: it refuses an interchange for an
unknown release, ends without a word at an empty segment, fails with an IndexError at a GE without GS, and tells of a
wrong count in a message for people, after it has handed the segments out.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestration.sources.contract import UnreadableFile
from orchestration.sources.encoding import as_utf8

Segment = tuple[int, list[str]]  # position in the file from 1 (the ISA), elements with the segment's name first
Fault = tuple[int, str, str]  # position of a segment (of a set: its ST), reason code, detail
_ENVELOPE = frozenset({"ISA", "GS", "ST", "GE", "IEA"})
_LONGEST_ELEMENT = 100_000  # characters; the longest text the standard allows is far below


@dataclass(frozen=True)
class TransactionSet:
    """A sound ST/SE loop: position of its ST, and the segments between ST and SE."""

    position: int
    segments: list[Segment]


def read_sets(path: Path, identifier: str) -> tuple[list[TransactionSet], list[Fault]]:
    """Transaction sets of one identifier (ST01, such as 846), and what is wrong with the others and the envelopes.

    A set that fails its SE (segment count, control number), is cut off, has another identifier or bytes that are not
    UTF-8 is set aside as a whole; a GE or IEA that miscounts is a fault of its own, for sets may be missing.

    Raises: UnreadableFile when the file does not begin with an ISA segment.
    """
    text = as_utf8(path.read_bytes()).decode("utf-8", "surrogateescape").lstrip()
    if not text.startswith("ISA") or _delimiters(text, 0) is None:
        raise UnreadableFile(
            f"{path.name}: expected an X12 interchange, found no ISA. Ask the sender for the file again."
        )
    is_clean = _is_unicode(text)
    sets: list[TransactionSet] = []
    faults: list[Fault] = []
    envelopes = _Envelopes(faults)
    opened: TransactionSet | None = None
    position = 0
    for position, elements in _segments(text):
        name = elements[0]
        if opened and name in _ENVELOPE:
            faults.append((opened.position, "truncated", "expected SE before the next envelope segment"))
            opened = None
        if name == "SE" and opened:
            fault = _set_fault(opened, elements, identifier, is_clean)
            if fault:
                faults.append((opened.position, *fault))
            else:
                sets.append(TransactionSet(opened.position, opened.segments[1:]))
            opened = None
        elif opened:
            opened.segments.append((position, elements))
        else:
            envelopes.take(position, elements)
            if name == "ST":
                opened = TransactionSet(position, [(position, elements)])
    if opened:
        faults.append((opened.position, "truncated", "expected SE"))
    elif envelopes.is_open:
        faults.append((position + 1, "truncated", "expected IEA"))
    return sets, faults


def _delimiters(text: str, at: int) -> tuple[str, str] | None:
    """Element separator and segment terminator of the ISA at a place: behind its name, and behind its 16th element."""
    separator = text[at + 3 : at + 4]
    if not separator or separator.isalnum():
        return None
    place = at
    for _ in range(16):
        place = text.find(separator, place + 1, at + 200)
        if place < 0:
            return None
    terminator = text[place + 2 : place + 3]
    return None if not terminator or terminator.isalnum() or terminator == separator else (separator, terminator)


def _segments(text: str) -> Iterator[Segment]:
    """Segments in order. Line breaks behind a terminator and empty segments are nothing; an ISA brings its delimiters."""
    separator, terminator = "*", "~"
    at = position = 0
    while True:
        while at < len(text) and text[at] in "\r\n \t":
            at += 1
        if at >= len(text):
            return
        if text.startswith("ISA", at):
            separator, terminator = _delimiters(text, at) or (separator, terminator)
        end = text.find(terminator, at)
        end = len(text) if end < 0 else end
        segment = text[at:end].strip()
        if segment:
            position += 1
            yield position, segment.split(separator)
        at = end + 1


class _Envelopes:
    """Counts and control numbers of ISA/IEA and GS/GE."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        self.interchange: str | None = None  # control number of the open ISA
        self.group: str | None = None
        self.groups = 0
        self.sets = 0

    @property
    def is_open(self) -> bool:
        return self.interchange is not None

    def take(self, position: int, elements: list[str]) -> None:
        name = elements[0]
        if name == "ISA":
            if self.is_open:
                self.faults.append((position, "truncated", "expected IEA before ISA"))
            self.interchange, self.group, self.groups = _element(elements, 13), None, 0
        elif name == "ST":
            self.sets += 1
        elif name == "GS":
            self.group, self.sets = _element(elements, 6), 0
            self.groups += 1
        elif name == "GE":
            self.check(position, elements, "GE", self.sets, self.group)
            self.group = None
        elif name == "IEA":
            self.check(position, elements, "IEA", self.groups, self.interchange)
            self.interchange = None
        else:
            self.faults.append((position, "unknown_segment", "expected an envelope segment between transaction sets"))

    def check(self, position: int, elements: list[str], name: str, count: int, control: str | None) -> None:
        if _number(_element(elements, 1)) != count:
            self.faults.append((position, "control_mismatch", f"{name}01: expected {count}"))
        elif control is None or _element(elements, 2).strip() != control.strip():
            self.faults.append((position, "control_mismatch", f"{name}02: expected the control number it closes"))


def _set_fault(opened: TransactionSet, trailer: list[str], identifier: str, is_clean: bool) -> tuple[str, str] | None:
    first = opened.segments[0][1]
    if _element(first, 1) != identifier:
        return "unexpected_set", f"ST01: expected {identifier}"
    if _number(_element(trailer, 1)) != len(opened.segments) + 1:
        return "control_mismatch", f"SE01: expected {len(opened.segments) + 1} segments"
    if _element(trailer, 2).strip() != _element(first, 2).strip():
        return "control_mismatch", "SE02: expected the control number of ST02"
    if any(max(map(len, elements)) > _LONGEST_ELEMENT for _, elements in opened.segments):
        return "too_long", f"expected elements of at most {_LONGEST_ELEMENT} characters"
    if not is_clean and not all(_is_unicode("".join(elements)) for _, elements in opened.segments):
        return "wrong_encoding", "expected UTF-8"
    return None


def _element(elements: list[str], number: int) -> str:
    return elements[number] if number < len(elements) else ""


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\s*[0-9]{1,10}\s*", text) else None


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
