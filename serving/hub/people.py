"""The hub for people as JSON, proved by a link: what stands, what changes, documents to download."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from serving import requests
from serving.hub import pages
from serving.hub.desk import Desk, json_answer, language_of, reason
from serving.hub.links import Link, LinkError
from serving.hub.preferences import Act, Wish, record
from serving.hub.seams import as_json
from serving.hub.shapes import Changes, Preference, Preferences
from serving.problems import ProblemError


class People:
    """Handlers. A link that does not work is 404, whyever."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def preferences(self, request: Request) -> Response:
        link, at, is_gpc = self._proved(request, "preferences")
        return self._preferences(request, link, at, is_gpc=is_gpc)

    async def change(self, request: Request) -> Response:
        link, at, is_gpc = await run_in_threadpool(self._proved, request, "preferences")
        changes = await requests.json_body(request, Changes)
        return await run_in_threadpool(self._change, request, link, at, changes, is_gpc)

    def _change(self, request: Request, link: Link, at: datetime, changes: Changes, is_gpc: bool) -> Response:
        wishes = [Wish(each.purpose_code, each.channel_code, each.is_allowed) for each in changes.changes]
        for position, wish in enumerate(wishes):
            if not self._desk.may(wish):
                detail = "expected a purpose and channel of these preferences, or * for a no, found another."
                raise requests.unprocessable(position, "purpose_code", detail)
        notice = self._desk.shown(changes.notice_version, changes.language_code)
        if notice is None and (any(wish.is_allowed for wish in wishes) or changes.notice_version is not None):
            detail = "expected the version and language of the notice of these preferences for a yes, found another."
            raise requests.unprocessable(0, "notice_version", detail)
        act = Act(link.subject_id, at, "preference_api", "preference_centre", f"link:{link.nonce}", notice)
        record(self._desk.ledger, self._desk.policy, wishes, act)
        return self._preferences(request, link, self._desk.clock.now(), is_gpc=is_gpc)

    def receipt(self, request: Request) -> Response:
        link, at, _ = self._proved(request, "preferences")
        return _document(self._desk.seams.receipt, link, at, "receipt.json")

    def export(self, request: Request) -> Response:
        link, at, _ = self._proved(request, "preferences")
        return _document(self._desk.seams.export, link, at, "my-data.json")

    def _proved(self, request: Request, kind: str) -> tuple[Link, datetime, bool]:
        """The request's link, when it came, and whether a privacy signal came with it, which is then recorded.

        Raises: ProblemError 404, the same for every link that does not work.
        """
        try:
            return self._desk.opened(request, kind)
        except LinkError as error:
            raise ProblemError(404, "no_such_link", str(error)) from None

    def _preferences(self, request: Request, link: Link, at: datetime, *, is_gpc: bool) -> Response:
        language = language_of(request)
        words = pages.languages()[language]
        notice = self._desk.current_notice(language)
        found = [
            Preference(
                purpose_code=each.purpose_code,
                channel_code=each.channel_code,
                title=pages.name(words, self._desk.policy, each.purpose_code, each.channel_code),
                may_choose=each.may_choose,
                is_allowed=each.standing.is_allowed,
                reason_code=each.standing.reason_code,
                reason=reason(words, each),
                since_at=each.standing.since_at,
                expires_at=each.standing.expires_at,
                notice_id=each.decided_by.notice_id if each.decided_by and each.is_own else None,
                notice_version=each.decided_by.notice_version if each.decided_by and each.is_own else None,
                leaf_index=each.standing.leaf_index,
            )
            for each in self._desk.choices(link, at)
        ]
        return json_answer(
            Preferences(
                preferences=found,
                notice=msgspec.structs.replace(self._desk.entry(notice), text=notice.text),
                is_gpc_honoured=is_gpc,
                ledger_size=self._desk.ledger.size,
                answered_at=at,
                link_expires_at=link.expires_at,
            ),
            {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"},
        )


def _document(make: Callable[[str, datetime], Any] | None, link: Link, at: datetime, name: str) -> Response:
    if make is None:
        raise ProblemError(404, "not_offered", "document: expected one this service offers, found none. Ask us for it.")
    headers = {"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="{name}"'}
    return Response(as_json(make(link.subject_id, at)), headers=headers, media_type="application/json")
