"""Spend, why, audit, scan, forget and exports from the command line; spans at a real collector; the views, in Datasette too."""

import csv
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from tests.helpers.forked import codetape
from tests.integration.test_check import Strict

ROOT = Path(__file__).parents[2]
TAPES = sorted(str(path) for path in (ROOT / "replays").glob("*.jsonl"))
DEMO = str(ROOT / "replays" / "demo.tape.jsonl")


@pytest.fixture
def database():
    assert codetape("import", *TAPES).returncode == 0
    return ".codetape/tape.db"


def test_spend_in_every_form(database, monkeypatch):
    done = codetape("spend", "--by", "disposition,purpose")
    assert done.returncode == 0
    assert "unpriced" in done.stdout
    assert "█" in done.stdout
    value = json.loads(codetape("spend", "--by", "task", "--json").stdout)
    assert sum(row["tokens"] for row in value["rows"]) == value["total"]["tokens"] == 92_461
    assert value["total"]["unpriced"] == value["total"]["calls"] == 28
    assert codetape("spend", "--by", "task", "--csv", "s.csv").returncode == 0
    rows = list(csv.DictReader(io.StringIO(Path("s.csv").read_text())))
    assert sum(int(row["tokens"]) for row in rows) == 92_461
    files = json.loads(codetape("spend", *TAPES, "--by", "task", "--json").stdout)
    assert files["total"] == value["total"]
    one = json.loads(codetape("spend", "--task", "till", "--json").stdout)
    assert one["total"]["tokens"] == 32_444
    monkeypatch.setenv("CODETAPE_TRUST", str(Path.cwd()))
    Path("codetape.toml").write_text('[prices]\n"openai:relay" = { input = "1", output = "2" }\n')
    assert codetape("spend", "--json", "--csv", "-").returncode == 2
    priced = json.loads(codetape("spend", "--task", "till", "--prices-as-of", "2026-11-01", "--json").stdout)
    assert priced["total"]["cost"] == "0.037908"
    for words in (("--by", "nothing"), ("--prices-as-of", "x"), ("--task", "nothing")):
        assert codetape("spend", *words).returncode == 2


def test_why_goes_back_to_the_prompt():
    done = codetape("why", f"{DEMO}:44")
    for part in (
        "asked for code",
        "diagnose was used",
        "10 passed, 1 failed",
        "41886.49",
        "the code that it ran",
        "the plan was made",
        "the task till",
    ):
        assert part in done.stdout
    value = json.loads(codetape("why", f"{DEMO}:44", "--json").stdout)
    assert [link["seq"] for link in value["chain"]] == sorted((link["seq"] for link in value["chain"]), reverse=True)
    assert value["chain"][-1]["seq"] == 0
    origins = {part["origin"] for part in value["parts"]}
    assert {"the plan of event 4", "code of event 36"} <= origins
    assert sum(part["tokens"] for part in value["parts"]) == pytest.approx(2851, rel=0.05)
    assert codetape("why", f"{DEMO}:0").returncode == 2
    assert codetape("why", f"{DEMO}:999").returncode == 2


@pytest.mark.parametrize("tape", TAPES, ids=lambda t: Path(t).stem)
def test_every_call_of_the_real_tapes_is_explained(tape):
    from codetape.playback.tape_file import load
    from codetape.reporting.calls import stream_calls
    from codetape.reporting.why import why

    stream = load(tape).stream
    for call in stream_calls(stream):
        found = why(stream, call.seq)
        assert found.chain[0].seq == call.seq
        assert found.chain[-1].kind == "SessionStarted"
        assert all(part.origin for part in found.parts)


def test_an_audit_is_one_page_by_itself(database):
    done = codetape("audit", DEMO, "-o", "a.html", "-o", "a.md", "-o", "a.json")
    assert done.returncode == 0
    assert "35 requests and decisions derived again" in done.stdout
    parser = Strict()
    parser.feed(Path("a.html").read_text())
    assert parser.open == []
    for part in ("takings of each shop", "superseded", "sha256", "35 requests and decisions derived again"):
        assert part in parser.text
    assert not any(name in attrs for _, attrs in parser.tags for name in ("src", "onload", "style"))
    assert all(attrs["href"].startswith("#") for _, attrs in parser.tags if "href" in attrs)
    assert "executing to diagnosing" in Path("a.md").read_text()
    value = json.loads(Path("a.json").read_text())
    assert value["spend"]["total"]["tokens"] == 32_444
    assert value["verified"]["sound"]
    assert len(value["calls"]) == 9
    assert Path("a.md").read_text().startswith("# codetape audit: till")
    assert codetape("audit", DEMO, "-o", "x.pdf").returncode == 2


def test_anchors_scan_and_forgetting(database):
    assert codetape("verify", "--all", "--anchor", "heads.txt").returncode == 0
    lines = Path("heads.txt").read_text().splitlines()
    assert len(lines) == 6
    assert codetape("verify", "--all", "--anchor", "heads.txt").returncode == 0
    Path("heads.txt").write_text(
        "\n".join([re.sub(r".$", "0" if lines[0][-1] != "0" else "1", lines[0]), *lines[1:]]) + "\n"
    )
    bad = codetape("verify", "--all", "--anchor", "heads.txt")
    assert bad.returncode == 1
    assert "made again" in bad.stderr
    Path("heads.txt").write_text("\n".join(lines) + "\n")
    name = lines[0].split()[0]
    assert codetape("forget", name).returncode == 2
    assert codetape("forget", name, "--yes").returncode == 0
    assert codetape("verify", "--all", "--anchor", "heads.txt").returncode == 0
    assert "no content" in codetape("verify", name).stdout
    for verb in ("show", "audit", "why", "replay", "export"):
        shown = codetape(verb, name, *(("-o", "x.jsonl") if verb == "export" else ()))
        assert shown.returncode == 1, verb
        assert "forgotten" in shown.stderr
    assert codetape("export", name, "--no-content", "-o", "bare.jsonl").returncode == 0
    assert codetape("verify", "bare.jsonl").returncode == 0
    assert json.loads(codetape("spend", name, "--json").stdout)["total"]["calls"] == 3
    for words in (
        ("scan",),
        ("export", "--format", "otel", "-o", "all.json"),
        ("whatif", "--model", "m"),
        ("backtest", "rules"),
    ):
        assert codetape(*words).returncode == 0, words
    assert "not put back" in codetape("import", next(t for t in TAPES if name in Path(t).read_text())).stderr
    assert json.loads(codetape("spend", "--json").stdout)["total"]["tokens"] == 92_461
    assert codetape("scan", DEMO).returncode == 0
    found = codetape("scan", DEMO, "--redact", "Harbour")
    assert found.returncode == 100
    assert "Harbour" not in found.stdout


def test_every_verb_with_a_database_takes_it_from_the_settings(database):
    """A command that erases must not erase in another database than the one that `list` shows."""
    import click

    from codetape.cli import COMMANDS
    from codetape.cli.group import _defaults, cli

    context = click.Context(click.Command("x"))
    with context:
        os.environ["CODETAPE_DB"] = "other.db"
        try:
            found = _defaults()
        finally:
            del os.environ["CODETAPE_DB"]
    for verb in COMMANDS:
        command = cli.get_command(context, verb)
        for name, one in ({"": command} if not isinstance(command, click.Group) else command.commands).items():
            if any(option.name == "db" for option in one.params):
                given = found[verb][name] if name else found[verb]
                assert given["db"] == "other.db", (verb, name)
    codetape("import", "--db", "other.db", TAPES[0])
    done = codetape("forget", "last", "--yes", env={"CODETAPE_DB": "other.db"})
    assert done.returncode == 0
    assert codetape("list").stdout.count("succeeded") == 5
    assert "forgotten" in codetape("show", "last", "--db", "other.db").stderr


def test_an_edited_tape_is_not_counted():
    text = Path(DEMO).read_text()
    Path("edited.jsonl").write_text(re.sub(r'"output":\d+', '"output":1', text))
    done = codetape("spend", "edited.jsonl")
    assert done.returncode == 1
    assert "edited" in done.stderr


def test_heads_are_counted_merged_and_kept_where_they_are(database):
    Path("real.txt").write_text("# kept by hand\n")
    Path("heads.txt").symlink_to("real.txt")
    first = codetape("verify", "--all", "--anchor", "heads.txt")
    assert "0 heads were there to check against, 6 are new" in first.stdout
    assert Path("heads.txt").is_symlink()
    assert Path("real.txt").read_text().startswith("# kept by hand\n")
    assert (
        "6 heads were there to check against, 0 are new" in codetape("verify", "--all", "--anchor", "heads.txt").stdout
    )


def test_a_tape_without_content_is_counted_and_verified(database):
    codetape("export", "last", "--no-content", "-o", "bare.jsonl")
    assert "decisions were not derived" in codetape("verify", "bare.jsonl").stdout
    assert json.loads(codetape("spend", "bare.jsonl", "--json").stdout)["total"]["calls"] > 0
    for verb in ("replay", "import", "why", "audit"):
        done = codetape(verb, "bare.jsonl")
        assert done.returncode in (1, 2)
        assert "Traceback" not in done.stderr


def test_records_of_every_call(database):
    assert codetape("export", "--format", "csv", "-o", "calls.csv").returncode == 0
    assert codetape("export", "--format", "jsonl", "-o", "calls.jsonl").returncode == 0
    rows = list(csv.DictReader(io.StringIO(Path("calls.csv").read_text())))
    lines = [json.loads(line) for line in Path("calls.jsonl").read_text().splitlines()]
    assert len(rows) == len(lines) == 28
    assert sum(line["total_input"] + line["total_output"] for line in lines) == 92_461
    assert [row["session"] for row in rows] == [line["session"] for line in lines]
    assert codetape("export", "--format", "csv", "--task", "till", "-o", "-").stdout.count("\n") == 10
    assert codetape("export", "-o", "x").returncode == 2


class Collector(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append((self.path, dict(self.headers), data))
        body = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def attributes(span):
    return {a.key: a.value for a in span.attributes}


def test_spans_are_taken_by_a_collector_and_read_back(database):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    server.taken = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/v1/traces"
        done = codetape("export", "--format", "otel", "--task", "till", "--endpoint", url)
        assert done.returncode == 0, done.stderr
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    request = ExportTraceServiceRequest()
    path, headers, data = server.taken[0]
    assert path == "/v1/traces"
    if headers.get("Content-Encoding") == "gzip":
        import gzip

        data = gzip.decompress(data)
    request.ParseFromString(data)
    spans = request.resource_spans[0].scope_spans[0].spans
    assert request.resource_spans[0].scope_spans[0].scope.name == "codetape"
    root = next(s for s in spans if not s.parent_span_id)
    assert attributes(root)["gen_ai.operation.name"].string_value == "invoke_agent"
    assert all(s.parent_span_id == root.span_id for s in spans if s is not root)
    calls = [attributes(s) for s in spans if s.name.startswith("chat")]
    assert len(calls) == 9
    assert (
        sum(c["gen_ai.usage.input_tokens"].int_value + c["gen_ai.usage.output_tokens"].int_value for c in calls)
        == 32_444
    )
    assert not any("gen_ai.input.messages" in c for c in calls)
    assert sum(s.name == "execute_tool run" for s in spans) == 4
    assert all(s.end_time_unix_nano >= s.start_time_unix_nano for s in spans)
    down = codetape("export", "--format", "otel", "--task", "till", "--endpoint", url)
    assert (down.returncode, down.stderr.count("\n")) == (1, 1)


def test_spans_in_a_file_are_otlp_and_hold_content_when_asked(database):
    assert codetape("export", "--format", "otel", "--content", DEMO, "-o", "spans.json").returncode == 0
    value = json.loads(Path("spans.json").read_text())
    span = value["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert re.fullmatch("[0-9a-f]{32}", span["traceId"])
    assert any(a["key"] == "gen_ai.input.messages" for a in span["attributes"])
    from google.protobuf.json_format import ParseDict

    for one in value["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for name in ("traceId", "spanId", "parentSpanId"):
            one.pop(name, None)  # hexadecimal in OTLP's JSON, base 64 in protobuf's
    ParseDict(value, TracesData())
    again = codetape("export", "--format", "otel", "--content", DEMO, "-o", "again.json")
    assert again.returncode == 0
    assert Path("again.json").read_bytes() == Path("spans.json").read_bytes()


def queries():
    text = (ROOT / "docs" / "how-to" / "audit.md").read_text().split("```sql")[1].split("```")[0]
    return re.findall(r"^-- (\d+)\. (.*)\n(.*)$", text, re.MULTILINE)


def test_the_documented_queries_answer_in_sqlite_and_in_datasette(database):
    found = queries()
    assert len(found) == 10
    connection = sqlite3.connect(database)
    answers = {number: connection.execute(query).fetchall() for number, _, query in found}
    connection.close()
    assert {row[0]: row[1] for row in answers["3"]}["plan"] == 6
    assert answers["10"] == [("anchored", 3), ("oracle", 2)] or sum(n for _, n in answers["10"]) == 5
    assert [row[2] for row in answers["5"]] == ["iterations"]
    assert answers["7"][0][1] == 4
    assert answers["6"]
    script = (
        "import asyncio, json, sys\n"
        "from datasette.app import Datasette\n"
        "async def main():\n"
        "    ds = Datasette([sys.argv[1]], immutables=[])\n"
        "    found = {}\n"
        "    for line in sys.stdin:\n"
        "        number, query = line.rstrip('\\n').split('\\t')\n"
        "        answer = await ds.client.get('/tape.json', params={'sql': query.rstrip(';'), '_shape': 'arrays'})\n"
        "        if answer.status_code == 404: answer = await ds.client.get('/tape/-/query.json', params={'sql': query.rstrip(';'), '_shape': 'arrays'})\n"
        "        found[number] = answer.json()\n"
        "    print(json.dumps(found))\n"
        "asyncio.run(main())\n"
    )
    lines = "".join(f"{number}\t{query}\n" for number, _, query in found)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, database],
        input=lines,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    there = json.loads(done.stdout)
    for number, _, _ in found:
        value = there[number]
        rows = value["rows"] if isinstance(value, dict) else value
        assert [list(row) for row in answers[number]] == [list(row) for row in rows], number
