//! Which jobs of a list somebody wants to see.

use crate::{JobState, JobStatus};

/// Jobs that fit all of what is set; every job when nothing is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// In one of these states; in any when empty.
    pub states: Vec<JobState>,
    /// Of this owner.
    pub owner: Option<String>,
    /// Whose spec has this name.
    pub name: Option<String>,
    /// Submitted then or later, milliseconds since 1970.
    pub since_unix_ms: Option<u64>,
}

impl JobFilter {
    /// Whether a job fits.
    pub fn fits(&self, job: &JobStatus) -> bool {
        let is =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        (self.states.is_empty() || self.states.contains(&job.state))
            && is(&self.owner, &job.owner)
            && is(&self.name, &job.name)
            && self.since_unix_ms.is_none_or(|since| job.submitted_unix_ms >= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(owner: &str, state: JobState, submitted_unix_ms: u64) -> JobStatus {
        let id = crate::JobId::new("a-1").unwrap();
        JobStatus {
            id,
            name: "a".to_owned(),
            feature: "f".to_owned(),
            owner: owner.to_owned(),
            state,
            submitted_unix_ms,
            finished_unix_ms: None,
            phases: vec![],
            slots: 0,
            waiting: None,
            retried: vec![],
            failure: None,
            result: None,
            version: 1,
        }
    }

    #[test]
    fn a_job_fits_what_is_set() {
        let job = job("ann", JobState::Running, 7);
        assert!(JobFilter::default().fits(&job));
        let all = JobFilter {
            states: vec![JobState::Queued, JobState::Running],
            owner: Some("ann".to_owned()),
            name: Some("a".to_owned()),
            since_unix_ms: Some(7),
        };
        assert!(all.fits(&job));
        for other in [
            JobFilter { states: vec![JobState::Queued], ..all.clone() },
            JobFilter { owner: Some("bob".to_owned()), ..all.clone() },
            JobFilter { name: Some("b".to_owned()), ..all.clone() },
            JobFilter { since_unix_ms: Some(8), ..all },
        ] {
            assert!(!other.fits(&job), "{other:?}");
        }
    }
}
