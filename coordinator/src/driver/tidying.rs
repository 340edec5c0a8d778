//! Jobs that have ended, from the driver's side: having their files looked after.

use lethe_domain::JobState;
use lethe_engine::{Chore, Event};

use super::Request;
use super::task::Driver;
use crate::upkeep;

impl Driver {
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
                let _ = driver.send(Request::UpkeepDone { event }).await;
            }
        });
    }
}
