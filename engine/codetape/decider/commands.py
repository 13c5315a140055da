"""What a session wants done outside: call a model, build an environment, execute a job; or an event recorded."""

from dataclasses import dataclass

from codetape.domain.job import BuildSpec, Job
from codetape.domain.model_request import ModelRequest
from codetape.eventlog.events import NewEvent


@dataclass(frozen=True)
class CallModel:
    """Ask the model."""

    request: ModelRequest


@dataclass(frozen=True)
class Build:
    """Have the environment built, or found."""

    spec: BuildSpec


@dataclass(frozen=True)
class Execute:
    """Run the job in the sandbox."""

    job: Job


@dataclass(frozen=True)
class Record:
    """Append a derived event: nothing is wanted outside."""

    draft: NewEvent


Command = CallModel | Build | Execute | Record
