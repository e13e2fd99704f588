"""The list of tensor forms: every family that can be fed to a training loop has a line here."""

from __future__ import annotations

from consumers.reduction.form import FORM as REDUCTION
from consumers.scenario.form import FORM as SCENARIO
from consumers.tensor_form import TensorForm
from schema.errors import UsageError

FORMS: dict[str, TensorForm] = {
    "reduction": REDUCTION,
    "scenario": SCENARIO,
}


def form_of(family: str) -> TensorForm:
    """Return the tensor form of a registered family.

    Raises:
        UsageError: the family has no tensor form.
    """
    try:
        return FORMS[family]
    except KeyError:
        raise UsageError(f"family {family!r} has no tensor form: feeds exist for {', '.join(FORMS)}") from None
