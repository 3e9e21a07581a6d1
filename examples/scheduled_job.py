"""A scheduled job whose model call is recorded once, killed in the middle and run again.

    python examples/scheduled_job.py ROOT [--kills N]

A trigger fires; its delivery starts a process; a worker claims the process, asks the model
inside a recorded effect, sleeps durably, and completes the process under its fence. The worker
is killed after each of its steps in turn, and another takes over. In the end the databases are
asked: one process, completed once; one answer recorded; and the far side, which keeps a line
for each call, shows how often the model was really called.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lash_store import (
    Deployment,
    EffectClaim,
    Host,
    LeaseHeld,
    Success,
    TriggerDraft,
    unique_owner_id,
)
from lash_store.process.records import EngineCall, ProcessIdentity, ProcessRecord
from lash_store.routing import start_unstarted
from lash_store.trigger.records import FromEvent, SubscriptionFilter

TTL_MS = 300
"""Short, so that a takeover does not take long to watch."""

DAILY = TriggerDraft(
    registrant=Host(),
    env_ref="env",
    source_type="cron",
    source_key="daily",
    target=EngineCall("summarise", {"model": "m"}),
    target_identity=ProcessIdentity("engine", "daily summary"),
    input_template={"day": FromEvent()},
)
STEPS = ("recorded", "reserved", "started", "claimed", "called", "answered", "slept", "completed")
"""After which of its steps a worker may be killed."""


def main() -> int:
    """Fire the trigger, let workers be killed one after another, and judge what is left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--kills", type=int, default=len(STEPS), help="how many workers die")
    parser.add_argument("--die-after", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.root, options.die_after)
        return 0
    with Deployment.open(options.root) as deployment, deployment.triggers.begin() as tx:
        mine = SubscriptionFilter(source_type="cron", source_key="daily")
        if not tx.list_subscriptions(mine).subscriptions:  # it was not begun before
            tx.register_subscription(DAILY)
    killed = 0
    for step in [*STEPS[: options.kills], None]:
        died = run_worker(options.root, step)
        killed += died
        print(f"worker {'was killed' if died else 'ended'} after {step or 'its last step'}")
    return judge(options.root, killed)


def run_worker(root: Path, die_after: str | None) -> bool:
    """Run one worker; tell whether it was killed."""
    command = [sys.executable, __file__, str(root), "--work"]
    if die_after is not None:
        command += ["--die-after", die_after]
    return subprocess.run(command, check=False).returncode == -signal.SIGKILL  # noqa: S603 # reason: this very program


def work(root: Path, die_after: str | None) -> None:
    """Do the job from wherever the last worker left it."""

    def done(step: str) -> None:
        if step == die_after:
            os.kill(os.getpid(), signal.SIGKILL)

    me = unique_owner_id()
    with Deployment.open(root) as deployment:
        triggers, processes = deployment.triggers, deployment.processes
        occurrence = triggers.record_occurrence("cron", "daily", "monday", idempotency_key="monday")
        done("recorded")
        triggers.reserve_deliveries(occurrence.occurrence_id)
        done("reserved")
        start_unstarted(triggers, processes)
        done("started")
        while processes.list_processes():
            claimed = processes.claim_next(owner_id=me, ttl_ms=TTL_MS)
            if claimed is None:
                time.sleep(0.02)  # somebody's term has to run out
                continue
            done("claimed")
            answer = ask(deployment, root, claimed.record, done)
            lease = processes.claim_lease(claimed.record.id, owner_id=me, ttl_ms=60_000)
            if isinstance(lease, LeaseHeld):
                continue  # it took so long that somebody else took over
            processes.complete_process(claimed.record.id, Success(answer), fence=lease.fence)
            done("completed")


def ask(
    deployment: Deployment, root: Path, record: ProcessRecord, done: Callable[[str], None]
) -> str:
    """Ask the model once, however many workers try; then sleep until the answer is due."""
    scope, effects = record.id, deployment.effects

    def call_model() -> str:
        with (root / "calls.txt").open("a", encoding="utf-8") as far_side:
            far_side.write(f"{scope}/model:0\n")  # the idempotency key that the far side gets
        done("called")
        return f"summary of {record.input.payload['args']['day']}"  # type: ignore[union-attr] # reason: the draft's engine

    answer: str = effects.run(
        scope, "model:0", {"model": "m", "process": record.id}, call_model, ttl_ms=TTL_MS
    )
    done("answered")
    effects.sleep(scope, "sleep:0", 50)
    done("slept")
    return answer


def judge(root: Path, killed: int) -> int:
    """Ask the databases what happened; 0 if it is what should have."""
    with Deployment.open(root) as deployment:
        (record,) = deployment.processes.list_processes(state=None)
        events = deployment.processes.events_after(record.id)
        effects = deployment.effects.list_effects(scope_id=record.id)
        begun = deployment.effects.begin_effect(
            record.id, "model:0", {"model": "m", "process": record.id}
        )
    calls = (root / "calls.txt").read_text(encoding="utf-8").splitlines()
    checks = {
        "one process, completed": record.status.state == "completed",
        "with the recorded answer": record.await_output == Success("summary of monday"),
        "one end in its log": [event.event_type for event in events] == ["process.completed"],
        "two effects, both recorded": [each.status for each in effects] == ["completed"] * 2,
        "which are replayed, not begun": not isinstance(begun, EffectClaim),
        "every call at the far side under one key": len(set(calls)) == 1,
    }
    for check, holds in checks.items():
        print(f"{'ok    ' if holds else 'FAILED'} {check}")
    print(f"{killed} workers killed, {len(calls)} calls of the model, one answer")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
