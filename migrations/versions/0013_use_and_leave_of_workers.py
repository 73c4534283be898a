"""How busy workers were, and whom they were asked by to leave. An older worker tells neither, and does not hear."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    with op.batch_alter_table("workers") as table:
        table.add_column(sa.Column("told_to_leave_by", sa.String(length=200), nullable=True))
    op.create_table(
        "worker_use",
        sa.Column("worker", sa.String(length=200), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("busy", sa.Float(53), nullable=False),
        sa.Column("gpu_percent", sa.Float(53), nullable=True),
        sa.Column("cpu_percent", sa.Float(53), nullable=True),
        sa.PrimaryKeyConstraint("worker", "at"),
    )
    op.create_index("ix_worker_use_at", "worker_use", ["at"])


def downgrade() -> None:
    op.drop_table("worker_use")
    with op.batch_alter_table("workers") as table:
        table.drop_column("told_to_leave_by")
