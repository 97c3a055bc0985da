"""How often somebody of the staff looked for people or orders: whoever looks for one after the other is not serving them.

Kept beside the sessions: who and when, and nothing of whom was looked for.
"""

import sqlite3
import threading
from datetime import datetime, timedelta
from pathlib import Path

from troth.sqlite import private_file

WINDOW, MOST = timedelta(hours=1), 120
_TABLE = """
create table if not exists search (staff text not null, searched_at real not null) strict;
create index if not exists search_staff on search (staff, searched_at);
"""


class Searches:
    """The searches of a home's staff. Threads share it."""

    def __init__(self, path: Path, most: int = MOST) -> None:
        self.most = most
        self._path = path
        self._lock = threading.Lock()
        self._open: sqlite3.Connection | None = None

    def wait_seconds(self, staff: str, at: datetime) -> int:
        """Count a search; or how long to wait before the next may be made, and then it is not counted. 0: it may be made."""
        since, now = (at - WINDOW).timestamp(), at.timestamp()
        with self._lock, self._connection() as connection:
            connection.execute("begin immediate")  # whoever else looks under the same name waits
            connection.execute("delete from search where searched_at <= ?", (since,))
            times = connection.execute(
                "select searched_at from search where staff = ? order by searched_at desc limit ?", (staff, self.most)
            ).fetchall()
            if len(times) >= self.most:
                return max(1, int(times[-1][0] - since + 0.999))
            connection.execute("insert into search values (?, ?)", (staff, now))
        return 0

    def close(self) -> None:
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None

    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            self._open = private_file(self._path, _TABLE)
        return self._open
