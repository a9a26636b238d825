"""The tables of a journal. What is changed here needs a migration, see `migrations`; a test compares the two."""

from __future__ import annotations

import datetime
from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData()

# SQLite counts up only what is called INTEGER.
_Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


class UtcTime(sa.types.TypeDecorator[datetime.datetime]):
    """A time with its zone: as such on PostgreSQL; on SQLite, which has none, in UTC."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime.datetime | None, dialect: Any) -> datetime.datetime | None:
        """In UTC."""
        if value is None:
            return None
        value = value.astimezone(datetime.timezone.utc)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime.datetime | None, dialect: Any) -> datetime.datetime | None:
        """With its zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            return value.replace(tzinfo=datetime.timezone.utc)
        return value.astimezone(datetime.timezone.utc)


# Every inspection; never changed afterwards.
records = sa.Table(
    "records",
    metadata,
    sa.Column("seq", _Number, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(32), nullable=False, unique=True),
    sa.Column("station", sa.Text, nullable=False),
    sa.Column("time", UtcTime, nullable=False),
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
    # JSON as text: a number comes back as it went in.
    sa.Column("inspection", sa.Text),
    sa.UniqueConstraint("station", "key", name="uq_records_key"),
    sa.Index("ix_records_time", "time"),
    sa.Index("ix_records_product", "product", "verdict", "seq"),
    sa.Index("ix_records_verdict", "verdict", "seq"),
)

# What people have said of verdicts, and done to products because of them.
corrections = sa.Table(
    "corrections",
    metadata,
    sa.Column("seq", _Number, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(32), nullable=False, unique=True),
    sa.Column("station", sa.Text, nullable=False),
    sa.Column("time", UtcTime, nullable=False),
    sa.Column("product", sa.Text, nullable=False),
    sa.Column("record", sa.String(32)),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("artifact", sa.String(64), nullable=False),
    sa.Column("undoes", sa.String(32)),
    sa.Column("notes", sa.Text, nullable=False),
    sa.Index("ix_corrections_record", "record"),
)

# Starts, stops, what was lost, what was dropped.
events = sa.Table(
    "events",
    metadata,
    sa.Column("seq", _Number, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(32), nullable=False, unique=True),
    sa.Column("station", sa.Text, nullable=False),
    sa.Column("time", UtcTime, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
)

# What is being inspected at this moment: after a crash, what had no verdict yet.
in_flight = sa.Table(
    "in_flight",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("station", sa.Text, nullable=False),
    sa.Column("time", UtcTime, nullable=False),
    sa.Column("product", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
)

# How far those who read the journal have got.
positions = sa.Table(
    "positions",
    metadata,
    sa.Column("station", sa.Text, primary_key=True),
    sa.Column("reader", sa.Text, primary_key=True),
    sa.Column("seq", _Number, nullable=False),
)

# The pictures that there are on disk.
pictures = sa.Table(
    "pictures",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("station", sa.Text, nullable=False),
    sa.Column("record", sa.String(32), nullable=False),
    sa.Column("bytes", _Number, nullable=False),
    sa.Column("good", sa.Boolean, nullable=False),
    sa.Index("ix_pictures_record", "station", "good", "record"),
)
