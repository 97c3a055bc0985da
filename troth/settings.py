"""The only reader of the environment. Everything else is handed its settings."""

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from troth.errors import TrothError
from troth.home import Home

# Nothing phones home: each of these is the switch its maker documents.
TELEMETRY_OFF = {
    "DAGSTER_TELEMETRY_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "FEAST_USAGE": "False",
    "FEAST_TELEMETRY": "False",
}


@dataclass(frozen=True)
class Settings:
    """What a process was told: where its home is, and how many workers it may use."""

    home: Home
    workers: int


def from_environment(environment: Mapping[str, str], home: Path | None = None) -> Settings:
    """Settings from `TROTH_HOME` and `TROTH_WORKERS`; an explicit home wins.

    Raises: TrothError when TROTH_WORKERS is not a positive whole number.
    """
    root = home or Path(environment.get("TROTH_HOME") or "var")
    workers = environment.get("TROTH_WORKERS") or str(os.cpu_count() or 1)
    if not workers.isdigit() or int(workers) < 1:
        raise TrothError(f"TROTH_WORKERS: expected a whole number from 1, found {workers!r}. Unset it or correct it.")
    return Settings(home=Home(root.resolve()), workers=int(workers))


def given_keks(environment: Mapping[str, str] | None = None) -> list[bytes]:
    """Key-encryption keys whoever starts the process holds: `TROTH_KEK`, then `TROTH_KEK_BEFORE` that still opens.

    Each is 32 bytes in hex or base64. Raises: TrothError, never quoting it, for anything else.
    """
    told = os.environ if environment is None else environment
    return [_key_of(name, told[name]) for name in ("TROTH_KEK", "TROTH_KEK_BEFORE") if told.get(name)]


def given_ledger(environment: Mapping[str, str] | None = None) -> str | None:
    """Address of the PostgreSQL database that holds the consent ledger (`TROTH_LEDGER`); None: a file of the home does.

    It may hold a password: nobody prints it. Raises: TrothError, never quoting it, for any other address.
    """
    return _address("TROTH_LEDGER", environment)


def given_log(environment: Mapping[str, str] | None = None) -> str | None:
    """Address of the PostgreSQL database that holds the event log (`TROTH_LOG`); None: a file of the home does.

    It may hold a password: nobody prints it. Raises: TrothError, never quoting it, for any other address.
    """
    return _address("TROTH_LOG", environment)


def given_stock(environment: Mapping[str, str] | None = None) -> str | None:
    """Address of the PostgreSQL database or the Redis that holds stock for baskets (`TROTH_STOCK`); None: a file of the home does.

    It may hold a password: nobody prints it. Raises: TrothError, never quoting it, for any other address.
    """
    return _address("TROTH_STOCK", environment, ("postgresql://", "redis://", "rediss://"))


def given_online(environment: Mapping[str, str] | None = None) -> str | None:
    """Address of the Redis that holds features for reading online (`TROTH_ONLINE`); None: a file of the home does.

    It may hold a password: nobody prints it. Raises: TrothError, never quoting it, for any other address.
    """
    return _address("TROTH_ONLINE", environment, ("redis://", "rediss://", "redis+cluster://", "redis+sentinel://"))


def _address(
    name: str, environment: Mapping[str, str] | None, kinds: tuple[str, ...] = ("postgresql://",)
) -> str | None:
    told = os.environ if environment is None else environment
    address = told.get(name) or None
    if address is not None and not address.startswith(kinds):
        expected = " or ".join(f"{kind}..." for kind in kinds)
        raise TrothError(f"{name}: expected {expected}, found another address. Correct it, or unset it.")
    return address


def given_matching(environment: Mapping[str, str] | None = None) -> str:
    """On what records of people are compared (`TROTH_MATCHING`): `duckdb`, which is what is meant where nothing is said, or `spark`.

    Raises: TrothError for anything else.
    """
    told = os.environ if environment is None else environment
    matching = told.get("TROTH_MATCHING") or "duckdb"
    if matching not in ("duckdb", "spark"):
        raise TrothError(f"TROTH_MATCHING: expected duckdb or spark, found {matching!r}. Correct it, or unset it.")
    return matching


def given_read_log_days(environment: Mapping[str, str] | None = None) -> int:
    """For how many days files of the log of personal reads are kept (`TROTH_READ_LOG_DAYS`); 400 where nothing is said.

    Raises: TrothError for anything but a whole number from 1.
    """
    told = os.environ if environment is None else environment
    days = told.get("TROTH_READ_LOG_DAYS") or "400"
    if not days.isdecimal() or int(days) < 1:
        raise TrothError(
            f"TROTH_READ_LOG_DAYS: expected a whole number from 1, found {days!r}. Correct it, or unset it."
        )
    return int(days)


def _key_of(name: str, text: str) -> bytes:
    for spelled in (bytes.fromhex, lambda each: base64.b64decode(each, validate=True)):
        try:
            key = spelled(text.strip())
        except (ValueError, binascii.Error):
            continue
        if len(key) == 32:
            return key
    raise TrothError(f"{name}: expected 32 bytes in hex or base64, found something else. Correct it.")


def silence_telemetry() -> None:
    """Switch off the telemetry of Dagster, dbt, Great Expectations and Feast in this process and its children."""
    os.environ.update(TELEMETRY_OFF)


def here(home: Path | None = None) -> Settings:
    """Settings of this process."""
    return from_environment(os.environ, home)
