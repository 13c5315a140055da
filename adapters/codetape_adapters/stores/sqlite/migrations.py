"""The database's tables, triggers and views, as an append-only list of steps. A released step never changes."""

from sqlite_utils import Database, Migrations

from codetape_adapters.stores.sqlite.read_models import (
    CALL_TABLE,
    CALL_VIEWS,
    READ_MODEL_TABLES,
    READ_MODEL_VIEWS,
)
from codetape_adapters.stores.sqlite.rebuilding import make_first
from codetape_adapters.stores.sqlite.reservations import SUM_TABLES

MIGRATIONS = Migrations("codetape")


def mark_applied(db: Database, count: int) -> None:
    """Record the first steps as applied, for a database older than the record of steps by name."""
    MIGRATIONS.ensure_migrations_table(db)
    for step in MIGRATIONS.pending(db)[: max(0, count - len(MIGRATIONS.applied(db)))]:
        db.table("_sqlite_migrations").insert(
            {"migration_set": MIGRATIONS.name, "name": step.name, "applied_at": "before this list was kept"}
        )


@MIGRATIONS()
def _first(db: Database) -> None:
    for statement in (
        "CREATE TABLE events (session TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, version INTEGER NOT "
        "NULL,"
        " at TEXT NOT NULL, payload TEXT NOT NULL, prev_hash TEXT NOT NULL, hash TEXT NOT NULL, UNIQUE (session, seq))",
        "CREATE TABLE blobs (hash BLOB NOT NULL UNIQUE, size INTEGER NOT NULL, data BLOB NOT NULL)",
        "CREATE TABLE sessions (session TEXT NOT NULL UNIQUE, task TEXT NOT NULL, model TEXT NOT NULL, tags TEXT NOT "
        "NULL,"
        " state TEXT NOT NULL, reason TEXT NOT NULL, iteration INTEGER NOT NULL, events INTEGER NOT NULL,"
        " input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, started_at TEXT NOT NULL,"
        " updated_at TEXT NOT NULL, head TEXT NOT NULL)",
        "CREATE TABLE leases (session TEXT NOT NULL UNIQUE, token INTEGER NOT NULL, held INTEGER NOT NULL,"
        " host TEXT NOT NULL, boot TEXT NOT NULL, pid INTEGER NOT NULL, process_start TEXT NOT NULL,"
        " since REAL NOT NULL, heartbeat REAL NOT NULL)",
        *(
            f"CREATE TRIGGER {table}_{verb.lower()} BEFORE {verb} ON {table}"
            f" BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END"
            for table in ("events", "blobs")
            for verb in ("UPDATE", "DELETE")
        ),
        "CREATE TRIGGER events_over BEFORE INSERT ON events WHEN EXISTS"
        " (SELECT 1 FROM events WHERE session = NEW.session AND seq = NEW.seq)"
        " BEGIN SELECT RAISE(ABORT, 'this event is in the log already'); END",
        "CREATE TRIGGER blobs_over BEFORE INSERT ON blobs WHEN EXISTS (SELECT 1 FROM blobs WHERE hash = NEW.hash)"
        " BEGIN SELECT RAISE(ABORT, 'this blob is in the log already'); END",
        "CREATE VIEW llm_calls AS SELECT r.session, r.seq, r.at, json_extract(r.payload, '$.purpose') AS purpose,"
        " a.kind AS outcome, json_extract(a.payload, '$.model') AS model,"
        " json_extract(a.payload, '$.finish_reason') AS finish_reason,"
        " json_extract(a.payload, '$.usage.input') AS input, json_extract(a.payload, '$.usage.cache_read') AS "
        "cache_read,"
        " json_extract(a.payload, '$.usage.cache_write') AS cache_write,"
        " json_extract(a.payload, '$.usage.output') AS output, json_extract(a.payload, '$.usage.reasoning') AS "
        "reasoning,"
        " json_extract(a.payload, '$.duration_ms') AS duration_ms"
        " FROM events r LEFT JOIN events a ON a.session = r.session AND a.seq = r.seq + 1"
        " WHERE r.kind = 'Requested' AND json_extract(r.payload, '$.effect') = 'ask'",
        "CREATE VIEW test_runs AS SELECT session, seq, at, json_extract(payload, '$.purpose') AS purpose,"
        " json_extract(payload, '$.exit') AS exit, json_extract(payload, '$.passed') AS passed,"
        " json_extract(payload, '$.failed') AS failed, json_extract(payload, '$.errors') AS errors,"
        " json_extract(payload, '$.skipped') AS skipped, json_extract(payload, '$.duration_ms') AS duration_ms"
        " FROM events WHERE kind = 'TestsFinished'",
        "CREATE VIEW spend AS SELECT session, purpose, count(*) AS calls, sum(input) AS input,"
        " sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output) AS output,"
        " sum(reasoning) AS reasoning FROM llm_calls GROUP BY session, purpose",
    ):
        db.execute(statement)


@MIGRATIONS()
def _families(db: Database) -> None:
    db.execute("ALTER TABLE sessions ADD COLUMN parent TEXT NOT NULL DEFAULT ''")
    db.execute("ALTER TABLE sessions ADD COLUMN forked_at INTEGER NOT NULL DEFAULT 0")


@MIGRATIONS()
def _money(db: Database) -> None:
    """Costs are whole picodollars (10^-12). Open and reserved: what an open call, or a lost one, may have come to."""
    for column in ("cost", "unpriced", "reused_tokens", "open_tokens", "open_cost", "reserved_tokens", "reserved_cost"):
        db.execute(f"ALTER TABLE sessions ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")


@MIGRATIONS()
def _views(db: Database) -> None:
    """Answers to common questions, for whoever opens the database without codetape. Costs are in dollars."""
    for view in ("spend", "llm_calls"):
        db.execute(f"DROP VIEW {view}")
    payload = "json_extract({}.payload, '$.{}')".format
    a, buckets = "a", ("input", "cache_read", "cache_write", "output", "reasoning")
    for statement in (
        "CREATE VIEW llm_calls AS SELECT r.session, r.seq, r.at, s.task, s.model AS asked_model,"
        f" {payload('r', 'purpose')} AS purpose, a.kind AS outcome, {payload(a, 'model')} AS model,"
        f" {payload(a, 'finish_reason')} AS finish_reason,"
        + "".join(f" {payload(a, f'usage.{bucket}')} AS {bucket}," for bucket in buckets)
        + f" CAST({payload(a, 'price.cost')} AS REAL) AS cost, {payload(a, 'price.source')} AS cost_source,"
        f" coalesce({payload(a, 'matched_by')}, '') <> '' AS replayed,"
        f" json_array_length(a.payload, '$.tries') AS retries, {payload(a, 'duration_ms')} AS duration_ms"
        " FROM events r JOIN sessions s USING (session) LEFT JOIN events a ON a.session = r.session AND a.seq = r.seq "
        "+ 1"
        f" WHERE r.kind = 'Requested' AND {payload('r', 'effect')} = 'ask'",
        "CREATE VIEW spend AS SELECT session, task, asked_model AS model, purpose, count(*) AS calls, sum(input) AS "
        "input,"
        " sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output) AS output, sum(reasoning) AS "
        "reasoning,"
        " sum(cost) AS cost, sum(outcome = 'Answered' AND cost IS NULL) AS unpriced"
        " FROM llm_calls WHERE NOT replayed GROUP BY session, purpose",
        f"CREATE VIEW decisions AS SELECT session, seq, at, kind, {payload('events', 'about')} AS about,"
        f" {payload('events', 'usable')} AS usable, {payload('events', 'reason')} AS reason,"
        f" {payload('events', 'source')} AS source, {payload('events', 'target')} AS target,"
        f" {payload('events', 'confidence')} AS confidence"
        " FROM events WHERE kind IN ('Decided', 'Suspended', 'Succeeded', 'Failed')",
        "CREATE VIEW failures AS"
        " SELECT session, seq, at, 'tests' AS what, purpose || ': ' || failed || ' failed, ' || errors || ' errors, ' "
        "|| exit AS detail"
        " FROM test_runs WHERE purpose <> 'vet' AND (failed > 0 OR errors > 0 OR exit <> 'ok')"
        " UNION ALL SELECT session, seq, at, 'answer', about || ': ' || reason FROM decisions WHERE NOT usable"
        " UNION ALL SELECT session, seq, at, 'call', kind FROM events WHERE kind IN ('CallLost', 'GaveUp', "
        "'CallRefused')"
        f" UNION ALL SELECT session, seq, at, 'build', {payload('events', 'reason')} FROM events WHERE kind = "
        "'BuildRefused'"
        " UNION ALL SELECT session, seq, at, 'session', reason FROM decisions WHERE kind = 'Failed'",
    ):
        db.execute(statement)


@MIGRATIONS()
def _read_models(db: Database) -> None:
    """Keep what views show in tables, filled by the decoder: a view over stored payloads reads only one version."""
    for view in ("failures", "decisions", "spend", "llm_calls", "test_runs"):
        db.execute(f"DROP VIEW IF EXISTS {view}")
    for statement in (*READ_MODEL_TABLES, *READ_MODEL_VIEWS):
        db.execute(statement)


@MIGRATIONS()
def _server(db: Database) -> None:
    """The address at which a session's model is reached, where its events name it."""
    db.execute("ALTER TABLE sessions ADD COLUMN server TEXT NOT NULL DEFAULT ''")


@MIGRATIONS()
def _confidence(db: Database) -> None:
    """How far a session's success can be trusted; empty for every other state."""
    db.execute("ALTER TABLE sessions ADD COLUMN confidence TEXT NOT NULL DEFAULT ''")
    last = "SELECT d.confidence FROM decision_rows d WHERE d.session = sessions.session AND d.kind = 'Succeeded'"
    db.execute(
        f"UPDATE sessions SET confidence = coalesce(({last} ORDER BY d.seq DESC LIMIT 1), '') WHERE state = 'succeeded'"
    )


@MIGRATIONS()
def _kept(db: Database) -> None:
    """Keep what spend, lists and budgets are made of: calls, what was asked, and what each label has spent."""
    for view in ("spend", "llm_calls"):
        db.execute(f"DROP VIEW {view}")
    db.execute("DROP TABLE call_rows")
    for column in ("lineage", "prompts", "asked"):
        db.execute(f"ALTER TABLE sessions ADD COLUMN {column} TEXT NOT NULL DEFAULT ''")
    for statement in (CALL_TABLE, *CALL_VIEWS, *SUM_TABLES):
        db.execute(statement)
    make_first(db.conn)
