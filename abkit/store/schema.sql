-- The DuckDB store: an index of the segment log, rebuilt from it at any time.
-- (writer, sequence) is the key of every event; the watermark makes loading idempotent, so no
-- index over the events is needed. `load` numbers the transactions that brought rows, from 1: what
-- is above a number is news since then. Times are UTC.

CREATE TABLE IF NOT EXISTS meta (key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL);

CREATE TABLE IF NOT EXISTS exposure (
  load UBIGINT NOT NULL, writer VARCHAR NOT NULL, sequence UBIGINT NOT NULL,
  time TIMESTAMP NOT NULL, received TIMESTAMP NOT NULL,
  experiment VARCHAR NOT NULL, unit_id VARCHAR NOT NULL,
  variant VARCHAR NOT NULL, epoch INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS outcome (
  load UBIGINT NOT NULL, writer VARCHAR NOT NULL, sequence UBIGINT NOT NULL,
  time TIMESTAMP NOT NULL, received TIMESTAMP NOT NULL,
  unit_id VARCHAR NOT NULL, metric VARCHAR NOT NULL, value DOUBLE NOT NULL,
  experiment VARCHAR NOT NULL, variant VARCHAR NOT NULL
);

CREATE TABLE IF NOT EXISTS decision (
  load UBIGINT NOT NULL, writer VARCHAR NOT NULL, sequence UBIGINT NOT NULL,
  time TIMESTAMP NOT NULL, received TIMESTAMP NOT NULL,
  rollout VARCHAR NOT NULL, look INTEGER NOT NULL, record VARCHAR NOT NULL
);

-- Where each writer's log has been read to, committed with the rows.
CREATE TABLE IF NOT EXISTS watermark (
  writer VARCHAR PRIMARY KEY,
  segment BIGINT NOT NULL, "offset" BIGINT NOT NULL, next_sequence UBIGINT NOT NULL
);

-- What the writers themselves dropped: cumulative counts, the newest one holds.
CREATE TABLE IF NOT EXISTS loss (
  writer VARCHAR, experiment VARCHAR, variant VARCHAR, reason VARCHAR, count UBIGINT NOT NULL,
  PRIMARY KEY (writer, experiment, variant, reason)
);

-- Sequence numbers that never arrived: dropped by the writer, or lost with damaged bytes.
CREATE TABLE IF NOT EXISTS gap (
  writer VARCHAR NOT NULL, first_sequence UBIGINT NOT NULL, count UBIGINT NOT NULL
);

-- Bytes that could not be read, and why; and, with segment 0 and the event's number as offset,
-- events that cannot be used.
CREATE TABLE IF NOT EXISTS quarantine (
  writer VARCHAR NOT NULL, segment BIGINT NOT NULL, "offset" BIGINT NOT NULL,
  length BIGINT NOT NULL, events UBIGINT NOT NULL, reason VARCHAR NOT NULL,
  PRIMARY KEY (writer, segment, "offset", reason)
);

-- Events that were taken away on purpose: "expired" or "forgotten".
CREATE TABLE IF NOT EXISTS retention (
  writer VARCHAR, experiment VARCHAR, variant VARCHAR, reason VARCHAR, count UBIGINT NOT NULL,
  PRIMARY KEY (writer, experiment, variant, reason)
);

-- Counts of the rows above, kept with each load, so that publishing costs nothing; `tally.py`
-- counts them anew.
CREATE TABLE IF NOT EXISTS tally (
  writer VARCHAR, experiment VARCHAR, variant VARCHAR, kind VARCHAR,
  events UBIGINT NOT NULL, last_event TIMESTAMP NOT NULL,
  PRIMARY KEY (writer, experiment, variant, kind)
);

CREATE TABLE IF NOT EXISTS traffic (
  experiment VARCHAR, epoch INTEGER, variant VARCHAR, minute TIMESTAMP,
  exposures UBIGINT NOT NULL,
  PRIMARY KEY (experiment, epoch, variant, minute)
);
