"""Print what was measured: milliseconds, GB/s, % of the ceiling, peak over ideal and error of every case."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks.harness import cases
from benchmarks.harness.ceiling import Ceiling
from benchmarks.harness.measurement import Measurement, Traffic
from scripts import archive, command, git, ledger

WIDTH = command.WIDTH
NOTE_WIDTH = 9
HASH_LENGTH = 8  # of asv's file names
QUIET = 0.95
"""CPU time over wall time below which a case on MLX's CPU backend shared its core with another process."""

NOTES = {
    "cache": "cache-resident, the tree fits the last-level cache or beats the ceiling: not memory's speed",
    "busy": "another process held the core; the share that was left",
}

NOT_FINITE = "inf: an error that is not finite; values overflowed, as half precision does"

OPTIONAL = {"long_run_error": "2000\nsteps", "joules": "J a\nstep", "dram_ratio": "DRAM/\nideal"}
"""Figures that only some runs have, and their headings: a column is there where one case has the figure."""

FORMS = {"long_run_error": ".0e", "joules": ".3g", "dram_ratio": ".2f"}

EPILOG = """examples:
  python -m scripts.table                       the newest results of the machine measured last
  python -m scripts.table --machine mac-studio --json table.json
"""


class Report:
    """What one machine measured of one commit in one environment, in whatever run."""

    def __init__(self, path: Path) -> None:
        """Raises UserError, and what reading a damaged run does."""
        self.path = path
        self.machine_name = archive.folder(path).name
        entries = archive.together(path)
        self.cases = ledger.by_case(entries)
        self.long_run_errors = ledger.long_run_errors(entries)
        self.failures = ledger.failures(entries)
        host = ledger.machine(entries)
        if not host:
            raise command.UserError(f"{path} does not say which machine it was measured on; run asv again")
        self.host = host
        self.marks = ledger.marks(entries)

    @property
    def ceilings(self) -> list[str]:
        """What the cases are held against: one ceiling a run that measured any of them."""
        return sorted({str(Ceiling(**entry["ceiling"])) for entries in self.cases.values() for entry in entries}) or [
            "none measured"
        ]

    @property
    def description(self) -> list[str]:
        """What ran where, and what it is held against."""
        settings, spec = self.host["settings"], self.host["spec"]
        spec_text = (
            f"{spec['gigabytes_per_second']:g} GB/s ({spec['source']})" if spec else "none known for this device"
        )
        return [
            f"{self.host['description']}",
            f"machine {self.machine_name}, commit {str(self.host['commit'])[:8]}, mlx {settings['mlx']}, "
            f"Python {settings['python']}",
            "% of ceiling: " + "; in another run: ".join(self.ceilings),
            f"spec ceiling: {spec_text}",
            *([f"measured although: {self.marks}"] if self.marks else []),
        ]

    def frame(self) -> pd.DataFrame:
        """A row a case, in the order of the workloads. GB/s are ideal bytes over median seconds."""
        rows = []
        for case, entries in self.cases.items():
            long_run = self.long_run_errors.get("/".join(case.split("/")[:2]))
            rows.append(row(case, entries, self.host["machine"]) | {"long_run_error": long_run})
        order = {name: place for place, name in enumerate(cases.WORKLOADS)}
        rows.sort(key=lambda row: (order.get(row["workload"], len(order)), row["parameters"], row["variant"]))
        return pd.DataFrame(rows)


def row(name: str, entries: list[ledger.Entry], machine: dict[str, Any]) -> dict[str, Any]:
    """A case's figures: seconds from the samples of all its processes, the rest from the last one."""
    variant, _, workload = name.partition("/")
    last = entries[-1]
    processes = [Measurement.from_dict(entry["measurement"]) for entry in entries]
    measured, ceiling = processes[-1], Ceiling(**last["ceiling"])
    traffic = measured.work.modelled_bytes
    seconds = pd.Series([second for process in processes for second in process.step.seconds])
    lower, median, upper = seconds.quantile([0.25, 0.5, 0.75])
    rate = last["ideal_bytes"] / median
    notes = []
    if rate > ceiling.bytes_per_second or (machine["cache_bytes"] and last["resident_bytes"] <= machine["cache_bytes"]):
        notes.append("cache")
    busy = min(process.step.busy for process in processes)
    if machine["backend"] == "CPU" and busy < QUIET:
        notes.append(f"busy {busy:.0%}")
    return {
        "variant": variant,
        "workload": workload,
        "parameters": last["parameters"],
        "processes": len(processes),
        "samples": len(seconds),
        "milliseconds": median * 1e3,
        "spread": (upper - lower) / median,
        "gigabytes_per_second": rate / 1e9,
        "ceiling": str(ceiling),
        "ceiling_fraction": rate / ceiling.bytes_per_second,
        "traffic_ratio": traffic and traffic / last["ideal_bytes"],
        "peak_ratio": measured.memory.peak / last["resident_bytes"],
        "error": measured.error,
        "joules": next((one.energy.joules for one in reversed(processes) if one.energy), None),
        "dram_ratio": next((moved(one.traffic) / last["ideal_bytes"] for one in processes if one.traffic), None),
        "notes": " ".join(notes),
    }


def moved(traffic: Traffic) -> float:
    """Bytes from and to DRAM."""
    return traffic.read + traffic.written


def table(report: Report) -> Table:
    """The report as a table of at most WIDTH columns; the sweep's sizes are left to the reports."""
    shown = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    shown.add_column("\nworkload", no_wrap=True)
    shown.add_column("\nvariant", no_wrap=True)
    frame = report.frame()
    optional = {name: heading for name, heading in OPTIONAL.items() if report.cases and frame[name].notna().any()}
    for heading in ("\nms", "\n± %", "\nGB/s", "% of\nceiling", "peak/\nideal", "\nerror", *optional.values()):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("\nnote", max_width=NOTE_WIDTH)
    last = ""
    for case in frame.itertuples():
        if case.workload.split("/")[1].startswith("leaf_"):
            continue
        if last and case.workload != last:
            shown.add_row()
        shown.add_row(
            case.workload if case.workload != last else "",
            case.variant,
            f"{case.milliseconds:.3g}" if case.milliseconds < 1000 else f"{case.milliseconds:.0f}",
            f"{case.spread * 50:.0f}",
            f"{case.gigabytes_per_second:.3g}",
            f"{case.ceiling_fraction:.1%}".rstrip("%"),
            f"{case.peak_ratio:.2f}",
            f"{case.error:.0e}",
            *("" if pd.isna(value := getattr(case, name)) else format(value, FORMS[name]) for name in optional),
            case.notes,
        )
        last = case.workload
    return shown


def show(report: Report, console: Console) -> None:
    """The table, then what it was measured on and against, what its notes mean, and what failed."""
    console.print(table(report))
    console.print()
    for line in report.description:
        console.print(line, markup=False, highlight=False)
    notes = set(" ".join(report.frame().notes).split()) if report.cases else set()
    for word, meaning in NOTES.items():
        if word in notes:
            console.print(f"{word}: {meaning}", markup=False, highlight=False)
    if report.cases and np.isinf(report.frame()[["error", "long_run_error"]].astype(float)).any(axis=None):
        console.print(NOT_FINITE, markup=False, highlight=False)
    for message in report.failures.values():
        console.print(f"FAILED {message[:500]}", markup=False, highlight=False, style="red")


def newest(results: Path, machine: str | None = None, commit: str | None = None) -> Path:
    """The run that was begun last, of `machine` and `commit` or of any. Raises UserError if there is none."""
    there = sorted(results.iterdir()) if results.is_dir() else []
    folders = [folder for folder in there if folder.is_dir() and machine in (None, folder.name)]
    files = [path for folder in folders for path in archive.paths(folder, (commit or "")[:HASH_LENGTH])]
    found = [(moment, path) for path in files if (moment := archive.moment(path)) is not None]
    if not found:
        of = (f" of machine {machine}" if machine else "") + (f" for commit {commit}" if commit else "")
        if files:
            count = f"{len(files)} result file{'s' * (len(files) > 1)}"
            told = f"{count}, none of which says what it was measured on; scripts.detect and scripts.report read them"
            raise command.UserError(f"no table of {results}{of}: {told}")
        raise command.UserError(f"no results in {results}{of}; run `make bench` or `asv run` first")
    return max(found)[1]


def full_hash(commit: str | None) -> str | None:
    """The hash that git knows `commit` by (HEAD, a branch); as it is if git knows nothing of it."""
    return git.find_commit(commit) or commit if commit else None


def parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__, EPILOG)
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument("--machine", metavar="NAME", help="default: the machine measured last")
    parser.add_argument("--commit", metavar="REV", help="a hash, a branch, HEAD; default: the commit measured last")
    parser.add_argument("--json", type=command.file_path, metavar="FILE", help="also write the rows as JSON")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    report = Report(newest(options.results, options.machine, full_hash(options.commit)))
    show(report, command.console(width=command.WIDTH))
    if options.json:
        write_json(report, options.json)
    return 1 if report.failures else 0


def write_json(report: Report, path: Path) -> None:
    command.write_json(path, {"machine": report.host, "cases": report.frame().to_dict("records")})


if __name__ == "__main__":
    sys.exit(command.run(main))
