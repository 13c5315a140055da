"""A script's command line: how its inputs reach it, without a shell."""

from collections.abc import Iterable

from codetape.domain.task import Input

INPUTS, OUTPUTS = "/var/inputs", "/var/outputs"


def flags(inputs: Iterable[Input]) -> tuple[str, ...]:
    """Return the arguments, one word each: a scalar's value, or where its sample lies inside the sandbox."""
    arguments = ((i.name, i.value if i.sample is None else f"{INPUTS}/{i.name}") for i in inputs)
    return tuple(f"--{name}={value}" for name, value in arguments if value is not None)
