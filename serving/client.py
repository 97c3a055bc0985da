"""A client of the service: typed answers, typed errors, one connection a thread kept open, over the standard library's HTTP.

Asks again, a few times and after the pause it was told, where asking twice does what asking once does. What was refused for good is raised at once.
"""

import http.client
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from feature_repo.reads import Answer
from models.promise.asking import Promise
from serving.answers import Availability, Health, OrderAnswer, Recommendation
from serving.encoding import JSON, MESSAGE_PACK
from serving.errors import ServingError
from serving.feature_reads import FeatureColumns, FeaturesRequest
from serving.operations.readiness import Readiness
from serving.problems import ProblemDetails
from serving.promising.shapes import Extension, Held, NewHold, PromiseRequest, RepromiseRequest
from serving.requests import AvailabilityRequest, Pair
from serving.supply import Promisable

TIMEOUT_SECONDS, MOST_TRIES, LONGEST_PAUSE_SECONDS = 5.0, 3, 30.0
_ACCEPT = f"{MESSAGE_PACK}, {JSON};q=0.9"
_T = TypeVar("_T")
_ANSWERED = (200,)


class CallError(ServingError):
    """A call that was not answered. `details` are the service's own words; None where there were none."""

    def __init__(self, text: str, details: ProblemDetails | None = None, request_id: str | None = None, retry_seconds: float | None = None) -> None:  # fmt: skip
        super().__init__(text)
        self.details, self.request_id, self.retry_seconds = details, request_id, retry_seconds

    @property
    def code(self) -> str | None:
        """The kind of problem, as programs tell them apart: `too_many_requests`."""
        return None if self.details is None else self.details.type.rpartition(":")[2]


class NotLetInError(CallError):
    """401, 403: no key, or one that is not for this."""


class NoSuchThingError(CallError):
    """404: nothing of that name."""


class TooOftenError(CallError):
    """429, after as many tries as there were to be."""


class UnavailableError(CallError):
    """5xx, or nobody answered: it may go well later."""


_ERRORS: dict[int, type[CallError]] = {
    401: NotLetInError,
    403: NotLetInError,
    404: NoSuchThingError,
    429: TooOftenError,
}


class Client:
    """The service at an address, asked with a key or a token. Threads may share it; `close` ends the connection of the thread that calls it.

    `headers` is called for each request, for what travels with it: a `traceparent`, say.
    """

    def __init__(
        self,
        address: str,
        key: str,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        most_tries: int = MOST_TRIES,
        headers: Callable[[], Mapping[str, str]] = dict,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ServingError("address: expected one such as https://troth.example, found another. Correct it.")
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._place, self._root = (parts.hostname, parts.port), parts.path.rstrip("/")
        self._key, self._timeout, self._tries, self._headers, self._pause = key, timeout_seconds, max(1, most_tries), headers, pause  # fmt: skip
        self._local = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        connection = self._local.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()

    def features(self, service: str, entities: Mapping[str, Sequence[str]]) -> FeatureColumns:
        """Features of up to 1,000 entities, given as columns of join keys, for one use."""
        asked = FeaturesRequest(service, {name: list(column) for name, column in entities.items()})
        return self._ask("POST", "/v1/features", FeatureColumns, body=asked)

    def customer_features(self, who: str, service: str) -> Answer:
        """Features of one customer, by customer id or the token of an identifier."""
        return self._ask("GET", f"/v1/customers/{_quoted(who)}/features", Answer, {"service": service})

    def availability(self, sku: str, location_code: str | None = None) -> list[Availability]:
        """Stock of an item at a location, or everywhere."""
        return self._ask("GET", "/v1/availability", list[Availability], {"sku": sku, "location": location_code})

    def availabilities(self, pairs: Sequence[tuple[str, str]]) -> list[Availability]:
        """Stock of up to 10,000 (SKU, location) pairs, in their order."""
        asked = AvailabilityRequest([Pair(*pair) for pair in pairs])
        return self._ask("POST", "/v1/availability", list[Availability], body=asked)

    def promisable(
        self, sku: str, *, location_code: str | None = None, group_code: str | None = None, channel_type: str | None = None,
        at: datetime | None = None,
    ) -> Promisable:  # fmt: skip
        """What may be promised of an item by a location or a group, to a channel, for a time."""
        asked = {"sku": sku, "location": location_code, "group": group_code, "channel": channel_type, "at": None if at is None else at.isoformat()}  # fmt: skip
        return self._ask("GET", "/v1/availability/promisable", Promisable, asked)

    def recommendations(self, customer_id: str, count: int = 10, *, allow_popular: bool = False) -> Recommendation:
        """What to show a customer."""
        asked = {"count": str(count), "allow_popular": str(allow_popular).lower()}
        return self._ask("GET", f"/v1/recommendations/{_quoted(customer_id)}", Recommendation, asked)

    def order(self, name: str, audience: str = "shopper") -> OrderAnswer:
        """What became of an order."""
        return self._ask("GET", "/v1/orders", OrderAnswer, {"order": name, "audience": audience})

    def promise(self, asked: PromiseRequest) -> Promise:
        """Where, when and how surely a basket can be had. With a hold it is asked once more only under the hold's key, which makes it one."""
        return self._ask("POST", "/v1/promises", Promise, body=asked)

    def repromise(self, asked: RepromiseRequest) -> Promise:
        """Another promise for what was not found. Asked once: whether it was heard cannot be told from silence."""
        return self._ask("POST", "/v1/repromises", Promise, body=asked, is_repeatable=False)

    def hold(self, wanted: NewHold) -> Held:
        """Stock set aside, all lines or none; the same under its key however often it is asked."""
        return self._ask("POST", "/v1/holds", Held, body=wanted)

    def extend_hold(self, hold_id: str, until: datetime) -> Held:
        return self._ask("POST", f"/v1/holds/{_quoted(hold_id)}/extend", Held, body=Extension(until))

    def release_hold(self, hold_id: str) -> Held:
        return self._ask("DELETE", f"/v1/holds/{_quoted(hold_id)}", Held)

    def health(self) -> Health:
        return self._ask("GET", "/v1/health", Health)

    def ready(self) -> Readiness:
        """Whether requests should be sent there, and why not; asked once."""
        return self._ask("GET", "/v1/ready", Readiness, is_repeatable=False, answered=(200, 503))

    def _ask(
        self, method: str, path: str, kind: type[_T], query: Mapping[str, str | None] | None = None, *, body: Any = None,
        is_repeatable: bool = True, answered: Sequence[int] = _ANSWERED,
    ) -> _T:  # fmt: skip
        """Raises: CallError, or what it is more exactly."""
        given = {name: value for name, value in (query or {}).items() if value is not None}
        address = self._root + path + (f"?{urlencode(given)}" if given else "")
        data = None if body is None else msgspec.json.encode(body)
        tries = self._tries if is_repeatable else 1
        while True:
            tries -= 1
            try:
                return self._asked(method, address, data, kind, answered)
            except (TooOftenError, UnavailableError) as error:
                wait = error.retry_seconds
                if tries <= 0 or wait is None or wait > LONGEST_PAUSE_SECONDS:
                    raise
                self._pause(wait)

    def _asked(self, method: str, address: str, data: bytes | None, kind: type[_T], answered: Sequence[int]) -> _T:
        headers = {"Authorization": f"Bearer {self._key}", "Accept": _ACCEPT, **self._headers()}
        if data is not None:
            headers["Content-Type"] = JSON
        connection = self._connection()
        try:
            connection.request(method, address, data, headers)
            response = connection.getresponse()
            told = response.read()
        except (OSError, http.client.HTTPException) as fault:
            self.close()
            raise UnavailableError(
                f"service: expected an answer, found {type(fault).__name__}. Ask again later.", retry_seconds=0.0
            ) from None
        if response.will_close:
            self.close()
        if response.status not in answered:
            raise _error(response, told)
        is_packed = (response.getheader("Content-Type") or "").startswith(MESSAGE_PACK)
        try:
            return msgspec.msgpack.decode(told, type=kind) if is_packed else msgspec.json.decode(told, type=kind)
        except msgspec.MsgspecError:
            raise CallError(
                "answer: expected one of this client's release, found another. Use the service's."
            ) from None

    def _connection(self) -> http.client.HTTPConnection:
        """This thread's, kept open. One the service has closed meanwhile is opened anew by the next try."""
        found: http.client.HTTPConnection | None = self._local.__dict__.get("connection")
        if found is None:
            found = self._local.connection = self._kind(*self._place, timeout=self._timeout)
        return found


def _error(response: http.client.HTTPResponse, told: bytes) -> CallError:
    try:
        details = msgspec.json.decode(told, type=ProblemDetails)
        text = details.detail
    except msgspec.MsgspecError:
        details, text = None, f"service: expected an answer, found status {response.status}. Ask who runs it."
    wait = response.getheader("Retry-After", "")
    seconds = float(wait) if wait.isdecimal() else None
    kind = _ERRORS.get(response.status, UnavailableError if response.status >= 500 else CallError)
    return kind(text, details, response.getheader("X-Request-Id"), seconds)


def _quoted(part: str) -> str:
    return quote(part, safe="")
