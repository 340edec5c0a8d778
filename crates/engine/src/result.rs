//! A job's result, put together from what its phases gave.

use lethe_domain::{
    ArtifactPaths, DirectionSummary, JobResult, JobSpec, Phase, PoolSummary, RESULT_VERSION, TrainSummary,
};

use crate::JobRecord;

impl JobRecord {
    /// The result of a job as far as it has one; paths are below the artifact root.
    pub fn result(&self) -> JobResult {
        let record = self;
        let outputs = &record.outputs;
        let direction = outputs.direction().map(|direction| DirectionSummary {
            threshold: direction.threshold,
            edited_share: direction.edited_share,
            heldout_auc: direction.heldout_auc,
            samples: direction.samples,
            positives: direction.positives,
            label_threshold: direction.cut.threshold,
            select: direction.select,
            goal: direction.goal,
            edit: direction.edit,
        });
        let pool = record.reached.get(&Phase::Edit).map(|reached| PoolSummary {
            latents: reached.done,
            shards: reached.shards_done,
            reused: reached.reused,
        });
        let train = outputs.fine_tune().map(|trained| TrainSummary {
            steps: trained.steps,
            world_size: trained.world_size,
            samples_per_second: trained.samples_per_second,
            lr: trained.lr,
            drift: trained.drift,
            halved: trained.halved,
            alpha: trained.alpha,
            labeller_term: trained.labeller_term,
            strength: trained.strength,
            loss_first: trained.loss_first,
            loss_last: trained.loss_last,
        });
        let search = outputs.fine_tune().and_then(|trained| trained.search.clone());
        let report = outputs.report();
        JobResult {
            schema_version: RESULT_VERSION,
            job: record.id.clone(),
            name: record.spec.name.clone(),
            feature: record.spec.feature.name.clone(),
            state: record.state,
            failure: record.failure.clone(),
            warnings: outputs.warnings(),
            judge: report.map(|report| report.judge.clone()),
            figures: outputs.figures(),
            advice: report.and_then(|report| report.advice.clone()),
            direction,
            pool,
            search,
            train,
            seconds: record
                .seconds
                .iter()
                .map(|(phase, seconds)| (phase.name().to_owned(), *seconds))
                .collect(),
            versions: outputs.publish().map(|published| published.versions.clone()),
            inputs: record.inputs.clone(),
            artifacts: ArtifactPaths {
                generator: outputs.publish().map(|published| published.generator.path.clone()),
                before_after_png: outputs.publish().map(|published| published.before_after_png.path.clone()),
                checkpoint: outputs.fine_tune().map(|trained| trained.checkpoint.clone()),
                target_sha256: outputs.direction().map(|direction| direction.target.sha256.clone()),
            },
            spec: Some(Box::new(record.settled())),
        }
    }

    /// The spec that gives the same copy again: what was found, measured or lowered on the way is set.
    fn settled(&self) -> JobSpec {
        let Some(trained) = self.outputs.fine_tune() else { return self.spec.clone() };
        let search = trained.search.as_ref();
        let mut spec = search.map_or_else(|| self.spec.clone(), |search| search.settle(&self.spec));
        spec.unlearn.slot_minutes = Some(0.0);
        spec.unlearn.lr = Some(trained.lr);
        spec.unlearn.alpha = Some(trained.alpha);
        spec.unlearn.labeller_term = Some(trained.labeller_term);
        spec.unlearn.strength = trained.strength;
        spec
    }
}
