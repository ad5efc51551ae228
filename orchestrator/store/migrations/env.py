"""Alembic's environment: the connection comes from `store.migrate`."""

from alembic import context

from orchestrator.store import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    transactional_ddl=True,  # SQLite can; `store.migrate` sees to it that it does
)
with context.begin_transaction():
    context.run_migrations()
