"""Versions and states of data sets, and uploads."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    convention = {"uq": "%(table_name)s_%(column_0_name)s_key"}  # PostgreSQL's own; SQLite has given it no name
    with op.batch_alter_table("datasets", naming_convention=convention) as table:
        table.drop_constraint("datasets_name_key", type_="unique")
        table.add_column(sa.Column("version", sa.Integer(), nullable=True))
        table.add_column(sa.Column("state", sa.String(length=20), nullable=False, server_default="ready"))
        table.add_column(sa.Column("job_id", sa.String(length=36), nullable=True))
        table.add_column(sa.Column("same_as", sa.String(length=36), nullable=True))
        table.add_column(sa.Column("error", sa.Text(), nullable=True))
        table.add_column(sa.Column("columns", sa.JSON(), nullable=False, server_default="[]"))
        table.add_column(sa.Column("licence", sa.Text(), nullable=True))
        table.add_column(sa.Column("citation", sa.Text(), nullable=True))
        table.add_column(sa.Column("locked", sa.JSON(), nullable=False, server_default="{}"))
        table.add_column(sa.Column("checks", sa.JSON(), nullable=False, server_default="{}"))
        table.add_column(sa.Column("ready_at", sa.BigInteger(), nullable=True))
        table.add_column(sa.Column("removed_by", sa.String(length=200), nullable=True))
        table.add_column(sa.Column("removed_at", sa.BigInteger(), nullable=True))
        table.create_unique_constraint("uq_datasets_version", ["name", "version"])
    op.execute("UPDATE datasets SET version = 1, ready_at = created_at")
    with op.batch_alter_table("datasets") as table:
        for column in ("state", "columns", "locked", "checks"):
            table.alter_column(column, server_default=None)
    op.create_index("ix_datasets_digest", "datasets", ["digest"])
    op.create_index("ix_jobs_dataset_id", "jobs", ["dataset_id"])
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("part_size", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("key", sa.String(length=400), nullable=False),
        sa.Column("parts_id", sa.String(length=1024), nullable=False),
        sa.Column("dataset_id", sa.String(length=36), nullable=True),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_uploads_created_at", "uploads", ["created_at"])


def downgrade() -> None:
    # A name was there once. Those that were never ready have no version.
    other = "substr(name, 1, 150) || '@' || coalesce(CAST(version AS VARCHAR), id)"
    op.execute(f"UPDATE datasets SET name = {other} WHERE coalesce(version, 0) <> 1")  # noqa: S608 - our own words
    op.drop_table("uploads")
    op.drop_index("ix_jobs_dataset_id", "jobs")
    op.drop_index("ix_datasets_digest", "datasets")
    with op.batch_alter_table("datasets") as table:
        table.drop_constraint("uq_datasets_version", type_="unique")
        for column in ("removed_at", "removed_by", "ready_at", "checks", "locked", "citation", "licence", "columns"):
            table.drop_column(column)
        for column in ("error", "same_as", "job_id", "state", "version"):
            table.drop_column(column)
        table.create_unique_constraint("datasets_name_key", ["name"])
