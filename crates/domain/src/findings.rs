//! What the phases of a job found, put together: its figures, and what makes them doubtful.

use crate::{Figure, Outputs, ReportOutput, Warning};

impl Outputs {
    /// What was measured so far: of the copy first, then of the edits that trained it.
    pub fn figures(&self) -> Vec<Figure> {
        let report = self.report().into_iter().flat_map(|report| report.figures.clone());
        let edits = self.fine_tune().into_iter().flat_map(|trained| trained.edits.figures());
        report.chain(edits).collect()
    }

    /// What every phase so far found doubtful, in their order.
    pub fn warnings(&self) -> Vec<Warning> {
        let probe = self.probe().into_iter().flat_map(|probe| probe.warnings.clone());
        let direction = self.direction().into_iter().flat_map(|direction| direction.warnings.clone());
        let edits = self.fine_tune().into_iter().filter_map(|trained| trained.edits.warning());
        let report = self.report().into_iter().flat_map(|report| report.warnings.clone());
        probe.chain(direction).chain(edits).chain(report).collect()
    }

    /// The report for whoever publishes: with the warnings of every phase.
    pub(crate) fn told(&self) -> Option<ReportOutput> {
        self.report().map(|report| ReportOutput { warnings: self.warnings(), ..report.clone() })
    }
}
