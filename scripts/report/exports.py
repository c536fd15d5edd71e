"""The report for programs: tables as CSV and JSON, a summary in Markdown, an Atom feed, a badge."""

import html
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import anybadge
import pandas as pd
from asv import feed

from benchmarks.harness.files import write_whole
from scripts import alerts, command, text

FEED, BADGE, SUMMARY = "alerts.xml", "badge", "summary.md"


def write_table(folder: Path, name: str, frame: pd.DataFrame) -> None:
    """`name`.csv and `name`.json: an object a row. An infinity is inf in the one, "Infinity" in the other.

    Every text is on one line and bounded, a column's name as well.
    """
    columns = headings(list(map(str, frame.columns)))
    plain = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    rows = [[command.one_line(cell) if isinstance(cell, str) else cell for cell in row] for row in plain]
    write_whole(folder / f"{name}.csv", text.csv(columns, rows))
    told = [dict(zip(columns, row, strict=True)) for row in rows]
    write_whole(folder / f"{name}.json", json.dumps(command.finite(told), allow_nan=False))


def headings(names: Sequence[str]) -> list[str]:
    """The names of columns, each on one line; one that only looks like another has a star."""
    return [name if (name := command.one_line(one)) == one or name not in names else f"{name}*" for one in names]


def write_feed(path: Path, news: Sequence[Mapping[str, Any]], project: str) -> None:
    """The confirmed alerts, each with a link to its history."""
    entries = [
        feed.FeedEntry(
            command.one_line(f"{one['machine']}: {one['told'][0]}"),
            datetime.fromisoformat(one["measured"]),
            f"history.html#{history_link(one)}",
            "<br>".join(html.escape(line) for line in [*one["told"], f"commits {one['good']}..{one['bad']}"]),
            [one["alert"]],
        )
        for one in news
        if one["state"] == alerts.CONFIRMED
    ]
    feed.write_atom(str(path), entries, project, f"{project}: confirmed changes", project, link="index.html")


def history_link(one: Mapping[str, Any]) -> str:
    """The part of a history's address that chooses the clearest member of an alert."""
    from urllib.parse import urlencode

    member = one["members"][0]
    variant, _, workload = member["case"].partition("/")
    chosen = {"machine": one["machine"], "metric": member["metric"], "workload": workload or member["case"]}
    return urlencode(chosen | ({"variant": variant} if workload else {}))


def write_badge(folder: Path, news: Sequence[Mapping[str, Any]], comparable: bool) -> None:
    """How many confirmed changes for the worse are open: an image, and the same for shields.io.

    Where no series has two points, so that nothing could have been found, it says that.
    """
    worse = sum(one["state"] == alerts.CONFIRMED and one["worse"] for one in news)
    told, shade = ("nothing slower", "#2e7d32") if comparable else ("no history yet", "#757575")
    if worse:
        told, shade = f"{worse} slower or larger", "#b22222"
    image = anybadge.Badge("AdamW", told, default_color=shade).badge_svg_text
    write_whole(folder / f"{BADGE}.svg", image)
    shield = {"schemaVersion": 1, "label": "AdamW", "message": told, "color": shade}
    write_whole(folder / f"{BADGE}.json", json.dumps(shield) + "\n")
