"""The branch that machines share: nothing is lost, whoever is faster, and nothing odd on it does harm."""

import json
import os
import random
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import clones
import made_runs
import pytest
from asv.results import iter_results
from clones import ROOT, Clone, git, make_origin, on_branch, put

from scripts import alerts, asv_plugin, branch, carried, command, legacy, runs, share  # noqa: F401
from scripts import lines as ledgers

A, B, C = (made_runs.path(number) for number in (1, 2, 3))


@pytest.fixture
def origin(tmp_path) -> Path:
    return make_origin(tmp_path)


@pytest.fixture
def clone(tmp_path, origin, monkeypatch) -> Clone:
    """One clone, in which this process is."""
    made = Clone(tmp_path, origin, "mac")
    monkeypatch.chdir(made.path)
    return made


def store() -> branch.Branch:
    return branch.checked("origin", "results")


@pytest.mark.slow
def test_three_machines_push_at_once_ten_times_and_nothing_is_lost(tmp_path, origin):
    clones = [Clone(tmp_path, origin, f"mac-{number}") for number in range(3)]
    for turn in range(10):
        for one in clones:
            one.add_run(turn, a=turn)
            one.add("nights.jsonl", "".join(f"{one.machine} {number}\n" for number in range(turn + 1)))
        running = [one.start("push", "--machine", one.machine) for one in clones]
        for process in running:
            out, _ = process.communicate()
            assert process.returncode == 0, out
        everything = {name: text for one in clones for name, text in one.files().items() if one.machine in name}
        assert on_branch(origin) == everything
    assert len(everything) == 3 * 12
    assert int(git(origin, "rev-list", "--count", "results")) >= 30


def test_two_checkouts_of_one_machine_that_push_at_once_lose_nothing(tmp_path, origin):
    clones = [Clone(tmp_path / name, origin, "mac") for name in ("a", "b")]
    for number, one in enumerate(clones):
        one.add("nights.jsonl", f"{number}\n")
        one.add(A, made_runs.text(a=number))
    assert [process.wait() for process in [one.start("push") for one in clones]] == [0, 0]
    for one in clones:
        assert one.run("pull")[0] == 0
        assert sorted((one.folder / "nights.jsonl").read_text().split()) == ["0", "1"]
        assert made_runs.figures(one.results) == {("mac", "a", 0.0), ("mac", "a", 1.0)}


def test_a_branch_that_is_not_there_is_made_and_nothing_new_makes_no_commit(clone, origin, capsys):
    run = clone.add_run(1, a=1.0)
    assert share.main(["push"]) == 0
    assert capsys.readouterr() == ("2 files put on the branch\n", "pushing results, branch results of origin\n")
    first = git(origin, "rev-parse", "results")
    assert on_branch(origin) == clone.files()
    assert set(on_branch(origin)) == {"mac/machine.json", run}
    assert share.main(["push"]) == 0
    assert git(origin, "rev-parse", "results") == first
    assert git(clone.path, "status", "--porcelain", "--", "results") == "?? results/"
    assert git(clone.path, "worktree", "list").count("\n") == 0


def test_what_others_did_is_brought_and_stays(clone, origin):
    clone.add_run(1, a=1.0)
    share.main(["push"])
    theirs = {"other/machine.json": made_runs.described("other"), f"other/{A}": made_runs.text("other", a=2.0)}
    put(origin, {**theirs, f"mac/{B}": made_runs.text(a=3.0)})
    clone.add_run(3, a=4.0)
    share.main(["push"])
    assert len(on_branch(origin)) == 6
    share.main(["pull"])
    assert made_runs.figures(clone.results) == {("mac", "a", 1), ("other", "a", 2), ("mac", "a", 3), ("mac", "a", 4)}


def test_what_others_did_can_be_read_by_asv_even_if_nobody_described_the_machine(clone, origin):
    put(origin, {f"other/{A}": made_runs.text("other", a=2.0)})
    share.main(["pull"])
    assert json.loads((clone.results / "other/machine.json").read_text())["machine"] == "other"
    (found,) = clone.results.glob("other/01234567-*.json")
    assert json.loads(found.read_text())["results"]["a"][0] == [2.0]


def test_whatever_is_in_a_file_of_the_branch_costs_no_other(clone, origin):
    deep = "[" * 100_000
    odd = {"one/machine.json": deep, f"one/{A}": deep, f"two/{A}": made_runs.text("one"), f"three/{A}": "\0" * 10**6}
    odd |= {f"mac/{B}": f'{{"what": "run", "x": {deep}', "mac/01234567-env.json": deep, "mac/01234567-env.jsonl": deep}
    put(origin, {**odd, "four/machine.json": made_runs.described("four")})
    left_out = share.pull(store(), clone.results).left_out
    assert left_out.keys() == odd.keys() - {"mac/01234567-env.jsonl"}
    assert set(clone.files()) == {"mac/machine.json", "four/machine.json"}


ODD = ([], {}, "", None, 1e300, -1, [[]], "\ud800", "..")


def odd_ones(told: object) -> Iterator[object]:
    """What is like `told`, but has one odd value."""
    yield from ODD
    if isinstance(told, dict):
        yield from ({**told, key: other} for key, value in told.items() for other in odd_ones(value))
    elif isinstance(told, list):
        yield from ([*told[:at], other, *told[at + 1 :]] for at, one in enumerate(told) for other in odd_ones(one))


@pytest.mark.parametrize("what", ["run", "figure", "older", "machine"])
def test_whatever_value_is_odd_costs_no_other_and_asv_can_read_the_rest(what, clone, origin):
    like = {
        "run": made_runs.head("M"),
        "figure": made_runs.figure("a", 1.0),
        "older": json.loads(made_runs.older("M", a=1.0)),
        "machine": json.loads(made_runs.described("M")),
    }
    files = {}
    for number, odd in enumerate(odd_ones(like[what])):
        machine, told = f"m{number}", json.dumps(odd).replace('"M"', f'"m{number}"')
        lines = [json.dumps(made_runs.head(machine)), told] if what == "figure" else [told, json.dumps(like["figure"])]
        name = {"older": "01234567-env.json", "machine": "machine.json"}.get(what, A)
        files[f"{machine}/{name}"] = told if name.endswith(".json") else "".join(f"{line}\n" for line in lines)
    put(origin, {**files, f"mac/{A}": made_runs.text(a=1.0)})
    done = share.pull(store(), clone.results)
    assert (done.changed + len(done.left_out), len(files) > 70) == (len(files) + 1, True)
    assert set(clone.files()) >= {f"mac/{A}", "mac/machine.json"}
    assert list(iter_results(str(clone.results)))
    share.push(store(), clone.results, None, "results")


def test_lines_that_people_added_are_joined(clone, origin):
    clone.add(alerts.FILE, "one\n")
    share.main(["push"])
    put(origin, {f"mac/{alerts.FILE}": "one\nacknowledged\n"})
    clone.add(alerts.FILE, "one\ntwo\n")
    share.main(["pull"])
    assert (clone.folder / alerts.FILE).read_text() == "one\ntwo\nacknowledged\n"
    clone.add(alerts.FILE, "one\ntwo\n")
    share.main(["push"])
    assert on_branch(origin)[f"mac/{alerts.FILE}"] == "one\nacknowledged\ntwo\n"


def test_a_line_that_is_cut_short_is_not_shared_and_costs_no_other(clone, origin):
    clone.add(alerts.FILE, 'one\n{"two')
    share.main(["push"])
    assert on_branch(origin)[f"mac/{alerts.FILE}"] == "one\n"
    tip = put(origin, {f"mac/{alerts.FILE}": "one\nthr"})
    share.main(["push"])
    assert git(origin, "rev-parse", "results") == tip
    assert (clone.folder / alerts.FILE).read_text() == 'one\n{"two'


class TestNothingIsReplaced:
    """Whatever is older, shorter or missing, here or there."""

    @pytest.fixture
    def shared(self, clone):
        clone.add_run(1, a=1.0)
        clone.add("nights.jsonl", "one\ntwo\n")
        share.main(["push"])
        return clone

    def everywhere(self, clone, origin):
        """What is here after a pull and a push, which is what is on the branch as well."""
        share.main(["pull"])
        share.main(["push"])
        assert {name: set(text.splitlines()) for name, text in clone.files().items() if name.endswith("jsonl")} == {
            name: set(text.splitlines()) for name, text in on_branch(origin).items() if name.endswith("jsonl")
        }
        return made_runs.figures(clone.results), set((clone.folder / "nights.jsonl").read_text().split())

    def test_another_checkout_of_the_machine_that_had_not_pulled_measures_other_metrics(self, shared, origin, tmp_path):
        shared.add_run(1, a=1.0, memory=5.0, accuracy=6.0)
        share.main(["push"])
        other = Clone(tmp_path / "new", origin, "mac")
        other.add_run(2, a=2.0)
        assert other.run("push")[0] == 0
        expected = {("mac", "a", 1.0), ("mac", "a", 2.0), ("mac", "memory", 5.0), ("mac", "accuracy", 6.0)}
        assert self.everywhere(shared, origin)[0] == expected == made_runs.figures(other.results)

    def test_a_checkout_puts_older_files_back(self, shared, origin):
        git(shared.path, "add", "-f", "results")
        git(shared.path, "commit", "-q", "-m", "results")
        shared.add_run(1, a=1.0, b=2.0)
        shared.add_run(2, a=3.0)
        shared.add("nights.jsonl", "one\ntwo\nthree\n")
        share.main(["push"])
        git(shared.path, "checkout", "-q", "--force", "HEAD")
        assert (shared.folder / "nights.jsonl").read_text() == "one\ntwo\n"
        told = self.everywhere(shared, origin)
        assert told == ({("mac", "a", 1.0), ("mac", "b", 2.0), ("mac", "a", 3.0)}, {"one", "two", "three"})

    def test_a_branch_that_was_put_back_gets_again_what_it_had(self, shared, origin):
        first = git(origin, "rev-parse", "results")
        shared.add_run(1, a=1.0, b=2.0)
        shared.add("nights.jsonl", "one\ntwo\nthree\n")
        share.main(["push"])
        git(origin, "update-ref", "refs/heads/results", first)
        assert self.everywhere(shared, origin) == ({("mac", "a", 1.0), ("mac", "b", 2.0)}, {"one", "two", "three"})

    def test_a_branch_that_was_removed_gets_again_what_it_had(self, shared, origin):
        git(origin, "update-ref", "-d", "refs/heads/results")
        assert self.everywhere(shared, origin) == ({("mac", "a", 1.0)}, {"one", "two"})

    def test_results_that_were_removed_here_come_again(self, shared, origin):
        shutil.rmtree(shared.results)
        assert self.everywhere(shared, origin) == ({("mac", "a", 1.0)}, {"one", "two"})

    @pytest.mark.parametrize("damage", ["", "{", "null and void\n"])
    def test_a_damaged_file_is_mended_from_the_branch_and_never_pushed(self, shared, origin, damage):
        shared.add("machine.json", damage)
        shared.add(B, damage)
        share.main(["push"])
        assert on_branch(origin)["mac/machine.json"] == made_runs.described("mac")
        assert (shared.folder / "machine.json").read_text() == made_runs.described("mac")
        assert f"mac/{B}" not in on_branch(origin)

    @pytest.mark.parametrize("damage", ["", "{", "null and void\n"])
    def test_damage_on_the_branch_replaces_nothing_and_is_mended(self, shared, origin, damage):
        before = shared.files()
        put(origin, {f"mac/{A}": damage, "mac/machine.json": damage})
        share.main(["pull"])
        assert shared.files() == before
        share.main(["push"])
        assert set(on_branch(origin)[f"mac/{A}"].splitlines()) >= set(made_runs.text(a=1.0).splitlines())

    def test_a_machine_that_has_no_description_keeps_its_lines(self, shared, origin):
        (shared.folder / "machine.json").unlink()
        shared.add("nights.jsonl", "three\n")
        share.main(["pull"])
        assert (shared.folder / "nights.jsonl").read_text() == "three\none\ntwo\n"
        assert (shared.folder / "machine.json").read_text() == made_runs.described("mac")

    def test_a_line_that_another_process_adds_meanwhile_is_kept(self, shared, origin, monkeypatch):
        path, original = shared.folder / "nights.jsonl", share.write_whole
        put(origin, {"mac/nights.jsonl": "one\ntwo\nthree\n"})
        adding = threading.Thread(target=ledgers.add, args=(path, {"id": "four"}))

        def write(target, text, durable=False):
            if target == Path("results/mac/nights.jsonl"):
                adding.start()
                adding.join(0.2)
            original(target, text, durable)

        monkeypatch.setattr(share, "write_whole", write)
        share.main(["pull"])
        adding.join()
        assert path.read_text() == 'one\ntwo\nthree\n{"id": "four"}\n'

    def test_whatever_two_checkouts_do_in_whatever_order_nothing_is_lost(self, tmp_path, origin, monkeypatch):
        chance = random.Random(1)
        clones = [Clone(tmp_path / name, origin, "mac") for name in ("a", "b")]
        figures, lines = set(), set()
        for turn in range(24):
            one = clones[turn % 2]
            monkeypatch.chdir(one.path)
            path = one.folder / made_runs.path(chance.randrange(4))
            if not path.exists():
                runs.add(path, made_runs.head())
            runs.add(path, made_runs.figure("a", turn))
            ledgers.add(one.folder / "nights.jsonl", {"id": str(turn)})
            figures.add(("mac", "a", turn))
            lines.add(f'{{"id": "{turn}"}}')
            before = git(origin, "rev-parse", "results") if turn > 3 else ""
            did = chance.choice(("push", "pull", "push and put the branch back", "push and lose the store"))
            share.main([did.split()[0]])
            if before and "back" in did:
                git(origin, "update-ref", "refs/heads/results", before)
            if "lose" in did:
                shutil.rmtree(store().store)
        for one in [*clones, *clones]:
            monkeypatch.chdir(one.path)
            share.main(["push"])
        for one in clones:
            assert made_runs.figures(one.results) == figures
            assert set((one.folder / "nights.jsonl").read_text().splitlines()) == lines
        assert set(on_branch(origin)["mac/nights.jsonl"].splitlines()) == lines


class TestOlder:
    """What older versions left: asv's files, what was replaced of them, the ledgers beside both."""

    FILES = {
        "mac/machine.json": made_runs.described("mac"),
        "mac/01234567-env.json": made_runs.older(a=2.0),
        "mac/01234567-env.jsonl": '{"what": "machine", "time": 1}\n',
        "mac/01234567-env-1700000000.earlier": made_runs.older(a=1.0),
        "mac/01234567-env-1700000000.jsonl": '{"what": "machine", "time": 0}\n',
        "mac/89abcdef-env.jsonl": json.dumps({"what": "machine", "commit": "89abcdef" * 5}) + "\n",
    }

    def test_it_arrives_as_runs_once_and_is_the_same_in_every_clone(self, clone, origin, tmp_path, monkeypatch):
        put(origin, {**self.FILES, "benchmarks.json": "{}"})
        other = Clone(tmp_path / "other", origin, "mac")
        assert other.run("push")[0] == 0
        share.main(["pull"])
        monkeypatch.setattr(legacy, "as_lines", lambda *told: pytest.fail("it is there"))
        share.main(["pull"])
        assert made_runs.figures(clone.results) == {("mac", "a", 1.0), ("mac", "a", 2.0)}
        assert len(runs.paths(clone.folder)) == 3
        assert legacy.left(clone.folder) == []
        shared = {name: text for name, text in clone.files().items() if "/runs/" in name}
        assert shared == {name: text for name, text in other.files().items() if "/runs/" in name}
        assert shared == {name: text for name, text in on_branch(origin).items() if "/runs/" in name}
        assert self.FILES.items() <= on_branch(origin).items()

    def test_who_has_it_in_part_gets_the_same_runs(self, clone, origin, tmp_path):
        put(origin, self.FILES)
        clone.add("01234567-env.json", self.FILES["mac/01234567-env.json"])
        share.main(["pull"])
        other = Clone(tmp_path / "other", origin, "mac")
        assert other.run("pull")[0] == 0
        assert {path.name for path in runs.paths(other.folder)} <= {path.name for path in runs.paths(clone.folder)}

    def test_what_is_here_becomes_runs_that_are_pushed(self, clone, origin):
        for name, text in self.FILES.items():
            clone.add(name.removeprefix("mac/"), text)
        share.main(["push"])
        assert {name.partition("/")[2].partition("-")[0] for name in on_branch(origin)} == {
            "machine.json", "runs/01234567", "runs/89abcdef"
        }  # fmt: skip
        assert made_runs.figures(clone.results) == {("mac", "a", 1.0), ("mac", "a", 2.0)}

    def test_what_this_repository_had_arrives_as_the_run_that_it_has(self, clone, origin):
        name, older = "linux-x86-2core", ROOT / "tests" / "older"
        put(origin, {f"{name}/{path.name}": path.read_text() for path in (older / name).iterdir()})
        share.main(["pull"])
        (run,) = runs.paths(clone.results / name)
        assert run.read_text() == (ROOT / "results" / name / "runs" / run.name).read_text()
        told = runs.read(run)
        assert told.problems == []
        assert len(told.figures) > 10

    def test_odd_ones_are_named_and_cost_no_other(self, clone, origin, capsys):
        deep = "[" * 900 + "]" * 900
        odd = {
            "mac/11111111-env.json": "{",
            "mac/22222222-env.json": made_runs.older("other", a=1.0),
            "mac/33333333-env.json": made_runs.older(a=1.0).replace("[\"'x'\"]", deep, 1),
            "mac/44444444-env.json": made_runs.older(a=1.0).replace("[[\"'x'\"]]", json.dumps([["x"] * 10] * 9)),
            f"mac/55555555-{'é' * 150}.json": made_runs.older(a=1.0),
            "mac/66666666-env.jsonl": "",
        }
        put(origin, {**self.FILES, **odd})
        share.main(["pull"])
        told = capsys.readouterr().out
        assert made_runs.figures(clone.results) == {("mac", "a", 1.0), ("mac", "a", 2.0)}
        for name in ("11111111-env.json", "22222222-env.json"):
            assert f"left out: mac/{name}: " in told
            clone.add(name, odd[f"mac/{name}"])
        share.main(["push"])
        told = capsys.readouterr().out
        assert "left out: mac/11111111-env.json: no JSON" in told
        assert "left out: mac/22222222-env.json: machine name is not 'mac'" in told


def test_names_that_lead_elsewhere_are_passed_over(clone, origin):
    run = clone.add_run(1, a=1.0)
    share.main(["push"])
    before = clone.files()
    odd = {"mac/run.sh": "x", "mac/.hidden.json": "x", "deep/er/x.json": "x", "top.json": "x", ".git-hooks/x.json": "x"}
    odd |= {f"mac/runs/deep/{Path(A).name}": "x", "mac/runs/x.jsonl": "x", "benchmarks.json/x": "x", "mac/\x1b\n": "x"}
    odd |= {f"mac/01234567-{'e' * 255}.json": made_runs.older(a=1.0), "../x": "x", f"../{A}": made_runs.text("..")}
    links = dict.fromkeys(["mac/link.json", f"mac/{B}", "mac/nights.jsonl"], "/etc/passwd")
    put(origin, odd)
    put(origin, links, clones.LINK)
    share.main(["pull"])
    assert clone.files() == before
    os.symlink("/etc/passwd", clone.folder / "secret.json")
    os.symlink("/etc/passwd", clone.folder / C)
    clone.add("notes.txt", "x")
    share.main(["push"])
    assert set(on_branch(origin)) == {"mac/machine.json", run, *odd, *links}


def test_a_program_or_a_submodule_on_the_branch_is_passed_over_and_its_place_is_taken(clone, origin, capsys):
    share.main(["push"])
    commit = put(origin, {"mac/nights.jsonl": "one\n"}, clones.PROGRAM)
    put(origin, {"mac/alerts.jsonl": commit, "mac/runs": commit, "other": commit}, clones.SUBMODULE)
    share.main(["pull"])
    told = capsys.readouterr().out
    assert set(clone.files()) == {"mac/machine.json"}
    assert "left out: mac/nights.jsonl: a link, or a program" in told
    assert "left out: mac/alerts.jsonl: a link, or a program" in told
    clone.add("nights.jsonl", "two\n")
    clone.add("alerts.jsonl", "three\n")
    run = clone.add_run(2, a=2.0)
    share.main(["push"])
    told = on_branch(origin)
    assert set(told) == {"mac/machine.json", "mac/nights.jsonl", "mac/alerts.jsonl", run, "other"}
    assert (told["mac/nights.jsonl"], told["mac/alerts.jsonl"]) == ("one\ntwo\n", "three\n")
    share.main(["pull"])
    assert (clone.folder / "nights.jsonl").read_text() == "two\none\n"


def test_what_may_not_be_read_here_is_named_and_stays(clone, origin, capsys):
    share.main(["push"])
    names = ("nights.jsonl", "01234567-env.json", "89abcdef-env.jsonl", A)
    for name in names:
        clone.add(name, made_runs.text(a=1.0)).chmod(0)
    if os.access(clone.folder / A, os.R_OK):
        pytest.skip("this user may read everything")
    put(origin, {"mac/nights.jsonl": "one\n", f"mac/{A}": made_runs.text(a=2.0), "mac/alerts.jsonl": "one\n"})
    for what in ("pull", "push"):
        assert share.main([what]) == 0
        told = capsys.readouterr().out
        for name in ("nights.jsonl", A) if what == "pull" else names:
            assert re.search(f"left out: mac/{name}: (Permission denied|it cannot be read)", told)
    assert (clone.folder / "alerts.jsonl").read_text() == "one\n"
    for name in names:
        (clone.folder / name).chmod(0o600)
        assert (clone.folder / name).read_text() == made_runs.text(a=1.0)


def test_links_here_are_neither_followed_nor_written_through(clone, origin, tmp_path, capsys):
    secret = tmp_path / "secret"
    (secret / "runs").mkdir(parents=True)
    (secret / "machine.json").write_text(made_runs.described("linked"))
    (secret / A).write_text(made_runs.text("linked", a=1.0))
    os.symlink(secret, clone.results / "linked")
    os.symlink(secret / "runs", clone.folder / "runs")
    os.symlink(secret / "machine.json", clone.results / "benchmarks.json")
    os.symlink(secret / "machine.json", clone.folder / "nights.jsonl")
    assert share.main(["push"]) == 0
    assert share.main(["push", "--machine", "mac"]) == 0
    assert set(on_branch(origin)) == {"mac/machine.json"}
    told = capsys.readouterr().out
    assert "left out: linked/: a link" in told
    assert "left out: mac/runs: a link, or no folder" in told
    assert "left out: mac/nights.jsonl: a link, or a program" in told
    theirs = {f"{machine}/{B}": made_runs.text(machine, a=2.0) for machine in ("mac", "linked")}
    put(origin, {**theirs, "mac/nights.jsonl": "one\n", "linked/nights.jsonl": "one\n"})
    assert share.main(["pull"]) == 0
    assert {path.relative_to(secret).as_posix() for path in secret.rglob("*")} == {"machine.json", "runs", A}
    assert (clone.folder / "nights.jsonl").read_text() == made_runs.described("linked")
    told = capsys.readouterr().out
    assert "0 files brought" in told
    assert f"left out: mac/{B}: a link is in the place of its folder here" in told
    assert "left out: mac/nights.jsonl: a link, or no file, is in its place here" in told
    assert share.main(["pack", "--into", str(tmp_path / "packed")]) == 0
    assert not (tmp_path / "packed").exists()


def small(file: branch.File) -> bool:
    assert file.size <= runs.LARGEST_FILE, "nobody knows how large: it is not read"
    return True


def test_too_large_a_file_is_left_where_it_is(clone, origin, monkeypatch, capsys):
    share.main(["push"])
    monkeypatch.setattr(runs, "LARGEST_FILE", 400)
    clone.add_run(1, **{"a" * 400: 1.0})
    clone.add("nights.jsonl", "1" * 250 + "\n")
    clone.add("alerts.jsonl", "1\n")
    put(origin, {f"mac/{B}": made_runs.text(**{"b" * 400: 1.0}), "mac/nights.jsonl": "2" * 250 + "\n"})
    put(origin, {"mac/alerts.jsonl": "2" * 401 + "\n"})
    there = on_branch(origin)
    capsys.readouterr()
    share.main(["pull"])
    assert not (clone.folder / B).exists()
    assert (clone.folder / "nights.jsonl").read_text() == "1" * 250 + "\n"
    told = capsys.readouterr().out
    assert f"left out: mac/{B}: over 0 MiB" in told
    assert "left out: mac/nights.jsonl: with what is here it is over 0 MiB" in told
    original = branch.Branch.batch
    monkeypatch.setattr(
        branch.Branch, "batch", lambda self, files: original(self, [one for one in files if small(one[1])])
    )
    share.main(["push"])
    told = capsys.readouterr().out
    assert on_branch(origin) == there
    assert f"left out: mac/{A}: over 0 MiB" in told
    for name in ("nights", "alerts"):
        assert f"left out: mac/{name}.jsonl: with what the branch has it is over 0 MiB" in told


@pytest.mark.parametrize(
    "machine", ["Mac Studio", "Alice\u2019s Mac Studio", "The Lab's-Mac", "mac (2)", "büro", "é" * 50]
)
def test_a_machine_of_any_name_that_is_one_arrives_at_another(machine, origin, tmp_path):
    clone, other = Clone(tmp_path / "a", origin, machine), Clone(tmp_path / "b", origin, "other")
    run = clone.add_run(1, a=1.0)
    assert clone.run("push", "--machine", machine) == (0, "2 files put on the branch")
    assert other.run("pull") == (0, "2 files brought")
    assert other.files()[run] == clone.files()[run]
    packed = other.run("pack", "--into", str(tmp_path / "packed"), "--machine", machine)
    assert packed == (0, "0 files packed")


@pytest.mark.parametrize("name", ["-mac", "x" * 120, "00:11:22", "mac*", "MLX", "bu\u0308ro", ""])
@pytest.mark.parametrize("what", [share.push, share.pack, share.pull])
def test_a_name_that_no_machine_has_is_refused_before_anything_is_carried(name, what, clone, origin, tmp_path):
    if name:
        shutil.copytree(clone.folder, clone.results / name)
    given = {share.push: (name, "message"), share.pack: (name, tmp_path / "packed"), share.pull: (name,)}[what]
    with pytest.raises(command.UserError, match=f"no machine can be called '{re.escape(name)}'"):
        what(store(), clone.results, *given)
    assert git(origin, "branch", "--list", "results") == ""


def test_the_other_lanes_folder_is_no_machine_of_this_one(clone, origin, capsys):
    share.main(["push"])
    put(origin, {"mlx/machine.json": made_runs.described("mlx"), f"mlx/{A}": made_runs.text("mlx", a=1.0)})
    put(origin, {"mlx/benchmarks.json": "{}", f"MLX/{A}": made_runs.text("MLX", a=1.0), "benchmarks.json": "{}"})
    share.main(["pull"])
    assert {path.name for path in clone.results.iterdir()} == {"mac"}
    told = capsys.readouterr().out
    assert f"left out: mlx/{A}: no machine can be called 'mlx': that is taken" in told
    assert "left out: benchmarks.json" not in told


def test_of_what_is_not_carried_each_file_is_named_with_the_reason(clone, origin, capsys):
    (clone.results / "mac:1").mkdir()
    (clone.results / "mac:1" / "machine.json").write_text("{}")
    for name, text in {"notes.txt": "x", "01234567-env.json": "{", A: "{", "nights.jsonl": "1\n"}.items():
        clone.add(name, text)
    os.symlink("/etc/passwd", clone.folder / "alerts.jsonl")
    (clone.folder / "calibration.jsonl").mkdir()
    (clone.results / "lost").mkdir()
    (clone.results / "lost" / "x.json").write_text("1")
    assert share.main(["push"]) == 0
    assert set(on_branch(origin)) == {"mac/machine.json", "mac/nights.jsonl"}
    told = capsys.readouterr().out
    for line in (
        "2 files put on the branch", "left out: mac/notes.txt: no file of results",
        "left out: mac/01234567-env.json: no JSON", f"left out: mac/{A}: it does not say what it is of",
        "left out: mac/alerts.jsonl: a link, or a program", "left out: mac/calibration.jsonl: a link, or a program",
        "no machine can be called 'mac:1'", "results/lost: it has results, but no machine.json",
    ):  # fmt: skip
        assert line in told
    put(origin, {"deep/er/x.json": "1", "a*/alerts.jsonl": "1\n", f"mac/{A}": "{"} | {f"top{n}": "1" for n in range(5)})
    assert share.main(["pull"]) == 0
    told = capsys.readouterr().out
    assert "left out: a*/alerts.jsonl: no machine can be called 'a*'" in told
    assert "left out: 2 more files" in told
    assert share.main(["push", "--machine", "mac"]) == 0
    assert "mac:1" not in capsys.readouterr().out


def test_two_machines_whose_names_differ_in_case_do_not_share_a_folder(clone, origin, tmp_path, capsys):
    share.main(["push"])
    other = Clone(tmp_path / "b", origin, "MAC")
    code, out = other.run("push", "--machine", "MAC")
    assert code == 2
    assert "the branch has a machine 'mac', and 'MAC' is the same folder on a Mac" in out
    put(origin, {f"{name}/machine.json": made_runs.described(name) for name in ("MAC", "Büro", "BÜRO")})
    put(origin, {"MAC/nights.jsonl": "theirs\n"})
    clone.add("nights.jsonl", "ours\n")
    capsys.readouterr()
    share.main(["pull"])
    assert set(clone.files()) == {"mac/machine.json", "mac/nights.jsonl", "BÜRO/machine.json"}
    assert (clone.folder / "nights.jsonl").read_text() == "ours\n"
    told = capsys.readouterr().out
    assert "left out: MAC/machine.json: where case makes no difference it is mac's folder" in told
    assert "left out: Büro/machine.json: where case makes no difference it is BÜRO's folder" in told


def test_a_machine_that_is_not_here_is_told_those_that_are(clone):
    code, out = clone.run("push", "--machine", "Mac Studio")
    assert code == 2
    assert "no machine 'Mac Studio' below results; there are: mac" in out
    (clone.folder / "machine.json").unlink()
    clone.add("x.json", "1")
    code, out = clone.run("push")
    assert code == 2
    assert "results/mac: it has results, but no machine.json" in out
    assert "run asv" not in out


def test_packed_is_what_the_branch_has_not(clone, origin, tmp_path):
    first = clone.add_run(1, a=1.0)
    share.main(["push"])
    share.main(["pack", "--into", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()
    second = clone.add_run(2, a=2.0)
    share.main(["pack", "--into", str(tmp_path / "packed")])

    def packed(name: str) -> set[str]:
        return {str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*.json*")}

    assert packed("packed") == {"mac/machine.json", second}
    origin.rename(tmp_path / "away")
    share.main(["pack", "--into", str(tmp_path / "all")])
    assert packed("all") == {"mac/machine.json", first, second}
    (tmp_path / "away").rename(origin)
    share.main(["push", "--results", str(tmp_path / "packed"), "--remote", str(origin)])
    assert set(on_branch(origin)) == {"mac/machine.json", first, second}


def test_only_the_machine_that_is_named(clone, origin, tmp_path):
    theirs = {f"{name}/machine.json": made_runs.described(name) for name in ("intruder", "guest")}
    (clone.results / "intruder").mkdir()
    (clone.results / "intruder/machine.json").write_text(theirs["intruder/machine.json"])
    share.main(["push", "--machine", "mac"])
    assert set(on_branch(origin)) == {"mac/machine.json"}
    put(origin, theirs)
    shutil.rmtree(clone.results)
    share.main(["pull", "--machine", "guest"])
    assert set(clone.files()) == {"guest/machine.json"}


def test_errors_are_one_line(clone, origin, tmp_path):
    moved = origin.rename(tmp_path / "away")
    process = clone.start("push")
    told, _ = process.communicate()
    assert process.returncode == 2
    progress, error = told.splitlines()
    assert progress == "pushing results, branch results of origin"
    assert error.startswith("error: origin cannot be reached: git ls-remote: fatal: ")
    assert error.endswith("; results stay here")
    moved.rename(origin)
    for arguments, why in (
        (["pull", "--branch=a..b"], "'a..b' cannot be a branch's name"),
        (["pull", "--remote=-x"], "no remote '-x'; git remote lists them"),
        (["pull", "--remote=--upload-pack=touch x"], "no remote '--upload-pack=touch '; git remote lists them"),
        (["pack"], "pack into which folder? --into DIR"),
        (["push", "--machine", "nobody"], "no machine 'nobody' below results; there are: mac"),
    ):
        assert clone.run(*arguments) == (2, f"error: {why}")
    assert not (clone.path / "x").exists()


def test_a_remote_that_takes_no_push_is_told_and_nothing_lost(clone, origin, monkeypatch):
    hook = origin / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'the branch is protected' >&2\nexit 1\n")
    hook.chmod(0o755)
    monkeypatch.setattr(share.time, "sleep", lambda seconds: None)
    told = "branch results of origin takes no push: .*the branch is protected.*pre-receive hook declined"
    with pytest.raises(command.UserError, match=told):
        share.main(["push"])
    hook.unlink()
    assert share.main(["push"]) == 0


def test_who_is_slower_builds_on_what_the_faster_pushed(clone, origin, monkeypatch):
    share.main(["push"])
    original, raced = branch.Branch.push, threading.Event()

    def race(*arguments):
        if not raced.is_set():
            raced.set()
            put(origin, {"faster/machine.json": made_runs.described("faster")})
        return original(*arguments)

    monkeypatch.setattr(branch.Branch, "push", race)
    run = clone.add_run(1, a=1.0)
    assert share.main(["push"]) == 0
    assert set(on_branch(origin)) == {"mac/machine.json", run, "faster/machine.json"}


def test_few_of_many_files_are_named():
    told = carried.told({f"mac/{number}\x1b": "odd" for number in range(7)})
    assert told == [*(f"left out: mac/{number}: odd" for number in range(5)), "left out: 2 more files"]
