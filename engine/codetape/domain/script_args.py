"""A script's command line: how its inputs reach it, without a shell."""

from collections import Counter
from collections.abc import Iterable

from codetape.domain.task import Input

INPUTS, OUTPUTS = "/var/inputs", "/var/outputs"
MAX_NAME = 200  # bytes of a file's name


def flags(inputs: Iterable[Input]) -> tuple[str, ...]:
    """Return the arguments, one word each: a scalar's value, or where its sample lies inside the sandbox."""
    declared = tuple(inputs)
    places = file_names(declared)
    arguments = ((i.name, i.value if i.sample is None else f"{INPUTS}/{places[i.name]}") for i in declared)
    return tuple(f"--{name}={value}" for name, value in arguments if value is not None)


def file_names(inputs: Iterable[Input]) -> dict[str, str]:
    """Return the name that each input with a sample has below /var/inputs: its file's own, or its ending at least.

    Libraries go by endings. Where two samples have the same name, or one has the name of another input, the input's
    name takes its place.
    """
    sampled = [i for i in inputs if i.sample]
    files = {i.name: _short(i.sample.file) or i.name for i in sampled if i.sample}
    often = Counter(files.values())
    plain = {name: name + _ending(file) for name, file in files.items()}
    taken = {name: {other for one, other in plain.items() if one != name} | (files.keys() - {name}) for name in files}
    return {name: file if often[file] == 1 and file not in taken[name] else plain[name] for name, file in files.items()}


def _short(file: str) -> str:
    """Return a file's name, if a file system takes it."""
    return file if len(file.encode("utf-8", "surrogatepass")) <= MAX_NAME else ""


def _ending(file: str) -> str:
    """Return a file's endings, two at most: .csv.gz of data.csv.gz."""
    return "".join(f".{part}" for part in file.split(".")[1:][-2:])
