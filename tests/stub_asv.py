"""Stands in for `asv run` in nights whose measuring is not what is tested: it saves results as asv does, in a second.

It goes through the plugin's own hooks; what it measures is made up.
"""

import os
import subprocess
import sys
import time

from asv import util
from asv.results import Results

from benchmarks.harness import cases, ledger
from benchmarks.harness.counters import Counters
from benchmarks.harness.measurement import Measurement, Memory, Samples
from scripts import asv_plugin

CASES = ["compiled/float32/one_leaf", "eager/float32/one_leaf"]
ENVIRONMENT = "stub-py3.11"
MACHINE = {
    "what": "machine",
    "machine": {"backend": "CPU", "cache_bytes": 2**20},
    "description": "a machine that never was",
    "spec": None,
    "settings": {"mlx": "0.32.4", "python": "3.11"},
    "ceiling": {"bytes_per_second": 1e9, "kernel": "made up", "working_set": 2**30, "in_memory": True},
    "launch": {"fixed": 1e-5, "each": 2e-6},
}


DESCRIBED = {
    name: {
        "name": name, "unit": "seconds", "version": "3", "type": "time", "code": "", "timeout": 60, "params": params,
        "param_names": ["case"] * len(params),
    }
    for name, params in (
        ("step.Step.track_seconds", [[repr(case) for case in CASES]]), ("controls.Controls.track_stream_copy", []),
    )
}  # fmt: skip
"""asv's descriptions of what is measured."""


class One:
    """What a benchmark's process gave."""

    stderr, errcode, profile = "", 0, None

    def __init__(self, values: list[float]) -> None:
        self.result, self.samples, self.number = values, [None] * len(values), [None] * len(values)


def measured(case: str) -> dict:
    about = cases.case(*case.split("/", 1))
    told = Measurement(0.5, Samples([1e-3] * 7, 1, 1.0), [1e-4], Memory(4, 3, 2, 1), Counters(1, 1, 2, 7), 1e-7, 0.1)
    sizes = {name: getattr(about, name) for name in ("ideal_bytes", "resident_bytes")}
    return {"what": "case", "case": case, "parameters": about.parameter_count, "measurement": told.to_dict()} | sizes


def run(arguments: list[str]) -> None:
    named = next(one for one in arguments if one.endswith("^!"))[:-2]
    revision = subprocess.check_output(["git", "rev-parse", named], text=True).strip()
    machine = arguments[arguments.index("--machine") + 1]
    os.environ |= {"ASV_COMMIT": revision, "ASV_ENV_NAME": ENVIRONMENT}
    os.environ[ledger.SESSION] = os.urandom(8).hex()
    date = int(subprocess.check_output(["git", "rev-list", "-1", "--timestamp", revision], text=True).split()[0]) * 1000
    result = Results({"machine": machine}, {"mlx": "0.32.4"}, revision, date, "3.11", ENVIRONMENT, {})
    result.load_data("results")
    ledger.append(MACHINE | {"marks": os.environ.get(ledger.MARKS, "")})
    for case in CASES:
        ledger.append({"what": "started", "case": case})
        time.sleep(0.5)
        ledger.append(measured(case))
    for described in DESCRIBED.values():
        result.add_result(described, One([1e-3] * len(described["params"][0] if described["params"] else [0])))
    os.makedirs(f"results/{machine}", exist_ok=True)
    util.write_json("results/benchmarks.json", DESCRIBED, 2)
    if not os.path.exists(f"results/{machine}/machine.json"):
        with open(f"results/{machine}/machine.json", "w") as file:
            file.write(f'{{"machine": "{machine}", "version": 1}}')
    result.save("results")
    print(asv_plugin.finish)


if __name__ == "__main__" and sys.argv[1] == "run":
    run(sys.argv[2:])
