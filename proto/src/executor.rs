//! What agent and executor say to each other, in domain types. It travels as frames ([`crate::frame`]).

use lethe_domain::{Assignment, LeaseId, Progress};

use crate::conversion::{read, required};
use crate::{ConversionError, LeaseOutcome, v1};

/// Agent to executor.
#[derive(Debug, Clone, PartialEq)]
pub enum ExecutorCommand {
    /// Do this.
    Start(Box<Assignment>),
    /// End the lease at the next batch or step; a collective that hangs is aborted.
    Stop(LeaseId),
    /// End the lease at the next step boundary, all ranks of the gang at the same one, and keep the state in memory.
    Yield {
        /// The lease.
        lease: LeaseId,
        /// Rank 0 writes a checkpoint first.
        save: bool,
    },
}

/// Executor to agent.
#[derive(Debug, Clone, PartialEq)]
pub enum ExecutorEvent {
    /// The process is up and its device works. The first event, once.
    Ready {
        /// The device: cpu, cuda:0.
        device: String,
        /// libtorch's version.
        torch: String,
        /// What the canary's model gave for the canary's input.
        canary: Vec<f32>,
    },
    /// Work goes on.
    Progress(Progress),
    /// A lease ended, well or badly. The last event of a lease, once.
    Finished(Box<LeaseOutcome>),
    /// Rank 0 of a gang opened the rendezvous store.
    StoreOpen {
        /// The lease of rank 0.
        lease: LeaseId,
        /// Where it serves, host:port.
        address: String,
    },
}

impl From<ExecutorCommand> for v1::ExecutorCommand {
    fn from(command: ExecutorCommand) -> Self {
        use v1::executor_command::Command as Wire;
        let command = match command {
            ExecutorCommand::Start(assignment) => Wire::Start((*assignment).into()),
            ExecutorCommand::Stop(lease) => Wire::Stop(lease.into()),
            ExecutorCommand::Yield { lease, save } => {
                Wire::Yield(v1::YieldGang { lease: Some(lease.into()), save })
            }
        };
        Self { command: Some(command) }
    }
}

impl TryFrom<v1::ExecutorCommand> for ExecutorCommand {
    type Error = ConversionError;

    fn try_from(wire: v1::ExecutorCommand) -> Result<Self, ConversionError> {
        use v1::executor_command::Command as Wire;
        Ok(match wire.command.ok_or_else(|| ConversionError::missing("command"))? {
            Wire::Start(assignment) => Self::Start(Box::new(read(assignment, "start")?)),
            Wire::Stop(lease) => Self::Stop(read(lease, "stop")?),
            Wire::Yield(v1::YieldGang { lease, save }) => {
                Self::Yield { lease: required(lease, "yield.lease")?, save }
            }
        })
    }
}

impl From<ExecutorEvent> for v1::ExecutorEvent {
    fn from(event: ExecutorEvent) -> Self {
        use v1::executor_event::Event as Wire;
        let event = match event {
            ExecutorEvent::Ready { device, torch, canary } => {
                Wire::Ready(v1::ExecutorReady { device, torch_version: torch, canary })
            }
            ExecutorEvent::Progress(progress) => Wire::Progress(progress.into()),
            ExecutorEvent::Finished(outcome) => Wire::Outcome((*outcome).into()),
            ExecutorEvent::StoreOpen { lease, address } => {
                Wire::StoreOpen(v1::GangStoreOpen { lease: Some(lease.into()), address })
            }
        };
        Self { event: Some(event) }
    }
}

impl TryFrom<v1::ExecutorEvent> for ExecutorEvent {
    type Error = ConversionError;

    fn try_from(wire: v1::ExecutorEvent) -> Result<Self, ConversionError> {
        use v1::executor_event::Event as Wire;
        Ok(match wire.event.ok_or_else(|| ConversionError::missing("event"))? {
            Wire::Ready(v1::ExecutorReady { device, torch_version, canary }) => {
                Self::Ready { device, torch: torch_version, canary }
            }
            Wire::Progress(progress) => Self::Progress(read(progress, "progress")?),
            Wire::Outcome(outcome) => Self::Finished(Box::new(read(outcome, "outcome")?)),
            Wire::StoreOpen(open) => {
                Self::StoreOpen { lease: required(open.lease, "store_open.lease")?, address: open.address }
            }
        })
    }
}
