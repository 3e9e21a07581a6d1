"""The shop's own tables, as its ORM knows them."""

from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from lash_store.session.tables import queued_work_batches


class Base(DeclarativeBase):
    """What Alembic compares the database with: the shop's tables, and none of lash_store's."""


class Customer(Base):
    """Who orders."""

    __tablename__ = "customers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Order(Base):
    """What somebody has ordered; the more urgent, the higher its priority."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    item: Mapped[str]
    priority: Mapped[int]
    status: Mapped[str] = mapped_column(default="placed")
    customer: Mapped[Customer] = relationship()


class Ours(DeclarativeBase):
    """Rows of lash_store's, mapped apart: they are in metadata of their own."""


class Waiting(Ours):
    """A batch of work that waits in the queue of the shop's session."""

    __table__ = queued_work_batches
    __mapper_args__ = {"primary_key": [queued_work_batches.c.batch_id]}  # noqa: RUF012 # reason: as SQLAlchemy documents it
