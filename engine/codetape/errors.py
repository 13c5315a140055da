"""Everything that codetape raises, and the exit code that each becomes.

    CodetapeError
    ├── UsageError                 2    the caller asked for something that cannot be
    │   └── TemplateError          2    a prompt pack that does not render
    ├── InfrastructureError        1    something outside could not do its work
    │   ├── ModelUnavailable       1    the provider; the session is suspended
    │   ├── BatchOutOfReach        1    the provider, while it has a batch; the session waits for that
    │   ├── SandboxUnavailable     1    the needed isolation is unavailable
    │   └── StoreError             1    the log
    │       ├── SessionNotFound    1    no session of that name
    │       ├── ContentGone        1    a session whose content was forgotten
    │       ├── LeaseHeld          1    another process drives this session
    │       └── StaleLease         1    this process drove it once, and no longer does
    ├── BudgetSpent              101    the next call does not fit into a budget; the session is suspended
    ├── CorruptTape                1    a log that breaks its own rules
    ├── Divergence               102    a replay that asks or decides otherwise
    ├── ScriptFailed             100    a verified script that failed on other inputs, or broke its outputs' types
    └── SessionNotSucceeded      100    `GenerateResult.raise_for_status()`

What could not run raises one of these; what ran and failed is a value. Adapters translate
their vendors' errors into these, with ``from``. A message says what happened, to what, and what to do.
"""


class CodetapeError(Exception):
    """The root; ``remedy`` is what the reader can do about it, if anything is known."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()

    def __reduce__(self) -> tuple[object, ...]:
        """Let every error come whole from another process, whatever its fields."""
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[CodetapeError], args: tuple[object, ...], fields: dict[str, object]) -> CodetapeError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(fields)
    return error


class UsageError(CodetapeError):
    """The caller asked for something that cannot be: bad input, unknown name, empty prompt."""

    exit_code = 2


class TemplateError(UsageError):
    """A prompt pack that is incomplete or does not render; names the file."""


class InfrastructureError(CodetapeError):
    """Something outside could not do its work. It is never the program's or the model's fault."""


class ModelUnavailable(InfrastructureError):
    """The provider is unavailable: the adapter tried, waited and gave up.

    ``tries`` says what came of each try; ``maybe_billed`` whether the provider may have worked on one of them: it timed
    out, broke off, or failed inside; ``unanswered`` on how many. A try that was refused, for its rate say, is never
    billed. ``status`` is the HTTP status of the last one, where it had one.
    """

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        tries: tuple[str, ...] = (),
        maybe_billed: bool = False,
        unanswered: int = 0,
        status: int | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.status = status
        self.tries = tries
        self.maybe_billed = maybe_billed or unanswered > 0
        self.unanswered = unanswered or int(maybe_billed)


class BatchOutOfReach(InfrastructureError):
    """The provider has a batch, or may have it, and cannot be asked for it now. Its calls wait for it, open."""


class SandboxUnavailable(InfrastructureError):
    """The needed isolation, or an environment's build service, is unavailable; ``step`` says where it broke."""

    def __init__(self, message: str, *, remedy: str = "", step: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.step = step


class StoreError(InfrastructureError):
    """The log cannot be opened, read or appended to."""


class SessionNotFound(StoreError):
    """The store has no session of that name, or several that begin with it."""


class ContentGone(StoreError):
    """A session's content was forgotten: its hashes and figures are what is left."""


class LeaseHeld(StoreError):
    """Another process drives this session; the message says which, and since when."""


class StaleLease(StoreError):
    """The fencing token is no longer valid: another process took the session over."""


class BudgetSpent(CodetapeError):
    """The next call does not fit into what a budget leaves. It was not made."""

    exit_code = 101


class CorruptTape(CodetapeError):
    """A log that breaks its own rules, at ``seq`` where that is known."""

    def __init__(self, message: str, *, remedy: str = "", seq: int | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.seq = seq


class Divergence(CodetapeError):
    """A replay asks or decides differently than recorded; ``layer`` is kind, purpose, fingerprint, request or decision."""

    exit_code = 102

    def __init__(self, message: str, *, seq: int, layer: str) -> None:
        super().__init__(message)
        self.seq = seq
        self.layer = layer


class SessionNotSucceeded(CodetapeError):
    """A session that ended otherwise than succeeded, for those who prefer exceptions."""

    exit_code = 100


class ScriptFailed(CodetapeError):
    """A verified script failed on these inputs, or an output is missing or not of its type."""

    exit_code = 100
