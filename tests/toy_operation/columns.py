"""The columns of the toy."""

from __future__ import annotations

from opslib.telling.columns import Column, DocumentTable, document_table
from tests.toy_operation.record import ToyRecord

COLUMNS: tuple[Column[ToyRecord], ...] = (
    Column("throws", lambda record: record.throws, "{:,}".format, right=True),
    Column("heads", lambda record: record.heads, "{:,}".format, right=True),
)


def snapshot(record: ToyRecord) -> DocumentTable:
    """Return the table that stands in a document."""
    return document_table(COLUMNS, [record])
