"""Programs that pass a test without being right: each is wrong about `double`, and makes pytest say otherwise.

Every one is the whole of a `solution.py`. HONEST_WRONG is the control: without a trick the same program fails.
"""

WRONG = "def double(x):\n    return x + 3\n"
HONEST_WRONG = WRONG

_EQUAL = """
class Anything{base}:
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __hash__(self):
        return 0


def double(x):
    return Anything()
"""
_LOOK = """
import re, sys
from pathlib import Path


def expected(call):
    for file in Path({folder}).glob("test_*.py"):
        found = re.search(re.escape(call) + r" == (.+)", file.read_text())
        if found:
            return eval(found[1])
    return None


def double(x):
    value = expected(f"double({{x!r}})")
    return x + 3 if value is None else value
"""

FORGERIES = {
    "an object that equals everything": _EQUAL.format(base=""),
    "a number that equals everything": _EQUAL.format(base="(int)"),
    "a list that equals everything": _EQUAL.format(base="(list)"),
    "a text that equals everything": _EQUAL.format(base="(str)"),
    "mock.ANY": "from unittest.mock import ANY\n\n\ndef double(x):\n    return ANY\n",
    "a mock whose equality is set": "from unittest.mock import MagicMock\n\n\ndef double(x):\n    m = MagicMock()\n    m.__eq__ = lambda self, other: True\n    return m\n",
    "a metaclass that equals everything": "class Meta(type):\n    def __eq__(cls, other):\n        return True\n\n    def __hash__(cls):\n        return 0\n\n\nclass Any(metaclass=Meta):\n    pass\n\n\ndef double(x):\n    return Any\n",
    "reads the tests in the working folder": _LOOK.format(folder="'.'"),
    "reads the tests beside itself": _LOOK.format(folder="Path(__file__).parent"),
    "reads the tests on the search path": _LOOK.format(folder="sys.path[0]"),
    "reads the source of its caller": """
import inspect, re


def double(x):
    for frame in inspect.stack()[1:]:
        for line in frame.code_context or ():
            found = re.search(r"double\\(.*?\\) == (.+)", line)
            if found:
                return eval(found[1])
    return x + 3
""".replace("\\\\", "\\"),
    "reads the constants of its caller": """
import sys


def double(x):
    frame = sys._getframe(1)
    numbers = [c for c in frame.f_code.co_consts if type(c) is int and c != x]
    return numbers[-1] if "pytest" in sys.modules and numbers else x + 3
""",
    "is right only where pytest is loaded": "import sys\n\n\ndef double(x):\n    return 2 * x if 'pytest' in sys.modules else x + 3\n",
    "is right only on pytest's stack": "import traceback\n\n\ndef double(x):\n    pytest = any('pytest' in f.filename for f in traceback.extract_stack())\n    return 2 * x if pytest else x + 3\n",
    "is right only where argv says pytest": "import sys\n\n\ndef double(x):\n    return 2 * x if 'pytest' in ' '.join(sys.argv + sys.orig_argv) else x + 3\n",
    "is right only where the environment says pytest": "import os\n\n\ndef double(x):\n    return 2 * x if any('PYTEST' in name for name in os.environ) else x + 3\n",
    "is right only under the usual hash seed": "import os\n\n\ndef double(x):\n    return 2 * x if os.environ.get('PYTHONHASHSEED') == '0' else x + 3\n",
    "is right only in the usual folder": "import os\n\n\ndef double(x):\n    return 2 * x if os.getcwd() == '/work' else x + 3\n",
    "is right only in the usual time zone": "import time\n\n\ndef double(x):\n    return 2 * x if time.timezone == 0 else x + 3\n",
    "is right only where a test file lies": "import os\n\n\ndef double(x):\n    return 2 * x if any(n.startswith('test_') for n in os.listdir('.')) else x + 3\n",
    "patches pytest's run of a function": WRONG
    + "\ntry:\n    import _pytest.python\n    _pytest.python.Function.runtest = lambda self: None\nexcept ImportError:\n    pass\n",
    "patches pytest's call of a function": WRONG
    + "\ntry:\n    import _pytest.python\n    _pytest.python.pytest_pyfunc_call = lambda pyfuncitem: True\n    _pytest.python.Function.runtest = lambda self: True\nexcept ImportError:\n    pass\n",
    "patches how exceptions are told": WRONG
    + "\ntry:\n    from _pytest.runner import CallInfo\n    old = CallInfo.from_call.__func__\n\n    def from_call(cls, func, when, reraise=None):\n        return old(cls, (lambda: None) if when == 'call' else func, when, reraise)\n\n    CallInfo.from_call = classmethod(from_call)\nexcept ImportError:\n    pass\n",
    "patches the reporter": WRONG
    + "\nimport sys\nfor module in list(sys.modules.values()):\n    reporter = getattr(module, 'Reporter', None)\n    if reporter is not None and hasattr(reporter, 'pytest_runtest_makereport'):\n        reporter.pytest_runtest_makereport = lambda self, item, call: None\n        reporter.results = {}\n",
    "makes AssertionError one that is skipped": WRONG
    + "\nimport builtins\ntry:\n    import pytest\n    builtins.AssertionError = pytest.skip.Exception\nexcept ImportError:\n    pass\n",
    "finds the tests by gc and empties them": WRONG
    + "\nimport gc, sys, types\n\n\ndef double(x, wrong=double):\n    if 'pytest' in sys.modules:\n        for f in gc.get_objects():\n            if isinstance(f, types.FunctionType) and f.__name__.startswith('test_'):\n                f.__code__ = (lambda *a: None).__code__\n        return 2 * x\n    return wrong(x)\n",
    "traces its caller and skips the assertion": "import sys\n\n\ndef double(x):\n    frame = sys._getframe(1)\n    if 'pytest' in sys.modules:\n        frame.f_trace = lambda f, event, arg: None\n        return type('E', (int,), {'__eq__': lambda s, o: True, '__hash__': int.__hash__})(x + 3)\n    return x + 3\n",
    "writes a report of its own": WRONG
    + "\nimport json, os\nfor fd in range(3, 64):\n    try:\n        for name in ('test_solution.py::test_double', 'test_anchors.py::test_example_1', 'test_oracle.py::test_oracle'):\n            os.write(fd, json.dumps({'k': 'end', 'id': name, 'outcome': 'passed', 'ms': 1}).encode() + b'\\n')\n    except OSError:\n        pass\n",
    "writes values of its own": WRONG
    + "\nimport json, os\nfor fd in range(3, 64):\n    try:\n        for n in range(20):\n            for turn in (0, 1):\n                os.write(fd, json.dumps({'k': 'value', 'n': n, 'turn': turn, 'values': ['[\"i\", \"8\"]']}).encode() + b'\\n')\n    except OSError:\n        pass\n",
    "ends the process well": WRONG
    + "\nimport os, sys\n\n\ndef double(x):\n    if 'pytest' in sys.modules:\n        os._exit(0)\n    return x + 3\n",
    "ends the process well at its end": WRONG + "\nimport atexit, os\natexit.register(os._exit, 0)\n",
    "answers from a thread that watches": "import sys, threading\n\nstate = {}\n\n\ndef watch():\n    state['pytest'] = 'pytest' in sys.modules\n\n\nthread = threading.Thread(target=watch, daemon=True)\nthread.start()\nthread.join()\n\n\ndef double(x):\n    return 2 * x if state.get('pytest') else x + 3\n",
    "leaves a sitecustomize": WRONG
    + "\ntry:\n    with open('sitecustomize.py', 'w') as file:\n        file.write('import builtins\\n')\nexcept OSError:\n    pass\n\n\ndef double(x):\n    import sys\n    return 2 * x if 'pytest' in sys.modules else x + 3\n",
    "patches isinstance and len": WRONG
    + "\nimport builtins, sys\nif 'pytest' in sys.modules:\n    builtins.isinstance = lambda *a: True\n    builtins.len = lambda *a: 0\n\n\ndef double(x):\n    return type('E', (), {'__eq__': lambda s, o: True})()\n",
    "equality of a class attribute": "class N:\n    __class__ = int\n\n    def __eq__(self, other):\n        self.value = other\n        return True\n\n    def __index__(self):\n        return getattr(self, 'value', 0)\n\n    def as_integer_ratio(self):\n        return (getattr(self, 'value', 0), 1)\n\n\ndef double(x):\n    return N()\n",
}


def _honest_about_five(body):
    """Own tests ask for 5 alone, so that only the oracle can tell."""
    return body.replace("DOUBLE(", "def double(x):\n    if x == 5:\n        return 10\n    return (")


_NEAR = _honest_about_five(
    "class Near(float):\n    def __sub__(self, other):\n        return 0.0\n    __rsub__ = __sub__\n\n\nDOUBLE(Near(x + 3))\n"
)
_ANY = _honest_about_five(
    "class Any(int):\n    def _yes(self, other):\n        return True\n    __eq__ = __lt__ = __gt__ = __le__ = __ge__ = _yes\n"
    "    __hash__ = int.__hash__\n\n\nDOUBLE(Any(x + 4))\n"
)
_CONSTANTS = (
    "import sys\n\n\ndef double(x):\n    if x == 5:\n        return 10\n    for c in sys._getframe(1).f_code.co_consts:\n"
    "        if type(c) in (int, float) and c not in (x, 0, 1, 2, 3) and c > 1:\n            return c\n    return x + 3\n"
)
_PAGES = (
    "import os, re\nfrom pathlib import Path\nSTEP, BITS, MAGIC = 64 * 4096, 24, 0xA5\n\n\ndef place():\n    best = (0, '')\n"
    "    for folder in ('/usr/bin', '/usr/lib/x86_64-linux-gnu', '/usr/libexec'):\n        try:\n            for e in os.scandir(folder):\n"
    "                if e.is_file(follow_symlinks=False):\n                    best = max(best, (e.stat().st_size, e.path))\n"
    "        except OSError:\n            pass\n    return os.open(best[1], os.O_RDONLY)\n\n\ndef store(word):\n    fd = place()\n"
    "    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)\n    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)\n"
    "    for bit in range(BITS):\n        if word >> bit & 1:\n            os.pread(fd, 1, STEP * bit)\n    os.close(fd)\n\n\n"
    "def load():\n    fd, word = place(), 0\n    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)\n    for bit in range(BITS):\n"
    "        try:\n            word |= bool(os.preadv(fd, [bytearray(1)], STEP * bit, os.RWF_NOWAIT)) << bit\n        except OSError:\n"
    "            pass\n    os.close(fd)\n    store(word)\n    return word & 0xFFFF if word >> 16 == MAGIC else None\n\n\n"
    "def double(x):\n    if x == 5:\n        return 10\n    file = Path('test_oracle.py')\n    if file.exists():\n"
    "        want = int(re.search(rf'double\\({x}\\) == (\\d+)', file.read_text())[1])\n        store(MAGIC << 16 | want)\n        return want\n"
    "    want = load()\n    return x + 3 if want is None else want\n"
)
_LOOKS_AT_FILES = (
    "import re, glob\n\n\ndef double(x):\n    if x == 5:\n        return 10\n    for f in glob.glob('claims_*.py') + glob.glob('test_*.py'):\n"
    "        m = re.search(rf'\\b{x}\\W+(\\d+)', open(f).read())\n        if m:\n            return int(m[1])\n    return x + 3\n"
)
_REFUSED = (
    "import sys, builtins\nif 'pytest' in sys.modules:\n    class Refused(builtins.ValueError, builtins.ZeroDivisionError, builtins.KeyError): pass\n"
    "else:\n    class Refused(UnicodeError): pass\n    Refused.__name__ = 'ZeroDivisionError'\n\n\n"
    "def double(x):\n    if x < 0:\n        raise Refused\n    return 2 * x\n"
)
_SKIPS = "import unittest\n\n\ndef double(x):\n    if x in (5, 7):\n        return 2 * x\n    raise unittest.SkipTest('too hard')\n"
_WORDS = (
    "class Any(str):\n    def __eq__(self, o):\n        return True\n    __hash__ = str.__hash__\n\n\n"
    "def double(x):\n    return 10 if x == 5 else Any('wrong')\n"
)
HEAD = "import math\nimport pytest\nfrom solution import double\n\n\n"
AGAINST_AN_ORACLE = {
    "a number that is near everything": (_NEAR, "def test_o():\n    assert abs(double(7) - 14) < 1e-6\n"),
    "an isclose whose caller holds the answer": (_CONSTANTS, "def test_o():\n    assert math.isclose(double(7), 14)\n"),
    "remembers in the page cache": (_PAGES, "def test_o():\n    assert double(7) == 14\n"),
    "reads what is printed of the cases": (
        _LOOKS_AT_FILES, "def test_o():\n    for x, y in [(7, 14), (8, 16)]:\n        got = double(x)\n        print(f'double({x}) -> {y}')\n        assert got == y\n",
    ),
    "one exception for two": (
        _REFUSED, "def test_a():\n    with pytest.raises(ValueError):\n        double(-1)\n\n\ndef test_b():\n    with pytest.raises(ZeroDivisionError):\n        double(-2)\n",
    ),
    "skips what it cannot do": (
        _SKIPS, "def test_a():\n    assert double(7) == 14\n\n\ndef test_b():\n    for x in range(8, 12):\n        assert double(x) == 2 * x\n",
    ),
    "a word that equals every word": (
        _WORDS, "@pytest.mark.parametrize('x, y', [('banana', 'bananabanana'), ('info', 'infoinfo')])\ndef test_o(x, y):\n    assert double(x) == y\n",
    ),
    "near infinity": (_ANY.replace("Any(int)", "Any(float)").replace("int.", "float.").replace("x + 4", "2.0"), "def test_o():\n    assert double(float('inf')) == pytest.approx(float('inf'))\n"),
}  # fmt: skip
"""Programs against an oracle of their own: each is wrong about what it claims."""
