"""A shop whose orders, work and steps are one transaction, killed at every statement of it.

    python -m examples.shop DATABASE

It migrates its database with Alembic, once without lash_store and then with it; a program that
knows nothing of lash_store runs before and after. Orders are placed and shipped by workers that are
killed at each statement in turn. After each kill the database is asked whether what belongs
together is there together.
"""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, event, insert

import lash_store.alembic
from examples.shop import report
from examples.shop.models import Base, Customer
from examples.shop.service import TTL_MS, orders_that_wait, place_order, ship_next
from lash_store import configure, unique_owner_id
from lash_store.tracing import trace


def main() -> int:
    """Run the shop from its first migration to its last order, and judge what is left."""
    path = Path(sys.argv[1])
    migrate(path, "one")
    with connected(path) as engine, engine.begin() as connection:
        connection.execute(insert(Customer), [{"name": "ann"}, {"name": "bob"}])
    before = unaware(path)
    checks = {"autogenerate is empty before": differences(path) == []}
    migrate(path, "two")
    checks["autogenerate is empty after"] = differences(path) == []
    killed = 0
    for customer in (1, 2):
        place = partial(
            place_order, customer_id=customer, item=f"item {customer}", priority=customer
        )
        killed += killed_at_each(path, place)
    with connected(path) as engine:
        for at in range(3):
            place_order(engine, 1, f"item {at + 3}", at + 3)
        waiting = orders_that_wait(engine)
    checks["orders wait by their own urgency"] = waiting == [f"item {n}" for n in (5, 4, 3, 2, 1)]
    carrier = path.with_suffix(".carrier")
    killed += killed_at_each(path, partial(ship, carrier=carrier))
    with connected(path) as engine:
        while ship(engine, carrier):
            pass
    shipped = list(dict.fromkeys(carrier.read_text(encoding="utf-8").split()))
    checks["the most urgent was shipped first, and each of them"] = shipped == list("54321")
    checks["all or nothing, at every kill"] = together(path)
    after = unaware(path)
    checks["the other program goes on"] = before[-1:] == ["3 customers, version 77"] and after == [
        *(f"ann: item {n}" for n in (1, 3, 4, 5)),
        "bob: item 2",
        "4 customers, version 77",
    ]
    for check, holds in checks.items():
        print(f"{'ok    ' if holds else 'FAILED'} {check}")
    print(f"{killed} workers killed, 5 orders, each shipped once")
    return 0 if all(checks.values()) else 1


def ship(engine: Engine, carrier: Path) -> bool:
    """Ship one order, as soon as the terms of workers that were killed have run out."""

    def call(order_id: int) -> None:
        with carrier.open("a", encoding="utf-8") as far_side:
            far_side.write(f"{order_id}\n")

    while (shipped := ship_next(engine, unique_owner_id(), call)) is None:
        time.sleep(TTL_MS / 4000)
    return shipped


def killed_at_each(path: Path, work: Callable[[Engine], object]) -> int:
    """Let a process do it that is killed at its first statement, then one at its second, and so on."""
    killed = 0
    while True:
        child = os.fork()
        if child == 0:
            failed = 1
            try:
                with dying_at(killed + 1), connected(path) as engine:
                    work(engine)
                failed = 0
            finally:
                os._exit(failed)
        status = os.waitpid(child, 0)[1]
        if status not in (0, signal.SIGKILL):
            raise SystemExit(f"failed at statement {killed + 1}")
        if not together(path):
            raise SystemExit(f"torn apart at statement {killed + 1}")
        if status == 0:
            return killed
        killed += 1


@contextmanager
def dying_at(statement: int) -> Iterator[None]:
    """Die at a statement: the shop's own, lash_store's, or the end of the transaction."""
    left = statement

    def seen(*_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", seen)
    event.listen(Engine, "commit", seen)
    with trace(seen):
        yield


def together(path: Path) -> bool:
    """Whether each order waits, or is shipped with all that belongs to that; by its own program."""
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute(
            """
            SELECT status,
                EXISTS (SELECT 1 FROM lash_queued_work_batches WHERE source_key = orders.id),
                EXISTS (SELECT 1 FROM lash_graph_nodes WHERE node_id = 'order-' || orders.id),
                EXISTS (SELECT 1 FROM lash_runtime_effect_replay
                        WHERE replay_key = 'ship:' || orders.id AND status = 'completed')
            FROM orders
            """
        ).fetchall()
        (batches,) = database.execute("SELECT count(*) FROM lash_queued_work_batches").fetchone()
    placed, shipped = ("placed", 1, 0, 0), ("shipped", 0, 1, 1)
    return set(rows) <= {placed, shipped} and batches == rows.count(placed)


def migrate(path: Path, revision: str) -> None:
    """Run the shop's migrations."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["engine"] = create_engine(f"sqlite:///{path}")
    command.upgrade(config, revision)
    config.attributes["engine"].dispose()


def differences(path: Path) -> list[object]:
    """What Alembic would migrate."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        options = {"include_object": lash_store.alembic.include_object}
        context = MigrationContext.configure(connection, opts=options)
        found: list[object] = list(compare_metadata(context, Base.metadata))
    engine.dispose()
    return found


@contextmanager
def connected(path: Path) -> Iterator[Engine]:
    """The shop's engine: what reads has a snapshot, what writes says so."""
    engine = configure(create_engine(f"sqlite:///{path}"), begin="read")
    yield engine.execution_options(lash_store_write=True)
    engine.dispose()


def unaware(path: Path) -> list[str]:
    """Run the program that knows nothing of lash_store."""
    command_line = [sys.executable, report.__file__, str(path)]
    run = subprocess.run(command_line, capture_output=True, text=True, check=True)  # noqa: S603 # reason: the shop's own
    return run.stdout.splitlines()


if __name__ == "__main__":
    sys.exit(main())
