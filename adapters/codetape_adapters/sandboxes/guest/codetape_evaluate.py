"""Evaluates expressions where nothing is known of what they should give, and writes down what they give as data.

Called as: python -m codetape_evaluate FILE... It runs the functions of the files claims_N.py under two hash seeds, each in
a process of its own, the second in reverse order; then once more on each of the files mutant_N.py in the place of the
solution, each in a process of its own, and writes down what differs. One JSON line a value, one at the end.
"""

import os
import sys

AGAIN = "CODETAPE_AGAIN"
MOST_DIFFERING, SLOWER = 20, 20  # values told of a mutant; times that it may take, beside a second
MOST_NODES, MOST_TEXT, MOST_DEPTH = 20000, 200000, 50
COROUTINE = 0x80  # a flag of a function's code


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
    import builtins
    import io
    import json
    import time
    from _signal import alarm  # signal itself loads enum

    kept = dict(vars(builtins))
    exceptions = [(n, k) for n, k in kept.items() if isinstance(k, type) and issubclass(k, BaseException)]
    put, dumps, restore = os.write, json.dumps, vars(builtins).update
    out, kind_of_module, kind_of_function = io.StringIO, type(sys), type(evaluate)

    def say(**line):
        data = dumps(line).encode() + b"\n"
        while data:
            data = data[put(fd, data) :]

    folder = os.environ.get("CODETAPE_WORK", "/work")

    def compiled(file, name):
        with open(os.path.join(folder, file), encoding="utf-8") as source:
            return compile(source.read(), name, "exec")

    modules = [compiled(file, file) for file in files if file.startswith("claims_")]
    mutants = [] if turn else [(file, compiled(file, "solution.py")) for file in files if file.startswith("mutant_")]
    fork, wait, leave, now = os.fork, os.waitpid, os._exit, time.monotonic
    finish, folder_for_one = helpers([code for module in modules for code in module.co_consts])
    given = {}
    sys.path.insert(0, folder)
    sys.argv[:] = [""]
    os.set_inheritable(fd, False)

    class Claims:
        """What one function is handed: it says which claim is next, and hands over values. ``tell`` passes them on."""

        def __init__(self, tell):
            self.number, self.values, self.tell = -1, [], tell

        def begin(self, number):
            self.close()
            restore(kept)
            self.number, self.values = number, []

        def got(self, value):
            self.values.append(dumps(plain(value, [MOST_NODES, MOST_TEXT], 0)))

        def close(self):
            if self.number >= 0:
                self.tell(n=self.number, values=self.values)
            self.number = -1

        def failed(self, error):
            if self.number >= 0:
                kinds = [type(error).__name__, *(n for n, k in exceptions if isinstance_of(error, k))]
                self.tell(n=self.number, raised=kinds[:20], message=message(error))
            self.number = -1

        def ask(self, number):
            self.begin(number)
            return Asking(self)

    class Asking:
        """The context in which one claim is asked: whatever is raised in it is what the claim came to."""

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
            self.out, self.err = out(), out()

        def readouterr(self):
            shown = Shown((self.out.getvalue(), self.err.getvalue()))
            self.out, self.err = sys.stdout, sys.stderr = out(), out()
            return shown

    def run(tell, reverse):
        functions = []
        for code in modules:
            names = {"__name__": "claims"}
            try:
                exec(code, names)  # noqa: S102 - what this is for
            except BaseException as error:  # noqa: BLE001 - the code's import may raise anything
                say(k="import", raised=[type(error).__name__], message=message(error))
            functions += [
                v for n, v in names.items() if n[:1] == "t" and n[1:].isdigit() and isinstance(v, kind_of_function)
            ]
        for function in functions[::-1] if reverse else functions:
            ask(function, Claims(tell))

    def ask(function, claims):
        shown, was = Captured(), (sys.stdout, sys.stderr)
        arguments = [claims.ask, claims.got]
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        for name in names[len(arguments) :]:
            if name == "capsys":
                arguments.append(shown)
                sys.stdout, sys.stderr = shown.out, shown.err
            else:
                arguments.append(folder_for_one())
        try:
            done = function(*arguments)
            if function.__code__.co_flags & COROUTINE:
                finish(done)
            claims.close()
        except BaseException as error:  # noqa: BLE001 - likewise
            claims.failed(error)
        finally:
            sys.stdout, sys.stderr = was

    def keep(n, **line):
        given[n] = line
        say(k="value", n=n, turn=turn, **line)

    def mutated(number, code):
        """In a process of its own: the claims on another program, of which only what differs is told."""
        told = [0]

        def differs(n, **line):
            if given.get(n) != line and told[0] < MOST_DIFFERING:
                told[0] += 1
                say(k="differs", mutant=number, n=n, **line)

        module = kind_of_module("solution")
        module.__file__ = os.path.join(folder, "solution.py")
        sys.modules["solution"] = module
        exec(code, module.__dict__)  # noqa: S102 - what this is for
        run(differs, False)

    begun = now()
    run(keep, turn)
    spent = now() - begun
    for file, code in mutants:
        number = int(file[len("mutant_") : -len(".py")])
        child = fork()
        if not child:
            try:
                alarm(int(1 + SLOWER * spent))
                mutated(number, code)
            except BaseException:  # noqa: BLE001 - a mutant that cannot be imported is no program
                leave(1)
            leave(0)
        say(k="mutant", mutant=number, status=os.waitstatus_to_exitcode(wait(child, 0)[1]))
    say(k="finish", code=0)


def helpers(codes):
    """Return what runs a coroutine, and what makes a folder; they take long to load, and few functions need one."""
    functions = [code for code in codes if hasattr(code, "co_flags")]
    finish = folder = None
    if any(code.co_flags & COROUTINE for code in functions):
        import asyncio

        finish = asyncio.run
    given = {name for code in functions for name in code.co_varnames[: code.co_argcount][2:]}
    if given - {"capsys"}:
        import pathlib
        import tempfile

        path, made = pathlib.Path, tempfile.mkdtemp

        def folder():
            return path(made())

    return finish, folder


class Shown(tuple):
    """What was printed, as pytest's capsys gives it."""

    out = property(lambda self: self[0])
    err = property(lambda self: self[1])


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
