//! The phases, one by one: what each is told, and what it gives.
//!
//! Not here: under which lease that is (`task`).

use lethe_domain::spec::Costs;
use lethe_domain::{
    DirectionOutput, EditMethod, EditOutput, EditSummary, EvaluateOutput, FineTuneOutput, Phase, ProbeOutput,
    PublishOutput, ReportOutput, SampleOutput, SearchOutput, Task, TaskOutput,
};

use crate::artifacts::{pack, unpack};
use crate::conversion::{each, enumeration, list, optional, read, required, required_choice};
use crate::{ConversionError, v1};

enumeration!(v1::Phase, Phase:
    Probe = Probe, Sample = Sample, Direction = Direction, Edit = Edit,
    SearchFirst = SearchFirst, SearchSecond = SearchSecond, SearchLast = SearchLast, FineTune = FineTune,
    Evaluate = Evaluate, Report = Report, Publish = Publish);

enumeration!(v1::EditMethod, EditMethod: Projection = Projection, Line = Line, Gradient = Gradient, Student = Student);

impl From<Task> for v1::Task {
    fn from(task: Task) -> Self {
        use v1::task::Task as Wire;
        let task = match task {
            Task::Probe => Wire::Probe(v1::ProbeTask {}),
            Task::Sample { range } => Wire::Sample(v1::SampleTask { range: Some(range.into()) }),
            Task::Direction { scores } => {
                let (scores, list) = pack(scores);
                Wire::Direction(v1::DirectionTask { scores, list })
            }
            Task::Edit { range, target } => {
                Wire::Edit(v1::EditTask { range: Some(range.into()), target: Some(target.into()) })
            }
            Task::Search { round, range, target, pool, before } => {
                let (pool, list) = pack(pool);
                Wire::Search(v1::SearchTask {
                    round: v1::SearchRound::from(round).into(),
                    range: Some(range.into()),
                    target: Some(target.into()),
                    pool,
                    list,
                    before: each(before),
                })
            }
            Task::FineTune { target, pool, search, role } => {
                let (target, role, (pool, list)) = (Some(target.into()), Some(role.into()), pack(pool));
                Wire::FineTune(v1::FineTuneTask { target, role, pool, list, search: each(search) })
            }
            Task::Standby { target, pool } => {
                let (pool, list) = pack(pool);
                Wire::Standby(v1::StandbyTask { target: Some(target.into()), pool, list })
            }
            Task::Evaluate { range, target, weights } => Wire::Evaluate(v1::EvaluateTask {
                range: Some(range.into()),
                target: Some(target.into()),
                weights: Some(weights.into()),
            }),
            Task::Report { moments, target } => {
                let (moments, list) = pack(moments);
                Wire::Report(v1::ReportTask { moments, list, target: Some(target.into()) })
            }
            Task::Publish { target, weights, report } => Wire::Publish(v1::PublishTask {
                target: Some(target.into()),
                weights: Some(weights.into()),
                report: Some(report.into()),
            }),
        };
        Self { task: Some(task) }
    }
}

impl TryFrom<v1::Task> for Task {
    type Error = ConversionError;

    fn try_from(wire: v1::Task) -> Result<Self, ConversionError> {
        use v1::task::Task as Wire;
        Ok(match wire.task.ok_or_else(|| ConversionError::missing(""))? {
            Wire::Probe(v1::ProbeTask {}) => Task::Probe,
            Wire::Sample(task) => Task::Sample { range: required(task.range, "range")? },
            Wire::Direction(task) => Task::Direction { scores: unpack(task.scores, task.list, "scores")? },
            Wire::Edit(task) => {
                Task::Edit { range: required(task.range, "range")?, target: required(task.target, "target")? }
            }
            Wire::Search(task) => Task::Search {
                round: required_choice::<v1::SearchRound, _>(task.round, "round")?,
                range: required(task.range, "range")?,
                target: required(task.target, "target")?,
                pool: unpack(task.pool, task.list, "pool")?,
                before: list(task.before, "before")?,
            },
            Wire::FineTune(task) => Task::FineTune {
                target: required(task.target, "target")?,
                pool: unpack(task.pool, task.list, "pool")?,
                search: list(task.search, "search")?,
                role: required(task.role, "role")?,
            },
            Wire::Standby(task) => Task::Standby {
                target: required(task.target, "target")?,
                pool: unpack(task.pool, task.list, "pool")?,
            },
            Wire::Evaluate(task) => Task::Evaluate {
                range: required(task.range, "range")?,
                target: required(task.target, "target")?,
                weights: required(task.weights, "weights")?,
            },
            Wire::Report(task) => Task::Report {
                moments: unpack(task.moments, task.list, "moments")?,
                target: required(task.target, "target")?,
            },
            Wire::Publish(task) => Task::Publish {
                target: required(task.target, "target")?,
                weights: required(task.weights, "weights")?,
                report: required(task.report, "report")?,
            },
        })
    }
}

impl From<TaskOutput> for v1::TaskOutput {
    fn from(output: TaskOutput) -> Self {
        use v1::task_output::Output as Wire;
        let output = match output {
            TaskOutput::Probe(output) => Wire::Probe(output.into()),
            TaskOutput::Sample(output) => Wire::Sample(output.into()),
            TaskOutput::Direction(output) => Wire::Direction(output.into()),
            TaskOutput::Edit(output) => Wire::Edit(output.into()),
            TaskOutput::Search(output) => Wire::Search(output.into()),
            TaskOutput::FineTune(output) => Wire::FineTune(output.map(Into::into).unwrap_or_default()),
            TaskOutput::Evaluate(output) => Wire::Evaluate(output.into()),
            TaskOutput::Report(output) => Wire::Report(output.into()),
            TaskOutput::Publish(output) => Wire::Publish(output.into()),
            TaskOutput::Shards(outputs) => Wire::Shards(v1::ShardOutputs { outputs: each(outputs) }),
        };
        Self { output: Some(output) }
    }
}

impl TryFrom<v1::TaskOutput> for TaskOutput {
    type Error = ConversionError;

    fn try_from(wire: v1::TaskOutput) -> Result<Self, ConversionError> {
        use v1::task_output::Output as Wire;
        Ok(match wire.output.ok_or_else(|| ConversionError::missing("output"))? {
            Wire::Probe(output) => TaskOutput::Probe(read(output, "probe")?),
            Wire::Sample(output) => TaskOutput::Sample(read(output, "sample")?),
            Wire::Direction(output) => TaskOutput::Direction(read(output, "direction")?),
            Wire::Edit(output) => TaskOutput::Edit(read(output, "edit")?),
            Wire::Search(output) => TaskOutput::Search(read(output, "search")?),
            Wire::FineTune(output) if output == v1::FineTuneOutput::default() => TaskOutput::FineTune(None),
            Wire::FineTune(output) => TaskOutput::FineTune(Some(read(output, "fine_tune")?)),
            Wire::Evaluate(output) => TaskOutput::Evaluate(read(output, "evaluate")?),
            Wire::Report(output) => TaskOutput::Report(read(output, "report")?),
            Wire::Publish(output) => TaskOutput::Publish(read(output, "publish")?),
            Wire::Shards(wire) => {
                let outputs: Vec<TaskOutput> = list(wire.outputs, "shards")?;
                if outputs.is_empty() || outputs.iter().any(|output| matches!(output, TaskOutput::Shards(_)))
                {
                    return Err(ConversionError::bad(
                        "shards",
                        "expected outputs of single shards, at least one",
                    ));
                }
                TaskOutput::Shards(outputs)
            }
        })
    }
}

impl From<ProbeOutput> for v1::ProbeOutput {
    fn from(output: ProbeOutput) -> Self {
        let [low, high] = output.range;
        Self {
            image_shape: output.image_shape,
            low,
            high,
            batch_seconds: output.batch_seconds,
            parameters: output.parameters,
            warnings: each(output.warnings),
        }
    }
}

impl TryFrom<v1::ProbeOutput> for ProbeOutput {
    type Error = ConversionError;

    fn try_from(output: v1::ProbeOutput) -> Result<Self, ConversionError> {
        Ok(Self {
            image_shape: output.image_shape,
            range: [output.low, output.high],
            batch_seconds: output.batch_seconds,
            parameters: output.parameters,
            warnings: list(output.warnings, "warnings")?,
        })
    }
}

impl From<SampleOutput> for v1::SampleOutput {
    fn from(output: SampleOutput) -> Self {
        Self { samples: output.samples, positives: output.positives, scores: Some(output.scores.into()) }
    }
}

impl TryFrom<v1::SampleOutput> for SampleOutput {
    type Error = ConversionError;

    fn try_from(output: v1::SampleOutput) -> Result<Self, ConversionError> {
        Ok(Self {
            samples: output.samples,
            positives: output.positives,
            scores: required(output.scores, "scores")?,
        })
    }
}

impl From<DirectionOutput> for v1::DirectionOutput {
    fn from(output: DirectionOutput) -> Self {
        Self {
            target: Some(output.target.into()),
            samples: output.samples,
            positives: output.positives,
            cut: Some(output.cut.into()),
            threshold: output.threshold,
            edited_share: output.edited_share,
            heldout_auc: output.heldout_auc,
            select: output.select,
            goal: output.goal,
            edit: v1::EditMethod::from(output.edit).into(),
            costs: Some(output.costs.into()),
            warnings: each(output.warnings),
        }
    }
}

impl TryFrom<v1::DirectionOutput> for DirectionOutput {
    type Error = ConversionError;

    fn try_from(output: v1::DirectionOutput) -> Result<Self, ConversionError> {
        Ok(Self {
            target: required(output.target, "target")?,
            samples: output.samples,
            positives: output.positives,
            cut: required(output.cut, "cut")?,
            threshold: output.threshold,
            edited_share: output.edited_share,
            heldout_auc: output.heldout_auc,
            select: output.select,
            goal: output.goal,
            edit: required_choice::<v1::EditMethod, _>(output.edit, "edit")?,
            costs: required(output.costs, "costs")?,
            warnings: list(output.warnings, "warnings")?,
        })
    }
}

impl From<Costs> for v1::Costs {
    fn from(Costs { edit, train, evaluate }: Costs) -> Self {
        Self { edit, train, evaluate }
    }
}

impl From<v1::Costs> for Costs {
    fn from(v1::Costs { edit, train, evaluate }: v1::Costs) -> Self {
        Self { edit, train, evaluate }
    }
}

impl From<EditOutput> for v1::EditOutput {
    fn from(EditOutput { samples, pool, reused }: EditOutput) -> Self {
        Self { samples, pool: Some(pool.into()), reused }
    }
}

impl TryFrom<v1::EditOutput> for EditOutput {
    type Error = ConversionError;

    fn try_from(output: v1::EditOutput) -> Result<Self, ConversionError> {
        Ok(Self { samples: output.samples, pool: required(output.pool, "pool")?, reused: output.reused })
    }
}

impl From<SearchOutput> for v1::SearchOutput {
    fn from(SearchOutput { round, steps, trial }: SearchOutput) -> Self {
        Self { round: v1::SearchRound::from(round).into(), steps, trial: Some(trial.into()) }
    }
}

impl TryFrom<v1::SearchOutput> for SearchOutput {
    type Error = ConversionError;

    fn try_from(output: v1::SearchOutput) -> Result<Self, ConversionError> {
        Ok(Self {
            round: required_choice::<v1::SearchRound, _>(output.round, "round")?,
            steps: output.steps,
            trial: required(output.trial, "trial")?,
        })
    }
}

impl From<FineTuneOutput> for v1::FineTuneOutput {
    fn from(output: FineTuneOutput) -> Self {
        Self {
            weights: Some(output.weights.into()),
            checkpoint: output.checkpoint,
            steps: output.steps,
            world_size: output.world_size,
            samples_per_second: output.samples_per_second,
            lr: output.lr,
            drift: output.drift,
            halved: output.halved,
            alpha: output.alpha,
            labeller_term: output.labeller_term,
            strength: output.strength,
            loss_first: output.loss_first,
            loss_last: output.loss_last,
            curve: Some(output.curve.into()),
            edits: Some(output.edits.into()),
            search: output.search.map(Into::into),
        }
    }
}

impl TryFrom<v1::FineTuneOutput> for FineTuneOutput {
    type Error = ConversionError;

    fn try_from(output: v1::FineTuneOutput) -> Result<Self, ConversionError> {
        Ok(Self {
            weights: required(output.weights, "weights")?,
            checkpoint: output.checkpoint,
            steps: output.steps,
            world_size: output.world_size,
            samples_per_second: output.samples_per_second,
            lr: output.lr,
            drift: output.drift,
            halved: output.halved,
            alpha: output.alpha,
            labeller_term: output.labeller_term,
            strength: output.strength,
            loss_first: output.loss_first,
            loss_last: output.loss_last,
            curve: required(output.curve, "curve")?,
            edits: required(output.edits, "edits")?,
            search: optional(output.search, "search")?,
        })
    }
}

impl From<EditSummary> for v1::EditSummary {
    fn from(EditSummary { tried, unresolved, median_step, p99_step }: EditSummary) -> Self {
        Self { tried, unresolved, median_step, p99_step }
    }
}

impl TryFrom<v1::EditSummary> for EditSummary {
    type Error = ConversionError;

    fn try_from(edits: v1::EditSummary) -> Result<Self, ConversionError> {
        let v1::EditSummary { tried, unresolved, median_step, p99_step } = edits;
        if unresolved > tried {
            return Err(ConversionError::bad("unresolved", format_args!("found {unresolved} of {tried}")));
        }
        Ok(Self { tried, unresolved, median_step, p99_step })
    }
}

impl From<EvaluateOutput> for v1::EvaluateOutput {
    fn from(output: EvaluateOutput) -> Self {
        Self {
            samples: output.samples,
            before: output.before,
            after: output.after,
            moments: Some(output.moments.into()),
        }
    }
}

impl TryFrom<v1::EvaluateOutput> for EvaluateOutput {
    type Error = ConversionError;

    fn try_from(output: v1::EvaluateOutput) -> Result<Self, ConversionError> {
        Ok(Self {
            samples: output.samples,
            before: output.before,
            after: output.after,
            moments: required(output.moments, "moments")?,
        })
    }
}

impl From<ReportOutput> for v1::ReportOutput {
    fn from(ReportOutput { figures, warnings, judge, advice }: ReportOutput) -> Self {
        Self { figures: each(figures), warnings: each(warnings), judge: Some(judge.into()), advice }
    }
}

impl TryFrom<v1::ReportOutput> for ReportOutput {
    type Error = ConversionError;

    fn try_from(output: v1::ReportOutput) -> Result<Self, ConversionError> {
        Ok(Self {
            figures: list(output.figures, "figures")?,
            warnings: list(output.warnings, "warnings")?,
            judge: required(output.judge, "judge")?,
            advice: output.advice,
        })
    }
}

impl From<PublishOutput> for v1::PublishOutput {
    fn from(output: PublishOutput) -> Self {
        Self {
            generator: Some(output.generator.into()),
            sidecar: Some(output.sidecar.into()),
            before_after_png: Some(output.before_after_png.into()),
            versions: Some(output.versions.into()),
        }
    }
}

impl TryFrom<v1::PublishOutput> for PublishOutput {
    type Error = ConversionError;

    fn try_from(output: v1::PublishOutput) -> Result<Self, ConversionError> {
        Ok(Self {
            generator: required(output.generator, "generator")?,
            sidecar: required(output.sidecar, "sidecar")?,
            before_after_png: required(output.before_after_png, "before_after_png")?,
            versions: required(output.versions, "versions")?,
        })
    }
}
