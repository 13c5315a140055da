"""How the tables of calls, test runs, decisions and builds are made, and the views on them.

Rows are made from decoded payloads, so that views show events of every version alike; they can be rebuilt from the
events.
"""

from codetape.eventlog.kept_call import KeptCall

READ_MODEL_TABLES = (
    "CREATE TABLE call_rows (session TEXT NOT NULL, seq INTEGER NOT NULL, at TEXT NOT NULL, purpose TEXT NOT NULL, "
    "outcome TEXT,"
    " model TEXT, finish_reason TEXT, input INTEGER, cache_read INTEGER, cache_write INTEGER, output INTEGER, "
    "reasoning INTEGER,"
    " cost REAL, cost_source TEXT, replayed INTEGER NOT NULL DEFAULT 0, retries INTEGER, duration_ms INTEGER,"
    " UNIQUE (session, seq))",
    "CREATE TABLE test_run_rows (session TEXT NOT NULL, seq INTEGER NOT NULL, at TEXT NOT NULL, purpose TEXT NOT NULL,"
    " exit TEXT NOT NULL, passed INTEGER NOT NULL, failed INTEGER NOT NULL, errors INTEGER NOT NULL, skipped INTEGER "
    "NOT NULL,"
    " duration_ms INTEGER NOT NULL, UNIQUE (session, seq))",
    "CREATE TABLE decision_rows (session TEXT NOT NULL, seq INTEGER NOT NULL, at TEXT NOT NULL, kind TEXT NOT NULL,"
    " about TEXT NOT NULL, usable INTEGER NOT NULL, reason TEXT NOT NULL, source TEXT NOT NULL, target TEXT NOT NULL,"
    " confidence TEXT, UNIQUE (session, seq))",
    "CREATE TABLE build_rows (session TEXT NOT NULL, seq INTEGER NOT NULL, at TEXT NOT NULL, outcome TEXT NOT NULL,"
    " image TEXT NOT NULL, reason TEXT NOT NULL, UNIQUE (session, seq))",
)
READ_MODEL_VIEWS = (
    "CREATE VIEW llm_calls AS SELECT c.session, c.seq, c.at, s.task, s.model AS asked_model, c.purpose, c.outcome, "
    "c.model,"
    " c.finish_reason, c.input, c.cache_read, c.cache_write, c.output, c.reasoning, c.cost, c.cost_source, "
    "c.replayed, c.retries,"
    " c.duration_ms FROM call_rows c JOIN sessions s USING (session)",
    "CREATE VIEW test_runs AS SELECT * FROM test_run_rows",
    "CREATE VIEW spend AS SELECT session, task, asked_model AS model, purpose, count(*) AS calls, sum(input) AS input,"
    " sum(cache_read) AS cache_read, sum(cache_write) AS cache_write, sum(output) AS output, sum(reasoning) AS "
    "reasoning,"
    " sum(cost) AS cost, sum(outcome = 'Answered' AND cost IS NULL) AS unpriced"
    " FROM llm_calls WHERE NOT replayed GROUP BY session, purpose",
    "CREATE VIEW decisions AS SELECT * FROM decision_rows",
    "CREATE VIEW failures AS"
    " SELECT session, seq, at, 'tests' AS what, purpose || ': ' || failed || ' failed, ' || errors || ' errors, ' || "
    "exit AS detail"
    " FROM test_runs WHERE purpose <> 'vet' AND (failed > 0 OR errors > 0 OR exit <> 'ok')"
    " UNION ALL SELECT session, seq, at, 'answer', about || ': ' || reason FROM decisions WHERE NOT usable"
    " UNION ALL SELECT session, seq, at, 'call', kind FROM events WHERE kind IN ('CallLost', 'GaveUp', 'CallRefused')"
    " UNION ALL SELECT session, seq, at, 'build', reason FROM build_rows WHERE outcome = 'BuildRefused'"
    " UNION ALL SELECT session, seq, at, 'session', reason FROM decisions WHERE kind = 'Failed'",
)

_NUMBERS = (
    "seq", "iteration", "reserved", "repaired", "code", "tests", "reverted", "input", "cache_read", "cache_write",
    "output", "reasoning", "estimated", "replayed", "tries", "duration_ms",
)  # fmt: skip
CALL_TABLE = (
    "CREATE TABLE call_rows ("
    + ", ".join(
        f"{name} INTEGER{'' if name in ('usable', 'cost') else ' NOT NULL'}"
        if name in (*_NUMBERS, "usable", "cost")
        else f"{name} TEXT NOT NULL"
        for name in KeptCall._fields
    )
    + ", model TEXT, finish_reason TEXT, UNIQUE (session, seq))"
)
"""What is kept of calls: the fields of `KeptCall`, with money in picodollars, and two more for views."""
_OF_ANSWERS = "".join(
    f" CASE c.outcome WHEN 'Answered' THEN c.{name} END AS {name},"
    for name in ("input", "cache_read", "cache_write", "output", "reasoning")
)
CALL_VIEWS = (
    "CREATE VIEW llm_calls AS SELECT c.session, c.seq, c.at, s.task, s.model AS asked_model, c.purpose,"
    f" nullif(c.outcome, '') AS outcome, c.model, c.finish_reason,{_OF_ANSWERS}"
    " CASE WHEN NOT c.replayed THEN c.cost / 1e12 END AS cost,"
    " CASE WHEN c.source NOT IN ('', 'unpriced', 'replayed') THEN c.source END AS cost_source, c.replayed,"
    " CASE WHEN c.outcome IN ('Answered', 'GaveUp') THEN c.tries END AS retries,"
    " CASE c.outcome WHEN 'Answered' THEN c.duration_ms END AS duration_ms"
    " FROM call_rows c JOIN sessions s USING (session)",
    next(view for view in READ_MODEL_VIEWS if view.startswith("CREATE VIEW spend ")),
)
