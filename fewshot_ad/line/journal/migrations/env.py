"""Runs the migrations on the connection that `database.open_database` passes on."""

from __future__ import annotations

from alembic import context

from fewshot_ad.line.journal.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can hardly change a column: a table is copied.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
