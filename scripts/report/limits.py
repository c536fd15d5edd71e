"""What a machine allows, as lines to draw beside what it did."""

import math
from typing import Any

from benchmarks.harness.cases import PRECISIONS
from scripts import command
from scripts.report.newest import Newest

MEASURED, SPEC, LAUNCH = "measured ceiling", "vendor's ceiling", "launch-bound"

INTENSITIES = (0.1, 10.0)
"""Operations a byte between which the classical roofline is drawn; AdamW's are within."""


def limits(one: Newest) -> dict[str, list[dict[str, Any]]]:
    """The rows of `cache`, `ceilings`, `launch` and `roofs`, which the charts draw; none without a ledger."""
    if not one.host or "resident_bytes" not in one.cases:
        return {"cache": [], "ceilings": [], "launch": [], "roofs": []}
    smallest = float(one.cases["resident_bytes"].min())
    bandwidths = ceilings(one)
    return {
        "cache": cache(one.host["machine"]["cache_bytes"], smallest),
        "ceilings": bandwidths,
        "launch": launch(one.host["launch"], smallest, bandwidths[0]["gigabytes_per_second"]),
        "roofs": [point for bandwidth in bandwidths for point in roof(bandwidth)],
    }


def ceilings(one: Newest) -> list[dict[str, Any]]:
    """The measured ceilings, of each run that the cases are from, and the vendor's if there is one."""
    measured, spec = one.cases.drop_duplicates("ceiling"), one.host["spec"]
    found = [
        {"kind": MEASURED, "gigabytes_per_second": rate / share, "told": told}
        for rate, share, told in zip(
            measured["gigabytes_per_second"], measured["ceiling_fraction"], measured["ceiling"], strict=True
        )
    ]
    if spec:
        told = command.one_line(f"{spec['gigabytes_per_second']:g} GB/s, {spec['source']}")
        found.append({"kind": SPEC, "gigabytes_per_second": spec["gigabytes_per_second"], "told": told})
    return found


def cache(size: int | None, smallest: float) -> list[dict[str, Any]]:
    """The trees that fit the last-level cache."""
    if not size or size <= smallest:
        return []
    return [{"start": smallest, "end": size, "told": f"fits the last-level cache, {size / 2**20:.0f} MiB"}]


def launch(cost: dict[str, float], smallest: float, ceiling: float) -> list[dict[str, Any]]:
    """The most that one launch for one float32 leaf leaves of the bandwidth, from the smallest tree to the ceiling."""
    precision, seconds = PRECISIONS["float32"], cost["fixed"] + cost["each"]
    if not seconds:
        return []
    slope = precision.ideal_bytes / precision.resident_bytes / seconds / 1e9
    end = ceiling / slope
    if not math.isfinite(end) or end <= smallest:
        return []
    told = f"one float32 leaf: {seconds * 1e6:.3g} microseconds to launch, measured here"
    return [
        {"kind": LAUNCH, "resident_bytes": size, "gigabytes_per_second": slope * size, "told": told}
        for size in (smallest, end)
    ]


def roof(bandwidth: dict[str, Any]) -> list[dict[str, Any]]:
    """A bandwidth's line on the classical roofline."""
    return [
        bandwidth | {"operations_per_byte": some, "gigaoperations_per_second": bandwidth["gigabytes_per_second"] * some}
        for some in INTENSITIES
    ]
