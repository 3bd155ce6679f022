"""How each SQL engine writes what an audit needs.

Templates are `str.format` strings. Text goes through bytes and back once, so that whatever
collation a column has cannot make two different units equal; from there on plain functions do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from abkit.errors import ConfigError
from abkit.records import hint, is_text

# Neither quoted, escaped nor bound by any engine, driver or template language.
_PLAIN = re.compile(r"[A-Za-z0-9 _.,@/+=-]*\Z")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$-]{0,127}\Z")
_MAX_PARTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What one engine calls things.

    Args:
        name: as in `audit_sql(..., dialect)`.
        quote: what encloses an identifier.
        as_text: of a column of text or whole numbers, its text.
        text: of a text column, the same text without collation; an error for other types
            where the engine can tell.
        from_hex: of the hex digits of UTF-8, the text.
        length: number of code points of a text.
        md5: of a text, 32 lower-case hex digits.
        sha256: of a text, 64 lower-case hex digits.
        digits: of a hash, its 13 hex digits from number {first}, in a form whose order is that of
            the bytes.
        bucket: of 13 hex digits, the integer.
        no_bucket: a null of that type.
        double: of the decimal digits of a double, exactly that double.
        starts_with: whether {x} starts with {y}, which has {n} characters.
        ends_with: the same for its end.
        contains: whether {y} is somewhere in {x}.
        infinity: the double, in engines where NaN is above it; empty where NaN is above nothing.
        malformed: whether a text is not UTF-8; empty where the engine stores no such text.
        holds_nul: whether text may hold U+0000.
        counts_bytes: whether {n} is a number of bytes.
    """

    name: str
    quote: str = '"'
    as_text: str
    text: str
    from_hex: str
    length: str = "length({x})"
    md5: str = "md5({x})"
    sha256: str
    digits: str = "substr({x}, {first}, 13)"
    bucket: str
    no_bucket: str = "cast(null as bigint)"
    double: str
    starts_with: str = "starts_with({x}, {y})"
    ends_with: str = "ends_with({x}, {y})"
    contains: str = "contains({x}, {y})"
    infinity: str = ""
    malformed: str = ""
    holds_nul: bool = True
    counts_bytes: bool = False

    def identifier(self, name: object, what: str) -> str:
        """A quoted identifier.

        Raises:
            ConfigError: it holds anything but ASCII letters, digits, `_`, `$` and `-`.
        """
        if not isinstance(name, str) or _IDENTIFIER.match(name) is None:
            raise ConfigError(
                f"{what} {name!r} cannot be named in an audit: use 1 to 128 of A-Z a-z 0-9 _ $ -, "
                "starting with a letter or _; a view can give it such a name"
            )
        return f"{self.quote}{name}{self.quote}"

    def table(self, name: object) -> str:
        """A quoted table name, of up to four parts with dots between.

        Raises:
            ConfigError: a part is no lawful identifier.
        """
        parts = name.split(".") if isinstance(name, str) else [name]
        if len(parts) > _MAX_PARTS:
            raise ConfigError(f"table {name!r} has more than {_MAX_PARTS} parts")
        return ".".join(self.identifier(part, f"table {name!r}: part") for part in parts)

    def literal(self, text: str) -> str:
        """A text as an expression that means exactly this text.

        What is not plainly ASCII becomes the hex digits of its UTF-8: quotes, backslashes and
        accents then depend on no escape rule, server setting, client encoding or editor.
        """
        if not is_text(text) or ("\0" in text and not self.holds_nul):
            return "null"  # no column can hold it, so nothing is equal to it
        if _PLAIN.match(text) is not None:
            return f"'{text}'"
        return self.from_hex.format(x=text.encode().hex())

    def count(self, text: str) -> int:
        """The length of a text as this engine's text functions count it."""
        return len(text.encode()) if self.counts_bytes else len(text)


_DIALECTS = (
    Dialect(
        name="duckdb",
        as_text="cast({x} as varchar)",
        text="decode(encode({x}))",
        from_hex="decode(unhex('{x}'))",
        sha256="sha256({x})",
        bucket="cast('0x' || {x} as bigint)",
        double="cast('{x}' as double)",
        infinity="cast('infinity' as double)",
    ),
    Dialect(
        name="postgres",
        as_text="cast({x} as text)",
        text='({x} collate "C")',
        from_hex="convert_from(decode('{x}', 'hex'), 'UTF8')",
        md5="md5(convert_to({x}, 'UTF8'))",
        sha256="encode(sha256(convert_to({x}, 'UTF8')), 'hex')",
        digits='(substr({x}, {first}, 13) collate "C")',
        bucket="cast(cast('x' || {x} as bit(52)) as bigint)",
        double="cast('{x}' as float8)",
        ends_with="right({x}, {n}) = {y}",
        contains="strpos({x}, {y}) > 0",
        infinity="cast('infinity' as float8)",
        holds_nul=False,
    ),
    Dialect(
        name="clickhouse",
        quote="`",
        as_text="toString({x})",
        text="{x}",  # compares bytes anyway
        from_hex="unhex('{x}')",
        length="lengthUTF8({x})",
        md5="lower(hex(MD5({x})))",
        sha256="lower(hex(SHA256({x})))",
        bucket="toInt64(reinterpretAsUInt64(reverse(unhex(concat('000', {x})))))",
        no_bucket="cast(null as Nullable(Int64))",
        double="toFloat64({x})",
        starts_with="startsWith({x}, {y})",
        ends_with="endsWith({x}, {y})",
        contains="position({x}, {y}) > 0",
        malformed="not isValidUTF8({x})",
    ),
    Dialect(
        name="spark",
        quote="`",
        as_text="cast({x} as string)",
        text="cast(cast({x} as binary) as string)",
        from_hex="cast(unhex('{x}') as string)",
        sha256="sha2({x}, 256)",
        bucket="cast(conv({x}, 16, 10) as bigint)",
        double="cast('{x}' as double)",
        starts_with="startswith({x}, {y})",
        ends_with="endswith({x}, {y})",
        infinity="cast('infinity' as double)",
    ),
    Dialect(
        name="bigquery",
        quote="`",
        as_text="cast({x} as string)",
        text="safe_convert_bytes_to_string(cast({x} as bytes))",
        from_hex="safe_convert_bytes_to_string(from_hex('{x}'))",
        length="char_length({x})",
        md5="to_hex(md5({x}))",
        sha256="to_hex(sha256({x}))",
        bucket="cast(concat('0x', {x}) as int64)",
        no_bucket="cast(null as int64)",
        double="cast('{x}' as float64)",
        contains="strpos({x}, {y}) > 0",
    ),
    Dialect(
        name="snowflake",
        as_text="cast({x} as varchar)",
        text="hex_decode_string(hex_encode({x}))",
        from_hex="hex_decode_string('{x}')",
        sha256="sha2({x}, 256)",
        bucket="to_number({x}, 'XXXXXXXXXXXXX')",
        double="cast('{x}' as double)",
        starts_with="startswith({x}, {y})",
        ends_with="endswith({x}, {y})",
        infinity="cast('inf' as double)",
    ),
    Dialect(
        name="trino",
        as_text="cast({x} as varchar)",
        text="from_utf8(to_utf8({x}))",
        from_hex="from_utf8(from_hex('{x}'))",
        md5="lower(to_hex(md5(to_utf8({x}))))",
        sha256="lower(to_hex(sha256(to_utf8({x}))))",
        bucket="from_base({x}, 16)",
        double="cast('{x}' as double)",
        ends_with="substr({x}, -{n}) = {y}",
        contains="strpos({x}, {y}) > 0",
    ),
    Dialect(
        name="mysql",
        quote="`",
        as_text="{x}",
        # Bytes: every collation that both MySQL and MariaDB know ignores blanks at the end.
        text="cast(convert({x} using utf8mb4) as binary)",
        from_hex="X'{x}'",
        length="char_length(convert({x} using utf8mb4))",
        sha256="sha2({x}, 256)",
        bucket="cast(conv({x}, 16, 10) as signed)",
        no_bucket="cast(null as signed)",
        double="cast('{x}' as double)",
        starts_with="left({x}, {n}) = {y}",
        ends_with="right({x}, {n}) = {y}",
        contains="locate({y}, {x}) > 0",
        counts_bytes=True,
    ),
)
_BY_NAME = {item.name: item for item in _DIALECTS} | {"mariadb": _DIALECTS[-1]}

DIALECTS = tuple(_BY_NAME)
"""Names that `audit_sql` takes as a dialect."""


def dialect_of(name: object) -> Dialect:
    """The dialect of this name.

    Raises:
        ConfigError: there is none.
    """
    found = _BY_NAME.get(name) if isinstance(name, str) else None
    if found is None:
        raise ConfigError(f"unknown SQL dialect {name!r}{hint(str(name), _BY_NAME)}")
    return found
