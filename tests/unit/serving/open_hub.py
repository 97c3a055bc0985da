"""A hub over an empty home, with a key for each scope. Alma, who shops at the pier, and plain events of hers."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from consent.events import Event
from serving import keys
from serving.app import create_app
from serving.hub.routes import Hub
from serving.hub.seams import Seams
from tests.unit.serving.open_shop import Caller
from troth.clock import FixedClock
from troth.home import Home
from troth.ids import tokeniser

MONDAY = datetime(2026, 3, 2, 10, tzinfo=UTC)
ALMA = {"type": "email", "value": "Alma@Pier.example"}
PHONE = {"type": "phone", "value": "+1 (503) 555-0142"}
FORM = re.compile(r'name="form" value="([^"]+)"')


class OpenHub:
    """A running hub: its clock, its callers and what its ledger says."""

    def __init__(self, root: Path, seams: Seams | None = None, *, allow_loopback: bool = False) -> None:
        self.home = Home(root)
        self.clock = FixedClock(MONDAY)
        made = {scope: keys.make_key(self.home, scope, [], MONDAY, [scope]) for scope in keys.SCOPES}
        self.hub = Hub(self.home, self.clock, seams, allow_loopback=allow_loopback)
        self.app = create_app(self.home, self.clock, self.hub)
        self.capture, self.links, self.admin, self.events, *_ = (Caller(self.app, made[scope]) for scope in keys.SCOPES)
        self.person = Caller(self.app)

    def alma(self, identifier: dict[str, str] = ALMA) -> str:
        token = tokeniser(self.home.key("token"))(identifier["type"], identifier["value"])
        assert token is not None
        return token

    def link(self, kind: str = "preferences", purpose_code: str = "marketing", channel_code: str = "email") -> str:
        """Path of a new link for Alma."""
        about = {} if kind == "preferences" else {"purpose_code": purpose_code, "channel_code": channel_code}
        answer = self.links.post("/v1/links", json={"links": [{"kind": kind, "identifier": ALMA, **about}]})
        assert answer.status_code == 200, answer.text
        path: str = answer.json()["links"][0]["path"]
        return path

    def say(self, *events: dict[str, Any]) -> httpx.Response:
        return self.capture.post("/v1/consents", json={"events": list(events)})

    def said(self) -> list[Event]:
        """Everything the ledger holds, in order."""
        return [each.event for each in self.hub.ledger.events(0)]

    def stands(self, path: str, purpose_code: str, channel_code: str = "*") -> tuple[bool, str]:
        """What the preferences behind a link say of a purpose and channel."""
        rows = self.person.get(f"/v1{path}").json()["preferences"]
        row = next(
            each for each in rows if (each["purpose_code"], each["channel_code"]) == (purpose_code, channel_code)
        )
        return row["is_allowed"], row["reason_code"]

    def choose(self, path: str, choice: str, **headers: str) -> httpx.Response:
        """Open a page and press one of its buttons, a minute later."""
        form = FORM.search(self.person.get(path).text)
        assert form is not None
        self.clock.at += timedelta(minutes=1)
        return self.person.post(path, data={"form": form[1], "choice": choice}, headers=headers)


def grant(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A yes of Alma's, a day before MONDAY, and named changes. None leaves a field out."""
    event = {
        "signal_id": f"sig-{number}",
        "event_type": "grant",
        "purpose_code": "marketing",
        "channel_code": "email",
        "occurred_at": "2026-03-01T10:00:00Z",
        "recorded_at": "2026-03-01T10:00:00Z",
        "identifier": ALMA,
        "notice_id": "web_banner",
        "notice_version": 2,
        "language_code": "en",
        "capture_method": "banner_accept",
        "capture_place": "web_banner",
        "actor_type": "subject",
        "jurisdiction_code": "US-OR",
    }
    return {name: value for name, value in (event | changes).items() if value is not None}


def problem(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    return response.status_code, response.json()["type"].removeprefix("urn:troth:problem:")
