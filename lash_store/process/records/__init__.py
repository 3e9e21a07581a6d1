"""The frozen records of a process registry: what its operations take and return."""

from lash_store._wire.events import (
    Const as Const,
    DedupeBy as DedupeBy,
    DedupeConst as DedupeConst,
    DedupeKey as DedupeKey,
    EndState as EndState,
    EventIdentity as EventIdentity,
    EventType as EventType,
    Payload as Payload,
    Pointer as Pointer,
    Present as Present,
    Selector as Selector,
    Semantics as Semantics,
    Template as Template,
    TerminalRule as TerminalRule,
    WakeRule as WakeRule,
)
from lash_store._wire.inputs import (
    EngineCall as EngineCall,
    External as External,
    ProcessIdentity as ProcessIdentity,
    ProcessInput as ProcessInput,
    SessionTurn as SessionTurn,
    ToolCall as ToolCall,
)
from lash_store._wire.origins import (
    BySession as BySession,
    Host as Host,
    Originator as Originator,
    Provenance as Provenance,
    Scope as Scope,
)
from lash_store._wire.payloads import (
    PayloadSchema as PayloadSchema,
)
from lash_store._wire.retention import Pruned as Pruned
from lash_store.process.records.events import (
    Appended as Appended,
    Completed as Completed,
    EventSemantics as EventSemantics,
    OccurredAt as OccurredAt,
    PendingWake as PendingWake,
    ProcessEvent as ProcessEvent,
    Terminal as Terminal,
    Wake as Wake,
    WakeDelivery as WakeDelivery,
)
from lash_store.process.records.handles import (
    HandleDescriptor as HandleDescriptor,
    HandleGrant as HandleGrant,
    SessionDeletion as SessionDeletion,
)
from lash_store.process.records.leases import (
    ClaimedProcess as ClaimedProcess,
    ProcessFence as ProcessFence,
    ProcessLease as ProcessLease,
)
from lash_store.process.records.outputs import (
    AwaitOutput as AwaitOutput,
    Cancelled as Cancelled,
    Failure as Failure,
    FailureClass as FailureClass,
    Success as Success,
)
from lash_store.process.records.processes import (
    ExternalRef as ExternalRef,
    ProcessFilter as ProcessFilter,
    ProcessRecord as ProcessRecord,
    ProcessRegistration as ProcessRegistration,
    ProcessStatus as ProcessStatus,
    ProcessWait as ProcessWait,
    SignalWait as SignalWait,
    State as State,
    registration_hash as registration_hash,
    signal_event_type as signal_event_type,
    signal_wait as signal_wait,
)
