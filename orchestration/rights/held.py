"""Which raw rows are about a person, found by walking the personal-data classes that the contracts declare.

A row is about whoever its strongest identifier belongs to: an account before a card, a card before an e-mail, then device,
then phone. A payment token alone makes nobody known.
"""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from orchestration.catalog import contract_of, contracts
from orchestration.sources.contract import Contract, Source
from serving.rights.persons import Person
from troth.home import Home

STRENGTH = ("account", "card", "email", "device", "phone")
LINKING = ("identifier", "contact", "device")  # classes whose values name one person
OF_STAFF = frozenset({"operator_code", "actor_id"})  # identifies who served, not who was served
# Tables whose rows outlive the person, because the law asks for books: the row stays, what is personal in it goes.
BOOKS = "Bookkeeping and tax law asks for records of sales and refunds (GDPR 17(3)(b)): kept without the person."
KEPT = frozenset({"raw_pos__transactions", "raw_ecommerce__orders", "raw_ecommerce__refund_lines"})
OF_TOKENS = "_ref"  # columns so named hold a token; where none is made of another column, the file itself held it
_PLACE = ("source_file", "record_offset")


@dataclass(frozen=True)
class Held:
    """The person's raw rows by table; rows of nobody that carry one of their identifiers; and what identifies them.

    `spellings`: each token that is theirs alone, with every spelling met. `others`: tokens that another person's rows hold
    as well, and so stay there. `plain`: identifiers without a token, by column.
    """

    rows: Mapping[str, pl.DataFrame]
    loose: Mapping[str, pl.DataFrame]
    spellings: Mapping[str, frozenset[str]]
    others: frozenset[str]
    plain: Mapping[str, frozenset[str]] = field(default_factory=dict)


def personal_columns(contract: Contract) -> tuple[str, ...]:
    """What is personal in a row about a person, and not of those who served them."""
    return tuple(c.name for c in contract.columns if c.personal != "none" and c.name not in OF_STAFF)


def outlives(source: Source, file: str) -> bool:
    """Whether the records of a landed file outlive the person: where one of its tables is kept, or holds nothing personal."""
    kind = next((kind for kind in source.files if fnmatch.fnmatch(file, kind.pattern)), None)
    tables = kind.tables if kind else ()
    return any(table in KEPT or not personal_columns(contract_of(table)) for table in tables)


def held(home: Home, person: Person, declared: Sequence[Contract] | None = None) -> Held:
    """Everything in raw about a person, by the declarations of the contracts."""
    declared = [c for c in (declared or contracts()) if _linking(c)]
    owned = [c for c in declared if token_columns(c)]
    linked = [c for c in declared if not token_columns(c)]
    mine: dict[str, pl.DataFrame] = {}
    seen: dict[str, set[str]] = {token: set() for token in person.tokens}
    plain: dict[str, set[str]] = {}
    for contract in owned:
        owner = owner_of(contract)
        rows = _raw(home, contract).filter(owner.is_in(person.tokens)).collect()
        if rows.height:
            mine[contract.table] = rows
        for token, value in _pairs(contract, rows):
            seen.setdefault(token, set()).add(value)
        for name in plain_columns(contract):
            plain.setdefault(name, set()).update(rows[name].drop_nulls())
    others, loose = _others(home, owned, person, seen, plain)
    alone = {name: frozenset(values) for name, values in plain.items()}
    tokens = frozenset(token for token in seen if token not in others)
    for contract in linked:
        alone |= dict.fromkeys((name for name in plain_columns(contract) if name.endswith(OF_TOKENS)), tokens)
        tests = [pl.col(name).is_in(list(alone.get(name, ()))) for name in plain_columns(contract)]
        rows = _raw(home, contract).filter(pl.any_horizontal(tests)).collect()
        if rows.height:
            mine[contract.table] = rows
    spellings = {token: frozenset(values) for token, values in seen.items() if token not in others}
    return Held(mine, loose, spellings, frozenset(others), alone)


def _others(
    home: Home, owned: Sequence[Contract], person: Person, seen: dict[str, set[str]], plain: dict[str, set[str]]
) -> tuple[set[str], dict[str, pl.DataFrame]]:
    """Tokens that rows of others hold too; and rows of nobody with a token that is the person's alone.

    What is found to be another's as well is taken out of `plain`; spellings met in rows of nobody are added to `seen`.
    """
    shared: set[str] = set()
    nobodys: dict[str, pl.DataFrame] = {}
    for contract in owned:
        names = token_columns(contract)
        owner = owner_of(contract)
        carries = pl.any_horizontal(pl.col(name).is_in(list(seen)) for name in names)
        same = [pl.col(name).is_in(list(plain[name])) for name in plain_columns(contract) if plain.get(name)]
        rows = (
            _raw(home, contract)
            .filter(~owner.is_in(person.tokens).fill_null(False), pl.any_horizontal(carries, *same))
            .with_columns(owner.alias("owner\0"))
            .collect()
        )
        theirs = rows.filter(pl.col("owner\0").is_not_null())
        for name in names:
            shared |= set(theirs[name].drop_nulls()) & set(seen)
        for name in plain_columns(contract):
            plain[name] -= set(theirs[name].drop_nulls())
        rest = rows.filter(pl.col("owner\0").is_null()).drop("owner\0")
        if rest.height:
            nobodys[contract.table] = rest
    found: dict[str, pl.DataFrame] = {}
    for contract in owned:
        if contract.table not in nobodys:
            continue
        alone = [token for token in seen if token not in shared]
        rows = nobodys[contract.table].filter(
            pl.any_horizontal(pl.col(name).is_in(alone) for name in token_columns(contract))
        )
        if rows.height:
            found[contract.table] = rows
        for token, value in _pairs(contract, rows):
            if token in seen:
                seen[token].add(value)
    return shared, found


def _raw(home: Home, contract: Contract) -> pl.LazyFrame:
    return pl.scan_parquet(home.raw / contract.table / "**/*.parquet", schema=contract.schema)


def _linking(contract: Contract) -> list[str]:
    return [c.name for c in contract.columns if c.personal in LINKING and c.name not in OF_STAFF]


def token_columns(contract: Contract) -> list[str]:
    """Columns that hold tokens of identifiers."""
    return [column.name for column in contract.columns if column.token_of]


def plain_columns(contract: Contract) -> list[str]:
    """Identifiers that no token is made of."""
    told = {column.token_of[1] for column in contract.columns if column.token_of}
    return [name for name in _linking(contract) if name not in told and not contract.column(name).token_of]


def owner_of(contract: Contract) -> pl.Expr:
    """The token of the strongest identifier in a row, by the type each token begins with; null where it has none."""
    names = token_columns(contract)
    return pl.coalesce(
        *(pl.when(pl.col(name).str.starts_with(f"{kind}_")).then(pl.col(name)) for kind in STRENGTH for name in names),
        pl.lit(None, pl.String()),
    )


def _pairs(contract: Contract, rows: pl.DataFrame) -> Iterator[tuple[str, str]]:
    for column in contract.columns:
        if column.token_of:
            yield from rows.select(column.name, column.token_of[1]).drop_nulls().unique().iter_rows()
