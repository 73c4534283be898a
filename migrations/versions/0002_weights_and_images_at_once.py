"""Weights that a job needs and a worker can have; images at once that a job is held to."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("weights", sa.String(length=100), nullable=True))
    op.add_column("jobs", sa.Column("images_at_once", sa.Integer(), nullable=True))
    op.add_column("attempts", sa.Column("images_at_once", sa.Integer(), nullable=True))
    op.add_column("workers", sa.Column("weights", sa.JSON(), nullable=False, server_default="{}"))


def downgrade() -> None:
    op.drop_column("workers", "weights")
    op.drop_column("attempts", "images_at_once")
    op.drop_column("jobs", "images_at_once")
    op.drop_column("jobs", "weights")
