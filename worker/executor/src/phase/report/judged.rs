//! Who counted the feature.

use lethe_domain::spec::Judge;
use lethe_domain::{Inputs, JobSpec, JudgeSummary, Warning, WarningCode};

use crate::error::Result;
use crate::input::{self, Pins};
use crate::verdict;

/// The judge by the content of its file, and whether the labeller's is the same.
///
/// # Errors
/// Those of a file that cannot be read.
pub(super) fn judged_by(spec: &JobSpec, inputs: &Inputs, judge: &Judge) -> Result<JudgeSummary> {
    let digest = |judge: &Judge| -> Result<(String, String)> {
        let uri = verdict::uri(judge)?;
        let sha256 = match inputs.at(uri) {
            Some(pinned) => pinned.sha256.clone(),
            None => lethe_models::sha256(&input::read(uri, &Pins::default())?.1.bytes),
        };
        Ok((uri.to_owned(), sha256))
    };
    let (uri, sha256) = digest(judge)?;
    let labeller = verdict::looking_labeller(spec).map(|labeller| digest(&labeller)).transpose()?;
    let same_as_labeller = labeller.is_some_and(|(_, labeller)| labeller == sha256);
    Ok(JudgeSummary { uri, sha256, same_as_labeller })
}

/// That the judge is the labeller, if it is.
pub(super) fn warning(judge: &JudgeSummary) -> Option<Warning> {
    judge.same_as_labeller.then(|| {
        Warning::new(
            WarningCode::JudgeIsLabeller,
            format!(
                "the model that counted the feature is the labeller that the edit was steered by ({}): another one may still see \
                 the feature",
                judge.uri
            ),
            "name a model that took no part in evaluate.judge",
        )
    })
}
