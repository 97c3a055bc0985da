"""Which sources there are. The one list; adding a source adds a line here."""

from orchestration.sources import consent, ecommerce, loyalty, mapped, pos, steward, stock, wms
from orchestration.sources.contract import Contract, Source
from troth.home import Home

SOURCES: tuple[Source, ...] = (
    pos.SOURCE, ecommerce.SOURCE, wms.SOURCE, loyalty.SOURCE, consent.SOURCE, steward.SOURCE, stock.SOURCE,
)  # fmt: skip


def contracts() -> tuple[Contract, ...]:
    """Every raw table, in the order of the sources."""
    return tuple(contract for source in SOURCES for contract in source.contracts)


def contract_of(table: str) -> Contract:
    return next(contract for contract in contracts() if contract.table == table)


def source_of(home: Home, name: str) -> Source:
    """A source with the file kinds its own format has and those a mapping in this home adds.

    Raises: KeyError for a source nobody declared.
    """
    source = next(source for source in SOURCES if source.name == name)
    path = home.landing / name / "mapping.yml"
    if not path.exists():
        return source
    extra = mapped.mapped_source(mapped.load_mapping(path))
    return Source(source.name, source.description, source.contracts, (*extra.files, *source.files))
