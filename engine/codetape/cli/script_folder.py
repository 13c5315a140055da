"""The folder of -o: the script, its tests, its lock and result.json, each written whole, and nothing else touched.

Nothing is written through a link, and what codetape did not write there, or somebody changed since, stays as it is
without --force: result.json says which files it wrote, by their hashes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from codetape.domain.canonical import sha256
from codetape.domain.task import ANCHOR_FILE, SOLUTION_FILE, TEST_FILE, USER_FILE
from codetape.errors import InfrastructureError, UsageError
from codetape.runtime.portable_script import portable
from codetape.runtime.result import GenerateResult
from codetape.runtime.script_header import script_header
from codetape.runtime.text_file import read_text_file
from codetape.runtime.whole_file import put_whole

RESULT_FILE, LOCK_FILE = "result.json", "requirements.lock"
NAMES = (SOLUTION_FILE, TEST_FILE, USER_FILE, ANCHOR_FILE, LOCK_FILE, RESULT_FILE)


@dataclass(frozen=True)
class ScriptFolder:
    """A folder to write a session's files into. ``force`` replaces files that are not codetape's."""

    path: Path
    force: bool = False

    @classmethod
    def of(cls, path: str | None, *, force: bool) -> "ScriptFolder | None":
        """Return the folder that the options name, if any. Raises UsageError for --force alone."""
        if path is None and force:
            raise UsageError("--force says what -o may replace.", remedy="Give -o DIR with it.")
        return cls(Path(path), force) if path is not None else None

    def prepare(self) -> None:
        """Create the folder before anything is spent. Raises UsageError if it cannot be written as it stands."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile("wb", dir=self.path, prefix=".codetape-"):
                pass
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be written: {error.strerror}.", remedy="Name another folder with -o."
            ) from error
        ours = self._ours()
        for name in NAMES:
            file = self.path / name
            if file.is_symlink() or (file.exists() and not file.is_file()):
                raise UsageError(
                    f"{file} is a link, or no file: nothing is written there.", remedy="Name another folder."
                )
            if file.exists() and name not in ours and not self.force:
                raise UsageError(
                    f"{file} is not as codetape wrote it.", remedy="Name another folder with -o, or give --force."
                )

    def write(self, result: GenerateResult) -> Path | None:
        """Write the script, its tests, its lock and the result; return the script's path, if there is a script.

        Raises InfrastructureError where the disk does not take them: they are on the tape all the same.
        """
        files = _files(result)
        summary: dict[str, Any] = json.loads(result.model_dump_json())
        summary["files"] = {name: sha256(text) for name, text in files.items()}
        try:
            self.prepare()
            ours = self._ours()
            for name in NAMES:  # of a session before: beside this script it would be taken for this one's
                if name in ours and name not in files and name != RESULT_FILE:
                    (self.path / name).unlink(missing_ok=True)
            for name, text in files.items():
                self._write(name, text)
            self._write(RESULT_FILE, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
        except (OSError, UsageError) as error:
            said = (
                error.message if isinstance(error, UsageError) else f"{self.path} cannot be written: {error.strerror}."
            )
            raise InfrastructureError(
                said, remedy=f"The session is on its tape: `codetape show {result.session} -o DIR` writes it."
            ) from error
        return self.path / SOLUTION_FILE if SOLUTION_FILE in files else None

    def _ours(self) -> set[str]:
        """Return the files that are there as codetape wrote them."""
        try:
            summary = json.loads(read_text_file(self.path / RESULT_FILE, most=64 << 20))
            written = summary["files"]
            pairs = {str(name): digest for name, digest in written.items() if name in NAMES and summary["session"]}
            same = {n for n, digest in pairs.items() if sha256(read_text_file(self.path / n, most=64 << 20)) == digest}
        except (UsageError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return set()
        return {*same, RESULT_FILE}

    def _write(self, name: str, text: str) -> None:
        put_whole(self.path / name, [text])


def _files(result: GenerateResult) -> dict[str, str]:
    if result.solution is None:
        return {}
    code = result.solution.code
    files = {
        SOLUTION_FILE: script_header(result) + (portable(code) if result.outputs else code),
        TEST_FILE: result.tests,
        USER_FILE: result.given_tests,
        ANCHOR_FILE: result.anchors,
        LOCK_FILE: result.lock,
    }
    return {name: text for name, text in files.items() if text.strip()}
