"""Verify sessions, import tapes, erase content."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from codetape.api.opening import StoreLike, corpus, opened, samples_folder
from codetape.errors import UsageError
from codetape.evals.chosen_sessions import Filter
from codetape.playback import tape_file, tape_samples
from codetape.ports import DEFAULT_STORE
from codetape.runtime.sync import run_sync


@dataclass(frozen=True)
class Verification:
    """The outcome of `verify`: one record per session, and problems of the store as a whole.

    ``known`` is how many head hashes there were to compare with, ``kept`` how many there are now.
    """

    verified: list[dict[str, Any]]
    problems: list[str] = field(default_factory=list)
    known: int = 0
    kept: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong, and all was derived as it stands."""
        return self.unbroken and not self.drifted

    @property
    def unbroken(self) -> bool:
        """Whether nothing is wrong; drift does not count."""
        return not self.problems and not any(record["findings"] for record in self.verified)

    @property
    def corrupt(self) -> bool:
        """Whether something was edited, is missing, or is listed wrongly."""
        from codetape.playback.verify import CORRUPT

        wrong = {finding["what"] for record in self.verified for finding in record["findings"]}
        return bool(self.problems or wrong & {*CORRUPT, "list", "name"})

    @property
    def drifted(self) -> bool:
        """Whether other versions derived decisions, and these derive them differently."""
        return any(record.get("drift") for record in self.verified)


def verify(
    *sources: str,
    store: StoreLike = DEFAULT_STORE,
    where: Filter | None = None,
    everything: bool = False,
    head: str = "",
    head_hashes: str = "",
    jobs: int = 0,
    rebuild: bool = False,
) -> Verification:
    """Check hashes, chains, blobs and moves of the machine, and derive decisions again, for sessions or a whole store.

    ``head`` is a single session's last hash as kept elsewhere, or its first 12 digits or more. ``head_hashes`` is a
    file of them, one line per session, which is updated if everything is sound. ``jobs`` are the processes that a whole
    store is examined in, one for each CPU by default. ``rebuild`` first makes what the store keeps beside the events
    again from them. Raises UsageError if nothing is named.
    """
    from codetape.playback import head_file, verify_many  # these derive decisions again

    if rebuild:
        opened(store)  # of one that there is; what is written to would be made
        written = opened(store, reading=False)
        written.rebuild()
        if written is not store:
            written.close()
    names = [] if everything else run_sync(_names(sources, store, where))
    if head and len(names) != 1:
        raise UsageError("A head hash goes with one session.")
    heads: dict[str, tuple[int, str]] = dict(head_file.read(head_hashes)) if head_hashes else {}
    known_heads, problems = len(heads), list[str]()  # counted now: what is examined below adds its heads
    listing = verify_many.Listing(lambda: opened(store))
    if everything:
        problems = listing.store.unsound()
        examined = verify_many.everything_in(listing.store, listing.store.stored_sessions(), jobs)
        records = [verify_many.judged(name, session, listing.listed(name), heads) for name, session in examined]
        problems += head_file.absent(heads, {record["session"] for record in records}) if head_hashes else []
    else:
        records = [verify_many.named(name, listing, head, heads, alone=len(names) == 1) for name in names]
    verification = Verification(records, problems, known_heads, len(heads))
    if head_hashes and verification.unbroken:
        head_file.write(head_hashes, heads)
    return verification


async def _names(sources: Sequence[str], store: StoreLike, where: Filter | None) -> list[str]:
    return await corpus(sources, store, where).chosen_names()


def import_tapes(*files: str, store: StoreLike = DEFAULT_STORE) -> list[dict[str, Any]]:
    """Add tape files to a store, all of them or none; return one record per file. Raises CorruptTape, StoreError."""
    tapes = [(name, tape_file.load(name)) for name in files]
    opened_store = opened(store, reading=False)
    for _, tape in tapes:  # before the sessions: what cannot be written refuses all of them
        if tape.samples and (folder := samples_folder(opened_store, tape.session)) is not None:
            tape_samples.put(folder, tape.samples)
    counts = opened_store.put(*(tape.stream for _, tape in tapes))
    return [
        {
            "file": name,
            "session": tape.session,
            "events": len(tape.stream.events),
            "added": added,
            "samples": sorted(tape.samples),
        }
        for (name, tape), added in zip(tapes, counts, strict=True)
    ]


async def aforget(session: str, *, store: StoreLike = DEFAULT_STORE) -> int:
    """Erase a session's content for good; return how many blobs were erased. Raises SessionNotFound, LeaseHeld,
    StoreError."""
    opened_store = opened(store)
    name = opened_store.find(session)
    folder = samples_folder(opened_store, name)
    opened_store.close()
    erased = await opened(store, reading=False).forget(name)
    if folder is not None and folder.is_dir():
        shutil.rmtree(folder)
    return erased


def forget(session: str, *, store: StoreLike = DEFAULT_STORE) -> int:
    """Erase a session's content for good; see `aforget`."""
    return run_sync(aforget(session, store=store))
