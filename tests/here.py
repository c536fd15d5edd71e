"""Which variants can run on this machine."""

import adamw
from benchmarks.harness import cases

VARIANTS = [name for name in adamw.names() if not adamw.unavailable(name)]
FLOAT32 = [name for name in VARIANTS if "float32" in cases.precisions(name)]
EVALUATING = [name for name in VARIANTS if getattr(adamw.load(name), "evaluates_itself", False)]
