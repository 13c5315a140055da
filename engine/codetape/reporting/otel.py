"""A session as OpenTelemetry spans, by the semantic conventions of generative AI: the session, its calls, its
executions.

Content (prompts and replies) is left out by default. Times are those of the log, and ids are derived from its hashes,
so that the same session gives the same trace. Needs the extra ``codetape[otel]``.
"""

import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from codetape import __version__
from codetape.domain.canonical import canonical, sha256
from codetape.errors import CorruptTape, InfrastructureError, UsageError
from codetape.eventlog.events import Answered, Requested, TestsFinished
from codetape.eventlog.fold import fold
from codetape.eventlog.structure import closed_calls
from codetape.ports import Stream
from codetape.reporting.calls import CallRecord, stream_calls


def spans(stream: Stream, *, content: bool = False) -> Iterator[Any]:
    """Yield a session's finished spans, the session's own last. Raises UsageError without the extra."""
    sdk = _sdk()
    session = fold(stream.events, stream.texts)
    trace = int(sha256(f"trace {session.session} {stream.events[0].hash}")[:32], 16)
    own = [event for event in stream.events if event.session == session.session]
    root = int(own[0].hash[:16], 16) or 1  # not of event 0, which a fork shares with its parent
    records = {call.name: call for call in stream_calls(stream)}
    context = sdk.context(trace, root)
    for event, following in closed_calls(stream.events):
        request, outcome = event.payload, following.payload
        if event.session != session.session or not isinstance(request, Requested):
            continue
        call = records.get(request.call)
        title, attributes = (
            _call(request, outcome, call, session.the_config.model, stream, content=content)
            if request.effect == "ask"
            else _work(request, outcome)
        )
        failed = type(outcome).__name__ in ("CallLost", "GaveUp", "CallRefused", "BuildRefused")
        identity = int(event.hash[:16], 16) or 2
        yield sdk.span(
            title,
            sdk.context(trace, identity),
            context,
            attributes,
            _ns(event.at),
            _ns(following.at),
            error=type(outcome).__name__ if failed else "",
        )
    yield sdk.span(
        f"invoke_agent {session.the_config.name}",
        context,
        None,
        {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": _provider(session.the_config.model),
            "gen_ai.agent.name": session.the_config.name,
            "gen_ai.conversation.id": session.session,
            "gen_ai.request.model": _bare(session.the_config.model),
            "codetape.task": session.the_task.id,
            "codetape.status": session.state,
            "codetape.confidence": session.confidence,
            "codetape.iterations": session.ledger.iteration,
            "codetape.head": session.head,
            **({"codetape.parent": session.parent} if session.parent else {}),
        },
        _ns(own[0].at),
        _ns(own[-1].at),
        error=session.cause if session.state == "failed" else "",
    )


def _provider(model: str) -> str:
    return model.partition(":")[0] if ":" in model else "codetape"


def _bare(model: str) -> str:
    return model.partition(":")[2] or model


def _call(
    request: Requested, outcome: Any, call: CallRecord | None, model: str, stream: Stream, *, content: bool
) -> tuple[str, dict[str, Any]]:
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": _provider(model),
        "gen_ai.request.model": _bare(model),
        "gen_ai.request.max_tokens": request.max_output_tokens,
        "codetape.purpose": request.purpose,
        "codetape.call": request.call,
    }
    if call is not None:
        attributes |= {
            "codetape.disposition": call.disposition,
            "codetape.state": call.state,
            "codetape.iteration": call.iteration,
        }
    if isinstance(outcome, Answered):
        usage = outcome.usage
        attributes |= {
            "gen_ai.response.model": outcome.model or _bare(model),
            "gen_ai.response.finish_reasons": (outcome.finish_reason,),
            "gen_ai.usage.input_tokens": usage.total_input,
            "gen_ai.usage.output_tokens": usage.total_output,
            "gen_ai.usage.cache_read.input_tokens": usage.cache_read,
            "gen_ai.usage.cache_creation.input_tokens": usage.cache_write,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning,
            "codetape.replayed": bool(outcome.matched_by),
        }
        if outcome.price:
            attributes |= {"codetape.cost.usd": outcome.price.cost, "codetape.cost.source": outcome.price.source}
        if content:
            messages = [
                {"role": role, "parts": [{"type": "text", "content": stream.texts[ref]}]}
                for role, ref in request.messages
            ]
            answer = (
                [{"role": "assistant", "parts": [{"type": "text", "content": stream.texts[outcome.text]}]}]
                if outcome.text
                else []
            )
            attributes |= {"gen_ai.input.messages": canonical(messages), "gen_ai.output.messages": canonical(answer)}
    return f"chat {_bare(model)}", attributes


def _work(request: Requested, outcome: Any) -> tuple[str, dict[str, Any]]:
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": request.purpose,
        "codetape.call": request.call,
        "codetape.effect": request.effect,
    }
    if isinstance(outcome, TestsFinished):
        attributes |= {
            f"codetape.tests.{name}": getattr(outcome, name) for name in ("passed", "failed", "errors", "skipped")
        }
        attributes["codetape.exit"] = outcome.exit
    return f"execute_tool {request.purpose}", attributes


def _ns(at: str) -> int:
    try:
        return int(datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp() * 1000) * 1_000_000
    except ValueError as error:
        raise CorruptTape(f"{at} is no time that there is: no span can be made of it.") from error


def send(found: list[Any], endpoint: str) -> None:
    """Send spans to an OTLP/HTTP endpoint, such as http://127.0.0.1:4318/v1/traces. Raises InfrastructureError if it
    does not accept them."""
    _sdk()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SpanExportResult

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it logs each retry; a failure is raised below
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=10)
    try:
        for start in range(0, len(found), 500):
            if exporter.export(found[start : start + 500]) is not SpanExportResult.SUCCESS:
                raise InfrastructureError(
                    f"{endpoint} did not take the spans.", remedy="Is a collector there, and is this its /v1/traces?"
                )
    finally:
        exporter.shutdown()  # type: ignore[no-untyped-call]  # it carries no types there


def lines(found: list[Any]) -> Iterator[str]:
    """Yield spans as OTLP JSON, one request per line, as collectors read it from files."""
    import base64

    from google.protobuf.json_format import MessageToDict
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    for start in range(0, len(found), 500):
        value = MessageToDict(encode_spans(found[start : start + 500]))
        for resource in value["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    for name in ("traceId", "spanId", "parentSpanId"):  # hexadecimal in OTLP, base64 in protobuf's JSON
                        if name in span:
                            span[name] = base64.b64decode(span[name]).hex()
        yield canonical(value) + "\n"


class _Sdk:
    """The parts of OpenTelemetry's SDK that make a finished span; imported when needed, for the extra is optional."""

    def __init__(self) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
        from opentelemetry.trace.status import Status, StatusCode

        self._context, self._flags = SpanContext, TraceFlags(TraceFlags.SAMPLED)
        self._span: Any = ReadableSpan
        self._resource = Resource({"service.name": "codetape", "service.version": __version__})
        self._scope = InstrumentationScope("codetape", __version__)
        self._kinds = {True: SpanKind.CLIENT, False: SpanKind.INTERNAL}
        self._status, self._code = Status, StatusCode

    def context(self, trace: int, span: int) -> Any:
        return self._context(trace, span, is_remote=False, trace_flags=self._flags)

    def span(
        self, name: str, context: Any, parent: Any, attributes: dict[str, Any], start: int, end: int, *, error: str = ""
    ) -> Any:
        status = self._status(self._code.ERROR, error) if error else self._status(self._code.OK)
        more = {"error.type": error} if error else {}
        return self._span(
            name=name, context=context, parent=parent, resource=self._resource, attributes={**attributes, **more},
            kind=self._kinds[name.startswith("chat ")], instrumentation_scope=self._scope, status=status, start_time=start, end_time=end,
        )  # fmt: skip


def _sdk() -> _Sdk:
    try:
        return _Sdk()
    except ImportError as error:
        raise UsageError("OpenTelemetry is not installed.", remedy="pip install 'codetape[otel]'") from error
