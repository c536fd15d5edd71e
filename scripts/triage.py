"""What became of every alert; and say of one why it needs no more attention.

An alert that is acknowledged stays quiet: a slowdown that was accepted for what it buys, one that a later commit mends,
noise. It is one line more in results/MACHINE/alerts.jsonl; `scripts.share push` takes it to everybody.
"""

import argparse
import sys
from pathlib import Path

from rich.table import Table
from rich.text import Text

from scripts import alerts, command, machines, search
from scripts.alerts import Known

EPILOG = """examples:
  python -m scripts.triage                                            every alert there ever was
  python -m scripts.triage 1f6a09c2 --reason "fixed by 4c1d2e3"

exit codes: 0 done, 2 error, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("alert", metavar="NAME", nargs="?", help="the one to acknowledge; default: list all")
    parser.add_argument("--reason", metavar="TEXT", help="why it needs no more attention")
    parser.add_argument("--machine", metavar="M", help="asv's name of a machine; default: all")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = command.console()
    if options.reason and not options.alert:
        raise command.UserError("--reason of which alert? python -m scripts.triage NAME --reason TEXT")
    known, problems = remembered(options.results, options.machine)
    if options.alert:
        one = named(options.alert, known)
        if one.state == alerts.CLOSED:
            raise command.UserError(f"alert {one.name} is closed: {one.reason}; there is nothing to acknowledge")
        reason = command.one_line(options.reason or "")
        if not reason:
            raise command.UserError('say why: --reason "accepted for less memory"')
        alerts.add(options.results, one.machine, [{"alert": one.name, "event": alerts.ACKNOWLEDGED, "reason": reason}])
        console.print(f"{one.name} is acknowledged: {reason}", markup=False, highlight=False)
        return 0
    if known:
        console.print(table(known))
    for line in [*([] if known else ["no alerts"]), *problems]:
        console.print(line, markup=False, highlight=False)
    return 0


def remembered(results: Path, machine: str | None) -> tuple[list[Known], list[str]]:
    """The alerts of a machine, or of all, and what is wrong with their files. Raises UserError for an unknown one."""
    folders, left_out = machines.folders(results)
    names = [folder.name for folder in folders]
    if not names:
        raise command.UserError(
            f"no results below {results}" + (f": {left_out[0]}" if left_out else "; name another --results")
        )
    if machine and machine not in names:
        raise command.UserError(f"no machine {machine!r} below {results}; there are: {', '.join(names)}")
    read = [alerts.read(results, name) for name in names if machine in (None, name)]
    problems = [line for _, lines in read for line in lines]
    return [one for known, _ in read for one in known], [*problems, *(left_out if machine is None else [])]


def named(name: str, known: list[Known]) -> Known:
    """The alert called `name`. Raises UserError."""
    found = [one for one in known if one.name == name]
    if not found:
        raise command.UserError(
            f"no alert {name[:20]!r}; python -m scripts.triage lists them, scripts.detect --record adds new ones"
        )
    return found[0]


def table(known: list[Known]) -> Table:
    """A row an alert: its name, what became of it, where, and why."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("alert", "state", "machine", "commits", "series"):
        shown.add_column(heading, no_wrap=True)
    shown.add_column("why", overflow="fold")
    for one in known:
        where = f"{one.good[:8]}..{one.bad[:8]}"
        drift = [] if one.rate is None else [f"a drift, {search.speed(one.rate)}"]
        why = "; ".join([*drift, *filter(None, [one.reason])])
        cells = (one.name, one.state, one.machine, where, str(len(one.levels)), why)
        shown.add_row(*map(Text, cells))
    return shown


if __name__ == "__main__":
    sys.exit(command.run(main))
