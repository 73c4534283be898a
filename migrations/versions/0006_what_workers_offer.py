"""What workers offer and whether they are fit; the version that made an attempt. An older worker can still register."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    with op.batch_alter_table("workers") as table:
        table.add_column(sa.Column("labels", sa.JSON(), server_default="[]", nullable=False))
        table.add_column(sa.Column("memory_gb", sa.Float(53), nullable=True))
        table.add_column(sa.Column("state", sa.String(length=20), server_default="ready", nullable=False))
        table.add_column(sa.Column("why", sa.Text(), nullable=True))
    with op.batch_alter_table("attempts") as table:
        table.add_column(sa.Column("version", sa.String(length=40), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("attempts") as table:
        table.drop_column("version")
    with op.batch_alter_table("workers") as table:
        for name in ("why", "state", "memory_gb", "labels"):
            table.drop_column(name)
