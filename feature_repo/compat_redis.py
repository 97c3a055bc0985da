"""A copy in Feast's own layout, in the Redis that keeps our rows."""

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from redis import RedisError

from feature_repo.compat import KEY_VERSION, ROWS_AT_A_TIME, Copy
from feature_repo.feast_import import feast
from feature_repo.feast_views import Bound

feast()  # first, so that what follows does not import Feast the slow way

from feast.infra.key_encoding_utils import serialize_entity_key_prefix  # noqa: E402
from feast.infra.online_stores.helpers import _mmh3  # noqa: E402
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig  # noqa: E402


class RedisCopy(Copy):
    """In the Redis that keeps our rows: Feast's keys begin with the number of their parts, ours with the project."""

    faults = (RedisError,)

    def __init__(self, kept: Any, config: Any, bound: Callable[[Any], Bound]) -> None:
        """`kept`: a `RedisStore`, whose client is used, so that sentinels, clusters and TLS are reached as it reaches them."""
        # What is told has been through our guard; Feast's would refuse a correction of the same time.
        super().__init__(kept, config, bound, RedisOnlineStoreConfig(skip_dedup=True))
        self._stock = RedisOnlineStore()
        self._stock._client = self._client = kept._client
        self._project = config.project.encode()
        self._marked = self._project + b":compat"

    def teardown(self, tables: Sequence[Any]) -> None:
        with self._told():
            for keys in {tuple(table.join_keys) for table in tables}:
                self._each(self._found(keys), lambda pipe, name: pipe.unlink(name))
            self._client.delete(self._marked)

    def _make_room(self, tables: Sequence[Any]) -> None:
        """There is nothing to prepare."""

    def _remove(self, table: Any, names: Sequence[bytes]) -> None:
        fields = self._fields(table)
        self._each((name + self._project for name in names), lambda pipe, name: pipe.hdel(name, *fields))

    def _there(self, table: Any) -> Iterator[bytes]:
        return (name.removesuffix(self._project) for name in self._found(table.join_keys))

    def _drop(self, tables: Sequence[Any]) -> None:
        for table in tables:
            fields = self._fields(table)
            self._each(self._found(table.join_keys), lambda pipe, name, fields=fields: pipe.hdel(name, *fields))  # type: ignore[misc]

    def _marks(self) -> dict[str, str]:
        return {name.decode(): mark.decode() for name, mark in self._client.hgetall(self._marked).items()}

    def _mark(self, table: Any, mark: str) -> None:
        self._client.hset(self._marked, self._name(table), mark)

    def _fields(self, table: Any) -> list[Any]:
        name = self._name(table)
        return [*(_mmh3(f"{name}:{each.name}") for each in table.features), f"_ts:{name}"]

    def _each(self, names: Iterable[bytes], ask: Callable[[Any, bytes], Any]) -> None:
        rest = iter(names)
        while some := list(islice(rest, ROWS_AT_A_TIME)):
            with self._client.pipeline(transaction=False) as pipe:
                for name in some:
                    ask(pipe, name)
                pipe.execute()

    def _found(self, join_keys: Sequence[str]) -> Iterator[bytes]:
        """Keys of entities of this very project; Feast's own deletion would take those of any whose name ends alike."""
        prefix = re.sub(rb"([*?\[\]\\^-])", rb"\\\1", serialize_entity_key_prefix(list(join_keys), KEY_VERSION))
        for name in self._client.scan_iter(match=prefix + b"*" + self._project, count=1000):
            if _project_of(name) == self._project:
                yield name


def _project_of(name: bytes) -> bytes | None:
    """What follows an entity in a key of Feast's: each part of it says its length."""
    try:
        (parts,) = struct.unpack_from("<I", name)
        at = 4
        for _ in range(2 * parts):  # names and values: a type, a length, and so many bytes
            at += 8 + struct.unpack_from("<I", name, at + 4)[0]
    except struct.error:
        return None
    return name[at:]
