//! What a job found. On the wire it is a part of its job, which says the job's names and how it ended.

use lethe_domain::{
    ArtifactPaths, DirectionSummary, Failure, JobId, JobResult, JobState, PoolSummary, Round, SearchSummary,
    TrainSummary, Trial, Values,
};

use crate::conversion::{each, enumeration, list, optional, required, required_choice};
use crate::{ConversionError, v1};

enumeration!(v1::SearchRound, Round: First = First, Second = Second, Last = Last);

impl From<JobResult> for v1::JobResult {
    fn from(result: JobResult) -> Self {
        Self {
            schema_version: result.schema_version,
            warnings: each(result.warnings),
            judge: result.judge.map(Into::into),
            figures: each(result.figures),
            advice: result.advice,
            direction: result.direction.map(Into::into),
            pool: result.pool.map(Into::into),
            search: result.search.map(Into::into),
            train: result.train.map(Into::into),
            seconds: result.seconds.into_iter().collect(),
            versions: result.versions.map(Into::into),
            artifacts: Some(result.artifacts.into()),
            spec: result.spec.map(|spec| (*spec).into()),
            inputs: Some(result.inputs.into()),
        }
    }
}

/// What a result does not repeat of its job.
pub(crate) struct OfJob {
    pub(crate) id: JobId,
    pub(crate) name: String,
    pub(crate) feature: String,
    pub(crate) state: JobState,
    pub(crate) failure: Option<Failure>,
}

/// The result of this job.
///
/// # Errors
/// What makes no sense, by its path.
pub(crate) fn result_of(job: OfJob, result: v1::JobResult) -> Result<JobResult, ConversionError> {
    let OfJob { id, name, feature, state, failure } = job;
    Ok(JobResult {
        schema_version: result.schema_version,
        job: id,
        name,
        feature,
        state,
        failure,
        warnings: list(result.warnings, "warnings")?,
        judge: optional(result.judge, "judge")?,
        figures: list(result.figures, "figures")?,
        advice: result.advice,
        direction: optional(result.direction, "direction")?,
        pool: result.pool.map(Into::into),
        search: optional(result.search, "search")?,
        train: result.train.map(Into::into),
        seconds: result.seconds.into_iter().collect(),
        versions: result.versions.map(Into::into),
        inputs: required(result.inputs, "inputs")?,
        artifacts: result.artifacts.map(Into::into).unwrap_or_default(),
        spec: optional(result.spec, "spec")?.map(Box::new),
    })
}

impl From<DirectionSummary> for v1::DirectionSummary {
    fn from(found: DirectionSummary) -> Self {
        Self {
            threshold: found.threshold,
            edited_share: found.edited_share,
            heldout_auc: found.heldout_auc,
            samples: found.samples,
            positives: found.positives,
            label_threshold: found.label_threshold,
            select: found.select,
            goal: found.goal,
            edit: v1::EditMethod::from(found.edit).into(),
        }
    }
}

impl TryFrom<v1::DirectionSummary> for DirectionSummary {
    type Error = ConversionError;

    fn try_from(found: v1::DirectionSummary) -> Result<Self, ConversionError> {
        Ok(Self {
            threshold: found.threshold,
            edited_share: found.edited_share,
            heldout_auc: found.heldout_auc,
            samples: found.samples,
            positives: found.positives,
            label_threshold: found.label_threshold,
            select: found.select,
            goal: found.goal,
            edit: required_choice::<v1::EditMethod, _>(found.edit, "edit")?,
        })
    }
}

impl From<PoolSummary> for v1::PoolSummary {
    fn from(PoolSummary { latents, shards, reused }: PoolSummary) -> Self {
        Self { latents, shards, reused }
    }
}

impl From<v1::PoolSummary> for PoolSummary {
    fn from(v1::PoolSummary { latents, shards, reused }: v1::PoolSummary) -> Self {
        Self { latents, shards, reused }
    }
}

impl From<Values> for v1::SearchValues {
    fn from(Values { lr, alpha, labeller_term, anchor, squares }: Values) -> Self {
        Self { lr, alpha, labeller_term, anchor, squares }
    }
}

impl From<v1::SearchValues> for Values {
    fn from(v1::SearchValues { lr, alpha, labeller_term, anchor, squares }: v1::SearchValues) -> Self {
        Self { lr, alpha, labeller_term, anchor, squares }
    }
}

impl From<Trial> for v1::Trial {
    fn from(Trial { trial, round, steps, values, left, changed }: Trial) -> Self {
        let (round, values) = (v1::SearchRound::from(round).into(), Some(values.into()));
        Self { trial, round, steps, values, left, changed }
    }
}

impl TryFrom<v1::Trial> for Trial {
    type Error = ConversionError;

    fn try_from(trial: v1::Trial) -> Result<Self, ConversionError> {
        Ok(Self {
            trial: trial.trial,
            round: required_choice::<v1::SearchRound, _>(trial.round, "round")?,
            steps: trial.steps,
            values: required(trial.values, "values")?,
            left: trial.left,
            changed: trial.changed,
        })
    }
}

impl From<SearchSummary> for v1::SearchSummary {
    fn from(SearchSummary { trial, values, trials }: SearchSummary) -> Self {
        Self { trial, values: Some(values.into()), trials: each(trials) }
    }
}

impl TryFrom<v1::SearchSummary> for SearchSummary {
    type Error = ConversionError;

    fn try_from(found: v1::SearchSummary) -> Result<Self, ConversionError> {
        Ok(Self {
            trial: found.trial,
            values: required(found.values, "values")?,
            trials: list(found.trials, "trials")?,
        })
    }
}

impl From<TrainSummary> for v1::TrainSummary {
    fn from(train: TrainSummary) -> Self {
        Self {
            steps: train.steps,
            world_size: train.world_size,
            samples_per_second: train.samples_per_second,
            lr: train.lr,
            drift: train.drift,
            halved: train.halved,
            alpha: train.alpha,
            labeller_term: train.labeller_term,
            strength: train.strength,
            loss_first: train.loss_first,
            loss_last: train.loss_last,
        }
    }
}

impl From<v1::TrainSummary> for TrainSummary {
    fn from(train: v1::TrainSummary) -> Self {
        Self {
            steps: train.steps,
            world_size: train.world_size,
            samples_per_second: train.samples_per_second,
            lr: train.lr,
            drift: train.drift,
            halved: train.halved,
            alpha: train.alpha,
            labeller_term: train.labeller_term,
            strength: train.strength,
            loss_first: train.loss_first,
            loss_last: train.loss_last,
        }
    }
}

impl From<ArtifactPaths> for v1::ArtifactPaths {
    fn from(ArtifactPaths { generator, before_after_png, checkpoint, target_sha256 }: ArtifactPaths) -> Self {
        Self { generator, before_after_png, checkpoint, target_sha256 }
    }
}

impl From<v1::ArtifactPaths> for ArtifactPaths {
    fn from(
        v1::ArtifactPaths { generator, before_after_png, checkpoint, target_sha256 }: v1::ArtifactPaths,
    ) -> Self {
        Self { generator, before_after_png, checkpoint, target_sha256 }
    }
}
