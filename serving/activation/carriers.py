"""How files reach a destination: a folder, a bucket that speaks S3, a webhook. Whole or not at all, told by the manifest that comes last.

A carrier is asked, part by part, to put what is not there yet; then to commit, after which the recipient may use it. Each call may
be repeated. A fault is an outcome, not an exception: the delivery is taken up again later.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from serving.activation.deliveries import Delivery
from serving.activation.destinations import s3_credentials, webhook_secret
from serving.activation.dispatch import Dispatch
from serving.hub.delivery import signature
from serving.hub.webhooks import Outcome
from troth.home import sync, write_atomically

MANIFEST = "manifest.json"
TAKEN = Outcome(True)
_MOST_ANSWER_BYTES = 4_096
_RECEIPT = re.compile(r"[A-Za-z0-9_.:/=-]{1,200}")
_AWS = re.compile(r"AWS Error ([A-Z_]{1,40})")


class Carrier(Protocol):
    """One delivery on its way. Numbers of parts and recalls begin at 1."""

    def put(self, number: int, file: Path) -> Outcome:
        """Bring a part, which the recipient does not use yet."""

    def commit(self, manifest: bytes) -> Outcome:
        """Say that all of it is there."""

    def is_committed(self, manifest: bytes) -> bool:
        """Whether this very manifest is there already; what can only be asked by saying it again answers no."""

    def clear(self) -> None:
        """Take away what was put and not committed, as far as that can be done from here."""

    def recall(self, number: int, body: bytes) -> Outcome:
        """Tell the recipient whom it may not contact any more. `is_acknowledged` where the telling itself is the answer."""

    def answer(self, number: int) -> str | None:
        """What the recipient left as its answer to a recall; None where there is none yet."""


def carrier_of(dispatch: Dispatch, delivery: Delivery) -> Carrier:
    kinds: dict[str, type[_Folder | _S3 | _Webhook]] = {"folder": _Folder, "s3": _S3, "webhook": _Webhook}
    return kinds[delivery.to.kind](dispatch, delivery)


def recall_name(number: int) -> str:
    """Below the folder of the delivery; the recipient answers with a file of the same name that ends in .ack."""
    return f"recalls/{number:05d}.json"


def answer_name(number: int) -> str:
    return f"recalls/{number:05d}.ack"


class _Folder:
    """A draft beside the folder it will be; the last step is its renaming."""

    def __init__(self, dispatch: Dispatch, delivery: Delivery) -> None:
        top = delivery.to.folder(dispatch.home)
        self._final = top / delivery.delivery_id
        self._draft = top / f".{delivery.delivery_id}.draft"

    def put(self, number: int, file: Path) -> Outcome:
        with _faults() as fault:
            if number == 1:
                shutil.rmtree(self._draft, ignore_errors=True)
            self._draft.mkdir(parents=True, exist_ok=True)
            self._draft.chmod(0o750)
            write_atomically(self._draft / file.name, file.read_bytes())
        return fault[0] if fault else TAKEN

    def commit(self, manifest: bytes) -> Outcome:
        with _faults() as fault:
            if not self.is_committed(manifest):
                write_atomically(self._draft / MANIFEST, manifest)
                sync(self._draft)
                self._draft.replace(self._final)
                sync(self._final.parent)
        return fault[0] if fault else TAKEN

    def is_committed(self, manifest: bytes) -> bool:
        there = self._final / MANIFEST
        return there.exists() and there.read_bytes() == manifest

    def clear(self) -> None:
        shutil.rmtree(self._draft, ignore_errors=True)

    def recall(self, number: int, body: bytes) -> Outcome:
        with _faults() as fault:
            write_atomically(self._final / recall_name(number), body)
        return fault[0] if fault else Outcome(False)

    def answer(self, number: int) -> str | None:
        path = self._final / answer_name(number)
        try:
            with path.open("rb") as file:
                return _receipt(file.read(_MOST_ANSWER_BYTES))
        except OSError:
            return None


class _S3:
    """Objects below `bucket/prefix/<delivery>/`. An object appears whole; the manifest names the hash of each."""

    def __init__(self, dispatch: Dispatch, delivery: Delivery) -> None:
        self._dispatch = dispatch
        self._to = delivery.to
        self._top = f"{delivery.to.where}/{delivery.delivery_id}"

    def put(self, number: int, file: Path) -> Outcome:
        return self._write(file.name, file.read_bytes())

    def commit(self, manifest: bytes) -> Outcome:
        return self._write(MANIFEST, manifest)

    def is_committed(self, manifest: bytes) -> bool:
        return self._read(MANIFEST, len(manifest) + 1) == manifest

    def clear(self) -> None:
        with _faults():
            from pyarrow import fs

            under = fs.FileSelector(self._top, allow_not_found=True)
            for each in self._files.get_file_info(under):
                if each.type == fs.FileType.File and each.base_name != MANIFEST:
                    self._files.delete_file(each.path)

    def recall(self, number: int, body: bytes) -> Outcome:
        told = self._write(recall_name(number), body)
        return Outcome(False, fault=told.fault)

    def answer(self, number: int) -> str | None:
        found = self._read(answer_name(number), _MOST_ANSWER_BYTES)
        return None if found is None else _receipt(found)

    def _write(self, name: str, data: bytes) -> Outcome:
        with _faults() as fault, self._files.open_output_stream(f"{self._top}/{name}") as stream:
            stream.write(data)
        return fault[0] if fault else TAKEN

    def _read(self, name: str, most: int) -> bytes | None:
        """Up to so many bytes of an object; None where it is not there or nobody answers."""
        found: list[bytes] = []
        with _faults(), self._files.open_input_stream(f"{self._top}/{name}") as stream:
            found.append(stream.read(most))
        return found[0] if found else None

    @cached_property
    def _files(self) -> Any:
        """The bucket, by Arrow's own client: large objects go in parts, each fault is tried again a few times."""
        from pyarrow import fs

        secrets = s3_credentials(self._dispatch.home, self._to)
        parts = urlsplit(self._to.endpoint or "")
        return fs.S3FileSystem(
            **secrets,
            region=self._to.region,
            scheme=parts.scheme or "https",
            endpoint_override=parts.netloc or None,
            connect_timeout=10,
            request_timeout=60,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
        )


class _Webhook:
    """Signed messages (Standard Webhooks): parts with people, then the manifest that names the hash of each part's body."""

    def __init__(self, dispatch: Dispatch, delivery: Delivery) -> None:
        self._dispatch = dispatch
        self._delivery = delivery

    def put(self, number: int, file: Path) -> Outcome:
        return self._post(f"{self._delivery.attempt}.{number}", file.read_bytes())

    def commit(self, manifest: bytes) -> Outcome:
        return self._post(f"{self._delivery.attempt}.manifest", _message("activation.completed", json.loads(manifest)))

    def is_committed(self, manifest: bytes) -> bool:
        return False

    def clear(self) -> None:
        """What was posted is told to be discarded by a recall of everybody."""

    def recall(self, number: int, body: bytes) -> Outcome:
        return self._post(f"recall.{number}", _message("activation.recalled", json.loads(body)))

    def answer(self, number: int) -> str | None:
        return None

    def _post(self, name: str, body: bytes) -> Outcome:
        """Under an id that is the same however often it is sent, so that a receiver takes it once."""
        message_id, at = f"{self._delivery.delivery_id}.{name}", int(self._dispatch.wall.now().timestamp())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "troth-activation/1",
            "webhook-id": message_id,
            "webhook-timestamp": str(at),
            "webhook-signature": signature(
                webhook_secret(self._dispatch.home, self._delivery.to), message_id, at, body
            ),
        }
        return self._dispatch.post(self._delivery.to.where, headers, body, allow_loopback=self._delivery.to.is_local)


def _message(kind: str, data: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "data": data}, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _receipt(data: bytes) -> str:
    """The recipient's own number for its answer, alone or as `{"receipt_id": ...}`; empty where it left none."""
    try:
        told = json.loads(data)
    except ValueError:
        told = data.decode(errors="replace").strip()
    told = told.get("receipt_id") if isinstance(told, dict) else told
    return told if isinstance(told, str) and _RECEIPT.fullmatch(told) else ""


@contextmanager
def _faults() -> Iterator[list[Outcome]]:
    """What the disk or the bucket refuses, by its code alone: a message may quote what nobody else should read."""
    found: list[Outcome] = []
    try:
        yield found
    except OSError as fault:
        code = _AWS.search(str(fault))
        found.append(Outcome(False, fault=code[1].lower() if code else type(fault).__name__))
