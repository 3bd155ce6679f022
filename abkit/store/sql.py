"""Pieces of SQL for columns that other people named."""

from __future__ import annotations


def quoted(name: str) -> str:
    """A column name as an SQL identifier; it is known to be a column of the table.

    Examples:
        >>> quoted('a "b" c')
        '"a ""b"" c"'
    """
    return '"' + name.replace('"', '""') + '"'


def cast_text(name: str) -> str:
    """A column as text, the way DuckDB writes it: True is 'true', 1 is '1'."""
    return f"CAST({quoted(name)} AS VARCHAR)"


def first_line(error: BaseException) -> str:
    """What an error of the database says first."""
    return str(error).strip().partition("\n")[0]
