"""Runs migrations over the engine that the control plane itself uses."""

from alembic import context

from services.database import Database
from services.tables import Base

if context.is_offline_mode():
    raise SystemExit("migrations run online only")

database = Database(context.config.attributes["database_url"])
try:
    with database.engine.connect() as connection:
        if database.is_sqlite:
            # Changing a table means copying it: others may point to it meanwhile. Said before the transaction begins.
            connection.connection.cursor().execute("PRAGMA foreign_keys=OFF").close()
        context.configure(
            connection=connection, target_metadata=Base.metadata, render_as_batch=True, compare_server_default=True
        )
        with context.begin_transaction():
            context.run_migrations()
finally:
    database.close()
