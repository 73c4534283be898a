"""Pause, time limits, labels, dependencies, tries again and clones of jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    with op.batch_alter_table("jobs") as table:
        table.add_column(sa.Column("memory_gb", sa.Float(53), nullable=True))
        table.add_column(sa.Column("time_limit", sa.Integer(), nullable=True))
        table.add_column(sa.Column("on_failure", sa.String(length=20), nullable=False, server_default="finish_rest"))
        table.add_column(sa.Column("pause_requested", sa.Boolean(), nullable=False, server_default=sa.false()))
        table.add_column(sa.Column("superseded_by", sa.String(length=36), nullable=True))
        table.add_column(sa.Column("cloned_from", sa.String(length=36), nullable=True))
    op.create_table(
        "job_labels",
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("label", sa.String(length=100), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("job_id", "label"),
    )
    op.create_table(
        "dependencies",
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("needs", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.ForeignKeyConstraint(["needs"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("job_id", "needs"),
    )
    op.create_index("ix_dependencies_needs", "dependencies", ["needs"])


def downgrade() -> None:
    op.drop_table("dependencies")
    op.drop_table("job_labels")
    with op.batch_alter_table("jobs") as table:
        for column in ("cloned_from", "superseded_by", "pause_requested", "on_failure", "time_limit", "memory_gb"):
            table.drop_column(column)
