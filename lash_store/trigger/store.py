"""The trigger store's facades, sync and asyncio."""

from lash_store._stores.deployment import AsyncDeploymentStore, DeploymentStore
from lash_store.trigger.operations import TriggerOperations
from lash_store.trigger.tx import TriggerTx


class TriggerStore(TriggerOperations, DeploymentStore[TriggerTx]):
    """The triggers of a deployment, in one database file.

    Every operation is one transaction; several go together in ``begin()``. The arguments,
    results and errors of each are documented on :class:`TriggerTx`.
    """

    kind = TriggerTx


class AsyncTriggerStore(TriggerOperations, AsyncDeploymentStore[TriggerTx]):
    """:class:`TriggerStore` for asyncio: the same operations, as coroutines."""

    sync = TriggerStore
