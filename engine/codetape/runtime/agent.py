"""The frozen configuration of a code generator, and its one command: generate."""

import asyncio
import os
import re
import secrets as random_bytes
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from codetape.domain.budget import Limit
from codetape.domain.canonical import canonical, sha256, well_formed
from codetape.domain.model_request import refused_parameter
from codetape.domain.package_names import package_name, valid_system_name
from codetape.domain.task import Config, Resources
from codetape.errors import UsageError
from codetape.eventlog.envelope import Event
from codetape.eventlog.session_state import SessionState
from codetape.eventlog.stored_event import SESSION_ID
from codetape.ports import DEFAULT_STORE, Clock, Model, Sandbox, Store, complete, same_server
from codetape.rules.build_approval import Approval, Approve
from codetape.runtime import plugins
from codetape.runtime.batched_calls import BatchedCalls, no_batches
from codetape.runtime.clock import SystemClock
from codetape.runtime.fork import forked, inherited, point
from codetape.runtime.pricing import Prices
from codetape.runtime.prompt_pack_files import load_pack
from codetape.runtime.redaction import Redactor, read_patterns
from codetape.runtime.result import GenerateResult
from codetape.runtime.session import CodeGenSession, started
from codetape.runtime.sync import run_sync
from codetape.runtime.task_input import read_labels, read_task

EventHook = Callable[[Event, SessionState], None]
Prompts = str | Path | Mapping[str, str]
"""A prompt pack: a folder, or files by name."""


@dataclass(frozen=True, kw_only=True)
class AutoCoderAgent:
    """A code generator's configuration. Frozen and safe to share: each `generate` is a session of its own.

    ``model``, ``sandbox`` and ``store`` take a name or an object that keeps the port's contract.
    ``secrets`` names environment variables that are handed to `result.run()` and to nothing else.
    ``server_named`` says whether ``base_url`` was named for this very call: only then may a recorded session continue
    at another server.
    ``api_key_env`` names the variable that holds the model's key: OPENAI_API_KEY where it is not given, and none for a
    local
    server by its name (``ollama:`` and the like). ``model_options`` go to the model's adapter: ``connect_seconds``,
    ``read_seconds``, ``call_seconds``, ``tries`` for openai.
    ``prompts`` is a folder with a prompt pack; without it the one that ships is used.
    ``max_cost`` (dollars), ``max_tokens`` and ``max_seconds`` (of work) are a session's budget: the call that would not
    fit
    is not made, and the session is suspended. ``redact`` maps names to patterns that are replaced before anything is
    written. ``limits`` are budgets of several sessions together, by tag or database. ``allow_build`` lets a recorded
    session that is resumed or forked build what this agent's own settings do not allow, or asks whether it may.
    """

    model: str | Model
    name: str = "auto-coder"
    system_prompt: str = ""
    base_url: str | None = None
    server_named: bool = True
    api_key_env: str | None = None
    model_options: Mapping[str, Any] = field(default_factory=dict)
    sandbox: str | Sandbox = "auto"
    store: str | Path | Store = DEFAULT_STORE
    base_packages: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    system_packages: tuple[str, ...] = ()
    command_policy: str = "deny"
    resources: Resources = Resources()
    python_version: str | tuple[int, int] | None = None
    max_iterations: int = 10
    max_logic_attempts: int = 1
    max_test_attempts: int = 1
    skip_tests: bool = False
    strict_examples: bool = False
    min_strength: float = 0.0
    env_vars: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    max_output_tokens: int = 16384
    prompts: str | Path | Mapping[str, str] | None = None
    package_policy: str = "known"
    allowlist: tuple[str, ...] = ()
    max_cost: str = ""
    max_tokens: int | None = None
    max_seconds: int | None = None
    limits: tuple[Limit, ...] = ()
    batched: BatchedCalls | None = None
    allow_build: bool | Approve = False
    prices: Prices = Prices()
    redact: Mapping[str, str] = field(default_factory=dict)
    clock: Clock = field(default_factory=SystemClock)

    def __post_init__(self) -> None:
        """Refuse a name of a model that no adapter has, before anything is asked of it. Raises UsageError."""
        if isinstance(self.model, str):
            plugins.check_model(self.model)

    def generate(self, prompt: str, **options: Any) -> GenerateResult:
        """Turn a prompt into a verified script. Takes what `agenerate` takes; works where a loop runs already."""
        return run_sync(self.agenerate(prompt, **options))

    async def agenerate(
        self,
        prompt: str,
        *,
        schema: str | Mapping[str, Any] | None = None,
        constraints: Iterable[str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
        tests: str | None = None,
        oracle: str | None = None,
        task: str | None = None,
        tags: Iterable[str] = (),
        on_event: EventHook | None = None,
        session: str | None = None,
    ) -> GenerateResult:
        """Turn a prompt into a verified script; return the outcome, be it succeeded, failed or suspended.

        ``schema`` is a JSON Schema or a text about the data, put into prompts as it is. ``inputs`` and ``outputs``
        map names to types (see `codetape.typed`). ``tests`` is a pytest file that no ask may change, ``oracle``
        one that is run once at the end and never shown to a model. ``on_event`` is called after each append.

        Raises UsageError for what cannot be asked, StoreError where the log fails, and nothing for a failed run.
        """
        if session is not None and not SESSION_ID.fullmatch(session):
            raise UsageError(
                f"{session[:80]!r} cannot be a session's id.", remedy="Use up to 64 letters, digits, ., _ and -."
            )
        redactor = self._redactor()
        asked = read_task(redactor, prompt, schema, constraints, inputs, outputs, tests, oracle, task, tags)
        sandbox = self._sandbox()
        config = self._config(sandbox, redactor)
        pack = load_pack(self.prompts)
        driver = self._driver(session or new_session_id(), sandbox, redactor, on_event)
        await driver.run(started(asked, config, pack))
        return await self._result(driver, sandbox)

    def session_id(self, prompt: str, *, key: tuple[str, int] = ("", 1), **options: Any) -> str:
        """Return the id of the session that is made of just this, with this key: the same again for the same.

        Takes what `agenerate` takes of a task. Where its samples lie is no part of it, what they hold is; nor is its
        budget.
        """
        redactor = self._redactor()
        asked = read_task(redactor, prompt, **options)
        plain = asked.model_dump(mode="json", exclude={"inputs": {"__all__": {"sample": {"path"}}}})
        reached, budget = ("server", "api", "adapter"), ("max_cost", "max_tokens", "max_seconds")
        left_out: Any = {"sandbox": {"why"}, **dict.fromkeys((*reached, *budget), True)}
        config = self._config(self._sandbox(), redactor).model_dump(mode="json", exclude=left_out)
        whole = [list(key), plain, config, sorted(load_pack(self.prompts).items()), self.server]
        return sha256(canonical(whole))[:16]

    @property
    def server(self) -> str:
        """The address that the model is reached at, where one is named."""
        return self.base_url or os.environ.get("OPENAI_BASE_URL") or ""

    def budget(self) -> dict[str, Any]:
        """Return the session's budget as changes of a configuration, as far as one is given."""
        given = {"max_cost": self.max_cost, "max_tokens": self.max_tokens, "max_seconds": self.max_seconds}
        return {name: value for name, value in given.items() if value not in (None, "")}

    def price_share(self) -> str:
        """Return the part of its price that the model's calls are made at in a batch. Raises UsageError where it has no
        batch endpoint."""
        model = self._model()
        if model.batches is None:
            raise no_batches(model)
        return model.batches.price_share

    def resolved(self) -> "AutoCoderAgent":
        """Return this agent with its sandbox and store made, for many sessions to share."""
        return replace(self, sandbox=self._sandbox(), store=self.opened_store())

    async def stream(self, prompt: str, **options: Any) -> AsyncIterator[Event]:
        """Yield each event as it is appended; the last one's state is the session's end."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        hook: EventHook | None = options.pop("on_event", None)

        def put(event: Event, session: SessionState) -> None:
            if hook:
                hook(event, session)
            queue.put_nowait(event)

        work = asyncio.create_task(self.agenerate(prompt, on_event=put, **options))
        work.add_done_callback(lambda _done: queue.put_nowait(None))
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            if not work.done():
                work.cancel()
        await work

    async def aresume(
        self,
        session: str,
        *,
        answers: Mapping[str, Literal["allow", "deny"]] | None = None,
        changes: Mapping[str, Any] | None = None,
        on_event: EventHook | None = None,
    ) -> GenerateResult:
        """Resume a session from exactly where its log ends. Recorded replies are never asked for again.

        ``answers`` says of packages that were asked about whether they may be installed; ``changes`` are fields
        of the configuration, such as ``max_iterations``. The session keeps its own configuration otherwise.
        Raises UsageError for another model than the recorded one, or a pack: that would be a fork; and for another
        server than
        the recorded one that ``base_url`` does not name.
        """
        if refused := refused_parameter((changes or {}).get("parameters") or {}):
            raise UsageError(refused)
        if self.prompts is not None or {"model", "prompts"} & set(changes or {}):
            raise UsageError("A session keeps its model and prompts: with others it is a fork, a session of its own.")
        sandbox = self._sandbox()
        driver = self._driver(session, sandbox, self._redactor(), on_event, self._approval(answers or {}, changes))
        await driver.run(answers=answers, changes=changes, model=self._model_name(), server_named=self._names_server)
        return await self._result(driver, sandbox)

    async def afork(
        self,
        session: str,
        at: int | str,
        *,
        changes: Mapping[str, Any] | None = None,
        say: str = "",
        reply: str | None = None,
        fork: str | None = None,
        tags: Iterable[str] = (),
        on_event: EventHook | None = None,
    ) -> GenerateResult:
        """Continue from a point of a recorded session, live, as a session of its own; return its outcome.

        What is before the point is shared by reference, and neither asked for nor paid for again. The fork keeps the
        session's configuration but for the agent's model, its prompt pack if it names one, and ``changes``. ``say`` is
        a remark that every later prompt shows beside the constraints; ``reply`` takes the place of the answer at the
        point.
        ``tags`` are added to the session's.
        Raises UsageError for a point that there is not, or from which nothing can continue.
        """
        if refused := refused_parameter((changes or {}).get("parameters") or {}):
            raise UsageError(refused)
        stream = await self.opened_store().read(session)
        redactor, sandbox = self._redactor(), self._sandbox()
        known = inherited(stream, point(stream, at), changes or {})
        config = {**known.the_config.model_dump(mode="json"), **(changes or {}), "model": self._model_name()}
        config |= {**_reached_by(self._model()), "server": self._server_for(known.the_config)}
        config["sandbox"] = sandbox.facts().model_dump(mode="json")
        try:
            new = redactor.model(Config.model_validate(config)).model_dump(mode="json")
        except ValueError as error:
            raise UsageError(f"The configuration has no such setting or value: {', '.join(changes or {})}.") from error
        old = known.the_config.model_dump(mode="json")
        begin = forked(
            known,
            {name: value for name, value in new.items() if value != old[name]},
            pack=load_pack(self.prompts) if self.prompts is not None else None,
            say=redactor.text(well_formed(say.strip())),
            reply=redactor.text(well_formed(reply)) if reply is not None else None,
            tags=read_labels(tags),
        )
        driver = self._driver(fork or new_session_id(), sandbox, redactor, on_event, self._approval({}, changes))
        await driver.run(begin, base=known)
        return await self._result(driver, sandbox)

    def _server_for(self, known: Config) -> str | None:
        """Return the server that a fork continues at; raises UsageError for another one than the recorded that nobody
        named."""
        other = not plugins.same_adapter(self._model_name(), known.model)  # another adapter has servers of its own
        return same_server(known.server, self._model(), named=self._names_server or other)

    @property
    def _names_server(self) -> bool:
        return self.base_url is not None and self.server_named

    # ---- making the parts

    def _approval(self, answers: Mapping[str, str], changes: Mapping[str, Any] | None) -> Approval:
        """Return what a recorded session may have: what is allowed by this agent's settings, and by the answers and
        changes given now."""

        def own(name: str) -> Any:
            return (changes or {}).get(name, getattr(self, name))

        named = {*own("packages"), *own("base_packages"), *own("allowlist")}
        named |= {"apt:" + name for name in own("system_packages")}
        named |= {"run:" + command for command in (changes or {}).get("commands", ())}
        named |= {subject for subject, answer in answers.items() if answer == "allow"}
        try:
            limits = Resources.model_validate(own("resources"))
        except ValueError:  # the change itself is refused elsewhere, by its name
            limits = Resources()
        policies = own("package_policy") == "allow", own("command_policy") == "allow"
        return Approval(self.allow_build, frozenset(named), *policies, limits)

    def _driver(
        self,
        session: str,
        sandbox: Sandbox,
        redactor: Redactor,
        on_event: EventHook | None,
        approval: Approval | None = None,
    ) -> CodeGenSession:
        return CodeGenSession(
            session,
            model=self._model(),
            sandbox=sandbox,
            store=self.opened_store(),
            clock=self.clock,
            redactor=redactor,
            on_event=on_event,
            prices=self.prices,
            limits=self.limits,
            batched=self.batched,
            approval=approval,
        )

    async def _result(self, driver: CodeGenSession, sandbox: Sandbox) -> GenerateResult:
        stream = await self.opened_store().read(driver.session)
        return GenerateResult.of(driver.folded, stream).bound(sandbox, self._secret_values)

    def _model(self) -> Model:
        if not isinstance(self.model, str):
            return complete(self.model)
        options = {"base_url": self.base_url, "api_key_env": self.api_key_env, **self.model_options}
        return plugins.model(self.model, options)

    def _model_name(self) -> str:
        return self.model if isinstance(self.model, str) else complete(self.model).name

    def _sandbox(self) -> Sandbox:
        if not isinstance(self.sandbox, str):
            return self.sandbox
        return plugins.sandbox(self.sandbox, system_packages=bool(self.system_packages))

    def opened_store(self) -> Store:
        """Return the store, made if it is a name."""
        return plugins.store(str(self.store)) if isinstance(self.store, str | Path) else self.store

    def _secret_values(self) -> dict[str, str]:
        missing = [name for name in self.secrets if name not in os.environ]
        if missing:
            raise UsageError(f"The environment has no {', '.join(missing)}.", remedy="Set what `secrets` names.")
        return {name: os.environ[name] for name in self.secrets}

    def _redactor(self) -> Redactor:
        named = [*self.secrets, *([self.api_key_env] if self.api_key_env else [])]
        also = {name: os.environ[name] for name in named if name in os.environ}
        return Redactor.of_environment(os.environ, also, read_patterns(self.redact))

    def _config(self, sandbox: Sandbox, redactor: Redactor) -> Config:
        facts = sandbox.facts()
        if wrong := [name for name in self.system_packages if not valid_system_name(name)]:
            raise UsageError(f"{wrong[0]!r} is no system package's name.", remedy="Give Debian's, such as ffmpeg.")
        python = _version(self.python_version)
        if python and not re.fullmatch(r"3\.([89]|[1-9]\d)", python):
            raise UsageError(
                f"{self.python_version!r} is no Python that is available.", remedy="Give a minor version, such as 3.12."
            )
        if refused := refused_parameter(self.parameters):
            raise UsageError(refused)
        try:
            config = Config.model_validate(
                {
                    "model": self._model_name(),
                    **_reached_by(self._model()),
                    "name": self.name,
                    "system_prompt": self.system_prompt,
                    "base_packages": tuple(sorted({package_name(p) for p in self.base_packages})),
                    "packages": tuple(sorted({package_name(p) for p in self.packages})),
                    "system_packages": tuple(sorted({*self.system_packages})),
                    "command_policy": self.command_policy,
                    "resources": self.resources,
                    "python_version": python or facts.python,
                    "max_iterations": self.max_iterations,
                    "max_logic_attempts": self.max_logic_attempts,
                    "max_test_attempts": self.max_test_attempts,
                    "skip_tests": self.skip_tests,
                    "strict_examples": self.strict_examples,
                    "min_strength": self.min_strength,
                    "env_vars": dict(self.env_vars),
                    "parameters": dict(self.parameters),
                    "max_output_tokens": self.max_output_tokens,
                    "package_policy": self.package_policy,
                    "allowlist": tuple(p if p.startswith("apt:") else package_name(p) for p in self.allowlist),
                    "max_cost": self.max_cost,
                    "max_tokens": self.max_tokens,
                    "max_seconds": self.max_seconds,
                    "sandbox": facts,
                }
            )
        except ValueError as error:
            first = error.errors()[0] if hasattr(error, "errors") else {"loc": ("",), "msg": str(error)}
            where = ".".join(str(part) for part in first["loc"])
            raise UsageError(f"The setting {where} cannot be: {first['msg']}.") from error
        return redactor.model(config)


def _reached_by(model: Model) -> dict[str, str | None]:
    """Return where a model is, and by what it is reached, as fields of a configuration."""
    return {"server": model.server, "api": model.api, "adapter": model.adapter}


def new_session_id() -> str:
    """Return a new session's id: 16 hex digits."""
    return random_bytes.token_hex(8)


def _version(python: str | tuple[int, int] | None) -> str:
    """Return a version of Python as text: (3, 11) is 3.11."""
    return ".".join(map(str, python)) if isinstance(python, tuple) else python or ""
