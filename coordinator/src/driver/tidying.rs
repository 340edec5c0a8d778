//! Jobs that have ended, from the driver's side: deleting them on request, and having their files looked after.

use lethe_domain::{JobId, JobState};
use lethe_engine::{Chore, Event};
use lethe_proto::status::Refusal;

use super::task::{Driver, Turn};
use super::{Reply, Request, no_such_job};
use crate::upkeep;

impl Driver {
    /// Forgets a job that has ended.
    pub(super) fn delete(&mut self, id: JobId, reply: Reply<()>, turn: &mut Turn) {
        let refusal = match self.state.job_state(&id) {
            None => Some(no_such_job(&id)),
            Some(_) => self.state.undeletable(&id).map(|message| Refusal::Conflict { message }),
        };
        if refusal.is_none() {
            tracing::info!(job = %id, "a job is to be deleted");
            self.step(Event::Delete { job: id }, turn);
        }
        turn.answers.push(Box::new(move |written| {
            let answer = written.map(|_| ()).map_err(Refusal::clone);
            // Nobody waits for it any more: no harm.
            let _ = reply.send(refusal.map_or(answer, Err));
        }));
    }

    /// Has the files of a job that has ended put in order, or those of a job that is forgotten removed.
    pub(super) fn look_after(&self, chore: Chore) {
        let (chore, event) = match chore {
            Chore::TidyUp { job } => {
                let Some(record) = self.state.record(&job) else { return };
                let succeeded = record.state == JobState::Succeeded;
                let result = succeeded.then(|| Box::new(record.result()));
                let publish = record.spec.publish.as_ref().map(|publish| publish.uri.clone());
                (upkeep::Chore::TidyUp { job: job.clone(), result, publish }, Event::TidiedUp { job })
            }
            Chore::Erase { job } => (upkeep::Chore::Erase { job: job.clone() }, Event::Erased { job }),
        };
        let myself = self.myself.clone();
        self.upkeep.begin(chore, &self.upkeep_end, async move {
            if let Some(driver) = myself.upgrade() {
                // The driver has ended: the next leader does it again.
                let _ = driver.send(Request::Kept { event }).await;
            }
        });
    }
}
