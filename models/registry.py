"""Where learned artifacts are kept: `artifacts/<model>/<version>/`, written whole and verified before they are read.

A version is the hash of its manifest, and the manifest names the hash of every file. The manifest carries a seal
made with the home's own key (`keys/registry.key`), so that a file made elsewhere is never unpickled, however
consistent its hashes. Two pointers: CURRENT is what is used, LATEST what was last trained, good enough or not.
"""

import hashlib
import hmac
import json
import os
import pickle
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.errors import ModelsError
from troth.home import Home, write_atomically

CURRENT = "CURRENT"
LATEST = "LATEST"
MANIFEST = "manifest.json"
SEAL = "manifest.seal"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_VERSION = re.compile(r"[0-9a-f]{32}")


def save(home: Home, model: str, files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> str:
    """Write a version whole or not at all, point LATEST at it, return its name. Same content, same version."""
    content = {**manifest, "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}}
    text = canonical(content)
    version = hashlib.sha256(text).hexdigest()[:32]
    folder = _folder(home, model) / version
    if not folder.exists():
        draft = folder.with_name(f".{version}.{os.getpid()}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        for name, data in {**files, MANIFEST: text, SEAL: _seal(home, model, text)}.items():
            write_atomically(draft / name, data)
        draft.replace(folder)
    read(home, model, version)
    write_atomically(folder.parent / LATEST, version.encode())
    return version


def promote(home: Home, model: str, version: str) -> None:
    """Make a version the one in use. Raises: ModelsError unless it verifies."""
    read(home, model, version)
    write_atomically(_folder(home, model) / CURRENT, version.encode())


def pointed(home: Home, model: str, pointer: str = CURRENT) -> str | None:
    """The version CURRENT (or LATEST) names, or None when there is none, or none any more."""
    path = _folder(home, model) / pointer
    version = path.read_text().strip() if path.exists() else ""
    return version if _VERSION.fullmatch(version) and (path.parent / version).is_dir() else None


def manifest(home: Home, model: str, version: str) -> dict[str, Any]:
    """A version's manifest, after seal and name are verified. Raises: ModelsError with what was found instead."""
    if not _VERSION.fullmatch(version):
        raise ModelsError(
            f"{model}: expected a version of 32 hex digits, found {version[:40]!r}. Name one that exists."
        )
    folder = _folder(home, model) / version
    if not (folder / MANIFEST).exists() or not (folder / SEAL).exists():
        raise ModelsError(
            f"{model} {version}: expected {MANIFEST} and {SEAL}, found no such version. Run `troth run` again."
        )
    text = (folder / MANIFEST).read_bytes()
    if not hmac.compare_digest(_seal(home, model, text), (folder / SEAL).read_bytes()):
        raise _tampered(model, version, MANIFEST, "the seal of this home's key", "another")
    found = hashlib.sha256(text).hexdigest()[:32]
    if found != version:
        raise _tampered(model, version, MANIFEST, f"hash {version}", found)
    content: dict[str, Any] = json.loads(text)
    return content


def read(home: Home, model: str, version: str) -> dict[str, bytes]:
    """Every file of a version, each verified against the manifest. Raises: ModelsError naming the file that differs."""
    files: dict[str, bytes] = {}
    for name, expected in manifest(home, model, version)["files"].items():
        path = _folder(home, model) / version / name
        data = path.read_bytes() if path.exists() else b""
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise _tampered(model, version, name, f"hash {expected}", found if path.exists() else "no file")
        files[name] = data
    return files


def unpickled(home: Home, model: str, version: str, file: str) -> Any:
    """The object in a version's file. Nothing is unpickled before manifest, seal and file are verified."""
    return pickle.loads(read(home, model, version)[file])  # noqa: S301


def canonical(content: Mapping[str, Any]) -> bytes:
    """JSON with sorted keys and a line end: equal content, equal bytes."""
    return (json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _folder(home: Home, model: str) -> Path:
    if not _NAME.fullmatch(model):
        raise ModelsError(
            f"model: expected a name of small letters, digits and underscores, found {model[:40]!r}. Correct the name."
        )
    return home.artifacts / model


def _seal(home: Home, model: str, text: bytes) -> bytes:
    return hmac.new(home.key("registry"), model.encode() + b"\0" + text, "sha256").hexdigest().encode()


def _tampered(model: str, version: str, file: str, expected: str, found: str) -> ModelsError:
    return ModelsError(
        f"{model} {version}, {file}: expected {expected}, found {found}. "
        f"The artifact is not what was trained: remove the version and run `troth run` to train it again."
    )
