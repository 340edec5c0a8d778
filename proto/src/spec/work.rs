//! How the work is done: sampling, direction, training, resources, checkpoints.

use lethe_domain::spec::{
    BatchNorm, Calibration, Checkpoint, Device, Direction, DirectionMethod, EditChoice, Effort,
    LossReduction, LrSchedule, Plateau, Pool, Queue, Resources, Sample, Selection, SlotRange, Threshold,
    Unlearn, Until,
};

use crate::conversion::{choice, enumeration};
use crate::{ConversionError, v1};

enumeration!(v1::DirectionMethod, DirectionMethod: MeanDifference = MeanDifference, Logistic = Logistic);
enumeration!(v1::Selection, Selection: Projection = Projection, Classifier = Classifier);
enumeration!(v1::LossReduction, LossReduction: Mean = Mean, Sum = Sum);
enumeration!(v1::BatchNorm, BatchNorm: Eval = Eval, Train = Train);
enumeration!(v1::LrSchedule, LrSchedule: Constant = Constant, Linear = Linear, Cosine = Cosine);
enumeration!(v1::Effort, Effort: Quick = Quick, Normal = Normal, Thorough = Thorough);
enumeration!(v1::EditChoice, EditChoice: Auto = Auto, Line = Line, Gradient = Gradient, Student = Student);
enumeration!(v1::Device, Device: Auto = Auto, Cpu = Cpu, Cuda = Cuda);

impl From<Sample> for v1::Sample {
    fn from(sample: Sample) -> Self {
        Self {
            seed: Some(sample.seed),
            shard_size: Some(sample.shard_size),
            batch: Some(sample.batch),
            until: Some(match sample.until {
                Until::Positives(count) => v1::sample::Until::Positives(count),
                Until::Total(count) => v1::sample::Until::Total(count),
            }),
            at_most: sample.at_most,
        }
    }
}

impl From<v1::Sample> for Sample {
    fn from(sample: v1::Sample) -> Self {
        let default = Self::default();
        Self {
            seed: sample.seed.unwrap_or(default.seed),
            shard_size: sample.shard_size.unwrap_or(default.shard_size),
            batch: sample.batch.unwrap_or(default.batch),
            until: match sample.until {
                None => default.until,
                Some(v1::sample::Until::Positives(count)) => Until::Positives(count),
                Some(v1::sample::Until::Total(count)) => Until::Total(count),
            },
            at_most: sample.at_most,
        }
    }
}

impl From<Direction> for v1::Direction {
    fn from(direction: Direction) -> Self {
        use v1::direction::Threshold as Wire;
        Self {
            method: v1::DirectionMethod::from(direction.method).into(),
            threshold: Some(match direction.threshold {
                Threshold::Pooled => Wire::Rule(v1::ThresholdRule::Pooled.into()),
                Threshold::Midpoint => Wire::Rule(v1::ThresholdRule::Midpoint.into()),
                Threshold::Quantile(q) => Wire::Quantile(q),
            }),
            selection: v1::Selection::from(direction.selection).into(),
            margin: direction.margin,
            recall: direction.recall,
            calibration_uri: direction.calibration.map(|calibration| calibration.uri),
            edit: v1::EditChoice::from(direction.edit).into(),
            surrogate: Some(direction.surrogate),
            locality: Some(direction.locality),
            raw: Some(direction.raw),
        }
    }
}

impl From<v1::ThresholdRule> for Option<Threshold> {
    fn from(rule: v1::ThresholdRule) -> Self {
        match rule {
            v1::ThresholdRule::Unspecified => None,
            v1::ThresholdRule::Pooled => Some(Threshold::Pooled),
            v1::ThresholdRule::Midpoint => Some(Threshold::Midpoint),
        }
    }
}

impl TryFrom<v1::Direction> for Direction {
    type Error = ConversionError;

    fn try_from(direction: v1::Direction) -> Result<Self, ConversionError> {
        use v1::direction::Threshold as Wire;
        let default = Self::default();
        let threshold = match direction.threshold {
            None => None,
            Some(Wire::Rule(rule)) => choice::<v1::ThresholdRule, _>(rule, "threshold")?,
            Some(Wire::Quantile(q)) => Some(Threshold::Quantile(q)),
        };
        Ok(Self {
            method: choice::<v1::DirectionMethod, _>(direction.method, "method")?.unwrap_or(default.method),
            threshold: threshold.unwrap_or(default.threshold),
            selection: choice::<v1::Selection, _>(direction.selection, "selection")?
                .unwrap_or(default.selection),
            margin: direction.margin.or(default.margin),
            recall: direction.recall,
            calibration: direction.calibration_uri.map(|uri| Calibration { uri }),
            edit: choice::<v1::EditChoice, _>(direction.edit, "edit")?.unwrap_or(default.edit),
            surrogate: direction.surrogate.unwrap_or(default.surrogate),
            locality: direction.locality.unwrap_or(default.locality),
            raw: direction.raw.unwrap_or(default.raw),
        })
    }
}

impl From<Pool> for v1::Pool {
    fn from(pool: Pool) -> Self {
        Self {
            latents: Some(pool.latents),
            shard_size: Some(pool.shard_size),
            batch: Some(pool.batch),
            reuse: Some(pool.reuse),
        }
    }
}

/// The pool of a job of this effort.
pub(super) fn pool(pool: v1::Pool, effort: Effort) -> Pool {
    let default = Pool::of(effort);
    Pool {
        latents: pool.latents.unwrap_or(default.latents),
        shard_size: pool.shard_size.unwrap_or(default.shard_size),
        batch: pool.batch.unwrap_or(default.batch),
        reuse: pool.reuse.unwrap_or(default.reuse),
    }
}

impl From<Unlearn> for v1::Unlearn {
    fn from(unlearn: Unlearn) -> Self {
        Self {
            effort: v1::Effort::from(unlearn.effort).into(),
            slot_minutes: unlearn.slot_minutes,
            steps: Some(unlearn.steps),
            global_batch: Some(unlearn.global_batch),
            micro_batches: Some(unlearn.micro_batches),
            lr: unlearn.lr,
            lr_schedule: v1::LrSchedule::from(unlearn.lr_schedule).into(),
            anchor: Some(unlearn.anchor),
            drift: Some(unlearn.drift),
            squares: Some(unlearn.squares),
            contrast: Some(unlearn.contrast),
            alpha: unlearn.alpha,
            labeller_term: unlearn.labeller_term,
            average: Some(unlearn.average),
            strength: unlearn.strength,
            near: Some(unlearn.near),
            loss_reduction: v1::LossReduction::from(unlearn.loss_reduction).into(),
            batch_norm: v1::BatchNorm::from(unlearn.batch_norm).into(),
            trials: Some(unlearn.trials),
            plateau: unlearn
                .plateau
                .map(|Plateau { patience, min_delta }| v1::Plateau { patience, min_delta }),
        }
    }
}

impl TryFrom<v1::Unlearn> for Unlearn {
    type Error = ConversionError;

    fn try_from(unlearn: v1::Unlearn) -> Result<Self, ConversionError> {
        let effort = choice::<v1::Effort, _>(unlearn.effort, "effort")?.unwrap_or_default();
        let default = Self::of(effort);
        Ok(Self {
            effort,
            slot_minutes: unlearn.slot_minutes,
            steps: unlearn.steps.unwrap_or(default.steps),
            global_batch: unlearn.global_batch.unwrap_or(default.global_batch),
            micro_batches: unlearn.micro_batches.unwrap_or(default.micro_batches),
            lr: unlearn.lr,
            lr_schedule: choice::<v1::LrSchedule, _>(unlearn.lr_schedule, "lr_schedule")?
                .unwrap_or(default.lr_schedule),
            anchor: unlearn.anchor.unwrap_or(default.anchor),
            drift: unlearn.drift.unwrap_or(default.drift),
            squares: unlearn.squares.unwrap_or(default.squares),
            contrast: unlearn.contrast.unwrap_or(default.contrast),
            alpha: unlearn.alpha,
            labeller_term: unlearn.labeller_term,
            average: unlearn.average.unwrap_or(default.average),
            strength: unlearn.strength,
            near: unlearn.near.unwrap_or(default.near),
            loss_reduction: choice::<v1::LossReduction, _>(unlearn.loss_reduction, "loss_reduction")?
                .unwrap_or(default.loss_reduction),
            batch_norm: choice::<v1::BatchNorm, _>(unlearn.batch_norm, "batch_norm")?
                .unwrap_or(default.batch_norm),
            trials: unlearn.trials.unwrap_or(default.trials),
            plateau: unlearn
                .plateau
                .map(|v1::Plateau { patience, min_delta }| Plateau { patience, min_delta }),
        })
    }
}

impl From<Resources> for v1::Resources {
    fn from(resources: Resources) -> Self {
        Self {
            slots_min: Some(resources.slots.min),
            slots_max: Some(resources.slots.max),
            device: v1::Device::from(resources.device).into(),
            threads: Some(resources.threads),
            slots_spares: Some(resources.slots.spares),
        }
    }
}

impl TryFrom<v1::Resources> for Resources {
    type Error = ConversionError;

    fn try_from(resources: v1::Resources) -> Result<Self, ConversionError> {
        let default = Self::default();
        Ok(Self {
            slots: SlotRange {
                min: resources.slots_min.unwrap_or(default.slots.min),
                max: resources.slots_max.unwrap_or(default.slots.max),
                spares: resources.slots_spares.unwrap_or(default.slots.spares),
            },
            device: choice::<v1::Device, _>(resources.device, "device")?.unwrap_or(default.device),
            threads: resources.threads.unwrap_or(default.threads),
        })
    }
}

impl From<Queue> for v1::Queue {
    fn from(Queue { owner, priority }: Queue) -> Self {
        Self { owner: Some(owner), priority: Some(priority) }
    }
}

impl From<v1::Queue> for Queue {
    fn from(queue: v1::Queue) -> Self {
        let default = Self::default();
        Self {
            owner: queue.owner.unwrap_or(default.owner),
            priority: queue.priority.unwrap_or(default.priority),
        }
    }
}

impl From<Checkpoint> for v1::Checkpoint {
    fn from(checkpoint: Checkpoint) -> Self {
        Self {
            every: Some(checkpoint.every),
            keep: Some(checkpoint.keep),
            best: Some(checkpoint.best),
            keep_every: Some(checkpoint.keep_every),
        }
    }
}

impl From<v1::Checkpoint> for Checkpoint {
    fn from(checkpoint: v1::Checkpoint) -> Self {
        let default = Self::default();
        Self {
            every: checkpoint.every.unwrap_or(default.every),
            keep: checkpoint.keep.unwrap_or(default.keep),
            best: checkpoint.best.unwrap_or(default.best),
            keep_every: checkpoint.keep_every.unwrap_or(default.keep_every),
        }
    }
}
