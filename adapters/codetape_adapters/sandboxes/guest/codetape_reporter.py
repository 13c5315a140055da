"""A pytest plugin that reports as it happens, one JSON line at a time: collection, each start, each end, the finish.

So a hang or a kill names its test and keeps the others' results, and a process that leaves early leaves no finish.
"""

import json
import os
import time

WORK = os.environ.get("CODETAPE_WORK", "/work")
MESSAGE, TRACEBACK, VALUE = 4000, 12000, 2000
LAID_OUT = (
    frozenset(os.path.join(os.path.realpath(WORK), name) for name in os.listdir(WORK))
    if os.path.isdir(WORK)
    else frozenset()
)


class Reporter:
    def __init__(self, fd, deselected):
        self.deselected = frozenset(deselected)
        os.set_inheritable(fd, False)
        self.fd = fd
        self.results = {}
        self.comparison = None
        self.started = 0.0

    def say(self, **line):
        data = json.dumps(line).encode() + b"\n"
        while data:
            data = data[os.write(self.fd, data) :]

    def pytest_collection_modifyitems(self, config, items):
        gone = [item for item in items if item.nodeid in self.deselected]
        if gone:
            items[:] = [item for item in items if item.nodeid not in self.deselected]
            config.hook.pytest_deselected(items=gone)

    def pytest_collection_finish(self, session):
        self.say(k="collected", ids=[item.nodeid for item in session.items])

    def pytest_exception_interact(self, node, call, report):
        if getattr(report, "when", "collect") == "collect":
            self.say(k="end", id=node.nodeid, outcome="error", ms=0, **described(call.excinfo, report))

    def pytest_runtest_logstart(self, nodeid, location):
        self.comparison, self.started = None, time.monotonic()
        self.results[nodeid] = {"outcome": "passed"}
        self.say(k="start", id=nodeid)

    def pytest_assertrepr_compare(self, config, op, left, right):
        self.comparison = {"op": op, "left": shown(left), "right": shown(right)}

    def pytest_runtest_makereport(self, item, call):
        result = self.results.setdefault(item.nodeid, {"outcome": "passed"})
        spec = getattr(item, "callspec", None)
        if spec is not None:
            result["params"] = {str(k): shown(v) for k, v in spec.params.items()}
        if call.excinfo is None or result["outcome"] != "passed":
            return
        name = call.excinfo.typename
        if name == "Skipped":
            result["outcome"] = "skipped"
            return
        result["outcome"] = "failed" if call.when == "call" else "error"
        result.update(described(call.excinfo, None, item))
        if self.comparison and name == "AssertionError":
            result["comparison"] = self.comparison

    def pytest_runtest_logfinish(self, nodeid, location):
        spent = int((time.monotonic() - self.started) * 1000)
        self.say(k="end", id=nodeid, ms=spent, **self.results.pop(nodeid, {"outcome": "error"}))

    def pytest_sessionfinish(self, session, exitstatus):
        self.say(k="finish", code=int(exitstatus))


def shown(value):
    try:
        return repr(value)[:VALUE]
    except Exception as error:  # noqa: BLE001 - a value's own repr may raise anything
        return "<no representation: %s>" % type(error).__name__


def described(excinfo, report=None, item=None):
    error = excinfo.value
    if type(error).__name__ == "CollectError" and error.__cause__ is not None:
        error = error.__cause__
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - so may its str
        message = "<no message>"
    try:
        if report is not None:
            text = report.longreprtext
        else:
            text = str(item.repr_failure(excinfo))
    except Exception:  # noqa: BLE001 - and a traceback's text
        text = ""
    return {
        "exception": type(error).__name__,
        "message": message[:MESSAGE],
        "traceback": text if len(text) <= TRACEBACK else text[: TRACEBACK // 2] + "\n[...]\n" + text[-TRACEBACK // 2 :],
        "frames": frames(error),
    }


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
    return [[os.path.relpath(path, WORK), line]] if path in LAID_OUT else []


def pytest_configure(config):
    fd = os.environ.pop("CODETAPE_REPORT_FD", "")
    if fd:
        deselected = json.loads(os.environ.pop("CODETAPE_DESELECT", "[]"))
        config.pluginmanager.register(Reporter(int(fd), deselected), "codetape-reporter")
