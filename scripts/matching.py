"""What is compared with what: equal cases of two sides, or equal workloads of two variants."""

from typing import NamedTuple

from benchmarks.harness import cases
from benchmarks.harness.cases import Case
from scripts import command, counting, sides
from scripts.sides import Side


class Match(NamedTuple):
    """A case of the base and one of the head, None where a side does not have it."""

    name: str
    base: Case | None
    head: Case | None

    @property
    def case(self) -> Case:
        """One of them, for what both have in common."""
        found = self.head or self.base
        assert found
        return found

    @property
    def both(self) -> tuple[Case, Case] | None:
        return (self.base, self.head) if self.base and self.head else None

    def same_code(self, base: Side, head: Side) -> bool:
        """Whether there is nothing that could differ."""
        return self.both is not None and sides.same(base, head, (self.both[0].variant, self.both[1].variant))


def matches(pair: tuple[Side, Side], variants: list[list[str]], profile: str, pattern: str | None) -> list[Match]:
    """What to compare of a pair of sides that have these `variants`. Raises UserError."""
    base, head = pair
    if bool(base.variant) != bool(head.variant):
        raise command.UserError("a variant is compared with a variant; write variant:NAME on both sides")
    if base.variant and head.variant:
        return of_variants(base.variant, head.variant, profile, pattern)
    return [
        Match(str(case), *(case if case.variant in names else None for names in variants))
        for case in counting.select(sorted({*variants[0], *variants[1]}), profile, pattern)
    ]


def of_variants(base: str, head: str, profile: str, pattern: str | None) -> list[Match]:
    """A match for every workload that both variants are measured on. Raises UserError."""
    finds = counting.expression(pattern)
    of_head = {case.workload: case for case in cases.chosen([head], profile)}
    found = [
        Match(f"{base}:{head}/{case.workload}", case, of_head[case.workload])
        for case in cases.chosen([base], profile)
        if case.workload in of_head and (finds(str(case)) or finds(str(of_head[case.workload])))
    ]
    if not found:
        raise counting.nothing_matches(profile, pattern)
    return found
