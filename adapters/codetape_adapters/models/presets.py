"""Local servers that are models by name."""

from typing import Any

from codetape_adapters.models.openai_compatible import OpenAIModel

LOCAL = {
    "ollama": "http://127.0.0.1:11434/v1",
    "lmstudio": "http://127.0.0.1:1234/v1",
    "llamacpp": "http://127.0.0.1:8080/v1",
    "vllm": "http://127.0.0.1:8000/v1",
}
"""Servers that are models by name, and where each usually listens."""

START_WITH = {
    "ollama": "ollama serve",
    "lmstudio": "lms server start",
    "llamacpp": "llama-server -m MODEL.gguf --port 8080",
    "vllm": "vllm serve MODEL",
}
"""How each is usually started."""


def _local(kind: str, name: str, options: dict[str, Any]) -> OpenAIModel:
    where = {"base_url": options.get("base_url") or LOCAL[kind], "start_with": START_WITH[kind]}
    return OpenAIModel(name, kind=kind, local=True, **{**options, **where})


def ollama(name: str, **options: Any) -> OpenAIModel:
    """Make a model of a local Ollama."""
    return _local("ollama", name, options)


def lmstudio(name: str, **options: Any) -> OpenAIModel:
    """Make a model of a local LM Studio."""
    return _local("lmstudio", name, options)


def llamacpp(name: str, **options: Any) -> OpenAIModel:
    """Make a model of a local llama.cpp server."""
    return _local("llamacpp", name, options)


def vllm(name: str, **options: Any) -> OpenAIModel:
    """Make a model of a local vLLM server."""
    return _local("vllm", name, options)
