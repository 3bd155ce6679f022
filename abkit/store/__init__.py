"""The DuckDB store: loading the log, reading moments, publishing what readers see."""
