"""Redis whose servers die: the same store works on behind sentinels, in a cluster, behind TLS; nothing is half, and errors are words."""

import ipaddress
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from feature_repo.changes import refresh
from feature_repo.errors import FeatureError
from feature_repo.redis_store import redis_store
from feature_repo.store import OnlineStore, Written
from tests.integration.redis_server import RedisServer, cluster_of, until, watched_redis
from tests.integration.test_online_stores import LAYOUT, OTHER, VIEW, batch, frame

PASSWORD = "Sesam@öffne/dich:"
KEYS = [f"k{number}" for number in range(60)]


def version(number: int) -> dict[str, tuple[int, int]]:
    return dict.fromkeys(KEYS, (1 + number, number))


def units(store: OnlineStore) -> set[int | None]:
    """What all keys say, read at once; a whole version says one thing."""
    return {None if row is None else LAYOUT.decode(row[1])["units"] for row in store.fetch([VIEW], KEYS).rows[0]}


def publish_in_parts(store: OnlineStore, size: int, *between: Callable[[], object]) -> None:
    """The version that says one, so many keys at a time, and what happens between."""
    rows = batch([(key, 2, 1) for key in KEYS])
    with store.refresh(VIEW, "v1", 2, len(KEYS)) as coming:
        for number, happen in enumerate((*between, lambda: None)):
            coming.write(rows.slice(size * number, size))
            happen()


class Caller:
    """Somebody who asks a store again and again. What it says in words is counted, anything else is a fault."""

    def __init__(self, ask: Callable[[int], None]) -> None:
        self.refused: list[str] = []
        self.faults: list[BaseException] = []
        self.answered, self._done = 0, threading.Event()
        self._ask, self._thread = ask, threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._done.wait(0.002):
            number += 1
            try:
                self._ask(number)
                self.answered += 1
            except FeatureError as told:
                self.refused.append(str(told))
            except BaseException as fault:
                self.faults.append(fault)

    def stop(self) -> None:
        self._done.set()
        self._thread.join()


@contextmanager
def callers(*asks: Callable[[int], None]) -> Iterator[list[Caller]]:
    started = [Caller(ask) for ask in asks]
    try:
        yield started
    finally:
        for each in started:
            each.stop()


def works(store: OnlineStore) -> bool:
    """Whether all that is asked is answered, whichever server keeps it."""
    with suppress(FeatureError):
        return units(store) == {0} and store.erasures() >= 0
    return False


def goes_on_when_a_server_dies(
    store: OnlineStore, die: Callable[[], object], folder: Path, secrets: tuple[str, ...]
) -> None:
    """Readers, a writer, and a publisher at the moment a server dies: all fail in words until another took over, then go on."""
    refresh(store, VIEW, frame(version(0)), "v0", folder)
    seen, kept = list[set[int | None]](), dict[str, int]()

    def write(number: int) -> None:
        key = f"w{number % 20}"
        store.write_rows(OTHER, [((key,), number, {"cents": number})])
        kept[key] = number

    with callers(lambda _: seen.append(units(store)), lambda _: seen.append(units(store)), write) as asking:
        until(lambda: all(each.answered > 50 for each in asking))
        with pytest.raises(FeatureError) as fault:
            publish_in_parts(store, 30, die)
        until(lambda: works(store), 20)
        kept.clear()
        assert refresh(store, VIEW, frame(version(1)), "v1", folder).written > 0
        before = [each.answered for each in asking]
        until(lambda: all(each.answered > was + 50 for each, was in zip(asking, before, strict=True)), 20)
    assert not [fault for each in asking for fault in each.faults]
    assert {frozenset(each) for each in seen} == {frozenset({0}), frozenset({1})}
    found = store.read([OTHER], kept)
    assert {key: row.values["cents"] for (_, key), row in found.items()} == kept
    told = [str(fault.value), *(said for each in asking for said in each.refused)]
    assert len(told) > 1
    assert not [said for said in told if any(secret in said for secret in secrets)]


def test_a_store_behind_sentinels_works_on_when_its_master_is_killed(tmp_path: Path) -> None:
    with watched_redis(tmp_path, PASSWORD) as watched:
        store = redis_store(watched.address, "shop")
        secrets = (PASSWORD, quote(PASSWORD, safe=""), "127.0.0.1", str(watched.master.port))
        goes_on_when_a_server_dies(store, watched.master.kill, tmp_path / "last", secrets)


def test_a_cluster_works_on_when_one_of_its_nodes_is_killed_and_is_offered_what_it_may_have_lost(
    tmp_path: Path,
) -> None:
    with cluster_of(tmp_path, 3, replicas=1, cluster_node_timeout="1000") as servers:
        store = redis_store(f"redis+cluster://127.0.0.1:{servers[0].port}", "shop")
        before = store.erasures()
        assert store.erasures() == before
        goes_on_when_a_server_dies(store, servers[0].kill, tmp_path / "last", ("127.0.0.1", str(servers[0].port)))
        assert store.erasures() != before


@pytest.mark.parametrize("address", ["redis+cluster://:Sesam@127.0.0.1:1", "redis+sentinel://:Sesam@127.0.0.1:1/shop", "rediss://:Sesam@127.0.0.1:1/0"])  # fmt: skip
def test_servers_that_are_not_there_are_told_in_words_and_soon(address: str) -> None:
    store, began = redis_store(address), time.monotonic()
    with pytest.raises(FeatureError, match="expected a Redis that works") as fault:
        store.fetch([VIEW], ["a"])
    assert time.monotonic() - began < 20
    assert "Sesam" not in str(fault.value)
    assert "127.0.0.1" not in str(fault.value)


class Front:
    """What stands before a server: it hands on every byte, takes TLS off where it was given the means, and can be turned to another server."""

    def __init__(self, server: RedisServer, tls: ssl.SSLContext | None = None) -> None:
        self._tls, self._target = tls, server.port
        self._open = list[socket.socket]()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def turn(self, server: RedisServer) -> None:
        """Lead to another server, or to the same anew; who is connected has to come again."""
        self._target = server.port
        self._hang_up()

    def _hang_up(self) -> None:
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        self._listening.close()
        self._hang_up()

    def _listen(self) -> None:
        while True:
            try:
                caller, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._hand_on, args=(caller,), daemon=True).start()

    def _hand_on(self, caller: socket.socket) -> None:
        with suppress(OSError), ExitStack() as standing:
            server = standing.enter_context(socket.create_connection(("127.0.0.1", self._target)))
            heard = standing.enter_context(self._tls.wrap_socket(caller, server_side=True) if self._tls else caller)
            self._open += [heard, server]
            while True:
                is_waiting = isinstance(heard, ssl.SSLSocket) and heard.pending() > 0
                ready = [heard] if is_waiting else select.select([heard, server], [], [])[0]
                for each in ready:
                    content = each.recv(1 << 16)
                    if not content:
                        return
                    (server if each is heard else heard).sendall(content)


@contextmanager
def front(server: RedisServer, tls: ssl.SSLContext | None = None) -> Iterator[Front]:
    standing = Front(server, tls)
    try:
        yield standing
    finally:
        standing.close()


@contextmanager
def two_servers(folder: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A server and its replica, which nobody watches."""
    with ExitStack() as standing:
        servers: list[RedisServer] = []
        for name in ("one", "other"):
            (folder / name).mkdir()
            more = {"replicaof": f"127.0.0.1 {servers[0].port}"} if servers else {"repl_diskless_sync_delay": "0"}
            servers.append(RedisServer(folder / name, **more))
            servers[-1].start()
            standing.callback(servers[-1].kill)
        with redis.Redis(port=servers[1].port) as client:
            until(lambda: client.info("replication")["master_link_status"] == "up")
        yield servers[0], servers[1]


def test_a_version_of_which_a_part_was_lost_with_its_server_is_not_published(tmp_path: Path) -> None:
    with two_servers(tmp_path) as (one, other), front(one) as before, redis.Redis(port=one.port) as client:

        def part() -> None:
            assert client.wait(1, 5_000) == 1
            with redis.Redis(port=other.port) as promoted:
                promoted.replicaof("NO", "ONE")

        store = redis_store(f"redis://127.0.0.1:{before.port}/0", "shop")
        refresh(store, VIEW, frame(version(0)), "v0", tmp_path / "last")
        with pytest.raises(FeatureError, match="expected one Redis to the end of a publication, found another"):
            publish_in_parts(store, 20, part, lambda: before.turn(other))  # of the second part the other never hears
        assert units(store) == {0}
        refresh(store, VIEW, frame(version(1)), "v1", tmp_path / "last")
        assert units(store) == {1}


def test_a_line_that_breaks_in_the_middle_of_a_publication_is_made_anew(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:
        with front(server) as before:
            store = redis_store(f"redis://127.0.0.1:{before.port}/0", "shop")
            publish_in_parts(store, 20, lambda: before.turn(server), lambda: before.turn(server))
            assert units(store) == {1}
    finally:
        server.kill()


def test_a_server_that_was_demoted_takes_no_write_for_done(tmp_path: Path) -> None:
    with two_servers(tmp_path) as (one, other), redis.Redis(port=one.port) as client:
        store = redis_store(one.address, "shop")
        refresh(store, VIEW, frame(version(0)), "v0", tmp_path / "last")
        with redis.Redis(port=other.port) as promoted:
            promoted.replicaof("NO", "ONE")
        client.replicaof("127.0.0.1", other.port)  # the connections stay
        with pytest.raises(FeatureError, match="expected a Redis that works"):
            store.write(VIEW, batch([("k0", 9, 9)]))
        with pytest.raises(FeatureError, match="expected a Redis that works"):
            refresh(store, VIEW, frame(version(1)), "v1", tmp_path / "last")
        assert units(store) == {0}
        client.replicaof("NO", "ONE")
        assert store.write(VIEW, batch([("k0", 9, 9)])) == Written(written=1)
        assert units(store) == {0, 9}


def test_a_redis_that_came_back_with_nothing_is_told_again_what_its_rows_mean(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, appendonly="no")
    server.start()
    try:
        store = redis_store(server.address, "shop")
        store.write(VIEW, batch([("a", 5, 1)]))
        server.kill()
        server.start()
        store.write(VIEW, batch([("a", 6, 2)]))
        (row,) = redis_store(server.address, "shop").read([VIEW], ["a"]).values()
        assert (row.event_us, row.values["units"]) == (6, 2)
    finally:
        server.kill()


def test_rows_go_over_tls_to_whom_the_certificate_names_and_who_knows_the_password(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, requirepass=PASSWORD)
    server.start()
    try:
        with front(server, certified(tmp_path)) as before:
            place = f"127.0.0.1:{before.port}/0"
            trusted = f"?ssl_ca_certs={quote(str(tmp_path / 'certificate.pem'))}"
            store = redis_store(f"rediss://:{quote(PASSWORD, safe='')}@{place}{trusted}", "shop")
            refresh(store, VIEW, frame(version(0)), "v0", tmp_path / "last")
            many = batch([(f"m{number}", 5, number) for number in range(3_000)])
            assert store.write(VIEW, many) == Written(written=3_000)
            rows = store.fetch([VIEW], [f"m{number}" for number in range(3_000)]).rows[0]
            assert [LAYOUT.decode(row[1])["units"] for row in rows if row is not None] == list(range(3_000))
            assert units(store) == {0}
            for refused in (
                f"rediss://:{quote(PASSWORD, safe='')}@{place}",  # whose certificate is it?
                f"rediss://:Simsalabim@{place}{trusted}",
                f"redis://:{quote(PASSWORD, safe='')}@{place}",
            ):
                with pytest.raises(FeatureError, match="expected a Redis that works") as fault:
                    redis_store(refused, "shop").standings([VIEW])
                assert not [each for each in (PASSWORD, "Simsalabim", "127.0.0.1") if each in str(fault.value)]
    finally:
        server.kill()


def certified(folder: Path) -> ssl.SSLContext:
    """The means of a server that its own certificate names by address."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a Redis of the tests")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1)).add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context
