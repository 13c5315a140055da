"""The regression test: its statistics on outcomes, its budget, its resumption, its reports, and what it never says."""

import asyncio
import json
import os
import random
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

import codetape
from codetape.domain.report import Report, TestResult
from codetape.domain.task import Config, SandboxFacts
from codetape.errors import ModelUnavailable, UsageError
from codetape.evals import check, judge, report_formats
from codetape.evals.attempt import Attempt
from codetape.evals.check import AttemptOutcome, Checked, CheckPlan, PlannedSession
from codetape.evals.chosen_sessions import Filter
from codetape.evals.corpus import Corpus
from codetape.inspector.report_files import AUDIT_FORMS, CHECK_FORMS, AuditedSession, extension_of
from codetape.playback.whatif import Change
from codetape.reporting.audit import as_markdown, audit
from codetape.runtime.prompt_pack_files import load_pack
from codetape.testing import FakeSandbox, MemoryStore, passing_report
from codetape.text import csv_table
from codetape_adapters.stores.sqlite.store import SqliteStore
from tests.corpora import Noisy, noisy_agent, noisy_corpus
from tests.support import ADD_TESTS, block, diagnosis, failure, generate, plan

PACK = load_pack()
OTHER = {**PACK, "code.md": PACK["code.md"] + "\nThink twice.\n"}
EVIL = "<script>document.title='owned'</script>\x1b[2J\u202e'\"&]]>--><![CDATA[ =1+1 |*`"


@pytest.fixture
def store():
    store = SqliteStore("tape.db")
    noisy_corpus(store, 12)
    yield store
    store.close()


def live(store, seed, *, control=False, attempts=1, model=None, **more):
    agent = noisy_agent(store, seed)
    other = noisy_agent(store, f"{seed}-control")
    if model is not None:
        agent = codetape.AutoCoderAgent(model=model, sandbox=agent.sandbox, store=store, clock=agent.clock)
    return check.CheckSetup(candidate=agent, control=other if control else None, attempts=attempts, **more)


def checked(store, live_, *, pack=OTHER, number=1, where=None):
    async def work():
        plan = await check.planned(Corpus(store, (), where or Filter()), Change(pack), number=number)
        return await check.run(plan, live_)

    return asyncio.run(work())


# ---- what is made, and what is reused


def test_each_attempt_begins_at_its_first_difference_and_reuses_what_stays(store):
    live_ = live(store, 1, control=True, attempts=2)
    done = checked(store, live_)
    assert len(done.outcomes) == 12 * 2 * 2
    for outcome in done.outcomes:
        assert outcome.made.solved is not None
        assert (outcome.made.calls, outcome.made.reused) == (2, 1)  # the code again, the tests reused
    made = [r.purpose for r in (*live_.candidate.model.requests, *live_.control.model.requests)]
    assert set(made) == {"code"}
    assert len(made) == 48
    sessions = {o.made.session for o in done.outcomes}
    assert len(sessions) == 48
    rows = {row["session"]: row for row in store.sessions()[0]}
    assert {rows[s]["tags"] for s in sessions} == {f"check:{done.plan.id}"}
    assert {rows[s]["parent"] for s in sessions} == {f"n0-{n}-0" for n in range(12)}


def test_no_attempt_reuses_anothers_fresh_calls(store):
    done = checked(store, live(store, 2, attempts=5))
    by_parent = {}
    for outcome in done.outcomes:
        stream = asyncio.run(store.read(outcome.made.session))
        code = [
            stream.texts[e.payload.text] for e in stream.events if e.kind == "Answered" and not e.payload.matched_by
        ]
        by_parent.setdefault(outcome.parent, []).append(code[-1])
    assert all(len({*codes}) == 5 for codes in by_parent.values())


def test_the_same_check_goes_on_and_makes_no_call_twice(store):
    class Stops(Noisy):
        async def ask(self, request):
            if len(self.requests) >= 5:
                raise asyncio.CancelledError
            return await super().ask(request)

    with pytest.raises(asyncio.CancelledError):
        checked(store, live(store, 3, model=Stops(3)))
    live_ = live(store, 4)
    done = checked(store, live_)
    assert len(live_.candidate.model.requests) == 12 - 5
    assert all(o.made.solved is not None for o in done.outcomes)
    again = live(store, 5)
    assert checked(store, again).found == 12
    assert again.candidate.model.requests == []
    fresh = live(store, 6)
    checked(store, fresh, number=2)
    assert len(fresh.candidate.model.requests) == 12


def test_the_budget_stops_it_before_the_call_and_more_of_it_goes_on(store):
    reserved = Config.model_fields["max_output_tokens"].default  # of each call, until it is answered
    limit = reserved + 2_000  # a few of the twelve calls fit, and not all
    first = checked(store, live(store, 7, max_tokens=limit))
    assert first.stopped_by_budget
    spent = sum(o.made.tokens for o in first.outcomes if o.made.solved is not None)
    assert 0 < spent <= limit
    report = judge.report(first, control=False)
    assert report.exit_code() == 101
    assert report.errors == 0
    done = checked(store, live(store, 7, max_tokens=10_000_000))
    assert not done.stopped_by_budget
    assert all(o.made.solved is not None for o in done.outcomes)


def test_an_outage_is_an_error_and_never_a_regression(store):
    class Down(Noisy):
        async def ask(self, request):
            raise ModelUnavailable("down")

    done = checked(store, live(store, 8, control=True, model=Down(8)))
    report = judge.report(done, control=True)
    assert report.verdict == "no outcome"
    assert report.errors == 12
    assert report.exit_code() == 1
    suite = ElementTree.fromstring(report_formats.as_junit(report))[0]
    assert (suite.get("errors"), suite.get("failures")) == ("12", "0")
    assert suite[0].find("skipped") is not None  # the verdict
    done = checked(store, live(store, 9, control=True))  # and it continues when the provider is back
    assert judge.report(done, control=True).errors == 0


# ---- what may be said


def planned(task, session, solved=True, graded="oracle"):
    none = dict.fromkeys(check.REUSE_KINDS, 0)
    return PlannedSession(session, "0" * 64, task, graded, solved, "m", 5, "code", frozenset(), none, none, none)


def outcome(arm, task, session, solved, number=1, cause=""):
    status = "succeeded" if solved else "failed" if solved is not None else "suspended"
    made = Attempt(task, number, f"{arm}{session}{number}", status, solved, "oracle", cause=cause, calls=3, reused=1)
    return AttemptOutcome(arm, session, made)


def of(tasks, candidate, control=None, *, selected=False, graded="oracle", margin=judge.MARGIN):
    """Return the report of outcomes: lists of lists of solved, a task each."""
    changed = tuple(planned(f"t{n}", f"s{n}", graded=graded) for n in range(tasks))
    plan = CheckPlan("id", Change(OTHER), changed, (), (), selected)
    found = [outcome("candidate", f"t{n}", f"s{n}", s, k) for n in range(tasks) for k, s in enumerate(candidate[n], 1)]
    if control is not None:
        found += [outcome("control", f"t{n}", f"s{n}", s, k) for n in range(tasks) for k, s in enumerate(control[n], 1)]
    return judge.report(Checked(plan, tuple(found)), control=control is not None, margin=margin)


def test_a_clear_drop_is_a_regression_and_a_clear_gain_an_improvement():
    worse = of(30, [[False]] * 10 + [[True]] * 20, [[True]] * 30)
    assert (worse.verdict, worse.worse, worse.better, worse.exit_code()) == ("regression", 10, 0, 100)
    assert worse.test.startswith("exact McNemar")
    assert worse.p == pytest.approx(2 / 2**10)
    better = of(30, [[True]] * 30, [[False]] * 10 + [[True]] * 20)
    assert (better.verdict, better.exit_code()) == ("improvement", 0)


def test_several_attempts_are_tested_over_tasks():
    report = of(20, [[True, False, False]] * 20, [[True, True, False]] * 20)
    assert report.test.startswith("sign-flip")
    assert report.verdict == "regression"
    assert report.difference == pytest.approx(-1 / 3)
    assert report.candidate.pass_at_k == pytest.approx({"1": 1 / 3, "2": 2 / 3, "3": 1.0})
    assert report.n_fresh == 20 * 6 * 2
    assert report.n_reused == 20 * 6


def test_too_few_tasks_are_inconclusive_and_say_how_many_it_would_take():
    report = of(8, [[True]] * 7 + [[False]], [[True]] * 8)
    assert (report.verdict, report.exit_code()) == ("inconclusive", 103)
    assert report.tasks_needed > 50
    assert str(report.tasks_needed) in report.why
    many = of(400, [[True]] * 396 + [[False]] * 4, [[True]] * 398 + [[False]] * 2)
    assert many.verdict == "no regression"


def test_past_outcomes_that_were_selected_are_no_control():
    selected = of(30, [[False]] * 30, selected=True)
    assert (selected.p, selected.control, selected.verdict) == (None, "none", "inconclusive")
    assert "--control" in selected.why
    alone = of(30, [[False]] * 30)
    assert alone.p is None
    assert "may have been luck" in alone.why
    junit = ElementTree.fromstring(report_formats.as_junit(alone))[0]
    assert junit.get("skipped") == "31"
    assert alone.worse == 30  # told, and not tested


def test_several_past_attempts_that_nobody_chose_are_a_control(store):
    noisy_corpus(store, 10, seed=5, attempts=3)
    done = checked(store, live(store, 10), where=Filter(since="2020-01-01"))
    mixed = judge.report(done, control=False)
    assert mixed.control == "none"  # the first twelve tasks were tried once
    plan = done.plan
    several = CheckPlan(
        plan.id, plan.change, tuple(p for p in plan.changed if p.session.startswith("n5")), (), (), selected=False
    )
    report = judge.report(Checked(several, tuple(o for o in done.outcomes if o.parent.startswith("n5"))), control=False)
    assert report.control == "recorded"
    assert report.p is not None


def test_what_a_session_judged_itself_passes_only_where_that_is_accepted():
    report = of(400, [[True]] * 400, [[True]] * 400, graded="self")
    assert report.verdict == "no regression"
    assert report.self_graded == 400
    assert report.exit_code() == 103
    assert report.exit_code(accept_self_graded=True) == 0


def against(former, heads="0" * 64, name="other"):
    """Return the report of thirty tasks, of which ten are not solved, against a former one."""
    changed = tuple(replace(planned(f"t{n}", f"s{n}"), head=heads) for n in range(30))
    found = tuple(outcome("candidate", f"t{n}", f"s{n}", n > 9) for n in range(30))
    plan = CheckPlan(name, Change(OTHER), changed, (), (), True)
    return judge.report(Checked(plan, found), control=False, baseline=former)


def test_a_former_report_is_a_baseline_state_by_state(tmp_path):
    former = of(30, [[True]] * 30, [[True]] * 30)
    file = tmp_path / "base.json"
    file.write_text(report_formats.as_json(former))
    known = judge.read_baseline(file)
    report = against(known)
    assert (report.control, report.verdict, report.worse) == ("baseline", "regression", 10)
    other = against(known, heads="1" * 64)  # resumed from other states: those outcomes say nothing of these
    assert (other.p, other.verdict) == (None, "no outcome")
    with pytest.raises(UsageError, match="very check"):
        against(known, name=known.id)
    for text, said in (
        (
            '{"id": "x", "states": [{"session": "s", "head": "h", "fork_at": 1, "solved": 2, "attempts": 1}]}',
            "more was solved",
        ),
        (
            '{"id": "x", "states": [{"session": "s", "head": "h", "fork_at": 1, "solved": 1, "attempts": 90000000}]}',
            "more was solved",
        ),
        (
            '{"id": "x", "states": [{"session": "s", "head": "h", "fork_at": 1e999, "solved": 1, "attempts": 1}]}',
            "no report",
        ),
        ("[]", "no report"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=said):
            judge.read_baseline(file)


def test_an_interval_that_reaches_the_margin_is_not_no_regression():
    candidate = [[False]] * 24 + [[True]] * 176
    control = [[True]] * 188 + [[False]] * 12
    report = of(200, candidate, control)
    assert (report.worse, report.better) == (24, 12)
    assert report.p > 0.05
    assert report.low <= -report.margin
    assert (report.verdict, report.exit_code()) == ("inconclusive", 103)


def test_another_sandbox_alone_changes_nothing_and_leaves_past_outcomes_no_control(store):
    noisy_corpus(store, 6, seed=7, attempts=3)
    facts = SandboxFacts(name="fake", python="3.11", system_packages=True)

    async def plan(pack):
        members = Corpus(store, (), Filter(since="2020-01-01"))
        return await check.planned(members, Change(pack, facts=facts))

    assert asyncio.run(plan(PACK)).changed == ()
    there = asyncio.run(plan(OTHER))
    assert all(one.drifted for one in there.changed)
    only = replace(there, changed=tuple(one for one in there.changed if one.session.startswith("n7")))
    outcomes = tuple(outcome("candidate", one.task, one.session, False) for one in only.changed)
    report = judge.report(Checked(only, outcomes), control=False)
    assert (report.p, report.drifted) == (None, 18)
    assert "another sandbox" in report.why


def test_a_session_is_counted_once_and_attempts_of_checks_and_persons_answers_not_at_all(store):
    checked(store, live(store, 40))
    members = Corpus(store, (), Filter(forks=True))
    plan = asyncio.run(check.planned(members, Change(OTHER)))
    assert len(plan.changed) == 12
    assert sum("attempt of a check" in why for why in plan.skipped) == 12
    assert plan.selected
    assert Corpus(store, (), Filter(task="t1")).selected
    assert not Corpus(store, (), Filter(task="t*")).selected


def test_a_sessions_own_budget_is_not_the_checks(store):
    agent = replace(noisy_agent(store, "own"), max_tokens=18_000)
    asyncio.run(agent.agenerate("Add two numbers, chance 100.", task="budgeted", oracle=None, session="budgeted"))
    assert any(row["session"] == "budgeted" and row["state"] == "succeeded" for row in store.sessions()[0])
    done = checked(store, live(store, 41))
    assert not done.stopped_by_budget
    assert all(o.made.solved is not None for o in done.outcomes)


def test_what_one_attempt_lacks_is_that_attempts_error(store):
    class Lacks(Noisy):
        async def ask(self, request):
            if len(self.requests) == 3:
                self.requests.append(request)
                raise UsageError("Input till: there is no file till.csv.")
            return await super().ask(request)

    report = judge.report(checked(store, live(store, 43, control=True, model=Lacks(43))), control=True)
    assert report.errors == 1
    assert report.attempts == 24
    assert report.exit_code() == 1


def test_no_budget_is_none_and_nothing_of_it_is_nothing(store):
    done = checked(store, live(store, 42, max_tokens=0))
    assert done.stopped_by_budget
    assert all(o.made.calls == 0 or o.made.reused == o.made.calls for o in done.outcomes)


def test_the_id_says_where_it_is_run():
    facts = SandboxFacts(name="a", python="3.11")
    ids = {
        check.check_id(Change(OTHER)), check.check_id(Change(OTHER), 2), check.check_id(Change(OTHER), 1, ("http://a",)),
        check.check_id(Change(OTHER, facts=facts)), check.check_id(Change(OTHER, facts=replace_model(facts, name="b"))),
    }  # fmt: skip
    assert len(ids) == 5
    assert check.check_id(Change(OTHER, facts=replace_model(facts, why="x"))) == check.check_id(
        Change(OTHER, facts=facts)
    )


def replace_model(facts, **changes):
    return facts.model_copy(update=changes)


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_null_change_is_called_a_regression_in_at_most_5_per_cent_of_checks(attempts):
    draw, false = random.Random(attempts), 0
    for _ in range(400):
        tasks = draw.choice([10, 30, 60])
        chances = [draw.uniform(0.2, 0.95) for _ in range(tasks)]
        arms = [[[draw.random() < c for _ in range(attempts)] for c in chances] for _ in range(2)]
        false += of(tasks, *arms).verdict == "regression"
    assert false / 400 <= 0.05


def test_a_null_change_through_the_whole_of_it(store):
    """The same model and luck on both sides, forks, sandbox and log among it: no side is favoured by what is reused."""
    found = [judge.report(checked(store, live(store, n, control=True), number=n), control=True) for n in range(10, 16)]
    assert all(report.verdict == "inconclusive" for report in found)
    assert (
        abs(sum(r.worse for r in found) - sum(r.better for r in found)) < 20
    )  # of 72 pairs, about 30 differ: 3.5 deviations
    assert sum(r.worse + r.better for r in found) > 12


def test_power_statements_hold_by_simulation_through_the_report():
    draw = random.Random(5)
    needed = of(60, [[draw.random() < 0.7] for _ in range(60)], [[draw.random() < 0.7] for _ in range(60)]).tasks_needed
    found = 0
    for _ in range(60):
        chances = [draw.choice([0.55, 0.85]) for _ in range(needed)]
        candidate = [[draw.random() < c - 0.1] for c in chances]
        found += of(needed, candidate, [[draw.random() < c] for c in chances]).verdict == "regression"
    assert found / 60 >= 0.6  # 0.8, less three deviations of 60 draws


@given(st.integers(1, 300), st.integers(0, 300), st.integers(0, 300), st.floats(0.01, 0.9))
def test_every_outcome_has_a_report_whatever_the_margin(tasks, worse, better, margin):
    worse = min(worse, tasks)
    better = min(better, tasks - worse)
    candidate = [[False]] * worse + [[True]] * (tasks - worse)
    control = [[True]] * (tasks - better) + [[False]] * better
    found = of(tasks, candidate, control, margin=margin)
    assert (found.worse, found.better) == (worse, better)
    assert 0 <= found.p <= 1
    assert -1 <= found.low <= found.difference + 1e-9
    assert found.difference <= found.high + 1e-9
    assert found.high <= 1
    assert 0 <= found.power <= 1 + 1e-9
    assert 1 <= found.tasks_needed <= 1_000_000
    if found.verdict == "regression":
        assert worse > better
        assert found.p < judge.ALPHA
    assert page_of(found)


def test_outcomes_are_reported_where_their_statistics_cannot_be_computed(monkeypatch):
    def broken(*_):
        raise OverflowError("too large")

    monkeypatch.setattr(judge.stats, "mcnemar", broken)
    found = of(3, [[False]] * 3, [[True]] * 3)
    assert (found.verdict, found.worse, found.p) == ("inconclusive", 3, None)
    assert "too large" in found.why
    for form in CHECK_FORMS.values():
        assert form(found)


# ---- reports


def hostile():
    changed = (planned(f"t{EVIL}", "s0", graded="self"),)
    found = [outcome("candidate", f"t{EVIL}", "s0", False), outcome("control", f"t{EVIL}", "s0", None, cause="outage")]
    found[1] = AttemptOutcome("control", "s0", Attempt(**{**vars(found[1].made), "reason": EVIL}))
    return judge.report(
        Checked(CheckPlan("id", Change(OTHER, {"system_prompt": EVIL}), changed, (), (), False), tuple(found)),
        control=True,
    )


class Strict(HTMLParser):
    """Keeps the tags that are open, and what there is of elements and attributes."""

    void = {"meta", "rect", "link", "br", "input", "line", "circle"}

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page_of(report):
    return CHECK_FORMS[".html"](report)


def test_the_page_is_whole_by_itself_and_shows_what_is_hostile_as_text():
    page = page_of(hostile())
    parser = Strict()
    parser.feed(page)
    assert parser.open == []
    assert [tag for tag, _ in parser.tags].count("script") == 1  # its own, which the policy knows by its hash
    assert not {tag for tag, _ in parser.tags} & {"img", "iframe", "link", "object"}
    assert not any(name in attrs for _, attrs in parser.tags for name in ("src", "onload", "style"))
    assert all(attrs["href"].startswith("#") for _, attrs in parser.tags if "href" in attrs)
    assert "<script>document.title" in parser.text
    assert not any(ord(c) < 32 and c not in "\n\t" for c in page)
    assert "\\x1b[2J" in parser.text
    assert "\\x202e" in parser.text


def test_the_other_forms_are_well_formed_and_hold_no_control_characters():
    report = hostile()
    suite = ElementTree.fromstring(report_formats.as_junit(report))[0]
    assert suite[1].get("name").startswith("t<script>")
    assert suite[1][0].tag == "error"
    lines = report_formats.as_markdown(report)
    assert "<script>" not in lines
    assert "\x1b" not in lines
    table = report_formats.as_csv(report)
    assert "\x1b" not in table
    assert csv_table.csv_text([{"a": "=1+1"}]) == "a\n'=1+1\n"
    assert json.loads(report_formats.as_json(report))["verdict"] == "no outcome"
    with pytest.raises(UsageError, match="none of the extensions"):
        extension_of("report.pdf", CHECK_FORMS)


def shown_by_a_browser(page):
    """Return the page as Chromium has it after its scripts, if any, have run."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        assert os.environ.get("CODETAPE_REQUIRE_BROWSER") != "1"
        pytest.skip("no chromium here")
    Path("page.html").write_text(page)
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--user-data-dir=profile", "--dump-dom"]  # fmt: skip
    done = subprocess.run(
        [browser, *words, f"file://{Path('page.html').absolute()}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout


def test_a_browser_shows_it_and_runs_nothing():
    shown = shown_by_a_browser(page_of(hostile()))
    assert "<title>check id" in shown
    assert "owned</title>" not in shown
    assert "&lt;script&gt;document.title" in shown


def hostile_session():
    """A session whose task, code, output and failures hold what a page, a terminal or a table would obey."""
    code = f"def add(a, b):\n    return a + b  # {EVIL}"
    told = Report(
        exit="tests_failed", whole=True, exit_code=1, collected=("test_solution.py::test_sum",), stdout=EVIL, stderr=EVIL,
        tests=(TestResult(id="test_solution.py::test_sum", outcome="failed", exception="TypeError", message=EVIL),),
    )  # fmt: skip
    answers = {
        "plan": [plan()],
        "code": [block(code)],
        "tests": [ADD_TESTS],
        "diagnose": [diagnosis(failure("test_sum", cause=EVIL))],
    }
    store = MemoryStore()
    sandbox = FakeSandbox(lambda job: told if job.purpose == "run" else passing_report(job))
    result, _ = generate(
        answers, f"Add {EVIL}", store=store, sandbox=sandbox, max_iterations=1, ask={"task": f"t{EVIL}"}
    )
    return asyncio.run(store.read(result.session))


def test_pages_of_a_hostile_session_show_it_as_text_and_run_none_of_it():
    stream = hostile_session()
    found = audit(stream)
    page = AUDIT_FORMS[".html"](AuditedSession(found, stream))
    parser = Strict()
    parser.feed(page)
    assert parser.open == []
    assert [tag for tag, _ in parser.tags].count("script") == 1
    assert parser.text.count("<script>document.title") > 4
    for text in (page, as_markdown(found)):
        assert not any(ord(c) < 32 and c not in "\n\t" for c in text)
        assert "\u202e" not in text
    assert "owned</title>" not in shown_by_a_browser(page)


# ---- from Python


def test_from_python_it_is_one_call(store):
    agent = noisy_agent(store, 30)
    report = codetape.check(
        store=store,
        prompts=OTHER,
        model=agent.model,
        sandbox=agent.sandbox,
        control=True,
        control_model=Noisy(31),
        attempts=2,
    )
    assert report.control == "fresh"
    assert len(report.records()) == 12
    assert len(report.attempt_records()) == 48
    assert set(report.records()[0]) >= {"task", "candidate_solved", "control_solved", "difference"}
    with pytest.raises(UsageError, match="Nothing is changed"):
        codetape.check(store=store)


def test_a_checks_id_is_made_of_the_change_the_sandbox_the_servers_and_the_round(store):
    from codetape import api

    asked = {"store": store, "prompts": OTHER, "sandbox": noisy_agent(store, 40).sandbox, "number": 7}
    prepared = asyncio.run(api.prepare_check(**asked, base_url="http://127.0.0.1:9/v1"))
    again = asyncio.run(api.prepare_check(**asked, base_url="http://127.0.0.1:9/v1", control=True, attempts=3))
    elsewhere = asyncio.run(api.prepare_check(**asked, base_url="http://127.0.0.1:10/v1"))
    assert prepared.plan.id == again.plan.id != elsewhere.plan.id


def test_attempts_are_of_a_task_whatever_the_corpus_holds():
    changed = (planned("t", "s0"), planned("t", "s1"), planned("t", "s2"), planned("u", "s3"))
    plan = CheckPlan("id", Change(OTHER), changed, (), (), False)
    for each in (1, 2, 3, 7):
        made = plan.attempts(each)
        assert len(made) == len({(session.session, number) for session, number in made}) == 2 * each
        assert sum(session.task == "t" for session, _ in made) == each
    assert [(s.session, n) for s, n in plan.attempts(4)][:4] == [("s0", 1), ("s1", 1), ("s2", 1), ("s0", 2)]
