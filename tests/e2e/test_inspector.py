"""The inspector in a real browser: every page of the shipped tapes, a live run, hostile texts, keys, accessibility."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from codetape.domain.report import Report, TestResult
from codetape.evals import check
from codetape.evals.chosen_sessions import Filter
from codetape.evals.corpus import Corpus
from codetape.inspector.library import library
from codetape.inspector.rendering import Links
from codetape.inspector.server import HEADERS
from codetape.playback import tape_file
from codetape.playback.whatif import Change
from codetape.ports import Stream
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.corpora import noisy_agent, noisy_corpus
from tests.helpers.forked import codetape
from tests.integration.test_check import EVIL, OTHER, hostile_session

REPLAYS = Path(__file__).parents[2] / "replays"
IMAGES = Path(__file__).parents[2] / "docs" / "images"
FAILED, DEMO = "bc0ffe379efb2f9f", "ee1e092bff0773fc"
WIDTHS = (360, 1280, 2560)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """The shipped tapes, a check with its control, and a session of hostile texts."""
    path = tmp_path_factory.mktemp("inspector") / "tape.db"
    store = SqliteStore(path)
    noisy_corpus(store, 8)
    candidate, control = noisy_agent(store, 1), noisy_agent(store, "1-control")
    setup = check.CheckSetup(candidate=candidate, control=control, attempts=3)

    async def work():
        plan = await check.planned(Corpus(store, (), Filter()), Change(OTHER))
        return await check.run(plan, setup)

    plan = asyncio.run(work()).plan
    for tape in sorted(REPLAYS.glob("*.jsonl")):
        store.put(tape_file.load(str(tape)).stream)
    evil = hostile_session()
    store.put(evil)
    store.close()
    return {"path": path, "check": plan.id, "evil": evil.events[-1].session}


@contextmanager
def viewed(*words):
    """Serve pages by the command itself; gives the address that it prints. Ctrl-C ends it quietly."""
    process = subprocess.Popen(
        [sys.executable, "-m", "codetape", "view", "--no-open", "--json", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield json.loads(line)["url"]
    finally:
        process.send_signal(signal.SIGINT)
        rest, said = process.communicate(timeout=30)
    assert (process.returncode, rest, said) == (0, "", "")


@pytest.fixture(scope="module")
def served(database):
    with viewed("--db", database["path"]) as address:
        yield address.rpartition("/")[0]


@pytest.fixture(scope="module")
def chromium(database):
    """A browser; the database is made before it, for this thread has an event loop then."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        assert os.environ.get("CODETAPE_REQUIRE_BROWSER") != "1"
        pytest.skip("no chromium here")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A page that keeps what it complains of, and every address that it asks for."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    opened = context.new_page()
    opened.complaints, opened.asked = [], []
    opened.on("console", lambda message: opened.complaints.append(message.text))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.on("request", lambda request: opened.asked.append(request.url))
    yield opened
    context.close()


def kinds(database):
    """One page of each kind."""
    return [
        "sessions", "sessions?group=task", f"session/{FAILED}", f"session/{DEMO}", f"compare?a={FAILED}&b={DEMO}",
        "checks", f"check/{database['check']}", "spend",
    ]  # fmt: skip


@pytest.mark.parametrize("tape", sorted(path.name for path in REPLAYS.glob("*.jsonl")))
def test_the_page_of_a_shipped_tape_fits_every_screen_and_asks_nobody(page, tape):
    with library([str(REPLAYS / tape)]) as found:
        Path("page.html").write_text(found.session(found.only[0], Links()), "utf-8")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(Path("page.html").absolute().as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.complaints == []
    assert {address.partition("#")[0] for address in page.asked} == {Path("page.html").absolute().as_uri()}
    assert page.locator(".strip a").count() == page.locator(".step").count() > 5


def test_every_kind_of_page_is_served_fits_and_complains_of_nothing(page, served, database):
    for path in kinds(database):
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert page.goto(f"{served}/{path}").status == 200, path
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    assert page.complaints == []
    assert all(address.startswith(served) for address in page.asked)


@pytest.mark.parametrize(("scheme", "rules"), [("light", {}), ("dark", {"runOnly": ["color-contrast"]})])
def test_axe_finds_nothing_serious(chromium, served, database, scheme, rules):
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page, axe = context.new_page(), Axe()
    for path in kinds(database):
        if path in ("sessions?group=task", f"session/{DEMO}"):
            continue  # of a kind with another one
        page.goto(f"{served}/{path}")
        for details in page.locator("details.call").all()[:2]:
            details.locator("summary").click()
            details.locator(".body pre").first.wait_for()
        found = axe.run(page, options=rules).response["violations"]
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        assert [(path, one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in serious] == []
    context.close()


def test_a_failed_session_says_first_which_test_its_assertion_and_both_values(page, served):
    page.goto(f"{served}/session/{FAILED}")
    failing = page.locator("#failing").inner_text()
    assert "test_user.py::test_the_books_agree" in failing
    assert "assert takings('/var/inputs/till') == " in failing
    assert "'Station': '41886.49'" in failing
    assert "'Station': '717.34'" in failing
    assert "parse_amount does not know the form" in failing  # the last diagnosis
    height = page.locator("#failing article").first.bounding_box()
    assert height["y"] < 900  # without scrolling


def test_the_grid_has_a_row_a_test_and_a_column_a_run(page, served):
    page.goto(f"{served}/session/{DEMO}")
    assert page.locator(".grid thead th").all_inner_texts()[1:5] == ["run 1", "run 2", "run 3", "run 4"]
    row = page.locator(".grid tbody tr", has_text="test_the_books_agree")
    assert [cell.get_attribute("class") for cell in row.locator("td").all()[:4]] == ["failed"] * 3 + ["passed"]


def test_it_can_be_read_with_the_keyboard_alone(page, served):
    page.goto(f"{served}/session/{FAILED}")
    steps = page.locator(".step").count()
    current = "document.querySelector('.step.current')?.dataset.step"
    for key, expected in (("l", 1), ("l", 2), ("$", steps), ("l", steps), ("h", steps - 1), ("0", 1), ("h", 1)):
        page.keyboard.press(key)
        assert page.evaluate(current) == str(expected), key
    assert page.evaluate("document.activeElement.classList.contains('step')")
    before = page.evaluate("scrollY")
    page.keyboard.press("j")
    assert page.evaluate("scrollY") > before
    page.keyboard.press("?")
    assert page.locator("dialog").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Shift+L")
    page.wait_for_url(lambda url: FAILED not in url)
    page.keyboard.press("Shift+H")
    page.wait_for_url(f"**/session/{FAILED}")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    call = page.locator("details.call").first
    call.locator("summary").focus()
    page.keyboard.press("Enter")
    call.locator("pre.prompt").first.wait_for()
    assert "the task" in call.locator("mark.from b").all_inner_texts()
    assert page.complaints == []


def test_a_page_follows_a_run_and_keeps_what_is_open(page):
    whole = tape_file.load("demo").stream
    store = SqliteStore("live.db")
    store.put(Stream(whole.events[:20], whole.texts))
    with viewed("last", "--db", "live.db") as address:
        page.goto(address)
        page.wait_for_selector(".live.on")
        assert page.locator(".sentence").inner_text() == "executing: it has no end yet"
        page.locator("details.call summary").first.click()
        page.locator("details.call pre.prompt").first.wait_for()
        for events in (30, len(whole.events)):
            store.put(Stream(whole.events[:events], whole.texts))
            page.locator(f"#step-{events // 3}").wait_for()
        expect(page.locator(".sentence")).to_contain_text("succeeded, anchored")
        page.locator("details.call pre.prompt").first.wait_for()
        assert page.locator("details.call").first.get_attribute("open") is not None
        assert page.complaints == []
        page.goto("about:blank")
    store.close()


def test_hostile_texts_are_shown_and_run_nothing(page, served, database):
    for path in (
        "sessions",
        f"session/{database['evil']}",
        f"compare?a={database['evil']}&b={DEMO}",
        "spend",
        "checks",
    ):
        page.goto(f"{served}/{path}")
        page.wait_for_selector(".live.on")
        for details in page.locator("details.call").all():
            details.locator("summary").click()
            details.locator(".body pre").first.wait_for()
        assert page.title() != "owned"
        assert not any((ord(c) < 32 and c not in "\n\t") or c == "\u202e" for c in page.content())
    page.goto(f"{served}/session/{database['evil']}")
    assert "<script>document.title='owned'</script>" in page.locator("main").inner_text()
    assert page.complaints == []


def test_filters_are_chips_that_come_off(page, served):
    page.goto(f"{served}/sessions")
    everything = page.locator(".sessions td.asked").count()
    page.fill("input[name=task]", "till")
    page.keyboard.press("Enter")
    page.wait_for_url("**task=till*")
    assert page.locator(".sessions td.asked").count() == 2
    page.locator(".chips a", has_text="failed").click()
    page.wait_for_url("**status=failed*")
    assert page.locator(".sessions td.asked").count() == 1
    page.locator(".chips a", has_text="task till").click()
    page.wait_for_url(lambda url: "task=till" not in url)
    page.locator(".chips a", has_text="all").click()
    page.wait_for_url(lambda url: "status=failed" not in url)
    assert page.locator(".sessions td.asked").count() == everything


def test_hostile_words_in_an_address_are_text(page, served):
    for path in (
        f"sessions?task={EVIL[:40]}",
        "sessions?since=<b>",
        "sessions?page=-1&group=x&status=y",
        "session/%3Cb%3E",
        "check/<i>",
        "compare?a=<b>",
    ):
        answer = page.goto(f"{served}/{path}")
        assert answer.status in (200, 404), path
        assert page.locator("main b:text-is('')").count() == 0
        assert page.title() != "owned"
    assert all("404" in words for words in page.complaints)


def asked(address, path="", method="GET", **headers):
    host, _, rest = address.removeprefix("http://").partition("/")
    connection = HTTPConnection(host, timeout=10)
    connection.request(
        method, path or f"/{rest}/sessions", headers={name.replace("_", "-"): v for name, v in headers.items()}
    )
    with connection.getresponse() as answer:
        found = answer.status, dict(answer.getheaders()), answer.read().decode()
    connection.close()
    return found


def test_who_has_not_the_address_or_comes_from_elsewhere_reads_nothing(served):
    status, headers, body = asked(served)
    assert status == 200
    assert "Sessions" in body
    assert {name.lower(): value for name, value in HEADERS.items()}.items() <= headers.items()
    port = served.split("/")[2].partition(":")[2]
    refused = [
        asked(served, "/sessions"),
        asked(served, "/"),
        asked(served, f"/{'x' * 24}/sessions"),
        asked(served, Host=f"evil.example:{port}"),
        asked(served, Host="127.0.0.1"),
        asked(served, Origin="http://evil.example"),
        asked(served, Origin="null"),
        asked(served, method="POST"),
        asked(served, method="DELETE"),
    ]
    assert [status for status, _, _ in refused] == [404, 404, 404, 421, 421, 403, 403, 405, 405]
    assert all(body == "Not here.\n" for _, _, body in refused)
    assert asked(served, Host=f"localhost:{port}")[0] == 200  # the control


def test_it_listens_to_this_machine_alone(served):
    port = int(served.split("/")[2].partition(":")[2])
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)} - {"127.0.0.1"}
    for address in others:
        with socket.socket() as sock:
            sock.settimeout(2)
            if not address.startswith("127."):
                assert sock.connect_ex((address, port)) != 0


def test_a_page_takes_no_longer_than_its_text_allows():
    """What made pages take minutes: a lexer's square, a file parsed for each failing test, a blob that is named often."""
    from codetape.inspector.listings import python
    from codetape.reporting.prompt_origins import RecordedText, passages
    from codetape.rules.failing_tests import failing

    code = "match" + " " * 90_000 + "\n"
    tests = tuple(TestResult(id=f"test_solution.py::t{n}", outcome="failed", exception="E", frames=({"file": "test_solution.py", "line": n + 1},)) for n in range(400))  # fmt: skip
    report = Report(exit="tests_failed", whole=True, tests=tests)
    source = "a\n" * 100_000
    known = [RecordedText(f"{n} {'x' * 20}", "code", f"event {n}") for n in range(100)]
    old, new = ("\n".join(f"{c} = {n}" for n in range(2_900)) for c in "ab")
    took = [
        seconds(lambda: _versions(old, new)),
        seconds(lambda: python(code)),
        seconds(lambda: failing(report, {"test_solution.py": source}, ())),
        seconds(lambda: passages("x" * 399_000, known)),
    ]
    assert max(took) < 20, took  # minutes to hours before: no measure of speed


def _versions(old, new):
    """Compare 200 versions of a long script, as a forged tape may hold them."""
    from codetape.reporting.timeline import _Reader

    reader = _Reader(Stream((), {}))
    differences = [reader._difference(*pair) for pair in [(old, new), (new, old)] * 100]
    assert differences[0].startswith("@@")
    assert differences[-1] == "(too much to compare line by line)"


def test_figures_of_the_spend_page_are_those_of_the_command(page, served, database):
    page.goto(f"{served}/spend")
    table = page.locator("section[aria-labelledby=by-purpose] tbody tr")
    cells = [row.locator("td").nth(1).inner_text().replace(",", "") for row in table.all()]
    total = json.loads(codetape("spend", "--db", str(database["path"]), "--json").stdout)["total"]["tokens"]
    assert sum(map(int, cells)) == total


def test_what_differs_between_two_values_is_marked(page, served):
    page.goto(f"{served}/session/{FAILED}")
    assert page.locator("#failing .left mark").inner_text() == "41886.49"
    assert page.locator("#failing .right mark").inner_text() == "717.34"
    assert "those of run 3 were not diagnosed" in page.locator("#failing").inner_text()


def test_pages_change_nothing(database, served, page):
    before = database["path"].read_bytes()
    for path in kinds(database):
        page.goto(f"{served}/{path}")
    assert database["path"].read_bytes() == before


def test_nothing_is_erased_behind_its_back_and_what_was_is_not_shown(page):
    """While pages are served the database is open: `forget` says so, and erases nothing."""
    codetape("import", "demo", "--db", "live.db")
    words = ("forget", DEMO, "--yes", "--db", "live.db")
    with viewed("--db", "live.db") as address:
        session = address.replace("/sessions", f"/session/{DEMO}")
        assert "takings of each shop" in page.goto(session).text()
        refused = codetape(*words)
        assert refused.returncode == 1
        assert "nothing was erased" in refused.stderr
        page.goto("about:blank")
    assert codetape(*words).returncode == 0
    with viewed("--db", "live.db") as address:
        for place in (address, address.replace("/sessions", f"/session/{DEMO}")):
            assert "takings of each shop" not in page.goto(place).text()
        assert "was forgotten" in page.locator("h1").inner_text()
        page.goto("about:blank")


def test_a_damaged_session_is_shown_as_far_as_it_can_be_read(page, tmp_path):
    store = SqliteStore("bad.db")
    store.put(tape_file.load("demo").stream)
    store.close()
    import sqlite3

    db = sqlite3.connect("bad.db")
    db.execute("DROP TRIGGER events_update")
    db.execute("UPDATE events SET payload = replace(payload, 'usable', 'usably') WHERE seq = 23")
    db.execute(
        "CREATE TRIGGER events_update BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END"
    )
    db.commit()
    db.close()
    with viewed("last", "--db", "bad.db") as address:
        page.goto(address)
        assert "What comes before it is shown" in page.locator(".finding").inner_text()
        assert page.locator(".step").count() > 3
        page.goto("about:blank")


def test_reports_and_exports_are_pages_that_need_nothing(page, database):
    db = ("--db", str(database["path"]))
    made = [
        codetape("view", FAILED, *db, "--export", "session.html"),
        codetape("view", FAILED, DEMO, *db, "--export", "two.html"),
        codetape("view", *db, "--export", "list.html"),
        codetape("view", "demo", "--export", "tape.html"),
        codetape("audit", FAILED, *db, "-o", "audit.html"),
        codetape("diff", FAILED, DEMO, *db, "--html", "diff.html"),
    ]
    assert [done.returncode for done in made] == [0] * len(made), [done.stderr for done in made]
    for file in ("session", "two", "list", "tape", "audit", "diff"):
        page.goto(Path(f"{file}.html").absolute().as_uri())
        assert page.locator("h1").count() == 1, file
        assert page.locator("main a").count() == page.locator("main a[href^='#']").count(), file
    assert page.complaints == []
    assert all(address.startswith("file:") for address in page.asked)
    assert "every hash, the chain" in Path("audit.html").read_text("utf-8")
    said = codetape("view", "demo", "--export", "page.txt")
    assert (said.returncode, said.stderr) == (2, "codetape: page.txt has not the extension .html.\n")


def seconds(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


SHOTS = {"sessions": "sessions?status=succeeded", "session": f"session/{FAILED}", "compare": f"compare?a={FAILED}&b={DEMO}", "check": "check/{check}", "spend": "spend"}  # fmt: skip


def test_the_docs_have_a_picture_of_each_page(chromium, served, database):
    """With CODETAPE_UPDATE_DOCS=1 they are taken again."""
    for name, path in SHOTS.items():
        file = IMAGES / f"{name}.jpg"
        if os.environ.get("CODETAPE_UPDATE_DOCS") == "1":
            page = chromium.new_page(viewport={"width": 1180, "height": 760}, color_scheme="light")
            page.goto(f"{served}/{path.format(check=database['check'])}")
            page.wait_for_selector(".live.on")
            IMAGES.mkdir(exist_ok=True)
            page.screenshot(path=file, type="jpeg", quality=72)
            page.close()
        assert file.stat().st_size < 120_000
        assert f"images/{name}.jpg" in (IMAGES.parent / "how-to" / "view.md").read_text("utf-8")
