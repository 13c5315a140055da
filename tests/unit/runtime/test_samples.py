"""What a model is told of a sample: text in its encoding, and of anything else what kind of file it is."""

import gzip
import sqlite3
import zipfile
from pathlib import Path

import pytest

from codetape.runtime.script_io import read_inputs


def head(path):
    (declared,) = read_inputs({"data": f"file:{path}"})
    return declared.sample.head, declared.sample.encoding, declared.sample.file


def test_formats_are_named():
    Path("a.csv.gz").write_bytes(gzip.compress(b"1,2\n"))
    with zipfile.ZipFile("b.xlsx", "w") as book:
        book.writestr("x", "y")
    sqlite3.connect("c.db").execute("CREATE TABLE t (x)")
    Path("d.bin").write_bytes(b"\0\1\2")
    Path("e.parquet").write_bytes(b"PAR1\0\0")
    kinds = [head(name)[0].partition(",")[0] for name in ("a.csv.gz", "b.xlsx", "c.db", "d.bin", "e.parquet")]
    assert kinds == ["(gzip", "(an Excel workbook", "(an SQLite database", "(binary", "(Parquet"]
    assert head("b.xlsx")[2] == "b.xlsx"


@pytest.mark.parametrize(
    ("text", "encoding", "told"),
    [
        ("Größe", "utf-8", ""),
        ("Größe", "cp1252", "cp1252"),
        ("Größe", "utf-16", "utf-16"),
        ("PAR is text", "utf-8", ""),
    ],
)
def test_encodings_are_named_beside_the_text(text, encoding, told):
    Path("x.csv").write_bytes(text.encode(encoding))
    assert head("x.csv")[:2] == (text, told)
