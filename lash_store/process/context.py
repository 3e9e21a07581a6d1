"""What a process registry's operations are made of: a transaction, and work to do in one."""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from lash_store._stores import tx as stores
from lash_store._stores.tx import Context

R = TypeVar("R")

Tx: TypeAlias = stores.Tx[Context]
"""What the work of an operation is a function of."""

Work: TypeAlias = Callable[[Tx], R]
"""What an operation returns once it has checked its arguments: the rest of it."""
