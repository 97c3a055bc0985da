"""What the hub asks of the rest of the platform, as plain callables, and who the house is."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import yaml

from serving.errors import ServingError
from serving.hub.pages import Controller
from troth.home import Home

CONTROLLER_FILE = "controller.yml"


@dataclass(frozen=True)
class Seams:
    """Each takes a subject and a time. What is not there is not offered.

    `receipt` and `export` give a document to download, as values or as its bytes; `erase` takes a request and gives its
    number.
    """

    receipt: Callable[[str, datetime], Any] | None = None
    export: Callable[[str, datetime], Any] | None = None
    erase: Callable[[str, datetime], str] | None = None


def as_json(document: Any) -> bytes:
    """A document of a seam as the bytes to send."""
    if isinstance(document, bytes | str):
        return document.encode() if isinstance(document, str) else document
    return msgspec.json.encode(document)


def read_controller(home: Home) -> Controller:
    """Who is responsible, from `controller.yml` in the home (name, address, contact); a plain word without it.

    Raises: ServingError when the file is not that.
    """
    path = home.root / CONTROLLER_FILE
    if not path.exists():
        return Controller()
    try:
        return msgspec.convert(yaml.safe_load(path.read_text("utf-8")), Controller)
    except (ValueError, yaml.YAMLError):
        raise ServingError(f"{path.name}: expected name, address and contact, found otherwise. Correct it.") from None
