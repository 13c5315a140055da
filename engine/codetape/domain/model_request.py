"""A request to a model, as a value. Its fingerprint covers everything that the model sees, and nothing else."""

from typing import Any

from codetape.domain.canonical import FrozenModel, canonical, sha256
from codetape.domain.purposes import Purpose

LENGTH_PARAMETER = "max_completion_tokens"


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
        return sha256(canonical(self.model_dump(mode="json", exclude={"purpose"})))

    @property
    def input_estimate(self) -> int:
        """Input tokens by rule of thumb: four characters a token."""
        return sum(len(m.content) for m in self.messages) // 4 + 4 * len(self.messages)

    @property
    def reserved_input(self) -> int:
        """Input tokens that a budget reserves: three bytes of UTF-8 a token, schema included, to overestimate."""
        schema = len(canonical(self.reply_schema).encode()) if self.reply_schema else 0
        return (sum(len(m.content.encode()) for m in self.messages) + schema) // 3 + 4 * len(self.messages)
