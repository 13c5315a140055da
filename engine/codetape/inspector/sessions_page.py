"""The page that lists sessions: what was asked, what came of it and what it cost; filtered, grouped, and over time."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from codetape.domain.money import brief, money
from codetape.evals.chosen_sessions import CHECK_TAG, STATES, Filter, check_of
from codetape.inspector.charts import columns
from codetape.inspector.rendering import Links, render
from codetape.ports import SessionRow
from codetape.text.escape import first_line

PAGE = 100  # sessions, or checks, of one page
_SHOWN_OF_GROUP = 10
_DAYS = 60
_GROUPS = ("", "task", "tag")

Asked = Callable[[Collection[str]], Mapping[str, str]]
"""Returns the beginning of what sessions were asked, by id."""


@dataclass(frozen=True)
class SessionQuery:
    """What of the list is shown. Texts are those of the address, all of them optional."""

    status: str = ""
    model: str = ""
    task: str = ""
    tag: str = ""
    since: str = ""
    group: str = ""
    page: int = 1

    @classmethod
    def of(cls, values: Mapping[str, str]) -> "SessionQuery":
        """Read an address; what makes no sense there is left out."""
        texts = {name: values.get(name, "")[:200] for name in ("status", "model", "task", "tag", "since", "group")}
        if texts["status"] not in STATES:
            texts["status"] = ""
        if texts["group"] not in _GROUPS:
            texts["group"] = ""
        page = values.get("page", "")
        return cls(**texts, page=int(page) if page.isdecimal() and 0 < len(page) < 7 and int(page) else 1)

    def rows(self, rows: Iterable[SessionRow]) -> list[SessionRow]:
        """Return the rows that are meant. Raises UsageError for a time that is none."""
        chosen = Filter(
            status=(self.status,) if self.status else (),
            model=_globs(self.model),
            task=_globs(self.task),
            tags=_globs(self.tag),
            since=self.since,
            forks=True,
        ).checked(datetime.now(UTC))
        return [row for row in rows if chosen.takes(row)]

    def but(self, **changes: str) -> dict[str, str]:
        """Return the address's values with some changed, on the first page."""
        kept = {name: getattr(self, name) for name in ("status", "model", "task", "tag", "since", "group")}
        return {**kept, **changes}


def _globs(text: str) -> tuple[str, ...]:
    if not text:
        return ()
    return (text,) if any(sign in text for sign in "*?[") else (f"*{text}*",)


def sessions_page(
    all_rows: Sequence[SessionRow],
    asked: Asked,
    links: Links,
    query: SessionQuery,
    *,
    problems: Sequence[str] = (),
    place: str,
) -> str:
    """Return the page. Attempts of a check are one line each check, until they are asked for by its tag."""
    rows = query.rows(all_rows)
    entries = _entries(rows, folded=not query.tag.startswith(CHECK_TAG))
    pages = max(1, -(-len(entries) // PAGE))
    number = min(query.page, pages)
    groups: list[dict[str, Any]] = []
    shown = entries[(number - 1) * PAGE : number * PAGE]
    if query.group:
        groups, pages, number = _grouped(rows, query, links)
        shown = []
    visible = [
        entry for entry in (*shown, *(e for group in groups for e in group["entries"])) if isinstance(entry, dict)
    ]
    prompts = asked([row["session"] for row in visible])
    return render(
        "sessions.html",
        links,
        title="Sessions",
        head=f"{len(all_rows)} {all_rows[0]['head'] if all_rows else ''} {max((r['updated_at'] for r in all_rows), default='')}",
        place=place,
        problems=list(problems),
        query=query,
        total=len(rows),
        everything=len(all_rows),
        lines=[_line(entry, prompts, links) for entry in shown],
        groups=[{**group, "entries": [_line(entry, prompts, links) for entry in group["entries"]]} for group in groups],
        states=[("", "all"), *((state, state) for state in STATES)],
        chips={state: links.page("sessions", **query.but(status=state)) for state in ("", *STATES)},
        filters=[
            (f"{name} {getattr(query, name)}", links.page("sessions", **query.but(**{name: ""})))
            for name in ("task", "tag", "model", "since")
            if getattr(query, name)
        ],
        tasks=_names(row["task"] for row in all_rows),
        models=_names(row["model"] for row in all_rows),
        tags=_names(tag for row in all_rows for tag in row["tags"].split(",") if tag and not tag.startswith(CHECK_TAG)),
        charts=_charts(rows),
        earlier=links.page("sessions", **query.but(), page=str(number + 1)) if number < pages else "",
        later=links.page("sessions", **query.but(), page=str(number - 1)) if number > 1 else "",
        number=number,
        pages=pages,
    )


def _names(values: Iterable[str]) -> list[str]:
    return sorted(dict.fromkeys(filter(None, values)))[:200]


Entry = SessionRow | list[SessionRow]
"""A session, or the attempts of a check."""


def _entries(rows: Sequence[SessionRow], *, folded: bool) -> list[Entry]:
    """Return the lines of the list: sessions, and each check's attempts as one, where its newest stands."""
    entries: list[Entry] = []
    checks: dict[str, list[SessionRow]] = {}
    for row in rows:
        check = check_of(row) if folded else ""
        if not check:
            entries.append(row)
        elif check in checks:
            checks[check].append(row)
        else:
            checks[check] = [row]
            entries.append(checks[check])
    return entries


def _line(entry: Entry, prompts: Mapping[str, str], links: Links) -> dict[str, Any]:
    if isinstance(entry, list):
        solved = sum(row["state"] == "succeeded" for row in entry)
        check = check_of(entry[0])
        return {
            "check": check,
            "link": links.check(check),
            "words": f"{len(entry)} attempts, {solved} solved",
            "tokens": sum(map(_tokens, entry)),
            "cost": _cost(entry),
            "at": entry[0]["started_at"],
        }
    return {
        "check": "",
        "link": links.session(entry["session"]),
        "session": entry["session"],
        "asked": first_line(prompts.get(entry["session"], ""), 140) or entry["task"] or entry["session"],
        "task": entry["task"],
        "state": entry["state"],
        "tone": {"succeeded": "good", "failed": "bad", "suspended": "waiting"}.get(entry["state"], "active"),
        "confidence": entry["confidence"],
        "reason": entry["reason"],
        "runs": entry["iteration"],
        "tokens": _tokens(entry),
        "cost": _cost([entry]),
        "tags": [tag for tag in entry["tags"].split(",") if tag],
        "model": entry["model"],
        "server": entry["server"],
        "parent": entry["parent"],
        "at": entry["started_at"],
    }


def _tokens(row: SessionRow) -> int:
    return row["input_tokens"] + row["output_tokens"]


def _cost(rows: Sequence[SessionRow]) -> str:
    return brief(sum(row["cost"] for row in rows), sum(row["unpriced"] for row in rows))


def _grouped(rows: Sequence[SessionRow], query: SessionQuery, links: Links) -> tuple[list[dict[str, Any]], int, int]:
    """Return the groups of a page, how many pages there are, and which this is."""
    by: dict[str, list[SessionRow]] = defaultdict(list)
    for row in rows:
        if query.group == "task":
            by[row["task"]].append(row)
        else:
            for tag in [tag for tag in row["tags"].split(",") if tag] or [""]:
                by[tag].append(row)
    size = 25
    pages = max(1, -(-len(by) // size))
    number = min(query.page, pages)
    groups = []
    for name, own in list(by.items())[(number - 1) * size : number * size]:
        ended = [row for row in own if row["state"] in ("succeeded", "failed")]
        solved = sum(row["state"] == "succeeded" for row in ended)
        groups.append(
            {
                "name": name or "none",
                "words": f"{solved} of {len(ended)} solved" if ended else "none has ended",
                "tokens": sum(map(_tokens, own)),
                "cost": _cost(own),
                "entries": own[:_SHOWN_OF_GROUP],
                "more": max(0, len(own) - _SHOWN_OF_GROUP),
                "link": links.page("sessions", **query.but(**{query.group: name, "group": ""})),
            }
        )
    return groups, pages, number


def _charts(rows: Sequence[SessionRow]) -> list[dict[str, Any]]:
    """Return the solve rate and the spend by days, of the last days on which sessions began."""
    days: dict[str, list[SessionRow]] = defaultdict(list)
    for row in rows:
        days[row["started_at"][:10]].append(row)
    last = sorted(days)[-_DAYS:]
    rates, spends, sizes = [], [], []
    for day in last:
        ended = [row for row in days[day] if row["state"] in ("succeeded", "failed")]
        solved = sum(row["state"] == "succeeded" for row in ended)
        rates.append((day, solved / len(ended) if ended else 0.0, f"{solved} of {len(ended)} solved"))
        cost, unpriced = sum(row["cost"] for row in days[day]), sum(row["unpriced"] for row in days[day])
        spends.append((day, float(cost), money(cost, unpriced)))
        tokens = sum(map(_tokens, days[day]))
        sizes.append((day, float(tokens), f"{tokens:,} tokens"))
    if len(last) < 3:  # two days are no course of things
        return []
    span = f"{last[0]} to {last[-1]}"
    paid = any(value for _, value, _ in spends)
    return [
        {"words": f"solve rate by day, {span}", "chart": columns(rates, tone="good", label="solve rate by day")},
        {"words": f"spend by day, {span}", "chart": columns(spends, label="spend by day")}
        if paid
        else {"words": f"tokens by day, {span}", "chart": columns(sizes, label="tokens by day")},
    ]
