//! Who counted the feature.

use lethe_domain::{Inputs, JobSpec, JudgeSummary, JudgingModel, Warning, WarningCode};

use crate::error::{Error, Result};
use crate::input::{self, Pins};
use crate::verdict::{self, Judge, Model};

/// The judge by the content of its file or files, and whether one of them is the labeller's too.
///
/// # Errors
/// Those of a file that cannot be read.
pub(super) fn judged_by(spec: &JobSpec, inputs: &Inputs, judge: &Judge) -> Result<JudgeSummary> {
    let digested = |model: &Model| -> Result<JudgingModel> {
        let uri = model.uri();
        let sha256 = match inputs.at(uri) {
            Some(pinned) => pinned.sha256.clone(),
            None => lethe_models::sha256(&input::read(uri, &Pins::default())?.1.bytes),
        };
        Ok(JudgingModel { uri: uri.to_owned(), sha256 })
    };
    let all = |judge: &Judge| judge.models().iter().map(digested).collect::<Result<Vec<_>>>();
    let labellers = verdict::looking_labeller(spec).map(|labeller| all(&labeller)).transpose()?;
    let mut others = all(judge)?;
    let is_labeller =
        |model: &JudgingModel| labellers.iter().flatten().any(|labeller| labeller.sha256 == model.sha256);
    let same_as_labeller = others.iter().any(is_labeller);
    if others.is_empty() {
        return Err(Error::internal("the judge is no model"));
    }
    let JudgingModel { uri, sha256 } = others.remove(0);
    Ok(JudgeSummary { uri, sha256, others, same_as_labeller })
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
