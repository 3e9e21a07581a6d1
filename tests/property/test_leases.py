"""The lease machine: our leases stand, plain ones stand, and every broken one falls."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings

from lash_store.testing import check_leases, lease_machine
from tests.support import leases

TestSessionStoreLeases = lease_machine(leases.StoreLeases, profile=settings())
TestAsyncSessionStoreLeases = lease_machine(
    leases.AsyncStoreLeases, profile=settings(max_examples=max(20, settings().max_examples // 4))
)
TestProcessRegistryLeases = lease_machine(leases.RegistryLeases, profile=settings())
TestPlainLeases = lease_machine(leases.PlainLeases)

HUNT = settings(
    max_examples=100,  # Hypothesis's own default: what a consumer gets
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("broken", leases.BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_lease_is_caught(broken: type[leases.PlainLeases]) -> None:
    with pytest.raises(AssertionError):
        check_leases(broken, profile=HUNT)
