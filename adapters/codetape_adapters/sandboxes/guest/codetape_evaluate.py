"""Evaluates expressions where nothing is known of what they should give, and writes down what they give as data.

Called as: python -m codetape_evaluate FILE... It runs the files' functions under two hash seeds, each in a process of its
own, the second in reverse order. One JSON line a value, one at the end.
"""

import os
import sys

AGAIN = "CODETAPE_AGAIN"
MOST_NODES, MOST_TEXT, MOST_DEPTH = 20000, 200000, 50


def main():
    fd = int(os.environ.pop("CODETAPE_REPORT_FD"))
    again = os.environ.pop(AGAIN, "")
    if not again:
        status = child(fd)
        if status:
            os._exit(status)
    evaluate(sys.argv[1:], fd, int(bool(again)))
    os._exit(0)


def child(fd):
    """Run this once more, under another seed; return its exit status."""
    pid = os.fork()
    if not pid:
        os.set_inheritable(fd, True)
        seed = str(int(os.environ.get("PYTHONHASHSEED", "0") or 0) + 1)
        os.environ.update({AGAIN: "1", "CODETAPE_REPORT_FD": str(fd), "PYTHONHASHSEED": seed})
        os.execv(sys.executable, [sys.executable, "-m", "codetape_evaluate", *sys.argv[1:]])
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def evaluate(files, fd, turn):
    # everything that is used later is taken before any of the code runs: it may replace what lies in modules
    import asyncio
    import builtins
    import inspect
    import io
    import json

    kept = dict(vars(builtins))
    exceptions = [(n, k) for n, k in kept.items() if isinstance(k, type) and issubclass(k, BaseException)]
    put, dumps, restore = os.write, json.dumps, vars(builtins).update
    out = io.StringIO

    def say(**line):
        data = dumps(line).encode() + b"\n"
        while data:
            data = data[put(fd, data) :]

    folder = os.environ.get("CODETAPE_WORK", "/work")
    modules = []
    for file in files:
        with open(os.path.join(folder, file), encoding="utf-8") as source:
            modules.append(compile(source.read(), file, "exec"))
    sys.path.insert(0, folder)
    sys.argv[:] = [""]
    os.set_inheritable(fd, False)

    class Claims:
        def __init__(self):
            self.number, self.values = -1, []

        def at(self, number):
            self.close()
            restore(kept)
            self.number, self.values = number, []

        def got(self, value):
            self.values.append(dumps(plain(value, [MOST_NODES, MOST_TEXT], 0)))

        def close(self):
            if self.number >= 0:
                say(k="value", n=self.number, turn=turn, values=self.values)
            self.number = -1

        def failed(self, error):
            if self.number >= 0:
                kinds = [type(error).__name__, *(n for n, k in exceptions if isinstance_of(error, k))]
                say(k="value", n=self.number, turn=turn, raised=kinds[:20], message=message(error))
            self.number = -1

        def raising(self, number):
            self.at(number)
            return Raising(self)

    class Raising:
        def __init__(self, claims):
            self.claims = claims

        def __enter__(self):
            return self

        def __exit__(self, kind, error, trace):
            if error is None:
                self.claims.close()
                return False
            self.claims.failed(error)
            return True

    class Captured:
        def __init__(self):
            self.text = out()

        def readouterr(self):
            text, self.text = self.text.getvalue(), out()
            sys.stdout = self.text
            return Shown(text)

    class Shown:
        def __init__(self, text):
            self.out, self.err = text, ""

    functions = []
    for code in modules:
        names = {"__name__": "claims"}
        try:
            exec(code, names)  # noqa: S102 - what this is for
        except BaseException as error:  # noqa: BLE001 - the code's import may raise anything
            say(k="import", raised=[type(error).__name__], message=message(error))
        functions += [v for n, v in names.items() if n[:1] == "t" and n[1:].isdigit() and inspect.isfunction(v)]
    for function in functions[::-1] if turn else functions:
        claims, shown, was = Claims(), Captured(), sys.stdout
        arguments = [claims.at, claims.got, claims.raising]
        if "capsys" in function.__code__.co_varnames[: function.__code__.co_argcount]:
            arguments.append(shown)
            sys.stdout = shown.text
        try:
            done = function(*arguments)
            if inspect.iscoroutine(done):
                asyncio.run(done)
            claims.close()
        except BaseException as error:  # noqa: BLE001 - likewise
            claims.failed(error)
        finally:
            sys.stdout = was
    say(k="finish", code=0)


def isinstance_of(error, kind):
    return issubclass(type(error), kind)


def message(error):
    try:
        return str(error)[:4000]
    except BaseException:  # noqa: BLE001 - an exception's own str may raise anything
        return ""


def plain(value, left, depth):
    """Return a value as data: what it is made of, by its real type. What a class says of itself does not count."""
    left[0] -= 1
    if left[0] < 0 or depth > MOST_DEPTH:
        return ["o", "too large a value"]
    if value is None or value is True or value is False:
        return value
    kind = type(value)
    if issubclass(kind, int):
        return ["i", int.__repr__(value)] if int.bit_length(value) < 10000 else ["o", "too large a number"]
    if issubclass(kind, float):
        return ["f", float.__repr__(value)]
    if issubclass(kind, complex):
        return ["c", float.__repr__(complex.real.__get__(value)), float.__repr__(complex.imag.__get__(value))]
    if issubclass(kind, str):
        left[1] -= str.__len__(value)
        return str.__str__(value) if left[1] >= 0 else ["o", "too long a text"]
    if issubclass(kind, (bytes, bytearray)):
        left[1] -= 2 * len(bytes(memoryview(value)))
        return ["b", bytes(memoryview(value)).hex()] if left[1] >= 0 else ["o", "too long a text"]
    for base, tag in ((list, "l"), (tuple, "t"), (set, "s"), (frozenset, "z")):
        if issubclass(kind, base):
            return [tag, [plain(item, left, depth + 1) for item in base.__iter__(value)]]
    if issubclass(kind, dict):
        pairs = dict.items(value)
        return ["d", [[plain(k, left, depth + 1), plain(v, left, depth + 1)] for k, v in pairs]]
    return other(value, kind, left, depth)


def other(value, kind, left, depth):
    """A number of another library, by what it converts to: it must still be the right one."""
    try:
        if hasattr(kind, "as_integer_ratio"):
            above, below = value.as_integer_ratio()
            if type(above) is int and type(below) is int and below:
                return ["q", int.__repr__(above), int.__repr__(below)]
        if hasattr(kind, "item") and not getattr(value, "shape", ()):
            item = value.item()
            if type(item) in (int, float, bool, complex, str):
                return plain(item, left, depth + 1)
        if hasattr(kind, "__index__"):
            number = kind.__index__(value)
            if type(number) is int:
                return ["i", int.__repr__(number)]
    except BaseException:  # noqa: BLE001 - a class of the code's may raise anything
        pass
    return ["o", str(kind.__name__)[:200]]


if __name__ == "__main__":
    main()
