"""What the privacy desk has done in every room: a package written, a home searched, an erasure begun. The desk itself is `serving/rights/desk.py`."""

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from consent.rights import open_rights
from serving.hub.seams import Seams
from serving.rights.desk import ACTOR, begun
from serving.rights.persons import RightsError, resolve
from serving.rights.work import Foreseen, Holdings, Progress, Work
from troth.clock import Clock, SystemClock
from troth.home import Home

BEGIN_SECONDS = 5.0  # for the process of an erasure to say that it is there


def access(home: Home, clock: Clock, subjects: Sequence[str], *, portable: bool) -> dict[str, Any]:
    """Hand a person what is held about them, and log that it was done."""
    from orchestration.rights.access import access as write

    with open_rights(home) as log:
        kind = "portability" if portable else "access"
        request = begun(log, home, clock, kind, subjects)
        folder = write(home, clock, subjects, portable=portable)
        log.advance(request.request_id, "done", clock.now(), ACTOR)
    return {"request_id": request.request_id, "folder": str(folder)}


def search(home: Home, subjects: Sequence[str]) -> dict[str, Any]:
    """Where in the home anything is found that identifies a person: what was given, its tokens, and what those lead to."""
    from orchestration.rights.held import held
    from orchestration.rights.traces import Traces, as_json
    from orchestration.rights.traces import search as search_bytes

    texts: list[str] = [subject.partition(":")[2] or subject for subject in subjects]
    plain: dict[str, frozenset[str]] = {}
    with suppress(RightsError):  # nobody knows them any more: what was given is looked for all the same
        person = resolve(home, subjects)
        found = held(home, person)
        texts += [*person.tokens, *person.customer_ids, *found.spellings]
        texts += [value for values in found.spellings.values() for value in values]
        plain = dict(found.plain)
    finds = search_bytes(home, Traces.of(texts, plain))
    return {"finds": as_json(finds), "count": len(finds)}


def seams_of(home: Home) -> Seams:
    """What the consent hub and the pages hand out and take in: a package as values, a request for erasure that the desk works on, and
    what the desk asks to be done.

    A link proves one identity; whoever holds it is the person that identity is proved for.
    """

    def export(subject_id: str, at: datetime) -> dict[str, Any]:
        from orchestration.rights.access import access_document

        return access_document(home, at, [subject_id])

    def erase(subject_id: str, at: datetime) -> str:
        with open_rights(home) as log:
            return log.receive("erasure", [subject_id], at, "preference_centre", "subject").request_id

    return Seams(export=export, erase=erase, work=work_of(home))


def work_of(home: Home) -> Work:
    """What is done for requests in every room, for whoever knows none of them."""

    def foresee(subjects: Sequence[str]) -> Foreseen:
        from orchestration.rights.erasing import erase

        found = erase(home, SystemClock(), subjects, dry_run=True)
        return Foreseen(found.places, found.kept, found.recipients)

    def erase(request_id: str) -> None:
        """In a process of its own: to search every byte keeps a processor busy for minutes, and outlives whoever asked."""
        command = [sys.executable, "-m", "orchestration.rights.erasing", str(home.root), request_id]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
        threading.Thread(target=process.wait, name=f"erasure {request_id}", daemon=True).start()
        until = time.monotonic() + BEGIN_SECONDS
        while process.poll() is None and time.monotonic() < until:
            found = progress(request_id)
            if found is not None and found.is_running:
                return
            time.sleep(0.05)

    def progress(request_id: str) -> Progress | None:
        from orchestration.rights.erasing import progress

        return progress(home, request_id)

    def holdings(subjects: Sequence[str], clock: Clock, portable: bool) -> Holdings:
        from orchestration.rights.access import holdings

        return holdings(home, clock, subjects, portable=portable)

    def package(subjects: Sequence[str], clock: Clock, portable: bool) -> bytes:
        from orchestration.rights.access import package

        return package(home, clock, subjects, portable=portable)

    return Work(foresee, erase, progress, holdings, package)
