"""Make census_ma.parquet from nannyml's employment_MA.parquet.

The sample is uniform within each year: every row gets the SHA-256 of "seed:id", and the rows with
the smallest digests stay. No random generator is involved, so any version of any library repeats
the choice.

    python sample_data/make_census_ma.py path/to/employment_MA.parquet
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

FEATURES = (
    "AGEP",
    "SCHL",
    "MAR",
    "RELP",
    "DIS",
    "ESP",
    "CIT",
    "MIG",
    "MIL",
    "ANC",
    "NATIVITY",
    "DEAR",
    "DEYE",
    "DREM",
    "SEX",
    "RAC1P",
)
ROWS_OF_YEAR = {2015: 24_000, 2016: 20_000, 2017: 20_000, 2018: 20_000}
SEED = 1
SCHEMA = pa.schema(
    [
        pa.field("id", pa.int32(), nullable=False),
        *(pa.field(name, pa.int8(), nullable=False) for name in FEATURES),
        pa.field("employed", pa.int8(), nullable=False),
        pa.field("year", pa.int16(), nullable=False),
    ]
)


def chosen_ids(source: pa.Table) -> set[int]:
    """Return the ids that stay: in each year, those with the smallest digest of seed and id."""
    ids_of_year: dict[int, list[int]] = {year: [] for year in ROWS_OF_YEAR}
    for row_id, year in zip(source["id"].to_pylist(), source["year"].to_pylist(), strict=True):
        ids_of_year[year].append(row_id)
    chosen: set[int] = set()
    for year, rows in ROWS_OF_YEAR.items():
        ranked = sorted(
            ids_of_year[year],
            key=lambda row_id: hashlib.sha256(f"{SEED}:{row_id}".encode()).digest(),
        )
        chosen.update(ranked[:rows])
    return chosen


def compact(source: pa.Table) -> pa.Table:
    """Return the columns of the sample in small integer types, in the order of the ids."""
    columns = []
    for field in SCHEMA:
        column = source[field.name].combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = pc.cast(column, pa.string())
        columns.append(pc.cast(column, field.type))
    return pa.Table.from_arrays(columns, schema=SCHEMA).sort_by("id")


def main() -> None:
    """Read the source, write the sample, print its row count, size and SHA-256."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "source", type=Path, help="employment_MA.parquet of the PyPI package nannyml 0.13.1"
    )
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("census_ma.parquet")
    )
    arguments = parser.parse_args()

    source = pq.read_table(arguments.source, columns=SCHEMA.names)
    chosen = pa.array(sorted(chosen_ids(source)), type=source["id"].type)
    sample = compact(source.filter(pc.is_in(source["id"], value_set=chosen)))
    pq.write_table(
        sample,
        arguments.output,
        compression="zstd",
        compression_level=19,
        row_group_size=len(sample),
        use_dictionary=[name for name in SCHEMA.names if name != "id"],
        column_encoding={"id": "DELTA_BINARY_PACKED"},
    )
    data = arguments.output.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    print(f"{arguments.output.name}: {len(sample)} rows, {len(data)} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
