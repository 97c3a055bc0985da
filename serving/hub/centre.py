"""The hub for people as pages, proved by a link: preference centre, unsubscribing, confirming, asking for erasure.

Looking changes nothing: mail scanners follow links. Every form carries a token bound to its link and to the text it stood under.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from consent.rule.policy import EVERY
from serving import requests
from serving.hub import pages
from serving.hub.desk import Desk, language_of, reason
from serving.hub.links import Link, LinkError
from serving.hub.preferences import Act, Choice, Wish, confirm, record
from troth.errors import TrothError

ONE_CLICK = ("List-Unsubscribe", "One-Click")  # RFC 8058, section 3.1
_DIGITS = 15


class Centre:
    """Handlers, in pairs: the page, and what its form does."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def preferences_page(self, request: Request) -> Response:
        return self._answered(request, "preferences", self._preferences_page)

    async def choose(self, request: Request) -> Response:
        return await self._posted(request, "preferences", self._choose)

    def delete_page(self, request: Request) -> Response:
        return self._answered(request, "preferences", self._delete_page)

    async def delete(self, request: Request) -> Response:
        return await self._posted(request, "preferences", self._delete)

    def unsubscribe_page(self, request: Request) -> Response:
        return self._answered(request, "unsubscribe", self._unsubscribe_page)

    async def unsubscribe(self, request: Request) -> Response:
        return await self._posted(request, "unsubscribe", self._unsubscribe)

    def confirm_page(self, request: Request) -> Response:
        return self._answered(request, "confirm", self._confirm_page)

    async def confirm(self, request: Request) -> Response:
        return await self._posted(request, "confirm", self._confirm)

    def thanks(self, request: Request) -> Response:
        language = language_of(request)
        words = pages.languages()[language]
        return self._desk.page("message.html", language, title=words["thanks_title"], text=words["thanks"], back=None)

    def _preferences_page(self, request: Request, link: Link, at: datetime, is_gpc: bool) -> Response:
        language = language_of(request)
        words = pages.languages()[language]
        found = self._desk.choices(link, at)
        kept = request.query_params.get("kept")
        return self._desk.page(
            "preferences.html",
            language,
            title=words["title"],
            link=link.text,
            form=self._desk.form(link, language),
            kept=kept is not None,
            leaf=kept if kept and kept.isascii() and kept.isdigit() and len(kept) <= _DIGITS else None,
            is_gpc=is_gpc,
            identifier=words["identifier"][link.subject_id.partition("_")[0]],
            until=pages.date(words, link.expires_at),
            is_all_no=_is_all_no(found),
            notice=pages.shown(self._desk.current_notice(language)),
            purposes=self._purposes(found, words),
            can_receipt=self._desk.seams.receipt is not None,
            can_export=self._desk.seams.export is not None,
            can_erase=self._desk.seams.erase is not None,
        )

    def _choose(self, request: Request, link: Link, at: datetime, form: dict[str, str], is_gpc: bool) -> Response:
        shown = self._desk.links.shown_on(link, form.get("form", ""))
        answer, _, rest = form.get("choice", "").partition(":")
        purpose_code, _, channel_code = rest.partition(":")
        wish = Wish(purpose_code, channel_code, answer == "yes")
        if answer not in ("yes", "no") or not self._desk.may(wish):
            raise requests.bad("choice: expected one of this page's, found another. Open the page again.")
        if shown is None:
            return self._stale(request, link)
        notice = self._desk.shown(*shown)
        if notice is None and wish.is_allowed:
            return self._stale(request, link)  # the text has changed since; a no needs no text
        act = Act(link.subject_id, at, "preference_form", "preference_centre", f"link:{link.nonce}", notice)
        leaves = record(self._desk.ledger, self._desk.policy, [wish], act)
        kept = str(leaves[-1]) if leaves else ""
        return _see_other(f"/preferences/{link.text}?language={shown[1]}&kept={kept}")

    def _delete_page(self, request: Request, link: Link, at: datetime, is_gpc: bool) -> Response:
        language = language_of(request)
        if self._desk.seams.erase is None:
            return self._nowhere(request)
        title = pages.languages()[language]["delete_title"]
        return self._desk.page(
            "delete.html", language, title=title, link=link.text, form=self._desk.form(link, language)
        )

    def _delete(self, request: Request, link: Link, at: datetime, form: dict[str, str], is_gpc: bool) -> Response:
        erase = self._desk.seams.erase
        if erase is None:
            return self._nowhere(request)
        shown = self._desk.links.shown_on(link, form.get("form", ""))
        if shown is None:
            return self._stale(request, link)
        if form.get("choice") != "delete":
            return _see_other(f"/preferences/{link.text}?language={shown[1]}")
        words = pages.languages()[shown[1]]
        text = words["delete_taken"].format(reference=erase(link.subject_id, at))
        return self._desk.page("message.html", shown[1], title=words["thanks_title"], text=text, back=None)

    def _unsubscribe_page(self, request: Request, link: Link, at: datetime, is_gpc: bool) -> Response:
        language = language_of(request)
        words = pages.languages()[language]
        found = self._desk.choices(link, at)
        same = [each for each in found if each.purpose_code == link.purpose_code]
        stopped = [each.is_own_no for each in same if each.channel_code == link.channel_code]
        is_stopped = bool(stopped) and all(stopped)
        return self._desk.page(
            "unsubscribe.html",
            language,
            title=words["unsubscribed_title" if is_stopped else "unsubscribe_title"],
            link=link.text,
            form=self._desk.form(link, language),
            is_gpc=is_gpc,
            what=pages.name(words, self._desk.policy, link.purpose_code, link.channel_code),
            purpose=pages.purpose_words(words, self._desk.policy, link.purpose_code)["title"],
            is_stopped=is_stopped,
            is_purpose_stopped=bool(same) and all(each.is_own_no for each in same),
            is_all_no=_is_all_no(found),
        )

    def _unsubscribe(self, request: Request, link: Link, at: datetime, form: dict[str, str], is_gpc: bool) -> Response:
        """One click acts at once and exactly as far as the link says; the page's own buttons may say a wider no."""
        narrow = Wish(link.purpose_code, link.channel_code, False)
        wider = {
            "this": narrow,
            "purpose": Wish(link.purpose_code, EVERY, False),
            "everything": Wish(EVERY, EVERY, False),
        }
        is_one_click = form.get(ONE_CLICK[0]) == ONE_CLICK[1]
        wish = narrow if is_one_click else wider.get(form.get("choice", ""))
        if wish is None:
            raise requests.bad(f"body: expected {'='.join(ONE_CLICK)}, or a choice of the page, found neither.")
        shown = None if is_one_click else self._desk.links.shown_on(link, form.get("form", ""))
        if shown is None and not is_one_click:
            return self._stale(request, None)
        method = "one_click_unsubscribe" if is_one_click else "unsubscribe_form"
        act = Act(link.subject_id, at, method, "unsubscribe_link", f"link:{link.nonce}")
        record(self._desk.ledger, self._desk.policy, [wish], act)
        if shown is not None:
            return _see_other(f"/unsubscribe/{link.text}?language={shown[1]}")
        return self._unsubscribe_page(request, link, self._desk.clock.now(), is_gpc)  # RFC 8058: no redirect

    def _confirm_page(self, request: Request, link: Link, at: datetime, is_gpc: bool) -> Response:
        if self._is_used(link):
            return self._nowhere(request)
        language = language_of(request)
        words = pages.languages()[language]
        return self._desk.page(
            "confirm.html",
            language,
            title=words["confirm_title"],
            link=link.text,
            form=self._desk.form(link, language),
            is_gpc=is_gpc,
            what=pages.name(words, self._desk.policy, link.purpose_code, link.channel_code),
        )

    def _confirm(self, request: Request, link: Link, at: datetime, form: dict[str, str], is_gpc: bool) -> Response:
        if self._is_used(link):
            return self._nowhere(request)
        shown = self._desk.links.shown_on(link, form.get("form", ""))
        if shown is None:
            return self._stale(request, None)
        confirm(self._desk.ledger, link.subject_id, link.purpose_code, link.channel_code, f"link:{link.nonce}", at)
        return _see_other(f"/thanks?language={shown[1]}")

    def notice_page(self, request: Request) -> Response:
        text = self._desk.text(request)
        language = text.language_code if text.language_code in pages.languages() else pages.DEFAULT_LANGUAGE
        return self._desk.page("notice.html", language, title=text.title, notice=pages.shown(text))

    def _answered(
        self, request: Request, kind: str, answer: Callable[[Request, Link, datetime, bool], Response]
    ) -> Response:
        """A page behind a link."""
        try:
            link, at, is_gpc = self._desk.opened(request, kind)
            return answer(request, link, at, is_gpc)
        except LinkError:
            return self._nowhere(request)
        except TrothError:
            return self._down(request)

    async def _posted(
        self,
        request: Request,
        kind: str,
        answer: Callable[[Request, Link, datetime, dict[str, str], bool], Response],
    ) -> Response:
        """What a form behind a link asks for. A form of another site is not listened to."""
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return self._stale(request, None)
        try:
            link, at, is_gpc = await run_in_threadpool(self._desk.opened, request, kind)
            form = await requests.form(request)
            return await run_in_threadpool(answer, request, link, at, form, is_gpc)
        except LinkError:
            return self._nowhere(request)
        except TrothError:
            return self._down(request)

    def _purposes(self, found: Sequence[Choice], words: pages.Words) -> list[dict[str, Any]]:
        """What the page says of each purpose."""
        shown: dict[str, dict[str, Any]] = {}
        for each in found:
            said = pages.purpose_words(words, self._desk.policy, each.purpose_code)
            processing = self._desk.controller.purposes.get(each.purpose_code)
            recipients = ", ".join(processing.recipients) if processing else ""
            fresh = {"code": each.purpose_code, **said, "recipients": recipients, "choices": []}
            purpose = shown.setdefault(each.purpose_code, fresh)
            by = each.decided_by if each.is_own else None
            notice = None
            if by and by.notice_id and by.notice_version and self._desk.notices.has(by.notice_id, by.notice_version):
                notice = self._desk.notices.best(by.notice_id, by.notice_version, by.language_code or "")
            purpose["choices"].append(
                {
                    "purpose_code": each.purpose_code,
                    "channel_code": each.channel_code,
                    "channel": pages.channel_words(words, self._desk.policy, each.channel_code),
                    "name": pages.name(words, self._desk.policy, each.purpose_code, each.channel_code),
                    "may_choose": each.may_choose,
                    "is_allowed": each.standing.is_allowed,
                    "reason": reason(words, each),
                    "until": pages.date(words, each.standing.expires_at),
                    "notice": notice,
                }
            )
        return list(shown.values())

    def _is_used(self, link: Link) -> bool:
        """Whether a link for one use was used: the ledger remembers."""
        return any(
            each.event.signal_id == f"link:{link.nonce}" for each in self._desk.ledger.events_of(link.subject_id)
        )

    def _nowhere(self, request: Request) -> Response:
        """The one page for every link that does not work, whyever."""
        language = language_of(request)
        words = pages.languages()[language]
        title, text = words["nowhere_title"], words["nowhere"]
        return self._desk.page("message.html", language, 404, title=title, text=text, back=None)

    def _down(self, request: Request) -> Response:
        """The record cannot be read or written now: nothing was changed, and nothing is done meanwhile."""
        language = language_of(request)
        words = pages.languages()[language]
        return self._desk.page("message.html", language, 503, title=words["down_title"], text=words["down"], back=None)

    def _stale(self, request: Request, link: Link | None) -> Response:
        language = language_of(request)
        words = pages.languages()[language]
        back = f"/preferences/{link.text}" if link else None
        return self._desk.page(
            "message.html", language, 403, title=words["stale_title"], text=words["stale"], back=back
        )


def _is_all_no(found: Sequence[Choice]) -> bool:
    return all(each.is_own_no for each in found if each.may_choose)


def _see_other(path: str) -> Response:
    return RedirectResponse(path, 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
