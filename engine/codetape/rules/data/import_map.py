"""Which distribution gives an import, where the two names differ or the name is well known. Reviewed by hand.

A key is a module, or a dotted prefix for namespace packages; the longest key that fits an import wins.
A name that is not here is never installed by itself: models name packages that do not exist, and others register them.
"""

from collections.abc import Mapping
from functools import cache

_SAME_NAME = """
aiofiles aiohttp altair anyio arrow astropy attrs babel beautifulsoup4 bidict bleach blinker bokeh boto3 botocore
cachetools cattrs certifi chardet click cloudpickle colorama cryptography cvxpy cycler cython dask deepdiff
dill distro docopt duckdb emoji et-xmlfile fastapi fastparquet filelock flask fsspec gensim geopandas
geopy graphviz greenlet gunicorn h5py holidays html5lib httpx humanize hypothesis idna imageio
inflect iniconfig isodate itsdangerous jinja2 jmespath joblib jsonlines jsonpatch jsonpointer jsonschema
keras lark lightgbm llvmlite loguru lxml mako markdown markdownify markupsafe marshmallow matplotlib mistune more-itertools
mpmath msgpack multidict mypy nbformat networkx nltk numba numexpr numpy oauthlib openpyxl orjson packaging
pandas pandera paramiko parse parso passlib patsy peewee pendulum pexpect phonenumbers pint platformdirs
plotly pluggy polars portalocker psutil psycopg psycopg2 pyarrow pydantic pydot pygments pympler pymysql pyparsing
pypdf pyperclip pyproj pytest pytz qrcode rapidfuzz redis regex reportlab requests rich rtree
scipy seaborn shapely simplejson six sortedcontainers soupsieve spacy sqlalchemy sqlparse starlette statsmodels
structlog svgwrite sympy tabulate tenacity termcolor textdistance threadpoolctl tiktoken tinydb toml tomli tomli-w
tomlkit toolz tornado tqdm transformers typer typing-extensions tzdata tzlocal ujson unidecode urllib3 uvicorn validators
wcwidth websockets werkzeug wrapt xarray xgboost xlrd xlsxwriter xmltodict xxhash yarl zstandard
"""

_SINCE_3 = """
bottleneck faker fastexcel freezegun h5netcdf lz4 pyreadstat python-calamine pyxlsb responses respx tables trio
pytest-asyncio pytest-benchmark pytest-httpx pytest-mock pytest-trio requests-mock
"""
"""Known since version 3 of the rules."""

_OTHER_NAME = {
    "absl": "absl-py",
    "Bio": "biopython",
    "bs4": "beautifulsoup4",
    "Crypto": "pycryptodome",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "editdistance": "editdistance",
    "fitz": "pymupdf",
    "pymupdf": "pymupdf",
    "git": "gitpython",
    "google.protobuf": "protobuf",
    "IPython": "ipython",
    "jose": "python-jose",
    "jwt": "pyjwt",
    "Levenshtein": "levenshtein",
    "magic": "python-magic",
    "mpl_toolkits": "matplotlib",
    "MySQLdb": "mysqlclient",
    "nacl": "pynacl",
    "OpenSSL": "pyopenssl",
    "PIL": "pillow",
    "pkg_resources": "setuptools",
    "pptx": "python-pptx",
    "psycopg2": "psycopg2-binary",
    "pwiz": "peewee",
    "pylab": "matplotlib",
    "PyPDF2": "pypdf2",
    "pywt": "pywavelets",
    "serial": "pyserial",
    "setuptools": "setuptools",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slugify": "python-slugify",
    "snappy": "python-snappy",
    "usaddress": "usaddress",
    "wx": "wxpython",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
    "zoneinfo_data": "tzdata",
}

IMPORTS: dict[str, str] = {
    **{name.replace("-", "_"): name for name in _SAME_NAME.split()},
    **_OTHER_NAME,
}
IMPORTS["attr"] = "attrs"
IMPORTS.pop("beautifulsoup4")
_MORE = {**{name.replace("-", "_"): name for name in _SINCE_3.split()}, "netCDF4": "netcdf4", "odf": "odfpy"}

PINS = {"pkg_resources": "setuptools<81"}
"""Versions that still have a module which later ones took out."""


@cache
def imports(rules: int) -> Mapping[str, str]:
    """Return the distribution of each known import, as a version of the rules knows it."""
    return IMPORTS if rules < 3 else {**IMPORTS, **_MORE}


@cache
def known(rules: int) -> frozenset[str]:
    """Return the distributions that the policy `known` installs without asking."""
    return frozenset(imports(rules).values())
