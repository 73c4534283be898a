"""Scopes and expiry of tokens, projects and their members, the audit trail.

Everything that was there belongs to who made it, but data sets, which all users saw and go on seeing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    with op.batch_alter_table("tokens") as table:
        everything = '["read", "submit", "manage"]'
        table.add_column(sa.Column("scopes", sa.JSON(), nullable=False, server_default=everything))
        table.add_column(sa.Column("expires_at", sa.BigInteger(), nullable=True))
        table.add_column(sa.Column("last_used_at", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("datasets") as table:
        table.add_column(sa.Column("project", sa.String(length=201), nullable=False, server_default="shared"))
        table.drop_constraint("uq_datasets_version", type_="unique")
        table.create_unique_constraint("uq_datasets_version", ["project", "name", "version"])
    for name in ("jobs", "uploads"):
        op.add_column(name, sa.Column("project", sa.String(length=201), nullable=False, server_default=""))
        op.execute(f"UPDATE {name} SET project = '~' || created_by")  # noqa: S608 - names of ours
        with op.batch_alter_table(name) as table:
            table.alter_column("project", server_default=None)
    for name, column in (("tokens", "scopes"), ("datasets", "project")):
        with op.batch_alter_table(name) as table:
            table.alter_column(column, server_default=None)
    op.create_table(
        "projects",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "project_members",
        sa.Column("project", sa.String(length=63), nullable=False),
        sa.Column("user", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("added_by", sa.String(length=200), nullable=False),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["project"], ["projects.id"]),
        sa.PrimaryKeyConstraint("project", "user"),
    )
    op.create_index("ix_project_members_user", "project_members", ["user"])
    op.create_table(
        "audit",
        sa.Column("number", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("user", sa.String(length=200), nullable=False),
        sa.Column("token_id", sa.String(length=36), nullable=True),
        sa.Column("action", sa.String(length=60), nullable=False),
        sa.Column("subject", sa.String(length=400), nullable=False),
        sa.Column("project", sa.String(length=201), nullable=True),
        sa.Column("outcome", sa.String(length=20), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    for statement in _guards(op.get_bind().dialect.name):
        op.execute(statement)


def _guards(dialect: str) -> list[str]:
    """Nobody changes an entry or takes one away, who speaks to the database as this service does."""
    told = "entries of the audit trail are only ever added"
    if dialect == "sqlite":
        when = {"update": "BEFORE UPDATE ON audit", "delete": "BEFORE DELETE ON audit"}
        return [f"CREATE TRIGGER audit_{n} {w} BEGIN SELECT RAISE(ABORT, '{told}'); END" for n, w in when.items()]
    return [
        "CREATE FUNCTION audit_is_kept() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{told}'; END $$",
        "CREATE TRIGGER audit_rows BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_is_kept()",
        "CREATE TRIGGER audit_whole BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_is_kept()",
    ]


def downgrade() -> None:
    op.drop_table("audit")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_is_kept()")
    op.drop_table("project_members")
    op.drop_table("projects")
    # Tokens that end, or may not do everything, would hold for ever and for everything.
    less = 'expires_at IS NOT NULL OR CAST(scopes AS VARCHAR) <> \'["read", "submit", "manage"]\''
    op.execute(f"UPDATE tokens SET revoked_at = created_at WHERE revoked_at IS NULL AND ({less})")  # noqa: S608
    # A name and version were there once, whatever the project.
    same = "other.name = datasets.name AND other.version = datasets.version AND other.id <> datasets.id"
    first = "other.project = 'shared' OR (datasets.project <> 'shared' AND other.id < datasets.id)"
    doubled = f"SELECT 1 FROM datasets AS other WHERE {same} AND ({first})"  # noqa: S608
    op.execute(f"UPDATE datasets SET name = substr(name, 1, 150) || '.' || id WHERE EXISTS ({doubled})")  # noqa: S608
    with op.batch_alter_table("datasets") as table:
        table.drop_constraint("uq_datasets_version", type_="unique")
        table.drop_column("project")
        table.create_unique_constraint("uq_datasets_version", ["name", "version"])
    for name in ("jobs", "uploads"):
        with op.batch_alter_table(name) as table:
            table.drop_column("project")
    with op.batch_alter_table("tokens") as table:
        for column in ("last_used_at", "expires_at", "scopes"):
            table.drop_column(column)
