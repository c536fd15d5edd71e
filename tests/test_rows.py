"""What a comparison prints: a row a case, and what is said of the machine."""

import math

import pytest
from paired import FASTER, LIMITS, SAME, SLOWER, SMALL, UNSURE, match, outcome
from rich.console import Console

from benchmarks.harness import cases
from scripts import exact, rows, verdict
from scripts.matching import Match
from scripts.timing import Outcome


class TestRows:
    def judged(self, outcomes: dict[str, Outcome], wanted: list[Match] | None = None, changes=None) -> list[rows.Row]:
        return rows.judge(wanted or [match(name) for name in outcomes], outcomes, changes or {}, LIMITS)

    def test_verdicts_and_exit_codes(self):
        def code(**outcomes: list[float] | list[str]) -> int:
            made = {
                f"{variant}/float32/leaf_1024": outcome(one) if isinstance(one[0], float) else outcome([], reasons=one)
                for variant, one in outcomes.items()
            }
            return rows.exit_code(self.judged(made))

        assert code(compiled=SAME) == 0
        assert code(compiled=FASTER, eager=UNSURE) == 0
        assert code(compiled=SLOWER, eager=SAME) == 1
        assert code(compiled=UNSURE, eager=UNSURE) == 3
        assert code(compiled=["", "broke"], eager=SAME) == 1
        assert code(compiled=["broke", "broke"]) == 2
        assert code(compiled=["broke", "broke"], eager=SAME) == 0
        assert rows.exit_code([]) == 0

    def test_a_row_says_how_much_with_an_interval_and_what_could_be_found(self):
        (row,) = self.judged({SMALL: outcome(SLOWER)})
        assert row.verdict == verdict.SLOWER
        assert row.low < row.ratio < row.high
        assert math.isclose(row.ratio, math.exp(0.101), rel_tol=1e-3)
        assert row.detectable > LIMITS.min_effect
        assert row.milliseconds == pytest.approx((10, 10 * math.exp(0.101)))
        assert row.logs == tuple(SLOWER)

    def test_what_only_one_side_has_is_no_failure(self):
        case = cases.case("compiled", "float32/leaf_1024")
        new, gone = Match("new/x", None, case), Match("gone/x", case, None)
        assert [row.verdict for row in self.judged({}, [new, gone])] == [rows.NEW, rows.GONE]
        assert rows.exit_code(self.judged({}, [new, gone])) == 0
        broken = {SMALL: outcome([], reasons=["broke", "broke"])}
        assert rows.exit_code(self.judged(broken, [match(), new])) == 2  # nothing was timed

    def test_the_table_names_the_reason_and_takes_text_as_text(self, capsys):
        change = exact.Change(SMALL, exact.WORSE, "traffic 10N, was 7N [red]", 3, {})
        judged = self.judged({SMALL: outcome(SLOWER), "eager/float32/leaf_1024": outcome([], reasons=["", "[bold]no"])},
                             changes={SMALL: change})  # fmt: skip
        Console(width=100).print(rows.table(judged))
        shown = capsys.readouterr().out
        words = " ".join(shown.split())
        assert "slower +10.6%" in words
        assert "traffic 10N, was 7N [red]; 3 more Python calls" in words
        assert "head: [bold]no" in words
        assert all(len(line) <= 100 for line in shown.splitlines())
        assert shown.index("broken") < shown.index("slower")

    def test_a_busy_or_noisy_machine_is_told_so(self):
        def said(made: Outcome, after: dict | None = None) -> list[str]:
            conditions = {"before": {"load": 1.0, "thermal_pressure": 0}, "after": after or {"load": 1.0}}
            return rows.warnings(self.judged({SMALL: made}), conditions, LIMITS)

        assert said(outcome(SAME)) == []
        (busy,) = said(outcome(SAME, disturbed=9))
        assert "another process held a core in 90% of a case's rounds" in busy
        (noisy,) = said(outcome(UNSURE))
        assert "undecided cases find no slowdown below" in noisy
        battery, heat = said(outcome(SAME), {"load": 1.0, "thermal_pressure": 2, "on_battery": True})
        assert "on battery" in battery
        assert "thermal pressure 2 (was 0)" in heat
