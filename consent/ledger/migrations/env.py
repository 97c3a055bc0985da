"""Runs the ledger's migrations on the database they are asked for, in one transaction. Alembic's entry point."""

from typing import Any

from alembic import context
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.pool import NullPool

engine = create_engine(**context.config.attributes["engine"], poolclass=NullPool)

if engine.dialect.name == "sqlite":  # the driver would commit before every statement that changes the schema

    @event.listens_for(engine, "connect")
    def _leave_transactions_to_us(connection: Any, _: object) -> None:
        connection.isolation_level = None
        connection.execute("pragma busy_timeout = 60000")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("begin immediate")


with engine.connect() as connection:
    context.configure(connection=connection, transactional_ddl=True)
    with context.begin_transaction():
        if engine.dialect.name == "postgresql":
            connection.execute(text("select pg_advisory_xact_lock(hashtext('troth ledger migrations'))"))
        context.run_migrations()
