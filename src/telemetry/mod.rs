//! Telemetry: the live state of every partition and actor, the metrics and their names, health, logs.
//!
//! Actors write to the [`Board`]; metrics, health checks, `boathouse status` and the demo's live view read it, so
//! that nobody asks a busy actor how it is. This room decides nothing for the others.

mod batch;
mod board;
mod disk;
mod exposition;
mod health;
mod http;
mod inbox;
pub mod logs;
pub mod names;
mod partition;
mod process;
mod reconcile;
mod recorder;
mod sink;
mod status;

pub use batch::{BatchEnded, BatchRunning, BatchState, BatchStatus, Freshness, TableState, UpkeepState};
pub use board::{ActorId, ActorPhase, ActorState, Board, DaemonPhase};
pub use disk::{Space, space};
pub use exposition::render_board;
pub use health::{Limits, Readiness, readiness};
pub use http::{ListenError, Listener};
pub use inbox::{Inbox, Ticket};
pub use partition::{Acquired, Consumed, PartitionPhase, PartitionState};
pub use process::cpu_seconds;
pub use reconcile::{LayerDifference, ReconcileState, Reconciled};
pub use recorder::Recorder;
pub use sink::{SinkCondition, SinkState};
pub use status::{ActorStatus, MemoryStatus, PartitionStatus, SinkStatus, Status};
