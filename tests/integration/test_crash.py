"""A process that is killed at any moment loses nothing that was acknowledged, and nothing is paid for twice."""

import asyncio
import random

import pytest

from tests import crash


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The run that nobody kills: its result, the points it passes, and its asks."""
    folder = tmp_path_factory.mktemp("base")
    result, points = crash.drive(folder / "tape.db", folder / "trace")
    assert result.succeeded
    assert result.iterations == 2
    return result, points, crash.lines(folder / "trace", "ask")


def test_a_kill_at_every_point_is_survived(base, tmp_path):
    names = set()
    for point in range(base[1]):
        path, trace = tmp_path / f"{point}.db", tmp_path / f"{point}.trace"
        assert crash.killed(path, trace, point) == -9
        names.add(" ".join(crash.lines(trace, "killed")[0]))
        result, _ = crash.drive(path, trace)
        crash.check(path, trace, result, base)
    assert names == {
        "before a commit", "inside a commit", "after a commit", "in an ask", "after an answer", "in a build",
        "in an execution", "after an execution",
    }  # fmt: skip


def test_kills_at_random_times_are_survived(base, tmp_path):
    rng = random.Random(20)
    for number in range(20):
        path, trace = tmp_path / f"{number}.db", tmp_path / f"{number}.trace"
        for _ in range(3):  # and again while it continues
            code = crash.killed(path, trace, wait=0.02, after=rng.uniform(0.02, 0.5))
            assert code in (-9, 0)
            if code == 0:
                break
        if not path.exists():
            continue
        result, _ = crash.drive(path, trace)
        crash.check(path, trace, result, base)


def test_the_second_of_two_that_resume_is_told_who_drives_the_session(base, tmp_path):
    from codetape.errors import LeaseHeld
    from codetape_adapters.stores.sqlite.store import SqliteStore

    path, trace = tmp_path / "tape.db", tmp_path / "trace"
    assert crash.killed(path, trace, 12) == -9
    store = SqliteStore(path)
    lease = asyncio.run(store.acquire(crash.SESSION))  # its holder is gone: taken over at once
    with pytest.raises(LeaseHeld, match="driven by process"):
        crash.drive(path, trace)
    lease.release()
    store.close()
    result, _ = crash.drive(path, trace)
    crash.check(path, trace, result, base)


def test_a_disk_that_fills_up_stops_the_session_and_it_goes_on_when_there_is_room(base, tmp_path):
    from codetape import AutoCoderAgent
    from codetape.errors import StoreError

    stops = []
    for room in range(0, 24, 3):
        path, trace = tmp_path / f"{room}.db", tmp_path / f"{room}.trace"
        points = crash.Points(trace)
        store = crash.Store(path, points)
        pages = store._db().execute("PRAGMA page_count").fetchone()[0]
        store._submit(
            lambda store=store, most=pages + room: store._db().execute(f"PRAGMA max_page_count = {most}")
        ).result()
        agent = AutoCoderAgent(model=crash.Model(points), sandbox=crash.Sandbox(points), store=store)
        try:
            asyncio.run(agent.agenerate("Add two numbers.", session=crash.SESSION))
        except StoreError as error:
            stops.append(str(error))
        store.close()
        result, _ = crash.drive(path, trace)
        crash.check(path, trace, result, base)
    assert len(stops) > 3
    assert all("Free some space" in said for said in stops)
