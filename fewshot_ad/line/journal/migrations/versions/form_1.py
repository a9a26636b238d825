"""The first form of a journal."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None

# Written out, and not taken from `tables`: those change, this does not.
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "records",
        sa.Column("seq", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        sa.Column("station", sa.Text, nullable=False),
        sa.Column("time", _TIME, nullable=False),
        sa.Column("product", sa.Text, nullable=False),
        sa.Column("artifact", sa.String(64), nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("key", sa.Text),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("score", sa.Float(53)),
        sa.Column("threshold", sa.Float(53)),
        sa.Column("severity", sa.Float(53)),
        sa.Column("milliseconds", sa.Float(53), nullable=False),
        sa.Column("image", sa.Text),
        sa.Column("overlay", sa.Text),
        sa.Column("inspection", sa.Text),
        sa.UniqueConstraint("station", "key", name="uq_records_key"),
    )
    op.create_index("ix_records_time", "records", ["time"])
    op.create_index("ix_records_product", "records", ["product", "verdict", "seq"])
    op.create_index("ix_records_verdict", "records", ["verdict", "seq"])
    op.create_table(
        "corrections",
        sa.Column("seq", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        sa.Column("station", sa.Text, nullable=False),
        sa.Column("time", _TIME, nullable=False),
        sa.Column("product", sa.Text, nullable=False),
        sa.Column("record", sa.String(32)),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("artifact", sa.String(64), nullable=False),
        sa.Column("undoes", sa.String(32)),
        sa.Column("notes", sa.Text, nullable=False),
    )
    op.create_index("ix_corrections_record", "corrections", ["record"])
    op.create_table(
        "events",
        sa.Column("seq", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        sa.Column("station", sa.Text, nullable=False),
        sa.Column("time", _TIME, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_table(
        "in_flight",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("station", sa.Text, nullable=False),
        sa.Column("time", _TIME, nullable=False),
        sa.Column("product", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
    )
    op.create_table(
        "positions",
        sa.Column("station", sa.Text, primary_key=True),
        sa.Column("reader", sa.Text, primary_key=True),
        sa.Column("seq", _NUMBER, nullable=False),
    )
    op.create_table(
        "pictures",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("station", sa.Text, nullable=False),
        sa.Column("record", sa.String(32), nullable=False),
        sa.Column("bytes", _NUMBER, nullable=False),
        sa.Column("good", sa.Boolean, nullable=False),
    )
    op.create_index("ix_pictures_record", "pictures", ["station", "good", "record"])


def downgrade() -> None:
    """Remove the tables."""
    for table in ("pictures", "positions", "in_flight", "events", "corrections", "records"):
        op.drop_table(table)
