"""Features over HTTP: the service with all it does, `feast serve` as it comes, and answers that are ready in memory.

Ours asks for keys, counts, keeps limits, decides consent for each person and writes down who read; Feast's does none of it. Everything is on
one machine, the callers too. The servers stand all the while and are asked in turns, so that what the machine does besides meets them alike.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from time import monotonic, process_time
from typing import Any

from benchmarks import feature_http_world as world_of
from benchmarks.callers import Caller, asked, free_port, processor, request
from benchmarks.feature_http_world import PURPOSE, SERVICE, WORKERS, World
from benchmarks.harness import Measure, conditions
from benchmarks.materialize import place_of

SUMMARY = "Features over HTTP, 16 and 64 callers, 1, 10 and 100 entities, keys, consent and metrics on: against feast serve and answers ready in memory"
ENTITIES, CALLERS = (1, 10, 100), (16, 64)
BODIES = 300  # different ones of each size
_PATIENCE = 60


@dataclass(frozen=True)
class Scale:
    people: int
    seconds: float  # of asking one server at once
    rounds: int
    entities: Sequence[int] = ENTITIES
    callers: Sequence[int] = CALLERS
    kinds: Sequence[str] = ("redis", "sqlite")
    feast: Mapping[str, int] = field(
        default_factory=lambda: {"feast": 1, "feast_of_two": WORKERS}
    )  # with how many workers each


SIZES = {"full": Scale(100_000, 3.0, 3), "small": Scale(300, 0.2, 1, (1, 10), (4,), ("sqlite",), {"feast": 1})}


@dataclass
class Asked:
    """What came of asking one server."""

    times: list[float] = field(default_factory=list)
    seconds: float = 0.0
    server: float = 0.0  # seconds of processor, of all its processes
    callers: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.times) / self.seconds

    def at(self, share: float) -> float:
        times = sorted(self.times)
        return round(times[int(len(times) * share)], 3)


@dataclass(frozen=True)
class Server:
    """Where a server is asked, and what is sent to it, by how many entities."""

    port: int
    pid: int
    requests: Mapping[int, Sequence[bytes]]


def measure(scale: str | None) -> Iterator[Measure]:
    """Requests a second and p99, as ratios to Feast's, and requests a second as a share of what is ready in memory. `scale`: `full` (default) or `small`."""
    if (scale or "full") not in SIZES:
        raise SystemExit(f"scale: expected one of {', '.join(SIZES)}, found {scale}.")
    size = SIZES[scale or "full"]
    with tempfile.TemporaryDirectory(prefix="troth-http-") as name:
        folder = Path(name)
        world = world_of.made(folder, size.people)
        chance = random.Random(5)
        groups = {count: [chance.sample(world.people, count) for _ in range(BODIES)] for count in size.entities}
        for kind in size.kinds:
            with ExitStack() as standing:
                servers = _servers(standing, folder, kind, world, groups, size.feast)
                _compared(servers, size.entities)
                for callers in size.callers:
                    for count in size.entities:
                        yield from _measured(servers, kind, callers, count, size)


def _servers(
    standing: ExitStack,
    folder: Path,
    kind: str,
    world: World,
    groups: Mapping[int, Sequence[Sequence[str]]],
    feast: Mapping[str, int],
) -> dict[str, Server]:
    """All servers over one store of each side, ready to be asked."""
    theirs = standing.enter_context(place_of(folder, kind))
    online = {}
    if kind == "redis":
        online = {"TROTH_ONLINE": standing.enter_context(place_of(folder, kind))}
    shutil.rmtree(world.home.features, ignore_errors=True)
    _run("publish", str(world.home.root), **online)
    repo = world_of.feast_folder(folder, kind, theirs)
    if feast:
        _run("materialize", str(repo), json.dumps({name: str(path) for name, path in world.sources.items()}))
    ask = {count: [{"service": SERVICE, "entities": {"customer_id": who}} for who in some] for count, some in groups.items()}  # fmt: skip
    online_ask = {count: [{"feature_service": SERVICE, "entities": {"customer_id": who}} for who in some] for count, some in groups.items()}  # fmt: skip
    mine, drop_in = _written("/v1/features", ask, world.key), _written("/get-online-features", online_ask, world.key)
    plain = _written("/get-online-features", online_ask)
    root = str(world.home.root)
    commands = {"ours": lambda port: world_of.command_of("serve", port, root), "memory": lambda port: world_of.command_of("memory", port, root)}  # fmt: skip
    commands |= {name: lambda port, workers=workers: world_of.feast_command(repo, port, workers) for name, workers in feast.items()}  # type: ignore[misc]  # fmt: skip
    ports = {name: free_port() for name in commands}
    begun = {name: world_of.begin(standing, command(str(ports[name])), **online) for name, command in commands.items()}
    found = {}
    for name, child in begun.items():
        world_of.wait_for(ports[name], child)
        found[name] = Server(ports[name], child.pid, plain if name in feast else mine)
    _warm(found["ours"], WORKERS)
    found["drop_in"] = Server(ports["ours"], begun["ours"].pid, drop_in)
    ready, port = folder / f"ready_{kind}.json", free_port()
    caller = Caller(ports["ours"])
    told = {sent.partition(b"\r\n\r\n")[2].decode(): caller.answer(sent).decode() for some in mine.values() for sent in some}  # fmt: skip
    ready.write_text(json.dumps(told))
    caller.socket.close()
    child = world_of.begin(standing, world_of.command_of("ready", str(port), root, str(ready)))
    world_of.wait_for(port, child)
    found["ready"] = Server(port, child.pid, mine)
    for name, server in found.items():
        _warm(server, feast.get(name, WORKERS))
    return found


def _run(*words: str, **environment: str) -> None:
    done = subprocess.run(world_of.command_of(*words), capture_output=True, text=True, check=False, env={**os.environ, **environment})  # fmt: skip
    if done.returncode:
        raise SystemExit(f"feature_http, {words[0]}: expected it to work, found {done.stderr[-800:]}")


def _written(path: str, bodies: Mapping[int, Sequence[Any]], key: str | None = None) -> dict[int, list[bytes]]:
    return {count: [request(path, json.dumps(body).encode(), key) for body in some] for count, some in bodies.items()}


def _warm(server: Server, workers: int) -> None:
    """Some requests over many connections, until so many processes have answered."""
    until = monotonic() + _PATIENCE
    while True:
        pids = _family(server.pid)
        before = processor(pids)
        for some in server.requests.values():
            asked(server.port, some[:64], 32)
        if sum(after > was for after, was in zip(processor(pids), before, strict=True)) >= workers:
            return
        if monotonic() > until:
            raise SystemExit(f"feature_http: expected {workers} processes that answer, found fewer.")


def _family(pid: int) -> list[int]:
    import psutil

    return [pid, *(each.pid for each in psutil.Process(pid).children(recursive=True))]


def _compared(servers: Mapping[str, Server], entities: Sequence[int]) -> None:
    """Feast says what our drop-in says, and our own protocol too."""
    for count in entities:
        told = {}
        for name in servers:
            server = servers[name]
            caller = Caller(server.port)
            answer = json.loads(caller.answer(server.requests[count][0]))
            caller.socket.close()
            told[name] = (
                answer["features"] if "features" in answer
                else {name: each["values"] for name, each in zip(answer["metadata"]["feature_names"], answer["results"], strict=True) if name != "customer_id"}
            )  # fmt: skip
        if any(each != told["ours"] for each in told.values()):
            raise SystemExit("feature_http: expected all to say the same of the same people, found otherwise.")


def _measured(servers: Mapping[str, Server], kind: str, callers: int, count: int, size: Scale) -> Iterator[Measure]:
    found = {name: Asked() for name in servers}
    load = round(os.getloadavg()[0], 1)
    for _ in range(size.rounds):
        for name, server in servers.items():
            _ask(found[name], server, callers, count, size.seconds)
    here = conditions(
        people=size.people, service=SERVICE, entities=count, features=14, views=2, callers=callers, workers=WORKERS, feast_workers=1,
        seconds=size.seconds * size.rounds, requests={name: len(each.times) for name, each in found.items()},
        requests_a_second={name: round(each.rate) for name, each in found.items()},
        p50_ms={name: each.at(0.5) for name, each in found.items()}, p99_ms={name: each.at(0.99) for name, each in found.items()},
        processor_ms_a_request={name: round(each.server / len(each.times) * 1e3, 3) for name, each in found.items()},
        processor_ms_a_request_of_callers={name: round(each.callers / len(each.times) * 1e3, 3) for name, each in found.items()},
        load_1min=load, load_after=round(os.getloadavg()[0], 1),
    )  # fmt: skip
    name = f"features_http_{kind}_{callers}x{count}"
    ours, drop_in, feast = found["ours"], found["drop_in"], found["feast"]
    yield Measure(name, ours.rate, "requests/s", "higher", 10, "feast serve", feast.rate, here)
    yield Measure(f"{name}_p99", ours.at(0.99), "ms", "lower", 1, "feast serve", feast.at(0.99), here)
    yield Measure(f"{name}_drop_in", drop_in.rate, "requests/s", "higher", 10, "feast serve", feast.rate, here)
    if two := found.get("feast_of_two"):
        yield Measure(f"{name}_beside_two", ours.rate, "requests/s", "higher", None, "feast serve of two workers", two.rate, here)  # fmt: skip
    limits = {"memory": "the same server, rows in memory", "ready": "the same server, answers ready in memory"}
    for which, limit in limits.items():
        # Final bytes are no answer: they stand beside it to see what gate and encoding take.
        goal = 0.5 if which == "memory" else None
        yield Measure(f"{name}_of_{which}", ours.rate, "requests/s", "higher", goal, limit, found[which].rate, here)


def _ask(found: Asked, server: Server, callers: int, count: int, seconds: float) -> None:
    pids = _family(server.pid)
    before, own = processor(pids), process_time()
    times, took = asked(server.port, cycle(server.requests[count]), callers, seconds)
    found.callers += process_time() - own
    found.server += sum(processor(pids)) - sum(before)
    found.times += times
    found.seconds += took


def _serve(port: int, root: Path) -> None:
    """The service as `serve` runs it, without projector and webhooks."""
    from serving.hub.routes import Hub
    from serving.server import LOOPBACK, bound
    from troth.clock import SystemClock
    from troth.home import Home

    home, clock = Home(root), SystemClock()
    bound(home, LOOPBACK, port, clock, Hub(home, clock), workers=WORKERS)()


class _Memory:
    """Rows of a store, all of them in a dict."""

    def __init__(self, store: Any, views: Sequence[Any], keys: Sequence[str]) -> None:
        found = store.fetch(views, keys)
        self.layout, self._views, self._rows, self._standings = store.layout, list(views), [dict(zip(keys, rows, strict=True)) for rows in found.rows], found.standings  # fmt: skip

    def fetch(self, views: Sequence[Any], keys: Sequence[str]) -> Any:
        from feature_repo.store import Fetched

        if list(views) != self._views:
            raise SystemExit("feature_http: expected one service to be asked for, found another.")
        return Fetched([[rows[key] for key in keys] for rows in self._rows], self._standings)


def _memory(root: Path) -> Any:
    """The service as it is, over rows in memory."""
    from dataclasses import replace

    from feature_repo import catalogue
    from serving.app import create_app
    from troth.clock import SystemClock
    from troth.home import Home

    app = create_app(Home(root), SystemClock())
    desk = next(
        each for each in app.router.routes if getattr(each, "path", "") == "/v1/features"
    ).endpoint.__self__._desk
    store, views = desk.source.store, [*catalogue.service(SERVICE).views, catalogue.SUBJECT_GATE]
    keys = [key for key, _ in store.scan(views[0])]
    desk.source = replace(desk.source, store=_Memory(store, views, keys))
    return app


def _several(port: int, app: Callable[[], Any]) -> None:
    """An app in as many processes as ours, each listening for itself."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    for _ in range(WORKERS - 1):
        context.Process(target=_one, args=(port, app), daemon=True).start()
    _one(port, app)


def _one(port: int, app: Callable[[], Any]) -> None:
    import socket

    import uvicorn

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", port))
        config = uvicorn.Config(app(), log_level="warning", access_log=False, server_header=False)
        uvicorn.Server(config).run([listener])


def _ready(root: Path, told: Path) -> Any:
    """Keys, limits, counts and log, bodies read as asked, and the bytes of the answer from memory."""
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from feature_repo import catalogue
    from serving import encoding, requests
    from serving.app import create_app
    from serving.feature_reads import FeaturesRequest
    from serving.keys import Callers
    from serving.operations.post import Post
    from troth.clock import SystemClock
    from troth.home import Home

    answers = {question.encode(): answer.encode() for question, answer in json.loads(told.read_text()).items()}
    home, use = Home(root), catalogue.service(SERVICE)
    post, callers = Post(home), Callers(home)

    async def features(request: Request) -> Response:
        if not requests.caller(request, callers).may(PURPOSE):
            raise SystemExit("feature_http: expected a key for the purpose, found another.")
        data = await requests.json_bytes(request)
        wanted = requests.decoded(data, FeaturesRequest)
        post.told(request, use, {}, len(wanted.entities["customer_id"]), 0, 3_600.0)
        return Response(
            answers[data], headers={"Cache-Control": encoding.NOBODY_KEEPS}, media_type=encoding.JSON
        )  # fmt: skip

    app = create_app(home, SystemClock(), post=post)
    mine = Route("/v1/features", features, methods=["POST"])
    app.router.routes[:] = [mine if getattr(each, "path", "") == mine.path else each for each in app.router.routes]
    return app


if __name__ == "__main__":
    command, *words = sys.argv[1:]
    if command == "serve":
        _serve(int(words[0]), Path(words[1]))
    elif command == "ready":
        _several(int(words[0]), partial(_ready, Path(words[1]), Path(words[2])))
    elif command == "memory":
        _several(int(words[0]), partial(_memory, Path(words[1])))
    elif command == "publish":
        world_of.publish_online(Path(words[0]))
    else:
        world_of.materialize(Path(words[0]), json.loads(words[1]))
