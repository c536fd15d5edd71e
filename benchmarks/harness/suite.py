"""The base of every suite whose figures are those of a case."""

from typing import Any

from benchmarks.harness import cases, run
from benchmarks.harness.measurement import Measurement


class Suite:
    """One figure of every case. asv's parameter is the case's name: a variant is not measured on every precision.

    Subclasses add methods `track_NAME(self, begun, case)` that return one figure, lower being better.
    Every subclass sets `version` by hand and raises it when the figure's meaning changes: asv then starts a new series.
    """

    params: Any = ([name for name in cases.names() if name.split("/", 1)[1] in cases.WORKLOADS],)
    param_names = ["case"]
    timeout = 1800

    def setup_cache(self) -> dict[str, Any]:
        return run.begin()

    setup_cache.timeout = 300  # type: ignore[attr-defined]

    def setup(self, begun: dict[str, Any], case: str) -> None:
        self.case = run.choose(case)

    @property
    def measurement(self) -> Measurement:
        return run.look(self.case)


def sampled(seconds: list[float], number: int = 1) -> dict[str, Any]:
    """A benchmark's result of several samples: asv keeps them and computes its statistics."""
    return {"samples": seconds, "number": number}


def unit(name: str, **attributes: Any) -> Any:
    """Decorator: the unit of what a `track_` method returns, and further attributes that asv reads from it.

    Seconds are given asv's type `time`, so that they are shown and compared as timings are.
    """

    def decorate(method: Any) -> Any:
        method.unit = name
        if name == "seconds":
            method.type = "time"
        vars(method).update(attributes)
        return method

    return decorate
