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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from time import process_time
from typing import Any

from benchmarks import feature_http_world as world_of
from benchmarks.callers import Caller, asked, free_port, processor, request
from benchmarks.feature_http_world import PURPOSE, SERVICE, WORKERS, World
from benchmarks.harness import Measure, conditions
from benchmarks.materialize import place_of

SUMMARY = "Features over HTTP, 16 and 64 callers, 1, 10 and 100 entities, keys, consent and metrics on: against feast serve and answers ready in memory"
ENTITIES, CALLERS = (1, 10, 100), (16, 64)
BODIES = 300  # different ones of each size


@dataclass(frozen=True)
class Scale:
    people: int
    seconds: float  # of asking one server at once
    rounds: int
    entities: Sequence[int] = ENTITIES
    callers: Sequence[int] = CALLERS
    kinds: Sequence[str] = ("redis", "sqlite")


SIZES = {"full": Scale(100_000, 3.0, 3), "small": Scale(500, 0.3, 1, (1, 10), (4,), ("sqlite",))}


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
                servers = _servers(standing, folder, kind, world, groups)
                _compared(servers, size.entities)
                for callers in size.callers:
                    for count in size.entities:
                        yield from _measured(servers, kind, callers, count, size)


def _servers(
    standing: ExitStack, folder: Path, kind: str, world: World, groups: Mapping[int, Sequence[Sequence[str]]]
) -> dict[str, Server]:
    """All servers over one store of each side, ready to be asked."""
    theirs = standing.enter_context(place_of(folder, kind))
    online = {}
    if kind == "redis":
        online = {"TROTH_ONLINE": standing.enter_context(place_of(folder, kind))}
    shutil.rmtree(world.home.features, ignore_errors=True)
    _run("publish", str(world.home.root), **online)
    repo = world_of.feast_folder(folder, kind, theirs)
    _run("materialize", str(repo), json.dumps({name: str(path) for name, path in world.sources.items()}))
    ask = {count: [{"service": SERVICE, "entities": {"customer_id": who}} for who in some] for count, some in groups.items()}  # fmt: skip
    online_ask = {count: [{"feature_service": SERVICE, "entities": {"customer_id": who}} for who in some] for count, some in groups.items()}  # fmt: skip
    mine, drop_in = _written("/v1/features", ask, world.key), _written("/get-online-features", online_ask, world.key)
    plain = _written("/get-online-features", online_ask)
    root, found = str(world.home.root), {}
    port = free_port()
    pid = standing.enter_context(world_of.started(world_of.command_of("serve", str(port), root), port, **online))
    _warm(port, [mine, drop_in])
    found["ours"], found["drop_in"] = Server(port, pid, mine), Server(port, pid, drop_in)
    ready = folder / f"ready_{kind}.json"
    caller = Caller(port)
    told = {sent.partition(b"\r\n\r\n")[2].decode(): caller.answer(sent).decode() for some in mine.values() for sent in some}  # fmt: skip
    ready.write_text(json.dumps(told))
    caller.socket.close()
    port = free_port()
    pid = standing.enter_context(world_of.started(world_of.command_of("ready", str(port), root, str(ready)), port))
    found["ready"] = Server(port, pid, mine)
    for name, workers in (("feast", 1), ("feast_of_two", WORKERS)):
        port = free_port()
        pid = standing.enter_context(world_of.started(world_of.feast_command(repo, port, workers), port))
        found[name] = Server(port, pid, plain)
    for each in found.values():
        _warm(each.port, [each.requests])
    return found


def _run(*words: str, **environment: str) -> None:
    done = subprocess.run(world_of.command_of(*words), capture_output=True, text=True, check=False, env={**os.environ, **environment})  # fmt: skip
    if done.returncode:
        raise SystemExit(f"feature_http, {words[0]}: expected it to work, found {done.stderr[-800:]}")


def _written(path: str, bodies: Mapping[int, Sequence[Any]], key: str | None = None) -> dict[int, list[bytes]]:
    return {count: [request(path, json.dumps(body).encode(), key) for body in some] for count, some in bodies.items()}


def _warm(port: int, kinds: Sequence[Mapping[int, Sequence[bytes]]]) -> None:
    """Some requests over many connections, so that every worker has answered."""
    for kind in kinds:
        for some in kind.values():
            asked(port, some[:64], 32)


def _compared(servers: Mapping[str, Server], entities: Sequence[int]) -> None:
    """Feast says what our drop-in says, and our own protocol too."""
    for count in entities:
        told = {}
        for name in ("drop_in", "feast", "ours"):
            server = servers[name]
            caller = Caller(server.port)
            answer = json.loads(caller.answer(server.requests[count][0]))
            caller.socket.close()
            told[name] = (
                answer["features"] if name == "ours"
                else {name: each["values"] for name, each in zip(answer["metadata"]["feature_names"], answer["results"], strict=True) if name != "customer_id"}
            )  # fmt: skip
        if not told["ours"] == told["drop_in"] == told["feast"]:
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
    two = found["feast_of_two"]
    yield Measure(f"{name}_beside_two", ours.rate, "requests/s", "higher", None, "feast serve of two workers", two.rate, here)  # fmt: skip
    ready = found["ready"]
    yield Measure(f"{name}_of_limit", ours.rate, "requests/s", "higher", 0.5, "the same server, answers ready in memory", ready.rate, here)  # fmt: skip


def _ask(found: Asked, server: Server, callers: int, count: int, seconds: float) -> None:
    import psutil

    process = psutil.Process(server.pid)
    pids = [server.pid, *(each.pid for each in process.children(recursive=True))]
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


def _ready(port: int, root: Path, told: Path) -> None:
    """The same server in as many processes: keys, limits, counts and log, bodies read as asked, and the bytes of the answer from memory."""
    import multiprocessing

    answers = {question.encode(): answer.encode() for question, answer in json.loads(told.read_text()).items()}
    context = multiprocessing.get_context("fork")
    others = [
        context.Process(target=_answer_ready, args=(port, root, answers), daemon=True) for _ in range(WORKERS - 1)
    ]
    for each in others:
        each.start()
    _answer_ready(port, root, answers)


def _answer_ready(port: int, root: Path, answers: Mapping[bytes, bytes]) -> None:
    import socket

    import uvicorn
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
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", port))
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    command, *words = sys.argv[1:]
    if command == "serve":
        _serve(int(words[0]), Path(words[1]))
    elif command == "ready":
        _ready(int(words[0]), Path(words[1]), Path(words[2]))
    elif command == "publish":
        world_of.publish_online(Path(words[0]))
    else:
        world_of.materialize(Path(words[0]), json.loads(words[1]))
