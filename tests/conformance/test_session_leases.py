"""What is the session lease's alone; what it shares with every lease is in ``test_leases.py``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from lash_store import SessionFence, SessionLease, SessionStore, unique_owner_id
from lash_store.clock import MAX_INT
from lash_store.errors import (
    InvalidRecordError,
    LeaseLostError,
    ReadOnlyStoreError,
)
from lash_store.leases import LeaseTerm
from lash_store.testing import ManualClock, SequentialIds, strategies
from tests.support.databases import all_rows

TTL = 1_000


def claim(
    store: SessionStore, owner_id: str = "ann", ttl_ms: int = TTL, **kwargs: Any
) -> SessionLease:
    lease = store.claim_lease(owner_id=owner_id, ttl_ms=ttl_ms, **kwargs)
    assert isinstance(lease, SessionLease)
    return lease


def changed(fence: SessionFence, **values: Any) -> SessionFence:
    parts = {name: getattr(fence, name) for name in ("key", "owner_id", "token", "fencing_token")}
    return SessionFence(**{**parts, **values})


@pytest.mark.parametrize("after_ms", [0, 1, TTL - 1])
def test_s_lease_1_the_live_owner_re_enters_its_term(
    store: SessionStore, clock: ManualClock, after_ms: int
) -> None:
    first = claim(store)
    clock.advance(after_ms)
    again = claim(store, ttl_ms=5 * TTL)
    assert again.fence == first.fence
    assert again.claimed_at_ms == first.claimed_at_ms
    assert again.expires_at_ms == clock.now_ms() + 5 * TTL


def test_s_lease_1_a_helper_makes_owner_ids_unique() -> None:
    made = {unique_owner_id("runner") for _ in range(100)}
    assert len(made) == 100
    assert all(owner_id.startswith("runner:") for owner_id in made)


def test_leases_of_several_sessions_stand_in_one_file(store: SessionStore) -> None:
    mine, other = claim(store), claim(store, "bob", session_id="other")
    assert (mine.session_id, other.session_id) == ("s", "other")
    assert store.current_lease(session_id="other") == other
    store.release_lease(other.fence)
    assert store.current_lease() == mine
    assert store.current_lease(session_id="other") is None
    assert store.current_lease(session_id="never seen") is None


@pytest.mark.parametrize("now_ms", [0, MAX_INT])
def test_the_ends_of_time_are_times(path: Path, now_ms: int) -> None:
    with SessionStore.open(path, session_id="s", clock=ManualClock(now_ms)) as store:
        assert claim(store, ttl_ms=0).claimed_at_ms == now_ms


@given(owner_id=strategies.names(), session_id=strategies.names(), ttl_ms=strategies.ttls_ms())
def test_any_name_and_any_ttl_is_stored_as_given(
    owner_id: str, session_id: str, ttl_ms: int
) -> None:
    with SessionStore.open(None, session_id="s", clock=ManualClock()) as store:
        lease = claim(store, owner_id, ttl_ms, session_id=session_id)
        assert (lease.owner_id, lease.session_id) == (owner_id, session_id)
        assert lease.expires_at_ms == min(1_000_000 + ttl_ms, MAX_INT)
        assert store.current_lease(session_id=session_id) == (lease if ttl_ms else None)


@given(ttl_ms=strategies.bad_counts())
def test_a_bad_ttl_is_refused_before_anything_is_written(
    store: SessionStore, path: Path, ttl_ms: Any
) -> None:
    lease = claim(store)
    before = all_rows(path)
    calls: list[Callable[[], object]] = [
        lambda: store.claim_lease(owner_id="bob", ttl_ms=ttl_ms),
        lambda: store.renew_lease(lease.fence, ttl_ms=ttl_ms),
    ]
    for call in calls:
        with pytest.raises(InvalidRecordError, match="ttl_ms = ") as refusal:
            call()
        assert isinstance(refusal.value, ValueError)
    assert all_rows(path) == before


@given(name=strategies.bad_names())
def test_a_bad_name_is_refused_before_anything_is_written(
    store: SessionStore, path: Path, name: Any
) -> None:
    before = all_rows(path)
    with pytest.raises(InvalidRecordError, match="owner_id = "):
        store.claim_lease(owner_id=name, ttl_ms=TTL)
    if name is not None:
        with pytest.raises(InvalidRecordError, match="session_id = "):
            store.claim_lease(owner_id="ann", ttl_ms=TTL, session_id=name)
    with pytest.raises(InvalidRecordError, match="session_id = "):
        SessionStore.open(path.parent / "never.db", session_id=name)
    assert not (path.parent / "never.db").exists()
    assert all_rows(path) == before


@pytest.mark.parametrize("now_ms", [-1, MAX_INT + 1, 1.5, True, None, "1"])
def test_a_clock_that_gives_no_time_is_refused(path: Path, now_ms: Any) -> None:
    class Broken:
        def now_ms(self) -> int:
            return now_ms  # type: ignore[no-any-return] # reason: a clock may be wrong

    with SessionStore.open(path, session_id="s", clock=Broken()) as store:
        before = all_rows(path)
        with pytest.raises(InvalidRecordError, match=r"clock\.now_ms\(\) = "):
            store.claim_lease(owner_id="ann", ttl_ms=TTL)
        assert all_rows(path) == before
    with SessionStore.open(path, session_id="s") as store:
        claim(store)  # and the lock was given back


@pytest.mark.parametrize(
    "values",
    [
        {"key": ""},
        {"owner_id": 7},
        {"token": ""},
        {"token": None},
        {"fencing_token": -1},
        {"fencing_token": "1"},
        {"key": "\ud800"},
    ],
)
def test_a_fence_that_can_be_none_is_refused_when_it_is_made(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecordError, match="fence"):
        changed(SessionFence("s", "ann", "secret", 1), **values)


def test_writing_through_a_reader_is_refused(store: SessionStore, path: Path) -> None:
    lease = claim(store)
    before = all_rows(path)
    with store.read() as tx:
        for write in (
            lambda: tx.claim_lease(owner_id="ann", ttl_ms=TTL),
            lambda: tx.renew_lease(lease.fence, ttl_ms=TTL),
            lambda: tx.release_lease(lease.fence),
        ):
            with pytest.raises(ReadOnlyStoreError):
                write()
    assert all_rows(path) == before


@pytest.mark.parametrize("show", [repr, str, "{}".format, ascii])
def test_no_token_is_shown_whole(path: Path, show: Callable[[object], str]) -> None:
    with SessionStore.open(path, session_id="s") as store:
        lease = claim(store)
        store.release_lease(lease.fence)
        second = claim(store, "bob")
        with pytest.raises(LeaseLostError) as refusal:
            store.renew_lease(lease.fence, ttl_ms=TTL)
    error = refusal.value
    for value in (lease, lease.fence, error, error.args, error.actual):
        text = show(value)
        assert lease.fence.token not in text
        assert second.fence.token not in text


def test_no_token_is_shown_by_rich() -> None:
    fence = SessionFence("s", "ann", "a-long-secret", 1)
    term = LeaseTerm("s", "ann", "a-long-secret", 1, 0, 0)
    shown = [*fence.__rich_repr__(), *term.__rich_repr__()]
    assert "a-long-secret" not in str(shown)
    assert ("token", "a-lo...") in shown


def test_ids_of_the_test_are_used(path: Path) -> None:
    with SessionStore.open(path, session_id="s", ids=SequentialIds("t")) as store:
        assert claim(store).fence.token == "t-1"
