"""Run, resume or fork one session."""

from collections.abc import Mapping
from typing import Any, Literal, Unpack

from codetape.api.opening import AgentSettings, RecordedSession, StoreLike, open_session
from codetape.domain.findings import EXAMPLE
from codetape.errors import UsageError
from codetape.eventlog.session_state import SessionState
from codetape.ports import DEFAULT_STORE, Model, Sandbox
from codetape.runtime import plugins
from codetape.runtime.agent import AutoCoderAgent, EventHook, Prompts
from codetape.runtime.fork import point
from codetape.runtime.result import GenerateResult
from codetape.runtime.sync import run_sync

Answers = Mapping[str, Literal["allow", "deny"]]


def run(prompt: str, agent: AutoCoderAgent, **task: Any) -> GenerateResult:
    """Turn a prompt into a verified script; see `AutoCoderAgent.agenerate` for a task's arguments."""
    return run_sync(agent.agenerate(prompt, **task))


def resume(
    session: str,
    *,
    store: StoreLike = DEFAULT_STORE,
    model: Model | None = None,
    sandbox: str | Sandbox = "auto",
    answers: Answers | None = None,
    max_iterations: int | None = None,
    changes: Mapping[str, Any] | None = None,
    on_event: EventHook | None = None,
    **settings: Unpack[AgentSettings],
) -> GenerateResult:
    """Resume a session from exactly where its log ends, under its own model and prompts; return the outcome.

    ``model`` is an object that stands for the recorded model, if its name alone is not enough to create one.
    ``answers`` maps the subject of the open question to "allow" or "deny". ``changes`` are fields of the configuration,
    such as a budget. Recorded replies are never requested again. Raises UsageError for what would change nothing, or
    would be another session (a fork); LeaseHeld if another process drives it.
    """
    return run_sync(
        aresume(
            open_session(session, store=store),
            store=store,
            model=model,
            sandbox=sandbox,
            answers=answers,
            max_iterations=max_iterations,
            changes=changes,
            on_event=on_event,
            **settings,
        )
    )


async def aresume(
    known: RecordedSession,
    *,
    store: StoreLike = DEFAULT_STORE,
    model: Model | None = None,
    sandbox: str | Sandbox = "auto",
    answers: Answers | None = None,
    max_iterations: int | None = None,
    changes: Mapping[str, Any] | None = None,
    on_event: EventHook | None = None,
    **settings: Unpack[AgentSettings],
) -> GenerateResult:
    """As `resume`, for a session already opened."""
    check_resumable(known.run, answers or {}, max_iterations)
    settings["model_options"] = _recorded_api(known, model, settings.get("model_options", {}))
    agent = AutoCoderAgent(model=model or known.run.the_config.model, sandbox=sandbox, store=store, **settings)
    config = {**(changes or {}), **({"max_iterations": max_iterations} if max_iterations else {})}
    return await agent.aresume(known.session, answers=answers or {}, changes=config, on_event=on_event)


def _recorded_api(known: RecordedSession, model: str | Model | None, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a model's options with the API that was recorded, where it is the session's own adapter's and none is named."""
    config = known.run.the_config
    other = model is not None and not (isinstance(model, str) and plugins.same_adapter(model, config.model))
    return {"api": config.api, **options} if config.api and not other else options


def check_resumable(state: SessionState, answers: Mapping[str, str], max_iterations: int | None) -> None:
    """Raise UsageError for what would do nothing: an answer to another question, a session that has ended for good."""
    name = state.session
    if wrong := sorted({*answers.values()} - {"allow", "deny"}):
        raise UsageError(f"{wrong[0]!r} is no answer.", remedy="Give allow or deny.")
    if state.state == "succeeded":
        raise UsageError(f"Session {name} has succeeded: there is nothing to resume.")
    subject = state.work.question.subject if state.work.question and state.state == "suspended" else ""
    if other := sorted(set(answers) - {subject}):
        about = f"It asks about {spoken(subject)}." if subject else "It asks about nothing."
        raise UsageError(f"Session {name} does not ask about {', '.join(map(spoken, other))}.", remedy=about)
    if state.state == "failed":  # only the limit on runs can be raised afterwards
        runs = state.ledger.iteration
        if state.cause == "unusable":  # another sample may be usable
            return
        if state.cause != "iterations":
            raise UsageError(f"Session {name} has failed: {state.reason}", remedy="Its end is final.")
        if (max_iterations or state.the_config.max_iterations) <= runs:
            remedy = f"It resumes with max_iterations (--max-iterations) above {runs}."
            raise UsageError(f"Session {name} has failed: {state.reason}", remedy=remedy)


def spoken(subject: str) -> str:
    """Return a question's subject in the words that a person uses."""
    return subject.rpartition("::")[2] if subject.startswith(EXAMPLE) else subject


def fork(
    session: str,
    at: int | str,
    *,
    store: StoreLike = DEFAULT_STORE,
    model: str | Model | None = None,
    prompts: Prompts | None = None,
    changes: Mapping[str, Any] | None = None,
    say: str = "",
    reply: str | None = None,
    sandbox: str | Sandbox = "auto",
    on_event: EventHook | None = None,
    **settings: Unpack[AgentSettings],
) -> GenerateResult:
    """Continue from a point of a recorded session, live, as a session of its own; see `AutoCoderAgent.afork`."""
    return run_sync(
        afork(
            open_session(session, store=store),
            at,
            store=store,
            model=model,
            prompts=prompts,
            changes=changes,
            say=say,
            reply=reply,
            sandbox=sandbox,
            on_event=on_event,
            **settings,
        )
    )


async def afork(
    known: RecordedSession,
    at: int | str,
    *,
    store: StoreLike = DEFAULT_STORE,
    model: str | Model | None = None,
    prompts: Prompts | None = None,
    changes: Mapping[str, Any] | None = None,
    say: str = "",
    reply: str | None = None,
    sandbox: str | Sandbox = "auto",
    fork: str | None = None,
    on_event: EventHook | None = None,
    **settings: Unpack[AgentSettings],
) -> GenerateResult:
    """As `fork`, for a session already opened; ``fork`` is the new session's id."""
    name = model or known.run.the_config.model
    settings["model_options"] = _recorded_api(known, model, settings.get("model_options", {}))
    agent = AutoCoderAgent(model=name, sandbox=sandbox, store=store, prompts=prompts, **settings)
    return await agent.afork(
        known.session,
        point(known.stream, at),
        changes=changes,
        say=say,
        reply=reply,
        fork=fork,
        on_event=on_event,
    )
