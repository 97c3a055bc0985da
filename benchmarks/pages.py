"""Pages of the console: how long the server takes for each page a role may open, signed in, over HTTP on a connection that is kept.

`troth serve` as a process of its own, on a retailer after a run. Pages are those that links lead to, and those of customers, orders and goods drawn
at random, so that hardly any is asked for twice. The limit beside them is the smallest thing the same server has to say.
"""

import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from html import unescape
from http.client import HTTPConnection, HTTPResponse, RemoteDisconnected
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import quote, urlencode

from benchmarks.callers import free_port, is_open
from benchmarks.harness import Measure, conditions
from troth.clock import SystemClock
from troth.home import Home

SUMMARY = "Pages of the console: p50 and p95 of every page by role, signed in, over HTTP, against the smallest static answer of the same server"
GOAL_MS = 200.0
# Not pages of ours, or none of a person: what other tools wrote, and what is asked without being signed in.
APART = ("/console/static", "/console/sign-", "/console/engineering/dbt")
LINK = re.compile(r'href="(/console[^"#]*)')
_PATIENCE = 120


@dataclass(frozen=True)
class Scale:
    retailer: str  # a scale of the simulator
    rounds: int = 30
    drawn: int = 40  # customers, orders and goods that are drawn
    linked: int = 8  # addresses of one kind that links lead to, for a role


SIZES = {"medium": Scale("medium"), "small": Scale("small"), "tiny": Scale("tiny", 3, 4, 1)}


@dataclass
class Visited:
    """A kind of page: where it was asked for by whom, and how many milliseconds each took."""

    addresses: list[tuple[str, str]] = field(default_factory=list)  # (role, address)
    times: list[float] = field(default_factory=list)
    first_ms: float = 0.0
    largest_bytes: int = 0

    def at(self, share: float) -> float:
        times = sorted(self.times)
        return times[min(len(times) - 1, int(len(times) * share))]


def measure(scale: str | None, data: Path | None = None) -> Iterator[Measure]:
    """p95 of each page in milliseconds, and of all. `scale`: `medium` (default), `small` or `tiny`. `data`: a home after a run; a copy of it is asked."""
    size = SIZES.get(scale or "medium")
    if size is None:
        raise SystemExit(f"scale: expected one of {', '.join(SIZES)}, found {scale}.")
    with tempfile.TemporaryDirectory(prefix="troth-pages-") as name:
        home = Home(Path(name) / "home")
        if data is None:
            _made(home, size.retailer)
        else:
            shutil.copytree(
                data, home.root, ignore=shutil.ignore_patterns("landing", "raw", "truth_*", "warehouse.duckdb")
            )
        yield from _measured(home, size)


def _made(home: Home, retailer: str) -> None:
    from simulator import SCALES, TINY, simulate

    simulate(home, {**SCALES, "tiny": TINY}[retailer])
    command = [sys.executable, "-m", "orchestration.cli", "run", "--no-sample", "--json", "--home", str(home.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"pages: expected a run that ends well, found {done.stderr[-800:]}")


def _measured(home: Home, size: Scale) -> Iterator[Measure]:
    passwords = _staff(home)
    drawn = _drawn(home, size.drawn)
    with _serving(home) as port, ExitStack() as lines:
        callers = {role: lines.enter_context(closing(Caller(port, role, each))) for role, each in passwords.items()}
        pages = _found(home, callers, drawn, size)
        limit = _asked(callers, pages, next(iter(callers.values())).static(), size.rounds)
        bound = {
            "connections": 1,
            "rounds": size.rounds,
            "customers": drawn["customers"],
            "limit_p50_ms": round(limit.at(0.5), 3),
        }
        slow = 0
        for path, page in sorted(pages.items()):
            about = {
                "p50_ms": round(page.at(0.5), 2), "first_ms": round(page.first_ms, 1), "asked": len(page.times),
                "roles": sorted({role for role, _ in page.addresses}), "addresses": len(page.addresses), "largest_bytes": page.largest_bytes,
            }  # fmt: skip
            slow += page.at(0.95) > GOAL_MS
            yield Measure(
                f"GET {path}", page.at(0.95), "ms (p95)", goal=GOAL_MS, conditions=conditions(**about, **bound)
            )
        every = Visited(times=[each for page in pages.values() for each in page.times])
        yield Measure("every page", every.at(0.95), "ms (p95)", goal=GOAL_MS, conditions=conditions(pages=len(pages), asked=len(every.times), **bound))  # fmt: skip
        yield Measure("pages over the goal", slow, "pages", goal=0, conditions=conditions(pages=len(pages), **bound))
        yield Measure(
            "every page beside a static answer", every.at(0.5), "ms (p50)", peer="the smallest static answer of the same server",
            peer_value=limit.at(0.5), conditions=conditions(**bound),
        )  # fmt: skip


def _asked(callers: Mapping[str, "Caller"], pages: Mapping[str, Visited], static: str, rounds: int) -> Visited:
    """Every kind of page once a round, in another order each time, the next of its addresses; the static answer between any two."""
    chance, limit = random.Random(7), Visited()
    order = list(pages)
    for number in range(rounds):
        chance.shuffle(order)
        for path in order:
            page = pages[path]
            role, address = page.addresses[number % len(page.addresses)]
            took, size = callers[role].timed(address)
            page.times.append(took)
            page.largest_bytes = max(page.largest_bytes, size)
            limit.times.append(callers[role].timed(static)[0])
    return limit


def _staff(home: Home) -> dict[str, str]:
    """Somebody of each role, with the password that was made."""
    from serving.console import accounts
    from serving.console.roles import ROLES

    return {role: accounts.add(home, _account(role), [role], SystemClock().now()) for role in ROLES}


def _account(role: str) -> str:
    return f"bench-{role.replace('_', '-')}"


def _drawn(home: Home, count: int) -> dict[str, Any]:
    """Ids to put in the addresses of pages that a search leads to."""
    import polars as pl

    from troth.published import current

    found: dict[str, Any] = {}
    for parameter, table, column in (
        ("customer_id", "customers", "customer_id"),
        ("order_id", "orders", "order_id"),
        ("sku", "products", "sku"),
    ):
        ids = pl.read_parquet(current(home, table), columns=[column])[column].drop_nulls().sort()
        found[parameter] = ids.sample(min(count, len(ids)), seed=5).to_list()
        found[table] = len(ids)
    found["who"] = found["customer_id"]
    return found


def _found(home: Home, callers: Mapping[str, "Caller"], drawn: Mapping[str, Any], size: Scale) -> dict[str, Visited]:
    """Every kind of page, by the path of its route: what links lead to, role by role, and what ids lead to. Pages of one kind are one, whoever asks."""
    routes = _routes(home)
    by_id = [address for route in routes for address in _addresses(route, drawn)]
    pages: dict[str, Visited] = defaultdict(Visited)
    for role, caller in callers.items():
        ahead, count = ["/console", *by_id], Counter[str]()
        known = set(ahead)
        while ahead:
            address = ahead.pop(0)
            kind = next((each.path for each in routes if each.path_regex.fullmatch(address.partition("?")[0])), None)
            if kind is None or count[kind] == (size.drawn if drawn.keys() & _parameters(kind) else size.linked):
                continue
            began = perf_counter()
            status, onward = caller.looked(address)
            if status == 200:
                count[kind] += 1
                pages[kind].addresses.append((role, address))
                pages[kind].first_ms = max(pages[kind].first_ms, (perf_counter() - began) * 1e3)
            new = [each for each in dict.fromkeys(onward) if each not in known]
            known.update(new)
            ahead += new
    chance = random.Random(3)
    for page in pages.values():
        chance.shuffle(page.addresses)
    return dict(pages)


def _routes(home: Home) -> list[Any]:
    from serving.console.routes import Console

    console = Console(home, SystemClock())
    routes = [each for each in console.routes() if "GET" in (each.methods or ()) and not each.path.startswith(APART)]
    console.close()
    return [each for each in routes if "rest" not in each.param_convertors]


def _addresses(route: Any, drawn: Mapping[str, Any]) -> list[str]:
    """A route for every id that is drawn for its one parameter."""
    (name, *more) = _parameters(route.path) or [""]
    ids = drawn.get(name, ()) if not more else ()
    return [re.sub(r"\{[^}]*\}", lambda _, each=each: quote(each), route.path) for each in ids]  # type: ignore[misc]


def _parameters(path: str) -> list[str]:
    return re.findall(r"\{(\w+)", path)


class Caller:
    """Somebody signed in, over one connection that is kept; a new one where the server closed it after a while of silence."""

    def __init__(self, port: int, role: str, password: str) -> None:
        self._line = HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
        body = urlencode({"name": _account(role), "password": password})
        self._line.request("POST", "/console/sign-in", body, {"Content-Type": "application/x-www-form-urlencoded"})
        answer = self._line.getresponse()
        answer.read()
        if answer.status != 303:
            raise SystemExit(f"pages: expected {role} to be let in, found {answer.status}.")
        self._headers = {"Cookie": (answer.headers["set-cookie"] or "").partition(";")[0]}

    def close(self) -> None:
        self._line.close()

    def looked(self, address: str) -> tuple[int, list[str]]:
        """The status of an address, and where it leads in the console."""
        answer, data, _ = self._answer(address)
        if 300 <= answer.status < 400:
            return answer.status, [answer.headers["location"]]
        is_page = answer.headers.get("content-type", "").startswith("text/html")
        return answer.status, [unescape(each) for each in LINK.findall(data.decode())] if is_page else []

    def timed(self, address: str) -> tuple[float, int]:
        """Milliseconds until an answer is whole, and its size. Raises: SystemExit for one that is none."""
        answer, data, took = self._answer(address)
        if answer.status != 200:
            raise SystemExit(f"pages: expected 200 of {address}, found {answer.status}.")
        return took, len(data)

    def static(self) -> str:
        """Address of the smallest file that pages are made of."""
        _, data, _ = self._answer("/console/you")
        found = re.findall(r'(?:href|src)="(/console/static/[^"]+)"', data.decode())
        return min(found, key=lambda each: self.timed(each)[1])

    def _answer(self, address: str) -> tuple[HTTPResponse, bytes, float]:
        for _ in range(2):
            try:
                began = perf_counter()
                self._line.request("GET", address, headers=self._headers)
                answer = self._line.getresponse()
                data = answer.read()
                return answer, data, (perf_counter() - began) * 1e3
            except (RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                self._line.close()
        raise SystemExit(f"pages: expected an answer to {address}, found the connection closed.")


@contextmanager
def _serving(home: Home) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "orchestration.cli", "serve", "--port", str(port), "--home", str(home.root)]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + _PATIENCE
        while not is_open(port):
            if child.poll() is not None or time.monotonic() > until:
                raise SystemExit("pages: expected the service to answer, found it does not. See `troth serve`.")
            time.sleep(0.05)
        yield port
    finally:
        child.terminate()
        child.wait(30)
