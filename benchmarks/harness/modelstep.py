"""A step of a model whose leaves have dtypes of their own."""

from typing import Any

from benchmarks.harness.cases import Case
from benchmarks.harness.model import ModelCase
from benchmarks.harness.step import Step


class ModelStep(Step):
    """A step of a model's tree. m and v are in each leaf's dtype, as upstream makes them, if the precision is that."""

    def __init__(self, case: ModelCase) -> None:
        self.model_case = case
        super().__init__(case)

    def shapes(self, case: Case) -> Any:
        return self.model_case.tree

    def state_is_of_the_parameters(self, case: Case) -> bool:
        return self.model_case.state_is_each_leafs or super().state_is_of_the_parameters(case)
