"""What the entries of a run say, case by case."""

from benchmarks.harness.ledger import BEGINS, MARKS, SESSION, VARIABLE, Entry, read

__all__ = [
    "BEGINS",
    "MARKS",
    "SESSION",
    "VARIABLE",
    "Entry",
    "by_case",
    "failures",
    "finished",
    "joined",
    "long_run_errors",
    "machine",
    "marks",
    "read",
    "skipped",
    "with_ceiling",
]

DIED = "the process that measured it died: out of memory, a crash, or asv's time-out"


def machine(entries: list[Entry]) -> Entry | None:
    """The newest entry that says what was measured on."""
    return next((entry for entry in reversed(entries) if entry["what"] == "machine"), None)


def marks(entries: list[Entry]) -> str:
    """What was wrong with the machine when it was measured on; empty if nothing that was looked at."""
    cases = [entry for entry in entries if entry["what"] == "case" and "marks" in entry]
    return "; ".join(dict.fromkeys(str(entry["marks"]) for entry in cases or entries if entry.get("marks")))


def skipped(entries: list[Entry]) -> dict[str, str]:
    """The cases that only other processes' memory kept from being measured, and how much was free."""
    told = {entry["case"]: entry["message"] for entry in entries if entry["what"] == "skipped"}
    return {case: why for case, why in told.items() if case not in by_case(entries)}


def by_case(entries: list[Entry]) -> dict[str, list[Entry]]:
    """Every measurement of every case: one for each of asv's rounds."""
    measured: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry["what"] == "case":
            measured.setdefault(entry["case"], []).append(entry)
    return measured


def long_run_errors(entries: list[Entry]) -> dict[str, float]:
    """The error after 2000 steps, by variant/precision."""
    return {entry["case"]: entry["accuracy"]["after_2000"] for entry in entries if entry["what"] == "accuracy"}


def finished(entries: list[Entry]) -> list[str]:
    """The cases that were measured or failed, each once, in that order."""
    return list(dict.fromkeys(entry["case"] for entry in entries if entry["what"] in ("case", "failure")))


def failures(entries: list[Entry]) -> dict[str, str]:
    """The cases, and variants in a precision, that were not measured the last time they were tried, and why."""
    failed: dict[str, str] = {}
    for entry in entries:
        if entry["what"] in ("started", "failure"):
            failed[entry["case"]] = entry.get("message", f"{entry['case']}: {DIED}")
        elif entry["what"] in ("case", "accuracy"):
            failed.pop(entry["case"], None)
    return failed


def with_ceiling(entries: list[Entry]) -> list[Entry]:
    """The entries, each case with the ceiling, the launch costs and the marks of its own run: those before it."""
    held_against: Entry = {"ceiling": None, "launch": None, "marks": ""}
    complete = []
    for entry in entries:
        if entry["what"] == "machine":
            held_against = {name: entry.get(name) for name in held_against}
        elif entry["what"] == "resumed":
            held_against |= {"marks": entry.get("marks")}
        complete.append(held_against | entry if entry["what"] == "case" else entry)
    return complete


def joined(old: list[Entry], new: list[Entry]) -> list[Entry]:
    """The entries of two runs of a commit: those of the old one make way for the new one's of the same case."""
    replaced = {(entry["what"] in BEGINS, entry.get("case")) for entry in new}
    return [entry for entry in old if (entry["what"] in BEGINS, entry.get("case")) not in replaced] + new
