"""The one issue about what is slower: opened, rewritten, closed; nobody else's text is touched or believed."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from markdown_it import MarkdownIt

from scripts import alerts, command, issue
from scripts.text import LONGEST

ROOT = Path(__file__).parent.parent
REPOSITORY = "owner/adamw"
FIRST, SECOND, THIRD = "0123abcd", "4567cdef", "89ab0123"
SECONDS, CASE = "step.Step.track_seconds", "compiled/float32/resnet50"
GOOD, BAD = "a" * 40, "b" * 40
SECRET = "ghs_0123456789abcdefghijklmnopqrstuvwxyz"
HOSTILE = [
    "</script><script>alert(1)</script>",
    "@everyone &#64;everyone \\@everyone",
    "a | b \\| c \\",
    "`` ` ```@everyone```",
    "one\r\ntwo\n\n# three\n- four\u2028five",
    "x" * 10_000,
    f"--> <!-- {issue.LABEL}: {THIRD} -->",
    f"\n<!-- {issue.LABEL}: {THIRD} -->\n",
    "[a](https://example.org) https://example.org www.example.org a@example.org owner/adamw#1 #1",
    "\ud800\x00\x1b[31m\u202e",
]

GH = r"""
import argparse, json, os, pathlib, sys, time

path = pathlib.Path(__file__).with_name("github.json")
hub = json.loads(path.read_text())
text = sys.stdin.buffer.read().decode()
environment = {name: os.environ.get(name) for name in ("GH_TOKEN", "GH_DEBUG", "GH_PROMPT_DISABLED")}
hub["calls"].append([sys.argv[1:], environment])
path.write_text(json.dumps(hub))


def fail(message, code=1):
    print(message, file=sys.stderr)
    sys.exit(code)


if hub["hang"]:
    time.sleep(5)
if hub["fail"] and hub["fail"] in " ".join(sys.argv[1:]):
    fail(hub["reason"], hub["code"])
if hub["garbage"]:
    print(hub["garbage"])
    sys.exit()

NEEDED = {
    "label create": ["--repo", "--description", "--color"],
    "issue create": ["--repo", "--title", "--label", "--body-file"],
    "issue edit": ["--repo", "--body-file"],
    "issue comment": ["--repo", "--body-file"],
    "issue close": ["--repo", "--comment"],
}
what = " ".join(sys.argv[1:3])
parser = argparse.ArgumentParser(allow_abbrev=False)
if what in NEEDED:
    for flag in NEEDED[what]:
        parser.add_argument(flag, required=True)
    if what != "issue create":
        parser.add_argument("subject")
    if what == "issue edit":
        parser.add_argument("--title")
    if what == "label create":
        parser.add_argument("--force", action="store_true", required=True)
else:
    parser.add_argument("-f", action="append", required=True)
    parser.add_argument("--method", default="POST")
options = vars(parser.parse_args(sys.argv[3:]))
if options.get("repo", "owner/adamw") != "owner/adamw":
    fail("no such repository")
if "body_file" in options and (options["body_file"] != "-" or not 0 < len(text) <= 65536):
    fail("no such body")

if what == "api graphql":
    if options["f"] != ["query={viewer{login}}"]:
        fail("no such query")
    print(json.dumps({"data": {"viewer": {"login": hub["login"]}}}))
elif what == "api repos/owner/adamw/issues" and options["method"] == "GET":
    asked = dict(field.split("=") for field in options["f"])
    found = [one for one in hub["issues"] if asked["labels"] in one["labels"]]
    print(json.dumps([one for one in found if asked["state"] in ("all", one["state"])][::-1][: int(asked["per_page"])]))
elif what == "label create":
    hub["labels"].append(options["subject"])
elif what == "issue create":
    if options["label"] not in hub["labels"]:
        fail(f"could not add label: {options['label']!r} not found")
    number = len(hub["issues"]) + 1
    hub["issues"].append({
        "number": number, "title": options["title"], "body": text, "state": "open",
        "user": {"login": hub["login"]}, "labels": [options["label"]], "comments": [],
    })
    print(f"https://github.com/owner/adamw/issues/{number}")
elif what in NEEDED:
    (one,) = [one for one in hub["issues"] if str(one["number"]) == options["subject"]]
    if what == "issue edit":
        one["body"], one["title"] = text, options["title"] or one["title"]
    else:
        one["comments"].append(options.get("comment") or text)
    if what == "issue close":
        one["state"] = "closed"
else:
    fail(f"unknown command {what}")
path.write_text(json.dumps(hub))
"""


class Hub:
    """A GitHub that is a file, a `gh` that asks it, and results with machines."""

    def __init__(self, folder: Path) -> None:
        self.results, self.path = folder / "results", folder / "bin" / "github.json"
        self.path.parent.mkdir()
        gh = self.path.with_name("gh")
        gh.write_text(f"#!{sys.executable} -IS\n{GH}")
        gh.chmod(0o755)
        empty: dict[str, Any] = {"issues": [], "labels": [], "calls": [], "login": issue.BOT}
        self.write(empty | {"hang": False, "fail": "", "reason": "", "code": 1, "garbage": ""})
        self.results.mkdir()
        units = {SECONDS: {"name": SECONDS, "unit": "seconds"}, "version": 2}
        (self.results / "benchmarks.json").write_text(json.dumps(units))
        self.machine("mac")

    def machine(self, name: str) -> None:
        (self.results / name).mkdir()
        (self.results / name / "machine.json").write_text("{}")

    def read(self) -> dict[str, Any]:
        return json.loads(self.path.read_text())

    def write(self, state: dict[str, Any]) -> None:
        self.path.write_text(json.dumps(state))

    def set(self, **state: Any) -> None:
        self.write(self.read() | state)

    def edit(self, number: int, **fields: Any) -> None:
        """What a person does to an issue."""
        state = self.read()
        state["issues"][number - 1] |= fields
        self.write(state)

    def alert(self, name: str, state: str = alerts.CONFIRMED, machine: str = "mac", **more: Any) -> None:
        """An alert in the file of a machine, as detect and confirm write it."""
        series = more.pop("series", [["", SECONDS, CASE, 0.0100, 0.0109]])
        reason = more.pop("reason", f"{CASE}: {SECONDS} +9.0%")
        begun = {"alert": name, "event": alerts.SUSPECTED, "worse": True, "good": GOOD, "bad": BAD, "series": series}
        events = [begun | more, {"alert": name, "event": state, "reason": reason}]
        alerts.add(self.results, machine, events)

    def become(self, name: str, state: str) -> None:
        alerts.add(self.results, "mac", [{"alert": name, "event": state, "reason": "because"}])

    def run(self, *arguments: str) -> int:
        return issue.main(["--results", str(self.results), "--repository", REPOSITORY, *arguments])

    @property
    def issues(self) -> list[dict[str, Any]]:
        return self.read()["issues"]

    @property
    def calls(self) -> list[list[str]]:
        return [arguments for arguments, _ in self.read()["calls"]]

    def changed(self, before: dict[str, Any]) -> bool:
        return any(self.read()[part] != before[part] for part in ("issues", "labels"))


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Hub:
    made = Hub(tmp_path)
    monkeypatch.setenv("PATH", str(made.path.parent))
    monkeypatch.setenv("GH_TOKEN", SECRET)
    monkeypatch.setenv("GH_DEBUG", "api")
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    return made


def rendered(body: str) -> list[Any]:
    return MarkdownIt("commonmark").enable("table").parse(body)


def cells(body: str) -> list[list[str]]:
    """The rows of the one table, without its head, as they are shown."""
    tokens = rendered(body)
    assert sum(token.type == "table_open" for token in tokens) == 1
    assert sum(token.type == "td_open" for token in tokens) % len(issue.HEADINGS) == 0
    inside = [following for token, following in pairwise(tokens) if token.type == "td_open"]
    shown = ["".join(part.content for part in token.children) for token in inside]
    return [shown[start : start + len(issue.HEADINGS)] for start in range(0, len(shown), len(issue.HEADINGS))]


def harmless(body: str) -> None:
    """Outside of code there is nothing that GitHub could take for more than text, but the marker and our own links."""
    tokens = rendered(body)
    assert [token.content.strip() for token in tokens if token.type == "html_block"] == [body.splitlines()[0]]
    for part in (part for token in tokens for part in token.children or []):
        assert part.type not in ("html_inline", "image")
        if part.type == "link_open":
            assert part.attrs["href"].startswith((f"https://github.com/{REPOSITORY}/commit/", "https://example.com/"))
        if part.type == "text":
            assert not set(part.content) & set("@#<>")
            assert "www" not in part.content


def names(body: str) -> list[str]:
    found = issue.MARKER.fullmatch(body.splitlines()[0])
    assert found
    return found.group(1).split()


def test_it_is_opened_with_the_first_alert(hub, capsys):
    hub.alert(FIRST, series=[["", "memory.M", "other", 1, 2], ["", SECONDS, CASE, 0.0100, 0.0109]])
    assert hub.run("--link", "https://example.com/a/?b=1#c") == 0
    (one,) = hub.issues
    assert one["title"] == "AdamW is slower: 1 confirmed change on 1 machine"
    assert (one["state"], one["labels"], names(one["body"])) == ("open", [issue.LABEL], [FIRST])
    reason = f"{CASE}: {SECONDS} +9.0%"
    shown = [FIRST, "mac", CASE, SECONDS, "10 ms", "10.9 ms", "+9.0 %", "aaaaaaaa..bbbbbbbb", reason, ""]
    assert cells(one["body"]) == [shown]
    assert f"](https://github.com/{REPOSITORY}/commit/{GOOD})" in one["body"]
    assert "(https://example.com/a/?b=1#c)" in one["body"]
    harmless(one["body"])
    printed = capsys.readouterr()
    assert printed.out == "opened https://github.com/owner/adamw/issues/1\n"
    assert SECRET not in printed.out + printed.err


def test_gh_gets_the_token_and_logs_nothing(hub):
    hub.alert(FIRST)
    hub.run()
    seen = [environment for _, environment in hub.read()["calls"]]
    assert seen == [{"GH_TOKEN": SECRET, "GH_DEBUG": None, "GH_PROMPT_DISABLED": "1"}] * len(seen)
    assert not any(SECRET in word for call in hub.calls for word in call)


def test_it_is_rewritten_without_a_second_one_and_without_a_comment(hub):
    hub.machine("studio")
    hub.alert(FIRST)
    hub.alert(SECOND, machine="studio")
    hub.run()
    hub.become(FIRST, alerts.ACKNOWLEDGED)
    for _ in range(2):
        assert hub.run() == 0
    (one,) = hub.issues
    assert (one["title"], names(one["body"])) == ("AdamW is slower: 1 confirmed change on 1 machine", [SECOND])
    assert [row[:2] for row in cells(one["body"])] == [[SECOND, "studio"]]
    assert (one["state"], one["comments"]) == ("open", [])


def test_a_person_may_have_written_from_a_page_that_ends_lines_otherwise(hub):
    hub.alert(FIRST)
    hub.run()
    hub.edit(1, body=hub.issues[0]["body"].replace("\n", "\r\n"))
    hub.run()
    assert len(hub.issues) == 1
    assert hub.issues[0]["comments"] == []


def test_one_comment_says_which_joined(hub):
    hub.alert(FIRST)
    hub.run()
    hub.alert(SECOND, reason="@everyone")
    for _ in range(2):
        hub.run()
    (one,) = hub.issues
    (told,) = one["comments"]
    assert SECOND in told
    assert FIRST not in told
    assert "`@everyone`" in told
    assert names(one["body"]) == [FIRST, SECOND]
    assert one["title"].startswith("AdamW is slower: 2 confirmed changes on 1 machine")


@pytest.mark.parametrize("state", [alerts.ACKNOWLEDGED, alerts.CLOSED, alerts.REFUTED])
def test_it_is_closed_when_none_is_left(hub, state, capsys):
    hub.alert(FIRST)
    hub.run()
    hub.become(FIRST, state)
    assert hub.run() == 0
    (one,) = hub.issues
    assert (one["state"], len(one["comments"])) == ("closed", 1)
    assert [row[0] for row in cells(one["body"])] == [FIRST]
    count = len(hub.calls)
    assert hub.run() == 0
    assert len(hub.calls) == count + 2  # it asks, and does nothing
    assert capsys.readouterr().out.splitlines()[1:] == ["closed issue #1", "nothing is slower, and no issue is open"]


def test_what_comes_back_after_it_was_closed_from_here_is_told_again(hub):
    hub.alert(FIRST)
    hub.run()
    hub.become(FIRST, alerts.CLOSED)
    hub.run()
    hub.become(FIRST, alerts.CONFIRMED)
    hub.run()
    assert [one["state"] for one in hub.issues] == ["closed", "open"]


def test_closed_by_a_person_it_stays_closed_until_there_is_a_new_alert(hub, capsys):
    hub.alert(FIRST)
    hub.alert(SECOND)
    hub.run()
    hub.edit(1, state="closed")
    before = hub.read()
    assert hub.run() == 0
    hub.become(SECOND, alerts.ACKNOWLEDGED)
    assert hub.run() == 0
    assert not hub.changed(before)
    assert "closed by hand" in capsys.readouterr().out
    hub.alert(THIRD)
    assert hub.run() == 0
    assert [one["state"] for one in hub.issues] == ["closed", "open"]
    assert names(hub.issues[1]["body"]) == [FIRST, THIRD]
    assert hub.issues[0]["body"] == before["issues"][0]["body"]


@pytest.mark.parametrize(
    ("state", "worse"),
    [(state, True) for state in alerts.STATES if state != alerts.CONFIRMED] + [(alerts.CONFIRMED, False)],
)
def test_nothing_else_opens_one(hub, state, worse):
    hub.alert(FIRST, state, worse=worse)
    before = hub.read()
    assert hub.run() == 0
    assert not hub.changed(before)


@pytest.mark.parametrize(
    "other",
    [
        {"user": {"login": "somebody"}},
        {"user": {"login": "github-actions"}},
        {"user": None},
        {"pull_request": {}},
        {"body": "no marker"},
        {"body": None},
        {"body": f"first\n<!-- {issue.LABEL}: {FIRST} -->"},
        {"body": f"<!-- {issue.LABEL}: {FIRST[:7]} -->"},
        {"body": f"<!-- {issue.LABEL}: {FIRST.upper()} -->"},
        {"labels": ["another"]},
    ],
)
@pytest.mark.parametrize("state", ["open", "closed"])
def test_what_is_not_ours_is_neither_touched_nor_believed(hub, other, state):
    """Open it would be rewritten and closed, closed it would keep the alert from being told."""
    body = f"<!-- {issue.LABEL}: {FIRST} -->\ntext"
    ours = {"number": 1, "title": "t", "body": body, "user": {"login": issue.BOT}, "labels": [issue.LABEL]}
    hub.set(issues=[ours | {"state": state, "comments": []} | other])
    before = hub.issues[0]
    hub.alert(FIRST)
    hub.run()
    hub.become(FIRST, alerts.ACKNOWLEDGED)
    hub.run()
    theirs, mine = hub.issues
    assert theirs == before
    assert mine["state"] == "closed"
    assert len(mine["comments"]) == 1


def test_the_users_own_token_finds_its_own_issue(hub):
    hub.set(login="maintainer")
    hub.alert(FIRST)
    for _ in range(2):
        hub.run()
    assert len(hub.issues) == 1


def test_of_two_open_ones_the_first_is_kept(hub):
    hub.alert(FIRST)
    hub.run()
    state = hub.read()
    state["issues"].append(state["issues"][0] | {"number": 2})
    hub.write(state)
    hub.run()
    assert [one["state"] for one in hub.issues] == ["open", "closed"]
    assert "#1" in hub.issues[1]["comments"][0]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(hub, text):
    machine = text.replace("/", "").replace("\x00", "").replace("\ud800", "")[:100]
    hub.machine(machine)
    series = [[text, text, text, 1.0, 2.0]]
    hub.alert(FIRST, machine=machine, series=series, reason=text)
    alerts.add(hub.results, machine, [{"alert": FIRST, "event": alerts.SEARCHED, "reason": text}])
    hub.alert(SECOND)
    assert hub.run("--link", "https://example.com/") == 0
    (one,) = hub.issues
    assert names(one["body"]) == [FIRST, SECOND]
    assert [row[0] for row in cells(one["body"])] == [FIRST, SECOND]
    assert max(len(cell) for row in cells(one["body"]) for cell in row) <= LONGEST
    harmless(one["body"])


@given(some.text())
def test_no_text_breaks_out_of_its_cell(text):
    known = alerts.Known(FIRST, text, alerts.CONFIRMED, True, text, text, {("", text, text): (1.0, 2.0)}, text, text)
    seen = issue.Seen([known], frozenset([FIRST]), [text], {text: text})
    body = issue.body(seen, [FIRST], REPOSITORY, None)
    assert len(cells(body)) == 1
    harmless(body)


def test_only_a_hash_becomes_a_link(hub):
    hub.alert(FIRST)
    alerts.add(hub.results, "mac", [{"alert": FIRST, "event": alerts.SEARCHED, "reason": "4c1d2e3f55 mend @x: 99.9%"}])
    hub.run()
    body = hub.issues[0]["body"]
    assert body.count("](https://") == 3
    assert f"[`4c1d2e3f`](https://github.com/{REPOSITORY}/commit/4c1d2e3f55) `mend @x: 99.9%`" in body
    assert issue.commit("../../evil)", REPOSITORY) == "`../../ev`"


def test_an_alert_of_mlxs_own_lane_is_told_with_mlxs_commits(hub):
    (hub.results / "mlx").mkdir()
    hub.machine("mlx/mac")
    hub.alert(FIRST)
    hub.alert(SECOND, machine="mlx/mac", series=[["", SECONDS, CASE, 0.01, 0.02]])
    assert hub.run() == 0
    body = hub.issues[0]["body"]
    assert [row[0] for row in cells(body)] == [SECOND, FIRST]
    links = [
        part.attrs["href"] for token in rendered(body) for part in token.children or [] if part.type == "link_open"
    ]
    places = ["ml-explore/mlx", "ml-explore/mlx", REPOSITORY, REPOSITORY]
    assert links == [
        f"https://github.com/{place}/commit/{hash}" for place, hash in zip(places, [GOOD, BAD] * 2, strict=True)
    ]
    assert [row[7].endswith(" of MLX") for row in cells(body)] == [True, False]


def test_the_largest_forty_are_shown_and_the_rest_is_counted(hub):
    for number in range(45):
        hub.alert(f"{number:08x}", series=[["", SECONDS, CASE, 1.0, 1.1 + number]])
    hub.run()
    body = hub.issues[0]["body"]
    assert [row[0] for row in cells(body)] == [f"{number:08x}" for number in range(44, 4, -1)]
    assert "and 5 more" in body
    assert len(names(body)) == 45


def test_it_is_never_longer_than_github_takes(hub):
    long, levels, repository = "|@`" * 100, {("", "|@`" * 100, "|@`" * 100): (1.0, 2.0)}, f"{'o' * 39}/{'r' * 100}"
    known = [
        alerts.Known(f"{number:08x}", long, alerts.CONFIRMED, True, GOOD, BAD, levels, long, f"{GOOD} {long}")
        for number in range(issue.MOST_NAMES + 10)
    ]
    seen = issue.Seen(known, frozenset(), [long] * 100, {})
    text = issue.body(seen, issue.followed(seen), repository, None)
    assert len(text) <= issue.LARGEST
    assert f"and {len(known) - len(cells(text))} more" in text


def test_levels_that_are_no_ratio_are_told(hub):
    hub.alert(FIRST, series=[["", "work.W", CASE, 0, 3]])
    hub.run()
    assert [row[4:7] for row in cells(hub.issues[0]["body"])] == [["0", "3", ""]]


def test_gh_is_missing(hub, monkeypatch):
    monkeypatch.setenv("PATH", str(hub.results))
    hub.alert(FIRST)
    with pytest.raises(command.UserError, match="gh cannot be started, No such file or directory; install"):
        hub.run()


@pytest.mark.parametrize("what", ["graphql", "api repos", "label create", "issue create"])
def test_gh_fails(hub, monkeypatch, what):
    monkeypatch.setenv("GITHUB_TOKEN", "another secret")
    hub.alert(FIRST)
    reason = f"a trace\nHTTP 403: {SECRET} another secret ghp_{'x' * 30} \x1b[31mforbidden\n"
    hub.set(fail=what, reason=reason)
    with pytest.raises(command.UserError) as failed:
        hub.run()
    assert str(failed.value).endswith("HTTP 403: *** *** *** forbidden")
    assert hub.issues == []


def test_an_error_is_one_line_and_exit_code_2(hub):
    hub.alert(FIRST)
    hub.set(fail="graphql", reason=f"bad credentials {SECRET}")
    asked = [sys.executable, "-m", "scripts.issue", "--results", str(hub.results), "--repository", REPOSITORY]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: gh api graphql: bad credentials ***\n"


def test_gh_is_not_logged_in(hub):
    hub.alert(FIRST)
    hub.set(fail="graphql", reason="  GH_TOKEN: x", code=4)
    with pytest.raises(command.UserError, match="not logged in; set GH_TOKEN"):
        hub.run()


def test_gh_hangs(hub, monkeypatch):
    monkeypatch.setattr(issue, "SECONDS", 0.5)
    hub.alert(FIRST)
    hub.set(hang=True)
    with pytest.raises(command.UserError, match=r"no answer within 0\.5 s"):
        hub.run()


@pytest.mark.parametrize("garbage", ["<html>", "null", "[1]", '[{"number": 1}]', '{"message": "x"}'])
def test_gh_says_something_else(hub, garbage):
    hub.alert(FIRST)
    hub.set(garbage=garbage)
    with pytest.raises(command.UserError, match=r"^gh api") as error:
        hub.run()
    assert any(said in str(error.value) for said in ("<html>", "None", "[1]", "'number': 1", "'message': 'x'"))
    assert not any(hint in str(error.value) for hint in ("up to date", "GH_TOKEN"))


def test_a_comment_that_failed_is_made_up_for(hub):
    hub.alert(FIRST)
    hub.run()
    hub.alert(SECOND)
    hub.set(fail="issue comment", reason="502")
    with pytest.raises(command.UserError):
        hub.run()
    hub.set(fail="")
    hub.run()
    assert len(hub.issues[0]["comments"]) == 1


def test_a_dry_run_calls_nothing(hub, capsys):
    hub.alert(FIRST)
    assert issue.main(["--results", str(hub.results), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"AdamW is slower: 1 confirmed change on 1 machine\n\n<!-- {issue.LABEL}: {FIRST} -->\n")
    assert "would open this issue" in printed
    assert "github.com" not in printed
    hub.become(FIRST, alerts.CLOSED)
    assert hub.run("--dry-run") == 0
    assert "would close" in capsys.readouterr().out
    assert hub.calls == []


@pytest.mark.parametrize(
    "name", ["", "adamw", "owner/", "owner/..", "../adamw", "owner/a/b", "owner/a b", "-o/adamw", "o/a\n", "h.com/o/a"]
)
def test_a_bad_name_of_a_repository_is_refused(hub, monkeypatch, name):
    hub.alert(FIRST)
    monkeypatch.setenv("GITHUB_REPOSITORY", name)
    with pytest.raises(command.UserError, match="is no repository"):
        issue.main(["--results", str(hub.results)])
    assert hub.calls == []


def test_the_repository_is_taken_from_the_environment(hub, monkeypatch):
    hub.alert(FIRST)
    monkeypatch.setenv("GITHUB_REPOSITORY", REPOSITORY)
    assert issue.main(["--results", str(hub.results)]) == 0
    assert len(hub.issues) == 1


@pytest.mark.parametrize(
    "link", ["http://a.org/", "javascript:x", "https://a.org/)[x](y", "https://a.org/ b", "https://u@a.org", "https://"]
)
def test_a_link_that_is_no_plain_address_is_refused(hub, link):
    with pytest.raises(command.UserError, match="no plain https address"):
        hub.run("--link", link)


def test_a_file_that_cannot_be_read_is_named_and_hides_nothing(hub):
    hub.machine("studio")
    hub.machine("a|b@c")
    hub.alert(FIRST)
    (hub.results / "studio" / alerts.FILE).write_text("{\n[]\n")
    (hub.results / "a|b@c" / alerts.FILE).mkdir()
    hub.run()
    body = hub.issues[0]["body"]
    assert [row[0] for row in cells(body)] == [FIRST]
    last = body.splitlines()[-1]
    assert last.startswith("Not read: ")
    assert "/a/b@c/alerts.jsonl" in last
    assert "studio/alerts.jsonl:1" in last
    harmless(body)


def test_an_alert_whose_file_cannot_be_read_is_not_taken_for_settled(hub):
    hub.machine("studio")
    hub.alert(FIRST)
    hub.alert(SECOND, machine="studio")
    hub.run()
    path = hub.results / "studio" / alerts.FILE
    whole = path.read_bytes()
    path.write_bytes(b"\xff\n")
    hub.run()
    assert names(hub.issues[0]["body"]) == [FIRST, SECOND]
    hub.become(FIRST, alerts.ACKNOWLEDGED)
    before = hub.read()
    with pytest.raises(command.UserError, match=f"issue #1 stays open, {SECOND} is in no file: .*studio"):
        hub.run()
    assert not hub.changed(before)
    path.write_bytes(whole)
    hub.run()
    assert (hub.issues[0]["state"], hub.issues[0]["comments"]) == ("open", [])


def test_where_no_file_can_be_read_nothing_is_closed(hub):
    hub.alert(FIRST)
    hub.run()
    before = hub.read()
    path = hub.results / "mac" / alerts.FILE
    path.write_text("corrupt\n" * 3)
    with pytest.raises(command.UserError, match=r"no alert can be read.*and 2 more lines"):
        hub.run()
    path.unlink()
    with pytest.raises(command.UserError, match="there are no alerts at all"):
        hub.run()
    assert not hub.changed(before)


def test_machines_without_alerts_have_no_issue_and_no_results_are_an_error(hub, tmp_path):
    assert hub.run() == 0
    assert hub.issues == []
    with pytest.raises(command.UserError, match="no results below"):
        issue.main(["--results", str(tmp_path / "none"), "--repository", REPOSITORY])


def test_help_has_two_examples():
    asked = [sys.executable, "-m", "scripts.issue", "--help"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.count("  python -m scripts.issue --") == 2
