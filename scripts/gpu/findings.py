"""What was assumed of an NVIDIA GPU, held against what was found on one."""

import math
import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks.harness import cases
from benchmarks.harness.counters import FIGURES, Donation
from benchmarks.harness.gpu.chosen import OWN
from scripts.gpu.process import NO_TIME

Line = dict[str, Any]


class Finding(NamedTuple):
    """Whether what is assumed holds (None: it cannot be told), and what was found, in words."""

    assumed: str
    holds: bool | None
    found: str


SAME_WAY = {"float32": 1e-4}
COARSE_WAY = 0.02
"""The error of the way after 200 steps that float32 arithmetic has at most, storage's rounding left out; in coarser
storage a result that is rounded the other way once goes on from there."""

MUST_TELL = ("machine", "right", "counters", "steps")

FASTEST = 1.05
"""How much faster than the ceiling a tree that does not fit the cache may be updated."""

MEASURED = 0.03
"""How far the measured bytes of a step may be from the modelled ones."""

REPEATS = 0.05
"""How far two measurements of the energy of a step may be apart."""

SHARE = 0.9
"""The share of the measured copy bandwidth that `kernel` is meant to reach on trees that are not launches only."""

SHARED = ("one_leaf", "gpt2")

ZERO = ("wrong_results", "kept_arrays", "graph_growth", "memory_growth")
"""The counters that are 0 in every case."""

DEVICES_DIFFER = ("calls", "peak_bytes", "allocated_bytes")
"""Counters that may differ between backends: by what is donated to, and by which variants' code runs."""


def judged(lines: list[Line]) -> list[Finding]:
    """Every finding that `lines` allow."""
    return [one for look in LOOKS for one in look(lines)]


def of(lines: list[Line], *what: str) -> list[Line]:
    """The lines about something, those that only say why there is nothing left out."""
    return [line for line in lines if line["what"] in what and "why" not in line and "skipped" not in line]


def looked_at(lines: list[Line]) -> Iterator[Finding]:
    """What was begun to be looked at is told: a kernel that ends its process is wrong, too."""
    lost = [f"{line['part']}: {line['why']}" for line in lines if line["what"] == "lost" and is_wrong(line)]
    if lost:
        yield Finding("whatever is right and counted is told", False, "; ".join(lost))


def is_wrong(line: Line) -> bool:
    """Whether a part that should have told something did not, though it had the time and what it needs."""
    excused = line["why"].startswith((NO_TIME, "not available"))
    return line["part"].partition(" ")[0] in MUST_TELL and not excused


def number(value: Any) -> float:
    """A figure of a line; what is none, as JSON has no infinity, is infinite."""
    return float(value) if isinstance(value, (int, float)) else math.inf


def rounded_once(lines: list[Line]) -> Iterator[Finding]:
    found = of(lines, "right")
    for variant in dict.fromkeys(line["variant"] for line in found):
        excess = {line["dtypes"]: number(line["excess"]) for line in found if line["variant"] == variant}
        told = ", ".join(f"{name} {value:.2f}" for name, value in excess.items())
        holds = max(excess.values()) <= 1
        yield Finding(f"{variant}: float32 arithmetic, each result rounded once", holds, f"error over bound: {told}")


def same_way(lines: list[Line]) -> Iterator[Finding]:
    found = of(lines, "way")
    for variant in dict.fromkeys(line["variant"] for line in found):
        errors = {line["precision"]: number(line["error"]) for line in found if line["variant"] == variant}
        told = ", ".join(f"{name} {value:.1e}" for name, value in errors.items())
        holds = all(value <= SAME_WAY.get(name, COARSE_WAY) for name, value in errors.items())
        yield Finding(f"{variant}: AdamW's way in 200 steps", holds, f"error of the way: {told}")


def donation(lines: list[Line]) -> Iterator[Finding]:
    kinds = Donation._fields
    found = {line["device"]: {kind: line[kind] for kind in kinds} for line in of(lines, "donates")}
    if "gpu" in found:
        told = ", ".join(f"{name} {value}" for name, value in found["gpu"].items())
        holds = found["gpu"] == found["cpu"] if "cpu" in found else None
        yield Finding("MLX donates to what it donates to on its CPU backend", holds, told)


def counters(lines: list[Line]) -> Iterator[Finding]:
    by_device: dict[str, dict[str, Line]] = {"gpu": {}, "cpu": {}}
    for line in of(lines, "counters"):
        by_device[line["device"]][line["case"]] = line
    gpu, cpu = by_device["gpu"], by_device["cpu"]
    if not gpu:
        return
    bad = [f"{case}: {name} {line[name]}" for case, line in gpu.items() for name in ZERO if line[name]]
    yield Finding("nothing is wrong, kept or growing in any case", not bad, "; ".join(bad) or f"{len(gpu)} cases")
    both = [case for case in gpu if case in cpu]
    names = [figure.name for figure in FIGURES if figure.name in next(iter(gpu.values()))]
    other = [
        f"{case}: {name} {gpu[case][name]}, on the CPU {cpu[case][name]}"
        for case in both
        for name in names
        if gpu[case][name] != cpu[case][name]
    ]
    strict = [text for text in other if not any(f": {name} " in text for name in DEVICES_DIFFER)]
    if both:
        told = "; ".join(other) or f"all of {len(both)} cases"
        yield Finding("the counters of a step are the CPU backend's", not strict, told)


def not_faster_than_memory(lines: list[Line]) -> Iterator[Finding]:
    rate, cache = copy_rate(lines), next((line["cache_bytes"] for line in of(lines, "machine")), None)
    steps = [line for line in of(lines, "step", "peer") if line.get("seconds")]
    if not rate or not steps:
        return
    best = max(line["bytes_per_second"] for line in of(lines, "ceiling"))
    fast = [
        f"{line['case']} {line['ideal_bytes'] / min(line['seconds']) / best:.2f}"
        for line in steps
        if line["ideal_bytes"] > 4 * (cache or 0) and line["ideal_bytes"] / min(line["seconds"]) > FASTEST * best
    ]
    told = "; ".join(fast) or f"{len(steps)} cases"
    yield Finding("no step moves its bytes faster than the ceiling", not fast, told)


def failures(lines: list[Line]) -> Iterator[Finding]:
    steps = [line for line in lines if line["what"] == "step"]
    failed = [f"{line['case']}: {line['why']}" for line in steps if "why" in line]
    if steps:
        yield Finding(
            "every variant that runs here is right on every tree",
            not failed,
            "; ".join(failed) or f"{len(steps)} cases",
        )


def kernel_share(lines: list[Line]) -> Iterator[Finding]:
    rate = copy_rate(lines)
    medians = {line["case"]: (statistics.median(line["seconds"]), line["ideal_bytes"]) for line in of(lines, "step")}
    for variant in OWN:
        shares = {
            tree: medians[case][1] / medians[case][0] / rate
            for tree in SHARED
            if rate and (case := f"{variant}/float32/{tree}") in medians
        }
        if shares:
            told = ", ".join(f"{tree} {share:.1%}" for tree, share in shares.items())
            holds = min(shares.values()) >= SHARE
            yield Finding(f"{variant} in float32: at least {SHARE:.0%} of the copy's bandwidth", holds, told)


def share_on_the_device(lines: list[Line]) -> Iterator[Finding]:
    """As `kernel_share`, of the seconds that the kernels themselves took under the profiler: what the host adds is not
    in them."""
    rate = copy_rate(lines)
    found = {line["case"]: line["nanoseconds"] for line in of(lines, "traffic") if line["nanoseconds"]}
    for variant in OWN:
        shares = {
            tree: cases.case(variant, f"float32/{tree}").ideal_bytes / found[case] * 1e9 / rate
            for tree in SHARED
            if rate and (case := f"{variant}/float32/{tree}") in found
        }
        if shares:
            told = ", ".join(f"{tree} {share:.1%}" for tree, share in shares.items())
            assumed = f"{variant} in float32, its kernels' own time: at least {SHARE:.0%} of the copy's bandwidth"
            yield Finding(assumed, min(shares.values()) >= SHARE, f"{told} (the copy's by the wall clock)")


def beside_torch(lines: list[Line]) -> Iterator[Finding]:
    ratios = {name: ratio for name, ratio in times_torch(lines).items() if "/float32/" in name}
    for variant in OWN:
        own = {name.split("/")[2]: ratio for name, ratio in ratios.items() if name.startswith(f"{variant}/")}
        if own:
            told = ", ".join(f"{tree} {ratio:.2f}" for tree, ratio in own.items())
            assumed = f"{variant} in float32: at most 1.0 x PyTorch fused on every tree"
            yield Finding(assumed, max(own.values()) <= 1.0, told)


def modelled(lines: list[Line]) -> Iterator[Finding]:
    expected = {line["case"]: line["modelled_bytes"] for line in of(lines, "counters") if line["device"] == "gpu"}
    off = {}
    for line in of(lines, "traffic"):
        if None not in (line.get("read"), line.get("written")) and (
            model := expected.get(line["case"]) or model_of(line["case"])
        ):
            off[line["case"]] = (line["read"] + line["written"]) / model
    if off:
        told = ", ".join(f"{case} {ratio:.3f}" for case, ratio in off.items())
        holds = max(abs(ratio - 1) for ratio in off.values()) <= MEASURED
        yield Finding(
            f"measured DRAM bytes are within {MEASURED:.0%} of the modelled ones",
            holds,
            f"measured over modelled: {told}",
        )


def model_of(case: str) -> float | None:
    """The bytes of a step whose variant moves each array as often as it must."""
    variant, _, workload = case.partition("/")
    passes = {"eager": 30 / 7, "split": 10 / 7}.get(variant, 1.0)
    return cases.case(variant, workload).ideal_bytes * passes


def energy_repeats(lines: list[Line]) -> Iterator[Finding]:
    joules: dict[str, list[float]] = {}
    for line in of(lines, "energy"):
        joules.setdefault(line["case"], []).append(line["joules"])
    apart = {case: max(found) / min(found) - 1 for case, found in joules.items() if len(found) > 1}
    if apart:
        told = ", ".join(f"{case} {joules[case][0]:.3g} J, {value:.1%} apart" for case, value in apart.items())
        yield Finding(f"joules a step repeat within {REPEATS:.0%}", max(apart.values()) <= REPEATS, told)


LOOKS: tuple[Callable[[list[Line]], Iterator[Finding]], ...] = (
    looked_at,
    rounded_once,
    same_way,
    donation,
    counters,
    failures,
    not_faster_than_memory,
    kernel_share,
    share_on_the_device,
    beside_torch,
    modelled,
    energy_repeats,
)


def copy_rate(lines: list[Line]) -> float | None:
    """Bytes a second of the fastest copy: what reads and writes one array each."""
    return max(
        (one["bytes_per_second"] for one in of(lines, "ceiling") if one["kernel"].endswith("copy")), default=None
    )


def times_torch(lines: list[Line]) -> dict[str, float]:
    """Every case with bias correction over PyTorch's fused step on the same tree, parameters of the same dtype."""
    fused = {
        line["case"].partition("/")[2]: statistics.median(line["seconds"])
        for line in of(lines, "peer")
        if line["case"].startswith("torch_fused/")
    }
    return {
        line["case"]: statistics.median(line["seconds"]) / fused[workload]
        for line in of(lines, "step", "peer")
        if (workload := line["case"].partition("/")[2]) in fused
    }
