"""Who is signed in (`serving/console.db`), and how often signing in was tried in vain. All workers of a machine share the file.

A session is a random token in a cookie; kept is its hash alone. It ends by itself when nobody comes for an hour, or after twelve.
"""

import hashlib
import hmac
import secrets
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from troth.sqlite import private_file

IDLE, WHOLE = timedelta(hours=1), timedelta(hours=12)
WINDOW, MOST_FAILURES = timedelta(minutes=15), 10
MOST_NOTE = 500
_SEEN_AGAIN = timedelta(seconds=60)  # a session is written to no more often than this
_TABLES = """
create table if not exists signed_in (
    token_hash text primary key, name text not null, shown text not null, roles text not null, account_mark text not null,
    made_at real not null, seen_at real not null, ends_at real not null, note text
) strict;
create table if not exists spent (what text primary key, spent_at real not null) strict;
create table if not exists failure (who text not null, failed_at real not null) strict;
create index if not exists failure_who on failure (who, failed_at);
"""


@dataclass(frozen=True)
class Session:
    """Somebody signed in. `name` is one person's, `shown` is for people; `account_mark` says what it rests on; `form_token` goes with every form of theirs."""

    name: str
    shown: str
    roles: tuple[str, ...]
    account_mark: str
    made_at: datetime
    token_hash: str
    form_token: str


class Sessions:
    """The sessions of a home. Threads share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._open: sqlite3.Connection | None = None

    def begin(
        self, name: str, roles: Sequence[str], account_mark: str, at: datetime, shown: str | None = None, lasts: timedelta = WHOLE
    ) -> str:  # fmt: skip
        """A new session; returns the token for its cookie."""
        token = secrets.token_urlsafe(32)
        now = at.timestamp()
        with self._lock, self._connection() as connection:
            connection.execute("delete from signed_in where seen_at < ? or ends_at <= ?", self._ended(at))
            connection.execute(
                "insert into signed_in values (?, ?, ?, ?, ?, ?, ?, ?, null)",
                (_hash(token), name, shown or name, " ".join(roles), account_mark, now, now, (at + lasts).timestamp()),
            )
        return token

    def find(self, token: str, at: datetime) -> Session | None:
        """The session of a cookie, if it has not ended."""
        token_hash = _hash(token)
        with self._lock, self._connection() as connection:
            row = connection.execute(
                "select name, shown, roles, account_mark, made_at, seen_at from signed_in where token_hash = ? and seen_at >= ? and ends_at > ?",
                (token_hash, *self._ended(at)),
            ).fetchone()
            if row is None:
                return None
            if at.timestamp() - row[5] > _SEEN_AGAIN.total_seconds():
                connection.execute(
                    "update signed_in set seen_at = ? where token_hash = ?", (at.timestamp(), token_hash)
                )
        form_token = hmac.digest(token.encode(), b"troth-console-form-v1", "sha256").hex()
        made_at = datetime.fromtimestamp(row[4], UTC)
        return Session(row[0], row[1], tuple(row[2].split()), row[3], made_at, token_hash, form_token)

    def spend(self, what: str, at: datetime) -> bool:
        """Use something that is good once; False when it was used before. It is remembered for an hour."""
        now = at.timestamp()
        with self._lock, self._connection() as connection:
            connection.execute("delete from spent where spent_at < ?", (now - IDLE.total_seconds(),))
            return connection.execute("insert or ignore into spent values (?, ?)", (_hash(what), now)).rowcount == 1

    def end(self, session: Session) -> None:
        with self._lock, self._connection() as connection:
            connection.execute("delete from signed_in where token_hash = ?", (session.token_hash,))

    def note(self, session: Session, text: str) -> None:
        """Keep a sentence for the next page of a session."""
        with self._lock, self._connection() as connection:
            connection.execute(
                "update signed_in set note = ? where token_hash = ?", (text[:MOST_NOTE], session.token_hash)
            )

    def noted(self, session: Session) -> str | None:
        """The sentence that was kept, once."""
        with self._lock, self._connection() as connection:
            row = connection.execute(
                "select note from signed_in where token_hash = ?", (session.token_hash,)
            ).fetchone()
            if row is None or row[0] is None:
                return None
            connection.execute("update signed_in set note = null where token_hash = ?", (session.token_hash,))
            return str(row[0])

    def wait_seconds(self, who: Sequence[str], at: datetime) -> int:
        """How long whoever tried in vain too often has to wait; 0 for who has not."""
        since = (at - WINDOW).timestamp()
        with self._lock, self._connection() as connection:
            longest = 0.0
            for each in who:
                times = connection.execute(
                    "select failed_at from failure where who = ? and failed_at > ? order by failed_at desc limit ?",
                    (_hash(each), since, MOST_FAILURES),
                ).fetchall()
                if len(times) == MOST_FAILURES:
                    longest = max(longest, times[-1][0] - since)
        return int(longest + 0.999)

    def failed(self, who: Sequence[str], at: datetime) -> None:
        """Count a vain attempt, by hashes: a name mistyped may be a password."""
        with self._lock, self._connection() as connection:
            connection.execute("delete from failure where failed_at < ?", ((at - WINDOW).timestamp(),))
            connection.executemany("insert into failure values (?, ?)", [(_hash(each), at.timestamp()) for each in who])

    def close(self) -> None:
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None

    def _ended(self, at: datetime) -> tuple[float, float]:
        return (at - IDLE).timestamp(), at.timestamp()

    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            self._open = private_file(self._path, _TABLES)
        return self._open


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
