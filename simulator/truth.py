"""What really was, kept aside from what is landed: Parquet files that grow day by day. The platform never reads them."""

import json
from pathlib import Path
from typing import Any

import polars as pl


class TruthTable:
    """One Parquet file written in pieces; the schema is that of the first piece."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: Any = None

    def append(self, frame: pl.DataFrame) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self.path, table.schema, compression="zstd")
        if isinstance(table, pa.Table):
            self._writer.write_table(table.cast(self._writer.schema))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class Truth:
    """The truth tables of one home, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tables: dict[str, TruthTable] = {}

    def append(self, name: str, frame: pl.DataFrame) -> None:
        if len(frame):
            if name not in self._tables:
                self._tables[name] = TruthTable(self.folder / f"{name}.parquet")
            self._tables[name].append(frame)

    def close(self, faults: dict[str, Any]) -> None:
        for table in self._tables.values():
            table.close()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "faults.json").write_text(json.dumps(faults, indent=2, sort_keys=True) + "\n")
