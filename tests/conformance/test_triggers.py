"""T-SUB, T-SRC, T-OCC, T-DEL and T-RET, rule by rule."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lash_store import External, Host, ProcessRegistry, Scope, TriggerDraft, TriggerStore
from lash_store.errors import (
    CorruptRecordError,
    IdempotencyConflictError,
    InvalidRecordError,
    NotFoundError,
)
from lash_store.process.records import (
    BySession,
    EngineCall,
    EventType,
    PayloadSchema,
    ProcessIdentity,
)
from lash_store.routing import unstarted_deliveries
from lash_store.testing import ManualClock
from lash_store.trigger.records import (
    DeliveryFilter,
    Fixed,
    FromEvent,
    Occurrence,
    Pruned,
    Reservations,
    SubscriptionFilter,
    Undecodable,
    default_source_key,
)
from tests.support.bad_input import NoJson
from tests.support.databases import all_rows, run_script
from tests.support.triggers import INTEGERS, ONE, draft, occur, subscribe


def sha(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def handles(reservations: Reservations) -> list[str]:
    return [delivery.subscription.handle for delivery in reservations.deliveries]


@pytest.mark.parametrize(
    "bad",
    [
        {"source_type": ""},
        {"source_type": " "},
        {"source_key": "\t\n"},
        {"source_key": 7},
        {"env_ref": ""},
        {"env_ref": None},
        {"target_label": "a", "target_identity": ProcessIdentity("k", "b")},
        {"registrant": Scope("s")},
        {"registrant": BySession(Scope(""))},
        {"target": "engine"},
        {"target_identity": "engine"},
        {"payload_schema": PayloadSchema({"type": "nothing"})},
        {"payload_schema": {"schema": {}}},
        {"event_types": [EventType("")]},
        {"input_template": {"a": "event"}},
        {"input_template": {"a": Fixed(float("nan"))}},
        {"input_template": {1: FromEvent()}},
        {"input_template": ["a"]},
        {"source": NoJson()},
        {"wake_target": "s"},
        {"name": ""},
        {"target_label": 7},
    ],
    ids=ascii,
)
def test_t_sub_1_what_is_refused(triggers: TriggerStore, path: Path, bad: dict[str, Any]) -> None:
    before = all_rows(path)
    with pytest.raises(InvalidRecordError):
        subscribe(triggers, **bad)
    with pytest.raises(InvalidRecordError):
        triggers.register_subscription("draft")  # type: ignore[arg-type] # reason: that is the test
    assert all_rows(path) == before


def test_t_sub_1_labels_that_agree_or_stand_alone(triggers: TriggerStore) -> None:
    assert (
        subscribe(
            triggers, target_label="a", target_identity=ProcessIdentity("k", "a")
        ).target_label
        == "a"
    )
    assert (
        subscribe(triggers, target_label="a", target_identity=ProcessIdentity("k")).target_label
        == "a"
    )
    assert subscribe(triggers, target_identity=ProcessIdentity("k", "a")).target_label is None


def test_t_sub_2_a_subscription_on_the_wire(
    triggers: TriggerStore, path: Path, clock: ManualClock
) -> None:
    subscription = subscribe(
        triggers,
        registrant=BySession(Scope("s", "f")),
        wake_target=Scope("s"),
        name="nightly",
        source={"b": 1, "a": 1e16},
        payload_schema=INTEGERS,
        event_types=[EventType("tick")],
        input_template={"z": Fixed({"b": 1, "a": 2}), "a": FromEvent()},
        target_label="label",
    )
    now = clock.now_ms()
    (row,) = all_rows(path)["trigger_subscriptions"]
    assert row[:8] == (
        "subscription:1",
        "session:s/frame:f",
        "trigger:1",
        "cron",
        "daily",
        1,
        now,
        now,
    )
    assert row[8] == (
        '{"subscription_id":"subscription:1","registrant":{"type":"session","scope":'
        '{"session_id":"s","agent_frame_id":"f"}},"env_ref":"env","wake_target":{"session_id":"s"},'
        '"handle":"trigger:1","name":"nightly","source_type":"cron","source_key":"daily",'
        '"source":{"a":1e+16,"b":1},"payload_schema":{"schema":{"type":"integer"}},'
        '"target":{"type":"engine","kind":"engine","payload":{"code":"x"}},'
        '"target_identity":{"kind":"engine","definition":"def"},'
        '"event_types":[{"name":"tick","payload_schema":{"schema":{}},"semantics":{}}],'
        '"input_template":{"a":{"type":"event"},"z":{"type":"fixed","value":{"a":2,"b":1}}},'
        f'"target_label":"label","enabled":true,"created_at_ms":{now},"updated_at_ms":{now}}}'
    )
    assert triggers.list_subscriptions().subscriptions == (subscription,)
    assert (subscription.handle, subscription.enabled) == ("trigger:1", True)


def test_t_sub_2_a_number_is_never_used_again(triggers: TriggerStore, path: Path) -> None:
    assert subscribe(triggers).handle == "trigger:1"
    assert subscribe(triggers, registrant=Host()).handle == "trigger:2"
    assert triggers.delete_subscription(None, "trigger:2")
    assert triggers.delete_session("one") == 1
    run_script(path, "DELETE FROM trigger_subscription_seq")
    assert subscribe(triggers).handle == "trigger:3"
    with triggers.begin() as tx, pytest.raises(InvalidRecordError):
        tx.register_subscription(draft(source_key=""))
    assert subscribe(triggers).handle == "trigger:4"


def test_t_sub_3_order_and_pages(triggers: TriggerStore) -> None:
    for at in range(12):
        subscribe(triggers, registrant=Host() if at % 3 == 0 else ONE)
    everything = triggers.list_subscriptions()
    order = [(s.registrant.scope_id, s.handle) for s in everything.subscriptions]
    assert order == sorted(order)
    assert order.index(("session:one", "trigger:11")) < order.index(("session:one", "trigger:2"))
    assert everything.after is None
    found: list[Any] = []
    after, pages = ("", ""), 0
    while True:
        page = triggers.list_subscriptions(after=after, limit=5)
        found += page.subscriptions
        pages += 1
        if page.after is None:
            break
        after = page.after
    assert tuple(found) == everything.subscriptions
    assert pages == 3


def test_t_sub_3_what_a_nul_stands_beside_is_found_as_it_is_written(
    triggers: TriggerStore,
) -> None:
    plain = r"a\u0000b"  # a backslash and letters
    one = subscribe(triggers, registrant=BySession(Scope(plain)), name=plain, source="\0")
    for matching in (SubscriptionFilter(session_id=plain), SubscriptionFilter(name=plain)):
        assert triggers.list_subscriptions(matching).subscriptions == (one,)
    assert triggers.cancel_subscription(plain, one.handle)
    assert triggers.delete_session(plain) == 1


def test_t_sub_3_filters(triggers: TriggerStore) -> None:
    one = subscribe(triggers, name="n")
    frame = subscribe(triggers, registrant=BySession(Scope("one", "f")), source_key="other")
    upper = subscribe(triggers, registrant=BySession(Scope("One")), source_type="button")
    longer = subscribe(triggers, registrant=BySession(Scope("one2")))
    host = subscribe(
        triggers,
        registrant=Host(),
        target_identity=ProcessIdentity("k", definition={"b": 1, "a": [2]}),
    )
    triggers.cancel_subscription("one2", longer.handle)

    def found(**parts: Any) -> set[str]:
        page = triggers.list_subscriptions(SubscriptionFilter(**parts))
        assert page.undecodable == ()
        return {subscription.handle for subscription in page.subscriptions}

    assert found(session_id="one") == {one.handle, frame.handle}
    assert found(session_id="One") == {upper.handle}
    assert found(session_id="nobody") == set()
    assert found(handle=host.handle) == {host.handle}
    assert found(name="n") == {one.handle}
    assert found(source_type="button") == {upper.handle}
    assert found(source_key="other") == {frame.handle}
    assert found(definition={"a": [2], "b": 1}) == {host.handle}
    assert found(definition='{"a":[2],"b":1}') == set()
    assert found(definition="def", session_id="one", source_key="daily") == {one.handle}
    assert found(enabled=False) == {longer.handle}
    assert len(found(enabled=True)) == 4


@pytest.mark.parametrize(
    "bad",
    [
        {"matching": "x"},
        {"matching": SubscriptionFilter(session_id="")},
        {"matching": SubscriptionFilter(name=7)},  # type: ignore[arg-type] # reason: that is the test
        {"matching": SubscriptionFilter(enabled=1)},  # type: ignore[arg-type] # reason: the same
        {"matching": SubscriptionFilter(definition=7)},
        {"after": "x"},
        {"after": ("x",)},
        {"after": (1, 2)},
        {"limit": -1},
    ],
    ids=ascii,
)
def test_t_sub_3_bad_filters_are_refused(triggers: TriggerStore, bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecordError):
        triggers.list_subscriptions(**bad)


@pytest.mark.parametrize("spoilt", ["nothing", "[]", '{"subscription_id":"subscription:1"}'])
def test_t_sub_3_what_cannot_be_decoded_is_reported_and_can_be_removed(
    triggers: TriggerStore, path: Path, clock: ManualClock, spoilt: str
) -> None:
    subscribe(triggers)
    sound = subscribe(triggers)
    run_script(
        path,
        f"UPDATE trigger_subscriptions SET record_json = '{spoilt}' WHERE handle = 'trigger:1'",
    )
    page = triggers.list_subscriptions()
    assert page.subscriptions == (sound,)
    (broken,) = page.undecodable
    assert isinstance(broken, Undecodable)
    assert (broken.subscription_id, broken.handle) == ("subscription:1", "trigger:1")
    assert broken.cause
    occurrence = occur(triggers)
    reserved = triggers.reserve_deliveries(occurrence.occurrence_id)
    assert (handles(reserved), reserved.undecodable) == (["trigger:2"], (broken,))
    clock.advance(5)
    assert triggers.cancel_subscription("one", "trigger:1") is True
    row = next(row for row in all_rows(path)["trigger_subscriptions"] if row[2] == "trigger:1")
    assert (row[5], row[7]) == (0, clock.now_ms())
    assert triggers.delete_subscription("one", "trigger:1") is True
    assert triggers.list_subscriptions().undecodable == ()


@pytest.mark.parametrize("spoilt", ["5", "true", "{}", "[]", "null"])
def test_t_sub_3_whose_session_is_no_text_is_removed_by_its_scope(
    triggers: TriggerStore, path: Path, spoilt: str
) -> None:
    """The record decides whose it is, where it can be read (T-SUB-5)."""
    subscribe(triggers, registrant=BySession(Scope("one", "f")))
    run_script(
        path,
        f"""UPDATE trigger_subscriptions
        SET record_json = replace(record_json, '"session_id":"one"', '"session_id":{spoilt}')""",
    )
    assert (
        len(triggers.list_subscriptions(matching=SubscriptionFilter(session_id="one")).undecodable)
        == 1
    )
    assert triggers.cancel_subscription("one", "trigger:1") is True
    assert triggers.delete_subscription("one", "trigger:1") is True
    assert triggers.list_subscriptions().undecodable == ()


def test_t_sub_4_cancel_and_enable(triggers: TriggerStore, path: Path, clock: ManualClock) -> None:
    handle = subscribe(triggers, registrant=BySession(Scope("one", "f"))).handle
    run_script(
        path,
        "UPDATE trigger_subscriptions SET record_json = json_set(record_json, '$.later', json('[1e16]'))",
    )
    for call, changed, enabled in (
        (triggers.cancel_subscription, True, False),
        (triggers.cancel_subscription, False, False),
        (triggers.enable_subscription, True, True),
        (triggers.enable_subscription, False, True),
    ):
        clock.advance(3)
        assert call("one", handle) is changed
        (subscription,) = triggers.list_subscriptions().subscriptions
        assert (subscription.enabled, subscription.updated_at_ms) == (enabled, clock.now_ms())
        (row,) = all_rows(path)["trigger_subscriptions"]
        assert (row[5], row[7]) == (int(enabled), clock.now_ms())
        assert json.loads(row[8])["later"] == [1e16]
    before = all_rows(path)
    for session_id, name in (("two", handle), ("one", "trigger:9"), (None, handle), ("on", handle)):
        assert triggers.cancel_subscription(session_id, name) is False
        assert triggers.enable_subscription(session_id, name) is False
        assert triggers.delete_subscription(session_id, name) is False
    assert all_rows(path) == before
    wrong: list[Any] = [("", handle), ("one", ""), (7, handle), ("one", None)]
    for bad in wrong:
        with pytest.raises(InvalidRecordError):
            triggers.cancel_subscription(*bad)
    assert all_rows(path) == before


def test_t_sub_4_the_hosts_own(triggers: TriggerStore) -> None:
    handle = subscribe(triggers, registrant=Host()).handle
    assert triggers.cancel_subscription("host", handle) is False
    assert triggers.cancel_subscription(None, handle) is True
    assert triggers.enable_subscription(None, handle) is True
    assert triggers.delete_subscription(None, handle) is True
    assert triggers.list_subscriptions().subscriptions == ()


def test_t_sub_5_deleting_a_session(triggers: TriggerStore, path: Path) -> None:
    for registrant in (
        ONE,
        BySession(Scope("one", "f")),
        BySession(Scope("one2")),
        BySession(Scope("One")),
        Host(),
    ):
        subscribe(triggers, registrant=registrant)
    occurrence = occur(triggers)
    assert len(triggers.reserve_deliveries(occurrence.occurrence_id).deliveries) == 5
    assert triggers.delete_session("one") == 2
    rows = all_rows(path)
    assert [row[1] for row in rows["trigger_subscriptions"]] == [
        "session:one2",
        "session:One",
        "host",
    ]
    assert len(rows["trigger_deliveries"]) == 3
    assert len(rows["trigger_occurrences"]) == 1
    assert triggers.delete_session("one") == 0


def test_t_src_1_the_default_source_key() -> None:
    digest = sha(["cron", {"a": 1, "b": "é"}])
    assert default_source_key("cron", {"b": "é", "a": 1}) == f"source:cron:sha256:{digest}"
    wrong: list[Any] = [("", 1), (" ", 1), ("cron", float("inf"))]
    for bad in wrong:
        with pytest.raises(InvalidRecordError):
            default_source_key(*bad)


def test_t_occ_1_an_occurrence_on_the_wire(
    triggers: TriggerStore, path: Path, clock: ManualClock
) -> None:
    occurrence = triggers.record_occurrence(
        "cron", "daily", {"b": 1, "a": 1e16}, idempotency_key="k", source={"x": 1}
    )
    now = clock.now_ms()
    name = f"trigger:{sha(['cron', 'daily', 'k'])}"
    request = hashlib.sha256(b'["cron","daily",{"a":1e+16,"b":1},{"x":1}]').hexdigest()
    assert all_rows(path)["trigger_occurrences"] == [
        (name, "k", request, "cron", "daily", now,
         f'{{"occurrence_id":"{name}","source_type":"cron","source_key":"daily",'
         f'"payload":{{"a":1e+16,"b":1}},"idempotency_key":"k","source":{{"x":1}},"occurred_at_ms":{now}}}')
    ]  # fmt: skip
    assert triggers.load_occurrence(name) == occurrence
    plain = triggers.record_occurrence("cron", "daily", idempotency_key="l")
    assert (plain.payload, plain.source) == (None, None)
    row = next(row for row in all_rows(path)["trigger_occurrences"] if row[1] == "l")
    assert 'source":' not in row[6].replace("source_", "")
    assert row[2] == sha(["cron", "daily", None, None])


def test_t_occ_1_the_same_key_again(triggers: TriggerStore, path: Path, clock: ManualClock) -> None:
    first = occur(triggers, {"a": 1})
    clock.advance(5)
    before = all_rows(path)
    assert occur(triggers, {"a": 1}) == first
    others: list[Any] = [
        lambda: occur(triggers, {"a": 2}),
        lambda: triggers.record_occurrence("cron", "weekly", {"a": 1}, idempotency_key="once"),
        lambda: triggers.record_occurrence(
            "cron", "daily", {"a": 1}, idempotency_key="once", source=1
        ),
    ]
    for other in others:
        with pytest.raises(IdempotencyConflictError, match="'once'"):
            other()
    assert all_rows(path) == before


@pytest.mark.parametrize(
    "bad",
    [
        {"source_type": ""},
        {"source_key": " "},
        {"idempotency_key": "\n"},
        {"idempotency_key": None},
        {"payload": float("nan")},
        {"source": {1: 2}},
    ],
    ids=ascii,
)
def test_t_occ_1_bad_occurrences_are_refused(
    triggers: TriggerStore, path: Path, bad: dict[str, Any]
) -> None:
    before = all_rows(path)
    arguments: dict[str, Any] = {
        "source_type": "cron", "source_key": "daily", "idempotency_key": "k", **bad,
    }  # fmt: skip
    with pytest.raises(InvalidRecordError):
        triggers.record_occurrence(**arguments)
    assert all_rows(path) == before


def test_t_del_1_reserve(triggers: TriggerStore, path: Path, clock: ManualClock) -> None:
    for registrant in (ONE, Host(), BySession(Scope("two"))):
        subscribe(triggers, registrant=registrant)
    subscribe(triggers, source_key="weekly")
    subscribe(triggers, source_type="button")
    cancelled = subscribe(triggers)
    triggers.cancel_subscription("one", cancelled.handle)
    occurrence = occur(triggers, "x")
    clock.advance(5)
    reserved = triggers.reserve_deliveries(occurrence.occurrence_id)
    assert handles(reserved) == ["trigger:2", "trigger:1", "trigger:3"]  # host, one, two
    first = reserved.deliveries[0]
    name = sha([occurrence.occurrence_id, "subscription:2"])
    assert first.process_id == f"process:trigger:{name}"
    assert (first.occurrence, first.created_at_ms) == (occurrence, clock.now_ms())
    assert sorted(all_rows(path)["trigger_deliveries"])[1] == (
        occurrence.occurrence_id, "subscription:2", first.process_id, clock.now_ms(),
    )  # fmt: skip
    before = all_rows(path)
    assert triggers.reserve_deliveries(occurrence.occurrence_id) == Reservations((), (), ())
    assert all_rows(path) == before
    # Whoever comes later gets what nobody has reserved yet.
    triggers.enable_subscription("one", cancelled.handle)
    assert handles(triggers.reserve_deliveries(occurrence.occurrence_id)) == [cancelled.handle]
    with pytest.raises(NotFoundError, match="'nothing'"):
        triggers.reserve_deliveries("nothing")
    with pytest.raises(NotFoundError):
        triggers.redeliver("nothing")
    with pytest.raises(InvalidRecordError):
        triggers.reserve_deliveries("")


def test_t_del_1_ten_thousand_subscriptions_in_one_call(triggers: TriggerStore, path: Path) -> None:
    with triggers.begin() as tx:
        for at in range(10_000):
            tx.register_subscription(draft(registrant=BySession(Scope(f"s{at % 7}"))))
    occurrence = occur(triggers)
    reserved = triggers.reserve_deliveries(occurrence.occurrence_id)
    assert len({delivery.process_id for delivery in reserved.deliveries}) == 10_000
    assert len(all_rows(path)["trigger_deliveries"]) == 10_000
    assert triggers.reserve_deliveries(occurrence.occurrence_id).deliveries == ()


def test_t_del_2_redeliver_and_list(triggers: TriggerStore, clock: ManualClock, path: Path) -> None:
    for _ in range(3):
        subscribe(triggers)
    first, second = occur(triggers, 1, "a"), occur(triggers, 2, "b")
    reserved = triggers.reserve_deliveries(first.occurrence_id)
    clock.advance(10)
    late = subscribe(triggers)
    again = triggers.redeliver(first.occurrence_id)
    assert again.deliveries[:3] == reserved.deliveries
    assert handles(again)[3:] == [late.handle]
    assert triggers.redeliver(first.occurrence_id) == again
    triggers.cancel_subscription("one", "trigger:1")
    assert len(triggers.redeliver(first.occurrence_id).deliveries) == 4  # it was reserved before
    triggers.reserve_deliveries(second.occurrence_id)

    def found(**parts: Any) -> list[tuple[str, str]]:
        page = triggers.list_deliveries(DeliveryFilter(**parts))
        return [(d.occurrence.occurrence_id, d.subscription.handle) for d in page.deliveries]

    assert len(found()) == 7
    assert sorted(h for _, h in found(occurrence_id=second.occurrence_id)) == [
        "trigger:2",
        "trigger:3",
        "trigger:4",
    ]
    assert len(found(subscription_id="subscription:2")) == 2
    assert len(found(process_id=reserved.deliveries[0].process_id)) == 1
    assert len(found(created_before_ms=clock.now_ms())) == 3
    assert found(occurrence_id="none") == []
    listed: list[Any] = []
    after = ("", "")
    while True:
        page = triggers.list_deliveries(after=after, limit=2)
        listed += page.deliveries
        if page.after is None:
            break
        after = page.after
    assert tuple(listed) == triggers.list_deliveries().deliveries
    run_script(
        path, "UPDATE trigger_subscriptions SET record_json = 'x' WHERE handle = 'trigger:2'"
    )
    page = triggers.list_deliveries()
    assert (len(page.deliveries), len(page.undecodable)) == (5, 2)
    again = triggers.redeliver(first.occurrence_id)
    assert (len(again.deliveries), [u.handle for u in again.undecodable]) == (3, ["trigger:2"])


def test_t_del_2_an_occurrence_that_cant_be_read_stops_no_page(
    triggers: TriggerStore, clock: ManualClock, path: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        subscribe(triggers)
    occurred = [occur(triggers, number, f"k{number}") for number in range(3)]
    for each in occurred:
        triggers.reserve_deliveries(each.occurrence_id)
    bad = occurred[1].occurrence_id
    run_script(
        path, f"UPDATE trigger_occurrences SET record_json = '{{' WHERE occurrence_id = '{bad}'"
    )
    page = triggers.list_deliveries()
    assert {each.occurrence.occurrence_id for each in page.deliveries} == {
        each.occurrence_id for each in occurred if each.occurrence_id != bad
    }
    assert len(page.deliveries) == 4
    ((occurrence_id, cause),) = map(msgspec.structs.astuple, page.undecodable_occurrences)
    assert (occurrence_id, bool(cause)) == (bad, True)
    with ProcessRegistry.open(tmp_path / "p.db", clock=clock) as registry:
        unstarted = unstarted_deliveries(triggers, registry)
        assert unstarted.undecodable_occurrences == page.undecodable_occurrences
        assert unstarted.deliveries == page.deliveries


@pytest.mark.parametrize(
    "bad",
    [
        {"matching": "x"},
        {"matching": DeliveryFilter(process_id=7)},  # type: ignore[arg-type] # reason: that is the test
        {"matching": DeliveryFilter(created_before_ms=-1)},
        {"after": ("x", 1)},
        {"limit": 1.5},
    ],
    ids=ascii,
)
def test_t_del_2_bad_filters_are_refused(triggers: TriggerStore, bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecordError):
        triggers.list_deliveries(**bad)


def test_t_del_3_a_payload_that_does_not_fit_is_reported_before_it_is_reserved(
    triggers: TriggerStore, path: Path
) -> None:
    strict = subscribe(triggers, payload_schema=INTEGERS)
    subscribe(triggers)
    occurrence = occur(triggers, "text")
    reserved = triggers.reserve_deliveries(occurrence.occurrence_id)
    assert handles(reserved) == ["trigger:2"]
    (mismatch,) = reserved.mismatches
    assert mismatch.subscription == strict
    assert "'text'" in mismatch.problem
    assert [row[1] for row in all_rows(path)["trigger_deliveries"]] == ["subscription:2"]
    # Nothing is used up: once the schema is another one, the delivery is there.
    run_script(
        path,
        "UPDATE trigger_subscriptions SET record_json = replace(record_json, 'integer', 'string')",
    )
    assert handles(triggers.reserve_deliveries(occurrence.occurrence_id)) == ["trigger:1"]


def test_t_del_3_a_schema_that_is_none_is_reported(triggers: TriggerStore, path: Path) -> None:
    subscribe(triggers, payload_schema=INTEGERS)
    subscribe(triggers)
    run_script(
        path,
        "UPDATE trigger_subscriptions SET record_json = replace(record_json, 'integer', 'thing')",
    )
    reserved = triggers.reserve_deliveries(occur(triggers).occurrence_id)
    assert handles(reserved) == ["trigger:2"]
    assert "can't be used" in reserved.mismatches[0].problem


@pytest.mark.parametrize("record_json", ["'{}'", "replace(record_json, 'trigger:', 'other:')"])
def test_k_codec_2_a_corrupt_occurrence_is_an_error(
    triggers: TriggerStore, path: Path, record_json: str
) -> None:
    subscribe(triggers)
    occurrence = occur(triggers)
    triggers.reserve_deliveries(occurrence.occurrence_id)
    run_script(path, f"UPDATE trigger_occurrences SET record_json = {record_json}")
    for call in (
        lambda: triggers.redeliver(occurrence.occurrence_id),
        lambda: triggers.load_occurrence(occurrence.occurrence_id),
        lambda: triggers.reserve_deliveries(occurrence.occurrence_id),
        lambda: occur(triggers),
    ):
        with pytest.raises(CorruptRecordError, match=occurrence.occurrence_id):
            call()


def test_t_ret_1_retention_in_batches(
    triggers: TriggerStore, path: Path, clock: ManualClock
) -> None:
    subscribe(triggers)
    processes = []
    for at in range(6):
        occurrence = occur(triggers, at, f"k{at}")
        if at % 2:
            (delivery,) = triggers.reserve_deliveries(occurrence.occurrence_id).deliveries
            processes.append(delivery.process_id)
        clock.advance(10)
    bound_ms = clock.now_ms() - 10  # the last one occurred at it, and stays
    assert set(triggers.list_reserved_processes(bound_ms)) == set(processes[:2])
    before = all_rows(path)
    assert triggers.prune_occurrences(0) == Pruned(0, 0, None)
    assert all_rows(path) == before
    nothing: list[Callable[[], object]] = [
        lambda: triggers.prune_occurrences(bound_ms, limit=0),
        lambda: triggers.list_reserved_processes(bound_ms, limit=0),
        lambda: triggers.list_subscriptions(limit=0),
        lambda: triggers.list_deliveries(limit=0),
    ]
    for page_of_nothing in nothing:  # it has none behind it, and who went on would never end
        with pytest.raises(InvalidRecordError, match="limit"):
            page_of_nothing()
    assert all_rows(path) == before
    removed, examined, after, batches = 0, 0, "", 0
    while True:
        pruned = triggers.prune_occurrences(bound_ms, started=processes[1:], after=after, limit=2)
        removed, examined, batches = (
            removed + pruned.removed,
            examined + pruned.examined,
            batches + 1,
        )
        if pruned.after is None:
            break
        after = pruned.after
    assert (removed, examined, batches) == (4, 5, 3)
    keys = {row[1] for row in all_rows(path)["trigger_occurrences"]}
    assert keys == {"k1", "k5"}  # k1 waits for its process
    assert len(all_rows(path)["trigger_deliveries"]) == 2
    assert triggers.prune_occurrences(bound_ms, started=processes).removed == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"occurred_before_ms": -1},
        {"started": "p"},
        {"started": [1]},
        {"after": 7},
        {"limit": -1},
    ],
    ids=ascii,
)
def test_t_ret_1_bad_arguments_are_refused(
    triggers: TriggerStore, path: Path, bad: dict[str, Any]
) -> None:
    occur(triggers)
    before = all_rows(path)
    with pytest.raises(InvalidRecordError):
        triggers.prune_occurrences(**{"occurred_before_ms": 2**62, **bad})
    assert all_rows(path) == before


def test_records_are_what_was_given(triggers: TriggerStore) -> None:
    given = draft(target=External({"x": [1, None]}), input_template={})
    subscription = triggers.register_subscription(given)
    for name in TriggerDraft.__struct_fields__:
        if name != "event_types":
            assert getattr(subscription, name) == getattr(given, name), name
    assert isinstance(occur(triggers), Occurrence)
    assert isinstance(subscribe(triggers).target, EngineCall)


def test_t_sub_5_a_session_whose_id_ends_like_a_frame(triggers: TriggerStore) -> None:
    whole = subscribe(triggers, registrant=BySession(Scope("a/frame:b")))
    frame = subscribe(triggers, registrant=BySession(Scope("a", "b")))
    assert triggers.cancel_subscription("a", whole.handle) is False
    assert triggers.delete_subscription("a/frame:b", frame.handle) is False
    (found,) = triggers.list_subscriptions(SubscriptionFilter(session_id="a")).subscriptions
    assert found == frame
    assert triggers.delete_session("a") == 1
    assert triggers.list_subscriptions().subscriptions == (whole,)
    assert triggers.delete_session("a/frame:b") == 1


def test_t_del_3_one_schema_keeps_no_other_delivery_back(triggers: TriggerStore) -> None:
    subscribe(triggers, payload_schema=PayloadSchema({"$ref": "#/x", "x": 5}))
    subscribe(triggers)
    reserved = triggers.reserve_deliveries(occur(triggers, "x" * 100_000).occurrence_id)
    assert handles(reserved) == ["trigger:2"]
    assert len(reserved.mismatches[0].problem) < 1_000


def test_t_del_3_a_record_that_is_another_ones_is_reported(
    triggers: TriggerStore, path: Path
) -> None:
    subscribe(triggers)
    subscribe(triggers)
    run_script(
        path,
        "UPDATE trigger_subscriptions SET record_json = replace(record_json, 'subscription:1', 'subscription:2')",
    )
    reserved = triggers.reserve_deliveries(occur(triggers).occurrence_id)
    assert handles(reserved) == ["trigger:2"]
    assert "it says that it is" in reserved.undecodable[0].cause
