"""Few losses are compared, so that a study of them is small."""

import pytest

from experiments import uncertainty
from tests.experiments.uncertainty_study.records import COMPARISONS


@pytest.fixture(autouse=True)
def comparisons_of_few_losses(monkeypatch):
    monkeypatch.setattr(uncertainty, "COMPARISONS", {"gaussian": COMPARISONS["gaussian"]})
