//! What worker and coordinator say to each other for as long as the worker is a member, in domain types.
//!
//! Not here: the stream itself (crate `client` for the worker's end, the coordinator for the other), when to send what.

use lethe_domain::{Assignment, Epoch, HeldLease, LeaseId, Progress, SlotIndex, SlotReport, WorkerId};

use crate::conversion::{list, optional, read, required};
use crate::{ConversionError, LeaseOutcome, v1};

/// Worker to coordinator.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerEvent {
    /// The first event of a session, once.
    Register(Registration),
    /// The worker lives; what each busy slot has done so far.
    Heartbeat(Vec<(SlotIndex, Progress)>),
    /// A lease ended. Said again in each session until it is acknowledged.
    Finished {
        /// The slot that is free now.
        slot: SlotIndex,
        /// How it ended.
        outcome: Box<LeaseOutcome>,
    },
    /// Rank 0 of a gang opened the rendezvous store.
    StoreOpen {
        /// The lease of rank 0.
        lease: LeaseId,
        /// Where it serves, host:port.
        address: String,
    },
    /// The executor of a slot is up, or (none) gone and being started again.
    SlotChanged {
        /// Which slot.
        slot: SlotIndex,
        /// What it says of itself.
        report: Option<SlotReport>,
    },
    /// The worker is about to leave: no more work, take back what it has.
    Draining,
}

/// A worker introduces itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    /// The worker.
    pub worker: WorkerId,
    /// Its machine's name.
    pub hostname: String,
    /// Its Lethe version.
    pub version: String,
    /// The version of the wire it speaks, [`crate::PROTOCOL`].
    pub protocol: u32,
    /// A device per slot: cpu, cuda:0.
    pub devices: Vec<String>,
    /// Leases at work, or finished and not yet acknowledged.
    pub held: Vec<HeldLease>,
    /// Slots whose executor is up.
    pub reports: Vec<(SlotIndex, SlotReport)>,
    /// Faults the worker makes on purpose, for a rehearsal.
    pub chaos: Option<String>,
    /// Tells this process from any other of the same name; empty where it does not say.
    pub incarnation: String,
}

/// Coordinator to worker.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerCommand {
    /// The worker is a member. The first command of a session, once.
    Registered(Registered),
    /// Do this.
    Start {
        /// Of the leader that grants it.
        epoch: Epoch,
        /// Where.
        slot: SlotIndex,
        /// What.
        assignment: Box<Assignment>,
    },
    /// End a lease; the slot counts as busy until its `Finished` arrives.
    Stop {
        /// Of the leader that takes it back.
        epoch: Epoch,
        /// Where.
        slot: SlotIndex,
        /// Which.
        lease: LeaseId,
    },
    /// The outcome of this lease is kept; the worker may forget it.
    Ack(LeaseId),
    /// The gang's members change: end a rank's lease at the next step boundary.
    Yield {
        /// Of the leader that wants it.
        epoch: Epoch,
        /// Where.
        slot: SlotIndex,
        /// Which.
        lease: LeaseId,
        /// Rank 0 writes a checkpoint first.
        save: bool,
    },
}

/// The answer to [`Registration`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// Of the leader.
    pub epoch: Epoch,
    /// Milliseconds between heartbeats.
    pub heartbeat_ms: u32,
}

impl From<Registration> for v1::Register {
    fn from(registration: Registration) -> Self {
        let held = |HeldLease { slot, lease, shards }| v1::HeldLease {
            slot: slot.0,
            lease: Some(lease.into()),
            shards,
        };
        Self {
            worker_id: registration.worker.into(),
            hostname: registration.hostname,
            version: registration.version,
            protocol: registration.protocol,
            devices: registration.devices,
            held: registration.held.into_iter().map(held).collect(),
            slots: registration
                .reports
                .into_iter()
                .map(|(slot, report)| changed(slot, Some(report)))
                .collect(),
            chaos: registration.chaos.unwrap_or_default(),
            incarnation: registration.incarnation,
        }
    }
}

impl TryFrom<v1::Register> for Registration {
    type Error = ConversionError;

    fn try_from(register: v1::Register) -> Result<Self, ConversionError> {
        Ok(Self {
            worker: read::<String, WorkerId>(register.worker_id, "worker_id")?,
            hostname: register.hostname,
            version: register.version,
            protocol: register.protocol,
            devices: register.devices,
            held: list(register.held, "held")?,
            reports: list(register.slots, "slots")?,
            chaos: Some(register.chaos).filter(|chaos| !chaos.is_empty()),
            incarnation: register.incarnation,
        })
    }
}

impl TryFrom<v1::HeldLease> for HeldLease {
    type Error = ConversionError;

    fn try_from(held: v1::HeldLease) -> Result<Self, ConversionError> {
        let lease = required(held.lease, "lease")?;
        Ok(Self { slot: SlotIndex(held.slot), lease, shards: held.shards.max(1) })
    }
}

fn changed(slot: SlotIndex, report: Option<SlotReport>) -> v1::SlotChanged {
    v1::SlotChanged { slot: slot.0, report: report.map(Into::into) }
}

impl TryFrom<v1::SlotChanged> for (SlotIndex, SlotReport) {
    type Error = ConversionError;

    fn try_from(changed: v1::SlotChanged) -> Result<Self, ConversionError> {
        Ok((SlotIndex(changed.slot), required(changed.report, "report")?))
    }
}

impl From<SlotReport> for v1::SlotReport {
    fn from(SlotReport { torch, canary }: SlotReport) -> Self {
        Self { torch_version: torch, canary }
    }
}

impl From<v1::SlotReport> for SlotReport {
    fn from(v1::SlotReport { torch_version, canary }: v1::SlotReport) -> Self {
        Self { torch: torch_version, canary }
    }
}

impl TryFrom<v1::SlotProgress> for (SlotIndex, Progress) {
    type Error = ConversionError;

    fn try_from(slot: v1::SlotProgress) -> Result<Self, ConversionError> {
        Ok((SlotIndex(slot.slot), required(slot.progress, "progress")?))
    }
}

impl From<WorkerEvent> for v1::SessionRequest {
    fn from(event: WorkerEvent) -> Self {
        use v1::session_request::Event as Wire;
        let slot_progress = |(slot, progress): (SlotIndex, Progress)| v1::SlotProgress {
            slot: slot.0,
            progress: Some(progress.into()),
        };
        let event = match event {
            WorkerEvent::Register(registration) => Wire::Register(registration.into()),
            WorkerEvent::Heartbeat(slots) => {
                Wire::Heartbeat(v1::Heartbeat { slots: slots.into_iter().map(slot_progress).collect() })
            }
            WorkerEvent::Finished { slot, outcome } => {
                Wire::Finished(v1::LeaseFinished { slot: slot.0, outcome: Some((*outcome).into()) })
            }
            WorkerEvent::StoreOpen { lease, address } => {
                Wire::StoreOpen(v1::GangStoreOpen { lease: Some(lease.into()), address })
            }
            WorkerEvent::SlotChanged { slot, report } => Wire::SlotChanged(changed(slot, report)),
            WorkerEvent::Draining => Wire::Draining(v1::Draining {}),
        };
        Self { event: Some(event) }
    }
}

impl TryFrom<v1::SessionRequest> for WorkerEvent {
    type Error = ConversionError;

    fn try_from(request: v1::SessionRequest) -> Result<Self, ConversionError> {
        use v1::session_request::Event as Wire;
        Ok(match request.event.ok_or_else(|| ConversionError::missing("event"))? {
            Wire::Register(register) => Self::Register(read(register, "register")?),
            Wire::Heartbeat(heartbeat) => Self::Heartbeat(list(heartbeat.slots, "heartbeat.slots")?),
            Wire::Finished(finished) => Self::Finished {
                slot: SlotIndex(finished.slot),
                outcome: Box::new(required(finished.outcome, "finished.outcome")?),
            },
            Wire::StoreOpen(open) => {
                Self::StoreOpen { lease: required(open.lease, "store_open.lease")?, address: open.address }
            }
            Wire::SlotChanged(changed) => Self::SlotChanged {
                slot: SlotIndex(changed.slot),
                report: optional(changed.report, "slot_changed.report")?,
            },
            Wire::Draining(v1::Draining {}) => Self::Draining,
        })
    }
}

impl From<WorkerCommand> for v1::SessionResponse {
    fn from(command: WorkerCommand) -> Self {
        use v1::session_response::Command as Wire;
        let command = match command {
            WorkerCommand::Registered(Registered { epoch, heartbeat_ms }) => {
                Wire::Registered(v1::Registered { epoch: epoch.0, heartbeat_ms })
            }
            WorkerCommand::Start { epoch, slot, assignment } => Wire::Start(v1::StartLease {
                epoch: epoch.0,
                slot: slot.0,
                assignment: Some((*assignment).into()),
            }),
            WorkerCommand::Stop { epoch, slot, lease } => {
                Wire::Stop(v1::StopLease { epoch: epoch.0, slot: slot.0, lease: Some(lease.into()) })
            }
            WorkerCommand::Ack(lease) => Wire::Ack(v1::FinishedAck { lease: Some(lease.into()) }),
            WorkerCommand::Yield { epoch, slot, lease, save } => {
                Wire::Yield(v1::YieldLease { epoch: epoch.0, slot: slot.0, lease: Some(lease.into()), save })
            }
        };
        Self { command: Some(command) }
    }
}

impl TryFrom<v1::SessionResponse> for WorkerCommand {
    type Error = ConversionError;

    fn try_from(response: v1::SessionResponse) -> Result<Self, ConversionError> {
        use v1::session_response::Command as Wire;
        Ok(match response.command.ok_or_else(|| ConversionError::missing("command"))? {
            Wire::Registered(v1::Registered { epoch, heartbeat_ms }) => {
                Self::Registered(Registered { epoch: Epoch(epoch), heartbeat_ms })
            }
            Wire::Start(start) => Self::Start {
                epoch: Epoch(start.epoch),
                slot: SlotIndex(start.slot),
                assignment: Box::new(required(start.assignment, "start.assignment")?),
            },
            Wire::Stop(stop) => Self::Stop {
                epoch: Epoch(stop.epoch),
                slot: SlotIndex(stop.slot),
                lease: required(stop.lease, "stop.lease")?,
            },
            Wire::Ack(ack) => Self::Ack(required(ack.lease, "ack.lease")?),
            Wire::Yield(yielding) => Self::Yield {
                epoch: Epoch(yielding.epoch),
                slot: SlotIndex(yielding.slot),
                lease: required(yielding.lease, "yield.lease")?,
                save: yielding.save,
            },
        })
    }
}
