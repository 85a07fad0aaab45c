"""How many hostile inputs each test makes up: a few in ``make test``, always the same; ``make fuzz`` makes many."""

from __future__ import annotations

import os

import pytest

hypothesis = pytest.importorskip("hypothesis", reason="needs hypothesis; make test installs it")

QUICK = 40  # inputs a test
TARGETS = 20  # tests of this folder, about
cases = int(os.environ.get("FUZZ_CASES", "0"))  # of all tests together

hypothesis.settings.register_profile(
    "hostile",
    max_examples=max(QUICK, cases // TARGETS),
    derandomize=not cases,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("hostile")
