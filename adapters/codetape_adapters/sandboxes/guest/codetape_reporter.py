"""A pytest plugin that reports as it happens, one JSON line at a time: collection, each start, each end, the finish.

So a hang or a kill names its test and keeps the others' results, and a process that leaves early leaves no finish.
"""

import atexit
import functools
import json
import linecache
import os
import sys
import threading
import time
import traceback

import pytest

WORK = os.environ.get("CODETAPE_WORK", "/work")
MESSAGE, TRACEBACK, VALUE = 4000, 12000, 2000
LINES, FRAMES = 60_000, 30


@functools.cache
def laid_out():
    """Return the paths of the job's own files: those that are there before any of them is imported."""
    names = os.listdir(WORK) if os.path.isdir(WORK) else ()
    return frozenset(os.path.join(os.path.realpath(WORK), name) for name in names)


def plugins(packages):
    """Return the pytest plugins of these distributions, as modules: no other plugin loads here."""
    import re
    from importlib import metadata

    def plain(name):
        return re.sub(r"[-_.]+", "-", name).lower()

    wanted = {plain(re.split(r"[\[<>=!~; ]", package)[0]) for package in packages}
    found = []
    for distribution in metadata.distributions():
        if plain(distribution.metadata["Name"] or "") in wanted:
            found += [e.value.partition(":")[0] for e in distribution.entry_points if e.group == "pytest11"]
    return sorted(set(found))


_asked = json.loads(os.environ.get("CODETAPE_PLUGINS_OF", "[]"))
pytest_plugins = plugins(_asked) if _asked else []


class Reporter:
    def __init__(self, fd, deselected, reverse):
        self.deselected, self.reverse = frozenset(deselected), reverse
        os.set_inheritable(fd, False)
        self.fd = fd
        self.results = {}
        self.comparison = self.raised = None
        self.started = 0.0
        self.lines = LINES

    def say(self, **line):
        data = json.dumps(line).encode() + b"\n"
        while data:
            data = data[os.write(self.fd, data) :]

    def pytest_collection_modifyitems(self, config, items):
        gone = [item for item in items if item.nodeid in self.deselected]
        if gone:
            items[:] = [item for item in items if item.nodeid not in self.deselected]
            config.hook.pytest_deselected(items=gone)
        if self.reverse:
            items.reverse()

    def pytest_collection_finish(self, session):
        self.say(k="collected", ids=[item.nodeid for item in session.items])

    def pytest_exception_interact(self, node, call, report):
        if getattr(report, "when", "collect") == "collect":
            self.say(
                k="end",
                id=node.nodeid,
                outcome="error",
                ms=0,
                traceback=cut(report.longreprtext),
                **described(call.excinfo),
            )

    def pytest_collectreport(self, report):
        if report.skipped:
            self.say(k="end", id=report.nodeid, outcome="skipped", ms=0, message=reason(report))

    def pytest_warning_recorded(self, warning_message, when):
        if when == "collect":
            self.say(k="warning", text=str(warning_message.message)[:MESSAGE])

    def pytest_runtest_logstart(self, nodeid, location):
        self.comparison, self.started = None, time.monotonic()
        self.results[nodeid] = {"outcome": "passed"}
        self.say(k="start", id=nodeid)

    def pytest_assertrepr_compare(self, config, op, left, right):
        self.comparison = {"op": op, "left": shown(left), "right": shown(right)}

    @pytest.hookimpl(tryfirst=True)  # before unittest's SkipTest is made into pytest's own, which has no frame of ours
    def pytest_runtest_makereport(self, item, call):
        """Keep what an exception was, and by which parameters: pytest's report, which comes next, has it as text alone."""
        result = self.results.setdefault(item.nodeid, {"outcome": "passed"})
        spec = getattr(item, "callspec", None)
        if spec is not None:
            result["params"] = {str(k): shown(v) for k, v in spec.params.items()}
        self.raised = None
        if call.excinfo is not None and result["outcome"] not in ("failed", "error"):
            self.raised = described(call.excinfo)
            if not self.affords(call.excinfo):
                item.config.option.tbstyle = "native"  # pytest's own report, which comes next, then parses nothing
                self.raised["traceback"] = cut(plain(call.excinfo.value))
            if self.comparison and call.excinfo.typename == "AssertionError":
                self.raised["comparison"] = self.comparison

    def affords(self, excinfo):
        """Whether pytest may write this failure's traceback: for each frame it parses the frame's whole file again.

        The lines that it may parse are counted and not the time, so that two runs of the same tests report the same.
        """
        files = [entry.frame.code.raw.co_filename for entry in list(excinfo.traceback)[:FRAMES]]
        self.lines -= sum(len(linecache.getlines(name)) for name in files)
        return self.lines >= 0

    def pytest_runtest_logreport(self, report):
        """What became of a test is what pytest says of it, marks and plugins included."""
        result = self.results.setdefault(report.nodeid, {"outcome": "passed"})
        if result["outcome"] in ("failed", "error"):
            return
        expected = hasattr(report, "wasxfail")
        if report.failed:
            result["outcome"] = "failed" if report.when == "call" else "error"
            result.update(self.raised or passed_against_its_mark(report))
            if self.raised:
                result.setdefault("traceback", cut(report.longreprtext))
        elif report.skipped:
            result.update(outcome="xfailed" if expected else "skipped", message=reason(report))
            if self.raised and not expected:
                result["frames"] = self.raised["frames"]  # whose skip it is
        elif expected and report.when == "call":
            result["outcome"] = "xpassed"

    def pytest_runtest_logfinish(self, nodeid, location):
        spent = int((time.monotonic() - self.started) * 1000)
        self.say(k="end", id=nodeid, ms=spent, **self.results.pop(nodeid, {"outcome": "error"}))

    def pytest_sessionfinish(self, session, exitstatus):
        self.say(k="finish", code=int(exitstatus))


def reason(report):
    """Why a test or a file was skipped, or was expected to fail."""
    said = getattr(report, "wasxfail", "") or report.longrepr
    if isinstance(said, tuple) and len(said) == 3:
        said = str(said[2]).removeprefix("Skipped: ")
    return str(said)[:MESSAGE]


def passed_against_its_mark(report):
    """A failure without an exception: a test that was said to fail, strictly, and passed."""
    file, line, _name = report.location
    text = str(report.longrepr)
    return {"exception": "XPassed", "message": text[:MESSAGE], "frames": frame(file, (line or 0) + 1)}


def shown(value):
    try:
        return repr(value)[:VALUE]
    except Exception as error:  # noqa: BLE001 - a value's own repr may raise anything
        return "<no representation: %s>" % type(error).__name__


def described(excinfo):
    error = excinfo.value
    if type(error).__name__ == "CollectError" and error.__cause__ is not None:
        error = error.__cause__
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - so may its str
        message = "<no message>"
    return {
        "exception": type(error).__name__,
        "message": message[:MESSAGE],
        "frames": frames(error),
    }


def cut(text):
    return text if len(text) <= TRACEBACK else text[: TRACEBACK // 2] + "\n[...]\n" + text[-TRACEBACK // 2 :]


def plain(error):
    """A traceback as Python writes it, from its first frame in the job's own files on: those before are pytest's."""
    first = error.__traceback__
    while first is not None and not frame(first.tb_frame.f_code.co_filename, first.tb_lineno):
        first = first.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, first or error.__traceback__, limit=-5)).strip()
    except Exception:  # noqa: BLE001 - a value's own text may raise anything
        return ""


def frames(error):
    found, trace = [], error.__traceback__
    while trace is not None and len(found) < 200:
        found += frame(trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename:
        found += frame(error.filename, error.lineno or 0)
    return found[-20:]


def frame(name, line):
    """A frame of the job's own: its path is a file that the job laid out. Compiled extensions name theirs relatively."""
    path = os.path.realpath(os.path.join(WORK, name))
    return [[os.path.relpath(path, WORK), line]] if path in laid_out() else []


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_cmdline_main(config):
    """Leave when all is done, as an interpreter does, but for taking down what it holds: that takes longer than most tests."""
    end, shut_down, run_exit_functions = os._exit, threading._shutdown, atexit._run_exitfuncs
    done = yield
    status = int(done.get_result())
    config._ensure_unconfigure()
    shut_down()  # waits for threads
    run_exit_functions()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # closed or replaced by the program
            pass
    end(status)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    if "CODETAPE_SOCKET" in os.environ:
        import isolated_forks

        isolated_forks.serve(config)
    laid_out()
    os.environ.pop("CODETAPE_PLUGINS_OF", None)
    fd = os.environ.pop("CODETAPE_REPORT_FD", "")
    if fd:
        deselected = json.loads(os.environ.pop("CODETAPE_DESELECT", "[]"))
        reporter = Reporter(int(fd), deselected, os.environ.pop("CODETAPE_REVERSE", "") == "1")
        config.pluginmanager.register(reporter, "codetape-reporter")
