"""A request to a model, as a value. Its fingerprint covers everything that the model sees, and nothing else."""

from collections.abc import Mapping
from typing import Any

from codetape.domain.canonical import canonical, canonical_without_floats, sha256
from codetape.domain.frozen_model import FrozenModel
from codetape.domain.purposes import Purpose

LENGTH_PARAMETER = "max_completion_tokens"
_LENGTH = "max_output_tokens (--max-output-tokens) is its setting"
_SCHEMA = "codetape asks for the form that it needs"
OWN_PARAMETERS = {
    "max_tokens": _LENGTH,
    LENGTH_PARAMETER: _LENGTH,
    "max_output_tokens": _LENGTH,
    "max_new_tokens": _LENGTH,
    "num_predict": _LENGTH,
    "n_predict": _LENGTH,
    "model": "the model has an option of its own, --model",
    "messages": "the prompt pack holds what is said",
    "input": "the prompt pack holds what is said",
    "prompt": "the prompt pack holds what is said",
    "system": "the prompt pack holds what is said",
    "instructions": "the prompt pack holds what is said",
    "response_format": _SCHEMA,
    "text": _SCHEMA,
    "tools": _SCHEMA,
    "tool_choice": _SCHEMA,
    "functions": _SCHEMA,
    "n": "one answer is asked for, and recorded",
    "best_of": "one answer is asked for, and recorded",
    "stream": "how a reply is sent is the adapter's choice",
    "stream_options": "how a reply is sent is the adapter's choice",
    "api_key": "--api-key-env names the variable of a key",
    "base_url": "the server has an option of its own, --base-url",
    "extra_body": "give its fields themselves",
    "extra_headers": "no headers can be added",
    "extra_query": "no query can be added",
    "timeout": "--read-timeout and --call-timeout say it",
}
"""Parameters of a request that a caller cannot set, each with what says it instead."""


def refused_parameter(parameters: Mapping[str, Any]) -> str:
    """Return why one of the parameters cannot be set, as a sentence; empty where all can."""
    name = next((name for name in parameters if name.lower() in OWN_PARAMETERS), "")
    return f"The parameter {name} cannot be set: {OWN_PARAMETERS[name.lower()]}." if name else ""


class Message(FrozenModel):
    """One message of a request."""

    role: str
    content: str


class ModelRequest(FrozenModel):
    """One request to a model.

    ``reply_schema`` is a JSON schema, or None where the reply is a code block or the server refuses schemas; then
    ``json_mode`` requests any JSON object, and the prompt holds the schema. ``older_limit`` says that the server
    knows the limit on output as ``max_tokens`` only.
    """

    model: str
    purpose: Purpose
    messages: tuple[Message, ...]
    reply_schema: dict[str, Any] | None = None
    json_mode: bool = False
    max_output_tokens: int
    older_limit: bool = False
    parameters: dict[str, Any] = {}

    @property
    def detail(self) -> dict[str, Any]:
        """The request without its messages."""
        return self.model_dump(mode="json", exclude={"messages"})

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the model sees."""
        parts = {
            name: canonical(value)
            for name, value in self.model_dump(mode="json", exclude={"purpose", "messages"}).items()
        }
        parts["messages"] = canonical_without_floats([{"content": m.content, "role": m.role} for m in self.messages])
        return sha256(f"{{{','.join(f'{canonical(name)}:{parts[name]}' for name in sorted(parts))}}}")

    @property
    def input_estimate(self) -> int:
        """Input tokens by rule of thumb: four characters a token."""
        return sum(len(m.content) for m in self.messages) // 4 + 4 * len(self.messages)

    @property
    def reserved_input(self) -> int:
        """Input tokens that a budget reserves: three bytes of UTF-8 a token, schema included, to overestimate."""
        schema = len(canonical(self.reply_schema).encode()) if self.reply_schema else 0
        return (sum(len(m.content.encode()) for m in self.messages) + schema) // 3 + 4 * len(self.messages)
