"""Registered models, their versions and aliases; jobs that use one, and jobs that need no data set."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "models",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("project", sa.String(length=201), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("project", "name", name="uq_models_name"),
    )
    op.create_table(
        "model_versions",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("source", sa.String(length=20), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("same_as", sa.String(length=36), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("findings", sa.JSON(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("members", sa.Integer(), nullable=False),
        sa.Column("card", sa.JSON(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("provenance", sa.JSON(), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ready_at", sa.BigInteger(), nullable=True),
        sa.Column("removed_by", sa.String(length=200), nullable=True),
        sa.Column("removed_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("model_id", "number", name="uq_model_versions_number"),
    )
    op.create_index("ix_model_versions_job_id", "model_versions", ["job_id"])
    op.create_table(
        "model_aliases",
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("alias", sa.String(length=50), nullable=False),
        sa.Column("version_id", sa.String(length=36), nullable=False),
        sa.Column("moved_by", sa.String(length=200), nullable=False),
        sa.Column("moved_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"]),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"]),
        sa.PrimaryKeyConstraint("model_id", "alias"),
    )
    op.create_index("ix_model_aliases_version_id", "model_aliases", ["version_id"])
    with op.batch_alter_table("jobs") as table:
        table.alter_column("dataset_id", existing_type=sa.String(length=36), nullable=True)
        table.add_column(sa.Column("model_version_id", sa.String(length=36), nullable=True))
    op.create_index("ix_jobs_model_version_id", "jobs", ["model_version_id"])


def downgrade() -> None:
    # Jobs without a data set have no place in older tables.
    strange = "SELECT id FROM jobs WHERE dataset_id IS NULL"
    for table in ("attempts", "transitions", "metrics", "log_lines", "checkpoints", "artifacts", "job_labels"):
        op.execute(f"DELETE FROM {table} WHERE job_id IN ({strange})")  # noqa: S608 - our own words
    op.execute(f"DELETE FROM dependencies WHERE job_id IN ({strange}) OR needs IN ({strange})")  # noqa: S608
    op.execute("DELETE FROM jobs WHERE dataset_id IS NULL")
    op.drop_index("ix_jobs_model_version_id", "jobs")
    with op.batch_alter_table("jobs") as table:
        table.drop_column("model_version_id")
        table.alter_column("dataset_id", existing_type=sa.String(length=36), nullable=False)
    for table in ("model_aliases", "model_versions", "models"):
        op.drop_table(table)
