"""Indexes along which pages of lists are read, one a filter, and along which is found what is told of a job beside it.
On a large table each takes some seconds to make."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

FILTERS = ("project", "created_by", "state", "kind", "dataset_id")
FEW = {"ix_jobs_superseded": "superseded_by", "ix_jobs_worker": "worker"}
NO_PARENT, A_PARENT = sa.text("parent_id IS NULL"), sa.text("parent_id IS NOT NULL")


def upgrade() -> None:
    op.drop_index("ix_jobs_parent", "jobs")
    op.create_index(
        "ix_jobs_children", "jobs", ["parent_id", "position"], sqlite_where=A_PARENT, postgresql_where=A_PARENT
    )
    for name, columns in {"": [], **{f"_{column}": [column] for column in FILTERS}}.items():
        op.create_index(
            f"ix_jobs_top{name}",
            "jobs",
            list(dict.fromkeys([*columns, "id", "name", "parent_id", "kind"])),
            sqlite_where=NO_PARENT,
            postgresql_where=NO_PARENT,
        )
    for name, column in FEW.items():
        some = sa.text(f"{column} IS NOT NULL")
        op.create_index(name, "jobs", [column], sqlite_where=some, postgresql_where=some)
    op.create_index("ix_jobs_ended", "jobs", ["state", "finished_at"])


def downgrade() -> None:
    for name in ("ix_jobs_ended", *FEW):
        op.drop_index(name, "jobs")
    for name in ("", *(f"_{column}" for column in FILTERS)):
        op.drop_index(f"ix_jobs_top{name}", "jobs")
    op.drop_index("ix_jobs_children", "jobs")
    op.create_index("ix_jobs_parent", "jobs", ["parent_id", "position"])
