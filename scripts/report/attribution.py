"""Where a step's seconds go: from what the roofline allows to what was measured, part by part.

Each part but the last is modelled from something counted or measured apart; the last is what none of them explains, so
that together they are the measurement. A negative part is what the step did better than the model has it.
"""

from typing import NamedTuple

ROOFLINE, TRAFFIC, LAUNCHES, HOST, REST = "roofline", "extra traffic", "launches", "host", "rest"

HOW = {
    ROOFLINE: "ideal bytes over the measured ceiling, and what MLX needs to launch one kernel a leaf",
    TRAFFIC: "modelled bytes above the ideal, over the measured ceiling",
    LAUNCHES: "kernels above one a leaf (below one: negative), each at the measured cost of a further launch",
    HOST: "the measured time to build the step's graph in Python: nothing is evaluated meanwhile",
    REST: "measured minus the parts before it; negative where caches or overlap made the step faster than they say",
}
"""How each part was attributed, in words."""


class Model(NamedTuple):
    """What the parts are modelled from; seconds and bytes.

    kernels      launched in a step, those that only compute a rate included
    fixed, each  seconds to evaluate one tiny kernel, and that each further one adds
    ceiling      measured, in bytes a second
    """

    measured: float
    ideal_bytes: float
    modelled_bytes: float
    leaves: int
    kernels: int
    host: float
    fixed: float
    each: float
    ceiling: float


def parts(model: Model) -> dict[str, float]:
    """Seconds of every part, in the order of the waterfall; they add up to the measurement."""
    found = {
        ROOFLINE: model.fixed + model.each * model.leaves + model.ideal_bytes / model.ceiling,
        TRAFFIC: (model.modelled_bytes - model.ideal_bytes) / model.ceiling,
        LAUNCHES: model.each * (model.kernels - model.leaves),
        HOST: model.host,
    }
    return found | {REST: model.measured - sum(found.values())}
