"""How libraries say that they lack another one which they need only sometimes: by their own words, not by an import.

Each row is the exceptions that say it, and a pattern whose groups are modules or distributions. Only what is known of is
installed: see `codetape.rules.data.import_map`.
"""

import re

_IMPORTS = ("ImportError", "ModuleNotFoundError")
OPTIONAL = (
    (_IMPORTS, re.compile(r"Missing optional dependency '([\w.-]*\w)'")),  # pandas before 3
    (_IMPORTS, re.compile(r"`Import ([\w.-]*\w)` failed")),  # pandas from 3
    (_IMPORTS, re.compile(r"Pandas requires version '[^']+' or newer of '([\w.-]*\w)'")),
    (_IMPORTS, re.compile(r"Unable to find a usable engine; tried using: '([\w.-]*\w)'")),  # parquet
    (_IMPORTS, re.compile(r"^([\w.-]*\w) not found, please install it")),  # read_html
    (_IMPORTS, re.compile(r"required package '([\w.-]*\w)' not found")),  # polars
    (_IMPORTS, re.compile(r"\b([\w.-]*\w) (?:is|must be) (?:required|installed)\b")),
    (_IMPORTS, re.compile(r"(?:pip|conda|uv add|uv pip) install [`'\"]?([\w.-]*\w)")),
    (("FeatureNotFound",), re.compile(r"tree builder with the features you requested: ([\w.-]*\w)")),  # beautifulsoup4
    (("ValueError", "ModuleNotFoundError", "ImportError"), re.compile(r"No module named '([\w.]+)'")),
    (("ValueError",), re.compile(r"unrecognized engine '?([\w.-]*\w)'?")),  # xarray
    (("NoSuchModuleError",), re.compile(r"sqlalchemy\.dialects:\w+\.([\w.-]*\w)")),
)
