"""Keep one GitHub issue about the slowdowns that are confirmed and still open, on any machine.

It is opened with the first, rewritten as they come and go, and closed with the last; a comment is added only when one
joins. Who closes it by hand is left alone until there is a new one. GitHub is asked through `gh`, which takes its token
from GH_TOKEN.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scripts import alerts, command, suite
from scripts.alerts import Known
from scripts.machines import FILE as MACHINE
from scripts.report import news
from scripts.text import code

LABEL = "adamw-slower"
MLX, MLX_REPOSITORY = "mlx", "ml-explore/mlx"
"""The folder of its own lane's results, and where its commits are."""

BOT = "github-actions[bot]"
"""Who writes with the token of a workflow."""

MARKER = re.compile(rf"<!-- {LABEL}:((?: {alerts.NAME.pattern})*) -->")
"""The first line of an issue of ours: the alerts it tells of; none once it was closed from here."""

REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}")
LINK = re.compile(r"https://[\w.-]+(?::\d+)?(?:/[\w./?=&%#+~:,;-]{0,1000})?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{8,64}(?= |$)")
TOKEN = re.compile(r"gh[a-z]_\w+|github_pat_\w+")
TOKENS = ("GH_TOKEN", "GITHUB_TOKEN", "GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN")
DEBUGGING = ("GH_DEBUG", "DEBUG")
"""What makes gh log its requests."""

UNATTENDED = {"GH_PROMPT_DISABLED": "1", "GH_NO_UPDATE_NOTIFIER": "1", "NO_COLOR": "1"}
NOT_LOGGED_IN = 4
"""gh's exit code."""

SECONDS = 60.0
"""That a call of gh may take."""

LARGEST = 65_000
"""Characters of an issue; GitHub takes 65536."""

MOST, MOST_NAMES, MOST_FILES = 40, 3000, 5
"""Alerts that are told, alerts that are followed, unread files that are named."""

HEADINGS = [
    "alert",
    "machine",
    "case",
    "metric",
    "before",
    "after",
    "change",
    "commits",
    "measured again",
    "commit found",
]

ADVICE = """\
- Accept one: `python -m scripts.share pull`, then `python -m scripts.triage NAME --reason TEXT`, then
  `python -m scripts.share push`.
- Find its commit, on that machine: `python -m scripts.bisect GOOD BAD --case REGEX --metric METRIC`.
- This text is rewritten every night, and the issue is closed when nothing is left. Closed by hand, it stays closed
  until there is a new alert."""

EPILOG = """examples:
  python -m scripts.issue --dry-run                         what the issue would say; GitHub is not asked
  python -m scripts.issue --repository owner/name --link https://owner.github.io/name/

exit codes: 0 done or nothing to do, 2 error, 130 interrupted
"""


class Seen(NamedTuple):
    """What the files say.

    slower  the confirmed alerts for the worse that are open, the largest change first
    names   of every alert there ever was
    unread  files of alerts that cannot be read, or not whole, and why
    units   of the metrics
    of_mlx  the alerts of MLX's own lane: their commits are MLX's
    """

    slower: list[Known]
    names: frozenset[str]
    unread: list[str]
    units: dict[str, str]
    of_mlx: frozenset[str] = frozenset()


class Issue(NamedTuple):
    """An issue of ours, and the alerts that it tells of."""

    number: int
    is_open: bool
    body: str
    names: frozenset[str]


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument("--dry-run", action="store_true", help="print the issue, and ask GitHub nothing")
    parser.add_argument("--repository", metavar="OWNER/NAME", help="default: GITHUB_REPOSITORY of the environment")
    parser.add_argument("--link", metavar="URL", help="of the report or the run; https")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    repository = options.repository or os.environ.get("GITHUB_REPOSITORY", "")
    if not REPOSITORY.fullmatch(repository) and (repository or not options.dry_run):
        raise command.UserError(f"{repository[:60]!r} is no repository; name one with --repository OWNER/NAME")
    if options.link and not LINK.fullmatch(options.link):
        raise command.UserError(f"--link {options.link[:60]!r} is no plain https address")
    seen = look(options.results)
    if options.dry_run:
        print(rehearsed(seen, repository, options.link))
    else:
        print(kept(seen, repository, options.link))
    return 0


def look(results: Path) -> Seen:
    """What the alert files below `results` say. Raises UserError if there are none, or none can be read."""
    machines = [path.parent for lane in (results, results / MLX) for path in sorted(lane.glob(f"*/{MACHINE}"))]
    if not machines:
        raise command.UserError(f"no results below {results}; name another --results")
    known: list[Known] = []
    of_mlx: set[str] = set()
    unread = []
    for folder in machines:
        found, problems = alerts.read(folder.parent, folder.name)
        known += found
        if folder.parent != results:
            of_mlx |= {one.name for one in found}
        if problems:
            unread.append(problems[0] + f" (and {len(problems) - 1} more lines)" * (len(problems) > 1))
    if unread and not known:
        raise command.UserError(f"no alert can be read, the issue stays as it is: {command.one_line(unread[0])}")
    slower = [one for one in known if one.state == alerts.CONFIRMED and one.worse]
    slower.sort(key=lambda one: (-(change(one) or 0.0), one.name))
    benchmarks, _ = suite.described(Path("benchmarks"), results)  # without it figures have no units
    units = {name: str(one.get("unit", "")) for name, one in benchmarks.items()}
    return Seen(slower, frozenset(one.name for one in known), unread, units, frozenset(of_mlx))


def rehearsed(seen: Seen, repository: str, link: str | None) -> str:
    """The issue, and what would become of it."""
    if not seen.slower:
        return "nothing is slower: would close the issue if one is open"
    text = body(seen, followed(seen), repository, link)
    return f"{title(seen.slower)}\n\n{text}\n\nwould open this issue, or rewrite the one that is open"


def kept(seen: Seen, repository: str, link: str | None) -> str:
    """Do what there is to do; says in a line what was done. Raises UserError."""
    issues = ours(repository)
    current = [one for one in issues if one.is_open]
    for extra in current[1:]:
        close(extra, repository, f"Issue #{current[0].number} tells this too.")
    if not seen.slower:
        return ended(current[0], seen, repository) if current else "nothing is slower, and no issue is open"
    if current:
        return rewritten(current[0], seen, repository, link)
    return opened(issues, seen, repository, link)


def opened(closed: Sequence[Issue], seen: Seen, repository: str, link: str | None) -> str:
    """Open an issue, unless those that were closed by hand tell of every alert."""
    names = followed(seen)
    if closed and frozenset(names) <= frozenset().union(*(one.names for one in closed)):
        return f"nothing is new since issue #{closed[-1].number} was closed by hand"
    about = ["--description", "confirmed slowdowns of AdamW", "--color", "b22222"]
    gh("label", "create", LABEL, "--force", *about, "--repo", repository)
    asked = ["--title", title(seen.slower), "--label", LABEL, "--body-file", "-", "--repo", repository]
    address = gh("issue", "create", *asked, text=body(seen, names, repository, link))
    return f"opened {command.one_line(address)}"


def rewritten(issue: Issue, seen: Seen, repository: str, link: str | None) -> str:
    """Bring an open issue up to date, with a comment if an alert joined."""
    names = followed(seen, lost(issue, seen))
    joined = [one for one in seen.slower if one.name in names and one.name not in issue.names]
    number = str(issue.number)
    if joined:  # first: told twice is better than never
        gh("issue", "comment", number, "--body-file", "-", "--repo", repository, text=comment(joined))
    asked = ["--title", title(seen.slower), "--body-file", "-", "--repo", repository]
    gh("issue", "edit", number, *asked, text=body(seen, names, repository, link))
    return f"rewrote issue #{number}" + f"; joined: {' '.join(one.name for one in joined[:MOST])}" * bool(joined)


def ended(issue: Issue, seen: Seen, repository: str) -> str:
    """Close the issue: nothing is slower any more. Raises UserError if that is not known."""
    if missing := lost(issue, seen):
        reason = f": {command.one_line(seen.unread[0])}" if seen.unread else ", there are no alerts at all"
        raise command.UserError(f"issue #{issue.number} stays open, {min(missing)} is in no file{reason}")
    close(issue, repository, "No confirmed slowdown is open any more: each was accepted, or has gone away.")
    return f"closed issue #{issue.number}"


def close(issue: Issue, repository: str, why: str) -> None:
    """Close an issue, and let it tell of no alert: should one come back, that is not what a person has closed."""
    number, rest = str(issue.number), issue.body.partition("\n")[2]
    gh("issue", "edit", number, "--body-file", "-", "--repo", repository, text=f"{marker(())}\n{rest}")
    gh("issue", "close", number, "--comment", why, "--repo", repository)


def lost(issue: Issue, seen: Seen) -> frozenset[str]:
    """The alerts that an issue tells of and that are in no file now, if that may be because it cannot be read."""
    return issue.names - seen.names if seen.unread or not seen.names else frozenset()


def followed(seen: Seen, held: frozenset[str] = frozenset()) -> list[str]:
    """The names of the alerts that the issue tells of."""
    return sorted({one.name for one in seen.slower} | held)[:MOST_NAMES]


def marker(names: Iterable[str]) -> str:
    return f"<!-- {' '.join([f'{LABEL}:', *names])} -->"


def title(slower: Sequence[Known]) -> str:
    machines = len({one.machine for one in slower})
    changes = f"{len(slower)} confirmed change{'s' * (len(slower) != 1)}"
    return f"AdamW is slower: {changes} on {machines} machine{'s' * (machines != 1)}"


def body(seen: Seen, names: Sequence[str], repository: str, link: str | None) -> str:
    """The text of the issue, with as many alerts as there is room for."""
    places = {name: MLX_REPOSITORY for name in seen.of_mlx}
    rows = [row(one, seen.units, places.get(one.name, repository)) for one in seen.slower[:MOST]]
    while len(text := laid_out(rows, seen, names, link)) > LARGEST:
        rows.pop()
    return text


def laid_out(rows: Sequence[str], seen: Seen, names: Sequence[str], link: str | None) -> str:
    more = len(seen.slower) - len(rows)
    parts = [
        f"{marker(names)}\nMeasured again, confirmed, and not accepted by anybody yet:",
        "\n".join([line(HEADINGS), line(["---"] * len(HEADINGS)), *rows]),
    ]
    if more:
        parts.append(f"and {more} more: `python -m scripts.triage` lists them all.")
    parts.append(ADVICE)
    if link:
        parts.append(f"[The report or the run]({link})")
    if seen.unread:
        unnamed = len(seen.unread) - MOST_FILES
        told = [code(one) for one in seen.unread[:MOST_FILES]] + [f"and {unnamed} more"] * (unnamed > 0)
        parts.append(f"Not read: {', '.join(told)}")
    return "\n\n".join(parts)


def row(one: Known, units: dict[str, str], repository: str) -> str:
    """An alert in the table, by its clearest member."""
    key = clearest(one)
    _, metric, case = key or ("", "", "")
    levels = [code(news.written(level, units.get(metric, ""))) for level in one.levels[key]] if key else ["", ""]
    far = change(one)
    size = "" if far is None else f"{100 * far:+.1f} %"
    size += "" if one.rate is None else f", a drift: {100 * one.rate:+.1f} % per 100 commits"
    commits = "..".join(commit(side, repository) for side in (one.good, one.bad))
    commits += " of MLX" * (repository == MLX_REPOSITORY)
    member = [code(one.machine), code(case), code(metric), *levels, size]
    return line([f"`{one.name}`", *member, commits, code(one.reason), culprit(one, repository)])


def culprit(one: Known, repository: str) -> str:
    """What came of looking for the commit of an alert; it begins with the commit if it was found."""
    found = COMMIT.match(one.culprit)
    if not found:
        return code(one.culprit)
    return f"{commit(found.group(), repository)} {code(one.culprit[found.end() :])}".strip()


def line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def comment(joined: Sequence[Known]) -> str:
    """What is said once of the alerts that joined."""
    told = [f"- `{one.name}` on {code(one.machine)}: {code(one.reason)}" for one in joined[:MOST]]
    more = [f"- and {len(joined) - MOST} more"] * (len(joined) > MOST)
    return "\n".join(["Confirmed as well:", "", *told, *more])


def clearest(one: Known) -> alerts.Key | None:
    """The member that was measured again, which the reason begins with; else the first."""
    measured = (key for key in one.levels if one.reason.startswith(f"{key[2]}: {key[1]} "))
    return next(measured, next(iter(one.levels), None))


def change(one: Known) -> float | None:
    """How much more the clearest member is than before; None if it was nothing, or is no ratio."""
    before, after = one.levels[key] if (key := clearest(one)) else (0.0, 0.0)
    return after / before - 1 if min(before, after) > 0 and math.isfinite(before + after) else None


def commit(name: str, repository: str) -> str:
    """Eight digits of a commit, as a link if it is one and the repository is known."""
    if not repository or not COMMIT.fullmatch(name):
        return code(name[:8])
    return f"[{code(name[:8])}](https://github.com/{repository}/commit/{name})"


def ours(repository: str) -> list[Issue]:
    """The issues that were opened from here, the oldest first.

    Listed by the address of the API: `gh issue list --label` searches an index, which is behind what was just opened.
    """
    writers = {BOT, login()}
    query = ["state=all", f"labels={LABEL}", "per_page=100"]
    fields = [word for field in query for word in ("-f", field)]
    found = answered("api", f"repos/{repository}/issues", "--method", "GET", *fields)
    try:
        issues = [
            issue(one) for one in found if "pull_request" not in one and (one["user"] or {}).get("login") in writers
        ]
    except (LookupError, TypeError, AttributeError) as error:
        raise command.UserError(f"gh api: this is no list of issues: {without_tokens(str(found))[:200]}") from error
    return sorted(one for one in issues if one)


def issue(told: dict[str, Any]) -> Issue | None:
    """What GitHub says of an issue; None if its first line is not ours."""
    text = told["body"] or ""
    found = MARKER.fullmatch(text.partition("\n")[0].rstrip("\r"))
    if not found:
        return None
    return Issue(int(told["number"]), told["state"] == "open", text, frozenset(found.group(1).split()))


def login() -> str:
    """The user of the token."""
    told = answered("api", "graphql", "-f", "query={viewer{login}}")
    try:
        return str(told["data"]["viewer"]["login"])
    except (LookupError, TypeError) as error:
        told = without_tokens(str(told))[:200]
        raise command.UserError(f"gh api graphql: it does not say whose the token is: {told}") from error


def answered(*arguments: str) -> Any:
    """The JSON that gh prints. Raises UserError."""
    answer = gh(*arguments)
    try:
        return json.loads(answer)
    except ValueError as error:
        raise command.UserError(f"gh {arguments[0]}: the answer is no JSON: {without_tokens(answer)[:200]}") from error


def gh(*arguments: str, text: str = "") -> str:
    """What gh prints, with `text` on its standard input. Raises UserError."""
    asked = f"gh {arguments[0]} {arguments[1]}"
    environment = {name: value for name, value in command.uncoloured().items() if name not in DEBUGGING} | UNATTENDED
    try:
        done = subprocess.run(
            ["gh", *arguments],
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise command.UserError(f"{asked}: no answer within {SECONDS:g} s; run it again") from error
    except OSError as error:
        raise command.UserError(f"gh cannot be started, {error.strerror}; install GitHub's gh") from error
    if done.returncode == NOT_LOGGED_IN:
        raise command.UserError(f"{asked}: gh is not logged in; set GH_TOKEN")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise command.UserError(f"{asked}: {without_tokens(last)}")
    return done.stdout.strip()


def without_tokens(text: str) -> str:
    """`text` in a line, without what must not be printed."""
    for secret in filter(None, map(os.environ.get, TOKENS)):
        text = text.replace(secret, "***")
    return command.one_line(TOKEN.sub("***", text))


if __name__ == "__main__":
    sys.exit(command.run(main))
