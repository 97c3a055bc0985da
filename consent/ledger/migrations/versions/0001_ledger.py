"""The ledger: batches of entries, tiles, checkpoints, runs of the index, subjects' keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

GROWING = ("batches", "tiles", "checkpoints")


def upgrade() -> None:
    """Make the tables, and the triggers that let three of them only grow."""
    number, blob = sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.LargeBinary()
    op.create_table(
        "batches",
        sa.Column("first_leaf", number, primary_key=True, autoincrement=False),
        sa.Column("leaf_count", number, nullable=False),
        sa.Column("entries", blob, nullable=False),
        sa.Column("lengths", blob, nullable=False),
        sa.Column("payloads", blob, nullable=False),
    )
    op.create_table(
        "tiles",
        sa.Column("level", number, primary_key=True, autoincrement=False),
        sa.Column("number", number, primary_key=True, autoincrement=False),
        sa.Column("hashes", blob, nullable=False),
        sa.Column("inner_roots", blob, nullable=False),
    )
    op.create_table(
        "checkpoints",
        sa.Column("size", number, primary_key=True, autoincrement=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("signed_at", sa.Text(), nullable=False),
    )
    op.create_table(
        "runs",
        sa.Column("start_leaf", number, primary_key=True, autoincrement=False),
        sa.Column("stop_leaf", number, primary_key=True, autoincrement=False),
        sa.Column("root", blob, nullable=False),
        sa.Column("first_rows", blob, nullable=False),
        sa.Column("chunk_roots", blob, nullable=False),
        sa.Column("filter", blob, nullable=False),
    )
    op.create_table(
        "run_chunks",
        sa.Column("start_leaf", number, primary_key=True, autoincrement=False),
        sa.Column("stop_leaf", number, primary_key=True, autoincrement=False),
        sa.Column("number", number, primary_key=True, autoincrement=False),
        sa.Column("chunk_rows", blob, nullable=False),
    )
    op.create_table(
        "subject_keys",
        sa.Column("block", number, primary_key=True, autoincrement=False),
        sa.Column("subject_key", blob, primary_key=True),
        sa.Column("key_id", blob, nullable=False),
        sa.Column("kek_id", blob, nullable=False),
        sa.Column("wrapped", blob, nullable=False),
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "sqlite":
        for table in GROWING:
            for event in ("update", "delete"):
                op.execute(
                    f"create trigger {table}_refuse_{event} before {event} on {table} "
                    "begin select raise(abort, 'the ledger only grows'); end"
                )
    else:
        op.execute(
            "create function refuse_change() returns trigger language plpgsql as "
            "$$ begin raise exception 'the ledger only grows'; end $$"
        )
        for table in GROWING:
            op.execute(
                f"create trigger {table}_only_grow before update or delete or truncate on {table} "
                "for each statement execute function refuse_change()"
            )
            for column in ("entries", "payloads", "hashes"):
                if (table, column) in {("batches", "entries"), ("batches", "payloads"), ("tiles", "hashes")}:
                    op.execute(f"alter table {table} alter column {column} set storage external")


def downgrade() -> None:
    """There is no way back: what the ledger holds would be lost."""
    raise RuntimeError("ledger schema: expected a way forward, found one back. Restore a backup instead.")
