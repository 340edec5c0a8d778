//! A job's result, put together from what its phases gave.

use lethe_domain::{ArtifactPaths, DirectionSummary, JobId, JobResult, RESULT_VERSION, TrainSummary};

use crate::State;

impl State {
    /// The result of a job as far as it has one; paths are below the artifact root.
    pub fn result(&self, id: &JobId) -> Option<JobResult> {
        let record = self.record(id)?;
        let outputs = &record.outputs;
        let direction = outputs.direction.as_ref().map(|direction| DirectionSummary {
            threshold: direction.threshold,
            edited_share: direction.edited_share,
            heldout_auc: direction.heldout_auc,
            samples: direction.samples,
            positives: direction.positives,
            label_threshold: direction.cut.threshold,
            warnings: direction.warnings.clone(),
        });
        let train = outputs.fine_tune.as_ref().map(|trained| TrainSummary {
            steps: trained.steps,
            world_size: trained.world_size,
            samples_per_second: trained.samples_per_second,
            loss_first: trained.loss_first,
            loss_last: trained.loss_last,
        });
        Some(JobResult {
            schema_version: RESULT_VERSION,
            job: record.id.clone(),
            name: record.spec.name.clone(),
            state: record.state,
            failure: record.failure.clone(),
            feature: outputs.report.as_ref().map(|report| report.feature.clone()),
            fidelity: outputs.report.as_ref().and_then(|report| report.fidelity.clone()),
            locality: outputs.report.as_ref().map(|report| report.locality),
            direction,
            train,
            seconds: record
                .seconds
                .iter()
                .map(|(phase, seconds)| (phase.name().to_owned(), *seconds))
                .collect(),
            versions: outputs.publish.as_ref().map(|published| published.versions.clone()),
            artifacts: ArtifactPaths {
                generator: outputs.publish.as_ref().map(|published| published.generator.path.clone()),
                before_after_png: outputs
                    .publish
                    .as_ref()
                    .map(|published| published.before_after_png.path.clone()),
                checkpoint: outputs.fine_tune.as_ref().map(|trained| trained.checkpoint.clone()),
                target_sha256: outputs.direction.as_ref().map(|direction| direction.target.sha256.clone()),
            },
        })
    }
}
