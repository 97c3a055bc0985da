"""A disk that fails when told to: every call by which SQLite and Python change files goes through a function of the test.

The addresses of these calls are looked up in the loader's tables of the libraries in this process (ELF relocations, System V
ABI, chapter 5) and replaced by ctypes callbacks. Linux, 64 bits. No compiler, no tracer, no rights needed.
"""

import ctypes
import errno
import functools
import os
import signal
import sqlite3  # noqa: F401  (its library must be in the process)
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

_LIBC = ctypes.CDLL("libc.so.6", use_errno=True)  # by name: of the whole process, a lookup may find the table itself
_PATH, _INT, _BUFFER = ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p
_SIZE, _SSIZE, _OFFSET = ctypes.c_size_t, ctypes.c_ssize_t, ctypes.c_int64
_CALLS = {  # by symbol: what it is to us, result, arguments
    "open": ("create", _INT, (_PATH, _INT, ctypes.c_uint)),
    "open64": ("create", _INT, (_PATH, _INT, ctypes.c_uint)),
    "write": ("write", _SSIZE, (_INT, _BUFFER, _SIZE)),
    "pwrite": ("write", _SSIZE, (_INT, _BUFFER, _SIZE, _OFFSET)),
    "pwrite64": ("write", _SSIZE, (_INT, _BUFFER, _SIZE, _OFFSET)),
    "ftruncate": ("truncate", _INT, (_INT, _OFFSET)),
    "ftruncate64": ("truncate", _INT, (_INT, _OFFSET)),
    "fsync": ("sync", _INT, (_INT,)),
    "fdatasync": ("sync", _INT, (_INT,)),
    "unlink": ("remove", _INT, (_PATH,)),
    "rename": ("rename", _INT, (_PATH, _PATH)),
}


class Fault(Enum):
    """What may happen at a call."""

    NONE = "it is done"
    IO_ERROR = "input/output error, nothing done"
    DISK_FULL = "no space left, nothing done"
    HALF = "half of it is written, then no space is left"
    LATE = "it is done, and reported as an input/output error"
    KILLED_BEFORE = "kill -9, nothing done"
    KILLED_HALFWAY = "half of it is written, then kill -9"
    KILLED_AFTER = "it is done, then kill -9"


@dataclass(frozen=True)
class Call:
    """A change of a file below the folder that is watched."""

    kind: str  # create, write, truncate, sync, remove, rename
    path: str  # relative to the folder; the folder itself is "."
    offset: int = 0  # or length to truncate to
    data: bytes = b""
    target: str = ""  # of a rename


Answer = Callable[[Call], Fault]


@contextmanager
def watched(folder: Path, answer: Answer) -> Iterator[None]:
    """While inside, `answer` says for every call below the folder what becomes of it."""
    places = _all_places()
    root = str(folder.resolve())
    replaced = {name: _replacement(name, root, answer) for name in {name for name, _ in places}}
    before = [(at, _word(at).value) for _, at in places]
    for name, at in places:
        _put(at, ctypes.cast(replaced[name], ctypes.c_void_p).value or 0)
    try:
        yield
    finally:
        for at, value in before:
            _put(at, value)


def _replacement(name: str, root: str, answer: Answer) -> "ctypes._FuncPointer":
    kind, result, arguments = _CALLS[name]
    shape = ctypes.CFUNCTYPE(result, *arguments, use_errno=True)
    real = shape((name, _LIBC))

    def call(*values: "int | bytes") -> int:
        found = _described(kind, root, values)
        fault = Fault.NONE if found is None else answer(found)
        if fault is Fault.NONE:
            return int(real(*values))
        if fault in (Fault.HALF, Fault.KILLED_HALFWAY) and kind == "write":
            half = (*values[:2], int(values[2]) // 2, *values[3:])
            done = int(real(*half)) if half[2] else 0
            if fault is Fault.HALF and done:
                return done  # the caller goes on with the rest, and then there is no space
        if fault in (Fault.LATE, Fault.KILLED_AFTER):
            real(*values)
        if fault in (Fault.KILLED_BEFORE, Fault.KILLED_HALFWAY, Fault.KILLED_AFTER):
            os.kill(os.getpid(), signal.SIGKILL)
        ctypes.set_errno(errno.ENOSPC if fault in (Fault.DISK_FULL, Fault.HALF) else errno.EIO)
        return -1

    return shape(call)


def _described(kind: str, root: str, values: "tuple[int | bytes, ...]") -> Call | None:
    """What a call changes; None where that is outside of the folder, or nothing."""
    path = _path_of(values[0])
    if path != root and not path.startswith(root + os.sep):
        return None
    if kind == "create" and (not int(values[1]) & os.O_CREAT or os.path.exists(path)):
        return None
    name = os.path.relpath(path, root)
    if kind == "write":
        offset = int(values[3]) if len(values) > 3 else os.lseek(int(values[0]), 0, os.SEEK_CUR)
        return Call(kind, name, offset, ctypes.string_at(int(values[1]), int(values[2])))
    if kind == "truncate":
        return Call(kind, name, int(values[1]))
    if kind == "rename":
        return Call(kind, name, target=os.path.relpath(os.fsdecode(bytes(values[1])), root))  # type: ignore[arg-type]
    return Call(kind, name)


def _path_of(file: "int | bytes") -> str:
    """Of a name, or of a descriptor; empty where that has none."""
    if isinstance(file, bytes):
        return os.path.join(os.getcwd(), os.fsdecode(file))
    try:
        return os.readlink(f"/proc/self/fd/{file}")
    except OSError:
        return ""


@functools.cache
def _all_places() -> list[tuple[str, int]]:
    places = [place for base in _libraries() for place in _places(base)]
    if not {"fsync", "fdatasync"} & {name for name, _ in places}:
        raise RuntimeError("disk: expected libraries that sync through the loader's tables, found none. Use Linux.")
    return places


def _libraries() -> list[int]:
    """Where SQLite and Python themselves begin in memory."""
    found = {}
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        fields = line.split(maxsplit=5)
        name = os.path.basename(fields[5]) if len(fields) > 5 else ""
        if "sqlite3" in name or name.startswith(("python", "libpython")):
            found.setdefault(fields[5], int(fields[0].split("-")[0], 16))
    return list(found.values())


def _places(base: int) -> Iterator[tuple[str, int]]:
    """Where a library keeps the addresses of the calls we know."""
    kind, table, width, count = *struct.unpack("<H", _bytes(base + 16, 2)), *_header(base)
    bias = 0 if kind == 2 else base  # ET_EXEC is loaded where it says
    headers = [struct.unpack("<IIQQQQQQ", _bytes(base + table + at * width, 56)) for at in range(count)]
    dynamic = next(bias + header[3] for header in headers if header[0] == 2)  # PT_DYNAMIC
    tags: dict[int, int] = {}
    while (entry := struct.unpack("<qQ", _bytes(dynamic, 16)))[0]:
        tags[entry[0]] = entry[1]
        dynamic += 16

    def address(tag: int) -> int:
        return tags[tag] if tags[tag] >= bias else bias + tags[tag]

    for start, size in ((7, 8), (23, 2)):  # DT_RELA and its size, DT_JMPREL and its size
        if start in tags:
            for at in range(address(start), address(start) + tags[size], 24):
                offset, info, _ = struct.unpack("<QQq", _bytes(at, 24))
                if symbol := info >> 32:
                    (name,) = struct.unpack("<I", _bytes(address(6) + symbol * 24, 4))
                    called = ctypes.string_at(address(5) + name).decode()
                    if called in _CALLS:
                        yield called, bias + offset


def _header(base: int) -> tuple[int, int, int]:
    """Offset, width and number of the program headers."""
    (table,) = struct.unpack("<Q", _bytes(base + 32, 8))
    width, count = struct.unpack("<HH", _bytes(base + 54, 4))
    return table, width, count


def _bytes(at: int, length: int) -> bytes:
    return ctypes.string_at(at, length)


def _word(at: int) -> ctypes.c_uint64:
    return ctypes.c_uint64.from_address(at)


def _put(at: int, value: int) -> None:
    page = os.sysconf("SC_PAGESIZE")
    start = at // page * page
    if _LIBC.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(at + 8 - start), 3):
        raise OSError(ctypes.get_errno(), "disk: expected to replace a call, found its table locked.")
    _word(at).value = value
