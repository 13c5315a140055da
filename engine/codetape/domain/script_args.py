"""A script's command line: how its inputs reach it, without a shell."""

from collections import Counter
from collections.abc import Iterable

from codetape.domain.task import Input

INPUTS, OUTPUTS = "/var/inputs", "/var/outputs"


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
    files = {i.name: i.sample.file or i.name for i in sampled if i.sample}
    often = Counter(files.values())
    return {
        name: file if often[file] == 1 and (file == name or file not in files) else name + _ending(file)
        for name, file in files.items()
    }


def _ending(file: str) -> str:
    """Return a file's endings, two at most: .csv.gz of data.csv.gz."""
    return "".join(f".{part}" for part in file.split(".")[1:][-2:])
