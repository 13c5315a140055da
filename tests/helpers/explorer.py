"""Explores what the machine can do: sessions without a driver, continued at random from states that were reached before.

A move that is rare from the start of a session is near from a state that is next to it; so states are kept, and continued.
"""

import random

from codetape.decider.commands import Build, CallModel, Execute
from codetape.domain.canonical import canonical
from codetape.errors import InfrastructureError
from codetape.eventlog import machine
from codetape.eventlog.events import (
    Answered,
    Blobs,
    BuildFinished,
    BuildRefused,
    CallLost,
    CallRefused,
    ConfigChanged,
    NewEvent,
    Resumed,
    TestsFinished,
    Transition,
)
from codetape.ports import Built, RequestRefused
from codetape.runtime.versions import versions
from codetape.testing.given import Given
from tests.worlds import World

LAST_RUN = "the last run"
LONG = 200  # events: a session that goes through everything again shows nothing new
KEPT = 40  # states that are remembered for each name


class Explorer(Given):
    """A session whose outcomes a random world gives."""

    def copy(self):
        new = object.__new__(Explorer)
        new.__dict__ = {**self.__dict__, "events": []}  # blobs are named by what they are: one store of them serves all
        return new

    @property
    def moves(self):
        payloads = [event.payload for event in self.events]
        return {(p.source, p.target) for p in payloads if isinstance(p, Transition) and p.trigger}

    def happens(self, world):
        """Let one outcome happen; False where the session is at an end that nothing leaves."""
        command, blobs = self.command, Blobs()
        if command is None:
            return self._reopened(world)
        try:
            if isinstance(command, CallModel):
                self._close(self._reply(_run(world.ask(command.request)), blobs), blobs)
            elif isinstance(command, Build):
                self._close(self._built(world.build(command.spec), blobs), blobs)
            elif isinstance(command, Execute):
                self._close(self._report(world.execute(command.job), command.job, blobs), blobs)
        except InfrastructureError:
            self._close(CallLost(call=self._call), Blobs())
        return True

    def _reply(self, reply, blobs):
        if isinstance(reply, RequestRefused):
            message = blobs.put(reply.message)
            return CallRefused(call=self._call, what=reply.what, parameter=reply.parameter, message=message)
        text = blobs.put(reply.text) if reply.text is not None else None
        refusal = blobs.put(reply.refusal) if reply.refusal else None
        return Answered(
            call=self._call, text=text, refusal=refusal, usage=reply.usage, finish_reason=reply.finish_reason
        )

    def _built(self, built, blobs):
        if isinstance(built, Built):
            return BuildFinished(call=self._call, image=built.image, lock=blobs.put(""), cached=True)
        return BuildRefused(call=self._call, reason=built.reason, packages=built.packages, message=blobs.put("refused"))

    def _report(self, report, job, blobs):
        return TestsFinished(
            call=self._call, purpose=job.purpose, exit=report.exit, whole=report.whole, passed=len(report.passed),
            failed=len(report.failing), errors=0, skipped=0, report=blobs.put(canonical(report.model_dump(mode="json"))),
        )  # fmt: skip

    def _reopened(self, world):
        """A person raises the limit that ended it, or lets it continue."""
        state = self.state
        target = ""
        if state.state == "suspended" or state.cause == "unusable":
            target = state.resumes_to
        elif state.state == "failed" and state.cause == "iterations":
            blobs = Blobs()
            changes = blobs.put(canonical({"max_iterations": state.the_config.max_iterations + 3}))
            self._append(NewEvent(ConfigChanged(changes=changes), blobs))
            target = machine.next_state(state.ledger.owed) or ""
        if not target:
            return False
        trigger = machine.trigger(state.state, target)
        self._append(NewEvent(Resumed(trigger=trigger, source=state.state, target=target, versions=versions())))
        self._settle()
        return True


def _run(work):
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a world answers at once")


def explored(wanted, seed=0, steps=60_000):
    """Return the wanted moves that no session made, after so many outcomes at most."""
    chance, left = random.Random(seed), set(wanted)
    kept, taken = {}, 0

    def fresh():
        oracle = "from solution import add\n\n\ndef test_given():\n    assert add(0, 0) == 0\n"
        task = {"oracle": oracle if chance.random() < 0.3 else "", "tests": oracle if chance.random() < 0.2 else ""}
        skip_tests = chance.random() < 0.1
        if skip_tests and chance.random() < 0.5:  # then the script is run, once, on what is given
            task["inputs"] = ({"name": "n", "type": "int", "value": "3"},)
        settings = {
            "max_iterations": chance.randint(1, 5),
            "skip_tests": skip_tests,
            "parameters": {"temperature": 0},
        }
        return Explorer(settings=settings, task=task)

    while left and taken < steps:
        # from a failed session one move alone is possible: what matters is how its last run came to fail
        near = [name for source, _ in sorted(left) if kept.get(name := LAST_RUN if source == "failed" else source)]
        session = chance.choice(kept[chance.choice(near)]).copy() if near and chance.random() < 0.8 else fresh()
        world = World(chance.random(), chance.choice((0.1, 0.3, 0.5, 0.7)))
        for _ in range(12):
            taken += 1
            if session.state.seq > LONG or not session.happens(world):
                break
            left -= session.moves
            state = session.state
            last = state.state == "executing" and state.ledger.iteration + 1 == state.the_config.max_iterations
            states = kept.setdefault(LAST_RUN if last else state.state, [])
            place = len(states) if len(states) < KEPT else chance.randrange(KEPT)
            states[place : place + 1] = [session.copy()]
    return left, taken
