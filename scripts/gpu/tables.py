"""What was found on a GPU, as lines and tables for people."""

import statistics
from typing import Any

from rich.console import Console
from rich.table import Table

from scripts.gpu import findings
from scripts.gpu.findings import Finding, Line

STATES = {True: "as assumed", False: "WRONG", None: "not told"}


def progress(line: Line) -> str:
    """One line about what was just found; empty where a table tells it better."""
    reason = line.get("why") or line.get("skipped")
    name = line.get("case") or line.get("part") or line.get("variant") or line["what"]
    if reason:
        return f"{name}: {reason}"
    if line["what"] in ("step", "peer"):
        return f"{line['case']}: {1e3 * statistics.median(line['seconds']):.4g} ms"
    if line["what"] == "ceiling":
        return f"{line['kernel']}: {line['bytes_per_second'] / 1e9:.0f} GB/s"
    if line["what"] == "right":
        return f"{line['variant']} {line['dtypes']}: {findings.number(line['excess']):.2f} of the error that is allowed"
    if line["what"] == "machine":
        return line["description"]
    return ""


def show(lines: list[Line], found: list[Finding], console: Console) -> None:
    for table in (steps(lines), traffic(lines), energy(lines)):
        if table.row_count:
            console.print(table)
            console.print()
    for one in found:
        text = f"{STATES[one.holds]:10}  {one.assumed}: {one.found}"
        console.print(
            text, style="bold red" if one.holds is False else "", markup=False, highlight=False, soft_wrap=True
        )
    for line in about(lines):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def about(lines: list[Line]) -> list[str]:
    """Where it ran, and against what."""
    told = [line["description"] for line in findings.of(lines, "machine")]
    told += [
        f"spec ceiling {line['gigabytes_per_second']} GB/s ({line['source']})" for line in findings.of(lines, "spec")
    ]
    told += [
        f"measured ceiling {line['bytes_per_second'] / 1e9:.0f} GB/s ({line['kernel']})"
        for line in findings.of(lines, "ceiling")
    ]
    told += ["*: of the case's longest kernel, in %"] if findings.of(lines, "traffic") else []
    told += list(dict.fromkeys(f"energy by {line['source']}" for line in findings.of(lines, "energy")))
    told += [f"{line['part']}: {line['why']}" for line in lines if line["what"] == "lost"]
    return told


def steps(lines: list[Line]) -> Table:
    """A block a workload: variants and peers, the fastest first."""
    rate, ratios = findings.copy_rate(lines), findings.times_torch(lines)
    table = plain(
        "workload", "\nms", "\n± %", "\nGB/s", "% of\ncopy", "host\nms", "peak/\nideal", "\nerror", "x\ntorch"
    )
    done = [line for line in findings.of(lines, "step", "peer") if line.get("seconds")]
    workloads = dict.fromkeys(line["case"].partition("/")[2] for line in done)
    for workload in workloads:
        table.add_row(workload, style="bold")
        block = [line for line in done if line["case"].partition("/")[2] == workload]
        for line in sorted(block, key=lambda line: statistics.median(line["seconds"])):
            median = statistics.median(line["seconds"])
            lower, _, upper = statistics.quantiles(line["seconds"], n=4)
            speed = line["ideal_bytes"] / median
            peak = line["peak"] / line["resident_bytes"] if line.get("resident_bytes") and line.get("peak") else None
            table.add_row(
                f"  {line['case'].partition('/')[0]}",
                f"{1e3 * median:.4g}",
                f"{50 * (upper - lower) / median:.1f}",
                f"{speed / 1e9:.4g}",
                shown(speed / rate * 100 if rate else None, ".1f"),
                shown(1e3 * line["host"] if line.get("host") else None, ".3g"),
                shown(peak, ".2f"),
                f"{findings.number(line['error']):.0e}",
                shown(ratios.get(line["case"]), ".2f"),
            )
    return table


def traffic(lines: list[Line]) -> Table:
    table = plain(
        "case", "ker-\nnels", "MB\nread", "MB\nwritten", "of\nmodel", "\nms", "regi-\nsters*", "occu-\npancy*"
    )
    for line in findings.of(lines, "traffic"):
        read, written = line["read"], line["written"]
        model = findings.model_of(line["case"])
        whole = None if read is None or written is None else read + written
        table.add_row(
            line["case"],
            str(line["kernels"]),
            shown(read / 1e6 if read is not None else None, ".1f"),
            shown(written / 1e6 if written is not None else None, ".1f"),
            shown(whole / model if whole is not None and model else None, ".3f"),
            shown(line["nanoseconds"] / 1e6 if line["nanoseconds"] is not None else None, ".4g"),
            shown(line["registers"], ".0f"),
            shown(line["occupancy"], ".0f"),
        )
    return table


def energy(lines: list[Line]) -> Table:
    table = plain("case", "J a\nstep", "nJ a pa-\nrameter", "\nW", "W\nidle", "\nsteps", "window\ns")
    for line in findings.of(lines, "energy"):
        table.add_row(
            line["case"],
            f"{line['joules']:.4g}",
            f"{1e9 * line['joules'] / line['parameters']:.3g}",
            f"{line['watts']:.0f}",
            f"{line['idle_watts']:.0f}",
            str(line["steps"]),
            f"{line['seconds']:.2f}",
        )
    return table


def plain(first: str, *headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"\n{first}", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def shown(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)
