//! The worker service: one stream in each direction for as long as the worker is a member.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use lethe_domain::{ErrorCode, Failure, TaskOutput};
use lethe_proto::session::{Registration, WorkerCommand, WorkerEvent};
use lethe_proto::status::Refusal;
use lethe_proto::v1::worker_service_server::WorkerService;
use lethe_proto::{ConversionError, LeaseOutcome, PROTOCOL, v1};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::driver::{DriverHandle, LastHeard, Membership, SessionId};

/// A worker that opens a session must say who it is within this time.
const INTRODUCTION: Duration = Duration::from_secs(10);

/// Commands that may wait for the transport; more wait at the driver's end.
const IN_FLIGHT: usize = 4;

/// Events that may wait for the driver in one session: every slot of a worker may come back at once.
const UNTOLD: usize = 2 * SLOTS;

/// The most slots of one worker.
const SLOTS: usize = 1024;

/// The largest output of a task, as JSON: it is kept in the state store, bulk goes to artifacts.
const OUTPUT_BYTES: usize = 64 << 10;

/// The longest text a failure keeps.
const TEXT_BYTES: usize = 8 << 10;

type Outgoing = mpsc::Sender<Result<v1::SessionResponse, Status>>;

/// The worker service of one coordinator.
pub(super) struct Workers {
    driver: DriverHandle,
    allow_chaos: bool,
}

impl Workers {
    pub(super) fn new(driver: DriverHandle, allow_chaos: bool) -> Self {
        Self { driver, allow_chaos }
    }
}

#[tonic::async_trait]
impl WorkerService for Workers {
    type SessionStream = BoxStream<'static, Result<v1::SessionResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut events = request.into_inner();
        let registration = introduction(&mut events).await?;
        if let Some(chaos) = registration.chaos.as_ref().filter(|_| !self.allow_chaos) {
            let message = format!(
                "worker {} makes faults on purpose (--chaos {chaos}), and this coordinator was not started with --allow-chaos",
                registration.worker
            );
            return Err(Refusal::Conflict { message }.into());
        }
        let membership = self.driver.join(registration).await?;
        let (outgoing, responses) = mpsc::channel(IN_FLIGHT);
        tokio::spawn(session(self.driver.clone(), membership, events, outgoing));
        Ok(Response::new(ReceiverStream::new(responses).boxed()))
    }
}

/// The first event of a session, which must be a registration this coordinator can work with.
async fn introduction(events: &mut Streaming<v1::SessionRequest>) -> Result<Registration, Status> {
    let silent = || Refusal::Malformed(ConversionError::missing("register"));
    let first = timeout(INTRODUCTION, events.message()).await.map_err(|_| silent())??.ok_or_else(silent)?;
    let WorkerEvent::Register(registration) = WorkerEvent::try_from(first).map_err(Refusal::from)? else {
        return Err(silent().into());
    };
    if registration.protocol != PROTOCOL {
        let message = format!(
            "worker {} (version {}) speaks protocol {}, this coordinator speaks {PROTOCOL}: upgrade the older of both",
            registration.worker, registration.version, registration.protocol
        );
        return Err(Refusal::Conflict { message }.into());
    }
    let slots = registration.devices.len();
    if slots == 0 || slots > SLOTS {
        let found = format!("found {slots}, expected 1 to {SLOTS}: a device per slot");
        return Err(Refusal::Malformed(ConversionError::bad("register.devices", found)).into());
    }
    Ok(registration)
}

/// Carries events to the driver and commands to the worker until either side ends it. Neither direction waits for the other.
async fn session(
    driver: DriverHandle,
    membership: Membership,
    events: Streaming<v1::SessionRequest>,
    outgoing: Outgoing,
) {
    let Membership { member, registered, commands, replaced, heard } = membership;
    if outgoing.send(Ok(WorkerCommand::Registered(registered).into())).await.is_err() {
        return;
    }
    tracing::info!(worker = %member.worker, "a worker has joined");
    tokio::select! {
        () = say(&member, commands, &replaced, &outgoing) => {}
        () = listen(&driver, &member, &heard, events, &outgoing) => {}
        () = outgoing.closed() => {}
    }
}

/// From the driver to the worker.
async fn say(
    member: &SessionId,
    mut commands: mpsc::Receiver<WorkerCommand>,
    replaced: &AtomicBool,
    outgoing: &Outgoing,
) {
    while let Some(command) = commands.recv().await {
        if outgoing.send(Ok(command.into())).await.is_err() {
            return;
        }
    }
    // A newer session has taken over, or the driver wants everybody to join again.
    if replaced.load(Ordering::Relaxed) {
        let message = format!("another worker with this id has joined: {}", member.worker);
        let _ = outgoing.send(Err(Refusal::Conflict { message }.into())).await;
    }
}

/// From the worker to the driver. It goes on listening while the driver is busy: what has arrived was heard.
async fn listen(
    driver: &DriverHandle,
    member: &SessionId,
    heard: &LastHeard,
    mut events: Streaming<v1::SessionRequest>,
    outgoing: &Outgoing,
) {
    let mut untold = Untold::default();
    loop {
        tokio::select! {
            room = driver.room(), if !untold.is_empty() => {
                let (Ok(room), Some(event)) = (room, untold.next()) else { return };
                room.tell(member, event);
            }
            event = events.message(), if untold.has_room() => {
                match event.map(|wire| wire.map(WorkerEvent::try_from)) {
                    Ok(Some(Ok(event))) => {
                        heard.note();
                        untold.push(kept(event));
                    }
                    Ok(Some(Err(error))) => {
                        tracing::warn!(worker = %member.worker, %error, "the session ends, its event is not understood");
                        let _ = outgoing.send(Err(Refusal::Malformed(error).into())).await;
                        return;
                    }
                    // It closed its half in good order.
                    Ok(None) => {
                        tracing::info!(worker = %member.worker, "a worker took its leave");
                        while let (Some(event), Ok(room)) = (untold.next(), driver.room().await) {
                            room.tell(member, event);
                        }
                        let _ = driver.leave(member.clone()).await;
                        return;
                    }
                    Err(status) => {
                        tracing::info!(worker = %member.worker, %status, "lost the session of a worker");
                        return;
                    }
                }
            }
        }
    }
}

/// What a worker has said and the driver has not taken yet.
#[derive(Debug, Default)]
struct Untold(VecDeque<WorkerEvent>);

impl Untold {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn has_room(&self) -> bool {
        self.0.len() < UNTOLD
    }

    fn next(&mut self) -> Option<WorkerEvent> {
        self.0.pop_front()
    }

    /// Of heartbeats in a row the last one counts.
    fn push(&mut self, event: WorkerEvent) {
        if let (Some(last @ WorkerEvent::Heartbeat(_)), WorkerEvent::Heartbeat(_)) =
            (self.0.back_mut(), &event)
        {
            *last = event;
        } else {
            self.0.push_back(event);
        }
    }
}

/// An event in a form that can be written down: what could not be read back becomes a failure that says so.
fn kept(event: WorkerEvent) -> WorkerEvent {
    match event {
        WorkerEvent::Finished { slot, outcome } => {
            let LeaseOutcome { lease, outcome } = *outcome;
            let outcome = match outcome {
                Ok(output) => storable(output),
                Err(failure) => Err(Failure {
                    message: shortened(failure.message),
                    hint: shortened(failure.hint),
                    ..failure
                }),
            };
            WorkerEvent::Finished { slot, outcome: Box::new(LeaseOutcome { lease, outcome }) }
        }
        WorkerEvent::Register(_)
        | WorkerEvent::Heartbeat(_)
        | WorkerEvent::StoreOpen { .. }
        | WorkerEvent::SlotChanged { .. }
        | WorkerEvent::Draining => event,
    }
}

fn storable(output: TaskOutput) -> Result<TaskOutput, Failure> {
    let phase = output.phase();
    let json = serde_json::to_string(&output).unwrap_or_default();
    if json.len() > OUTPUT_BYTES {
        let message = format!(
            "the output of {phase} has {} bytes of JSON, at most {OUTPUT_BYTES} are kept",
            json.len()
        );
        return Err(Failure::new(
            ErrorCode::Internal,
            message,
            "use the same version of worker and coordinator",
        ));
    }
    match serde_json::from_str::<TaskOutput>(&json) {
        Ok(back) if back == output => Ok(output),
        Ok(_) | Err(_) => Err(Failure::new(
            ErrorCode::NotFinite,
            format!("a figure of {phase} is not a finite number: {}", shortened(json)),
            "check the models on a few samples; lower unlearn.lr if training diverges",
        )),
    }
}

/// A text, cut at a character when it is too long to keep.
pub(super) fn shortened(text: String) -> String {
    if text.len() <= TEXT_BYTES {
        return text;
    }
    format!("{}...", &text[..text.floor_char_boundary(TEXT_BYTES)])
}

#[cfg(test)]
mod tests {
    use lethe_domain::{Attempt, JobId, LeaseId, Phase, ProbeOutput, ShardIndex, SlotIndex};

    use super::*;

    fn finished(outcome: Result<TaskOutput, Failure>) -> Result<TaskOutput, Failure> {
        let lease = LeaseId {
            job: JobId::new("j").unwrap(),
            phase: Phase::Probe,
            shard: ShardIndex(0),
            attempt: Attempt(1),
        };
        let outcome = Box::new(LeaseOutcome { lease, outcome });
        let WorkerEvent::Finished { outcome, .. } =
            kept(WorkerEvent::Finished { slot: SlotIndex(0), outcome })
        else {
            panic!("another event")
        };
        outcome.outcome
    }

    fn probe(high: f64, sides: usize) -> TaskOutput {
        TaskOutput::Probe(ProbeOutput {
            image_shape: vec![28; sides],
            range: [0.0, high],
            batch_seconds: 0.1 + 0.2,
            parameters: 7,
            warnings: vec![],
        })
    }

    #[test]
    fn what_could_not_be_read_back_becomes_a_failure() {
        assert_eq!(finished(Ok(probe(1.0, 3))), Ok(probe(1.0, 3)));
        let failure = finished(Ok(probe(f64::NAN, 3))).unwrap_err();
        assert_eq!(failure.code, ErrorCode::NotFinite);
        let failure = finished(Ok(probe(1.0, OUTPUT_BYTES))).unwrap_err();
        assert_eq!(failure.code, ErrorCode::Internal);
    }

    #[test]
    fn endless_texts_are_cut_at_a_character() {
        let failure = Failure::new(ErrorCode::Internal, "é".repeat(TEXT_BYTES), "short");
        let kept = finished(Err(failure)).unwrap_err();
        assert_eq!(kept.message.len(), TEXT_BYTES + 3);
        assert!(kept.message.ends_with("é...") && kept.hint == "short");
    }
}
