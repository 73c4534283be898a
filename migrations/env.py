"""Runs migrations over the engine that the control plane itself uses."""

from alembic import context

from services.database import Database
from services.tables import Base

if context.is_offline_mode():
    raise SystemExit("migrations run online only")

database = Database(context.config.attributes["database_url"])
try:
    with database.engine.connect() as connection:
        context.configure(
            connection=connection, target_metadata=Base.metadata, render_as_batch=True, compare_server_default=True
        )
        with context.begin_transaction():
            context.run_migrations()
finally:
    database.close()
