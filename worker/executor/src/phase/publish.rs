//! Publish: the unlearned generator in the format it came in, with a description and a contact sheet.
//!
//! The description carries the generator's digest and is written last in each place: where it is, all is. In the folder that
//! the spec names, nothing is replaced that this job did not write.

use bytes::Bytes;
use lethe_domain::spec::{Judge, ModelFormat};
use lethe_domain::{ArtifactRef, PublishOutput, SampleRange, Versions};
use lethe_models::{Stream, Target, choose, contact_sheet};

use crate::device;
use crate::error::Result;
use crate::models::Original;
use crate::storage::Storage;
use crate::verdict::{self, Line};
use crate::work::Work;

/// Pairs on the contact sheet, and to a row.
const PAIRS: usize = 32;
const COLUMNS: usize = 8;

/// # Errors
/// Those of models and storage.
pub(super) fn run(work: &mut Work<'_>, target: &ArtifactRef, weights: &ArtifactRef) -> Result<PublishOutput> {
    let target = work.target(target)?;
    let state = work.storage.tensors(weights)?;
    let original = work.original()?;
    let sheet = sheet(work, &original, &target, weights)?;
    work.stop.check()?;

    let lethe = env!("CARGO_PKG_VERSION");
    let source = format!(
        "{} with the feature '{}' removed by lethe {lethe}, job {}",
        work.spec.generator.uri, work.spec.feature.name, work.lease.job
    );
    let exported = original.file.export(&state, &source)?;
    let [model, description, sheet_name] = names(work.spec.generator.format);
    let files: Files = [
        (sheet_name.to_owned(), sheet.into()),
        (model.to_owned(), exported.model.into()),
        (description.to_owned(), exported.sidecar.into()),
    ];
    // First where nobody else writes: what cannot be published is not lost.
    let [before_after_png, generator, sidecar] = put(&work.storage, &work.path("result"), &files)?;
    if let Some(publish) = &work.spec.publish {
        work.storage.publish(&publish.uri, work.lease.job.as_str(), files.into())?;
    }
    let versions = Versions {
        lethe: lethe.to_owned(),
        torch: lethe_models::torch_version().to_owned(),
        device: device::name(work.device),
    };
    Ok(PublishOutput { generator, sidecar, before_after_png, versions })
}

/// What is published, by name, in the order in which it is written: each is whole or absent, the description comes last.
type Files = [(String, Bytes); 3];

fn put(storage: &Storage, folder: &str, files: &Files) -> Result<[ArtifactRef; 3]> {
    let put = |(name, bytes): &(String, Bytes)| storage.put(&format!("{folder}/{name}"), bytes.clone());
    let [sheet, generator, sidecar] = files;
    Ok([put(sheet)?, put(generator)?, put(sidecar)?])
}

/// The names of what is published: generator, description, contact sheet.
pub(super) fn names(format: ModelFormat) -> [&'static str; 3] {
    match format {
        ModelFormat::TorchScript => ["generator.pt", "generator.pt.json", "before_after.png"],
        ModelFormat::Safetensors => {
            ["generator.safetensors", "generator.safetensors.json", "before_after.png"]
        }
    }
}

/// Pairs of images at the same latents of the evaluation stream, those that showed the feature first.
fn sheet(
    work: &mut Work<'_>,
    original: &std::rc::Rc<Original>,
    target: &Target,
    weights: &ArtifactRef,
) -> Result<Vec<u8>> {
    let places = find(work, original, target)?;
    let storage = work.storage.clone();
    let copy = work.models.trained(original, &weights.sha256, || storage.tensors(weights))?;
    let generator = &original.generator;
    let z = work.latents().gather(Stream::Evaluate, &places, work.device)?;
    let before = generator.to_unit(&generator.forward(&z)?)?;
    let after = copy.to_unit(&copy.forward(&z)?)?;
    Ok(contact_sheet(&before, &after, COLUMNS)?)
}

/// Looks through the evaluation stream until there is enough to show.
fn find(work: &mut Work<'_>, original: &Original, target: &Target) -> Result<Vec<u64>> {
    let (judge, line) = who(work, target)?;
    let (labeller, latents) = (work.labeller(&judge)?, work.latents());
    let generator = &original.generator;
    let all = SampleRange { start: 0, count: work.spec.evaluate.samples };
    let mut scores: Vec<f64> = Vec::new();
    let mut positive: Vec<bool> = Vec::new();
    for part in all.in_steps_of(work.spec.evaluate.batch) {
        work.step(part.start, all.count)?;
        let z = latents.batch(Stream::Evaluate, part.start, part.count, work.device)?;
        scores.extend(labeller.scores(&generator.to_unit(&generator.forward(&z)?)?)?);
        if let Line::At(cut) = line {
            positive = scores.iter().map(|score| cut.is_positive(*score)).collect();
            let shown = positive.iter().filter(|shown| **shown).count();
            if shown >= PAIRS && positive.len() - shown >= PAIRS {
                break;
            }
        }
    }
    if let Line::Top(_) = line {
        let cut = line.among(&scores)?;
        positive = scores.iter().map(|score| cut.is_positive(*score)).collect();
    }
    Ok(choose(&positive, PAIRS).into_iter().map(|place| place as u64).collect())
}

/// The labeller, whose cut is known, or the judge where the labels came from a file.
fn who(work: &Work<'_>, target: &Target) -> Result<(Judge, Line)> {
    match verdict::looking_labeller(&work.spec) {
        Some(labeller) => Ok((labeller, Line::At(target.cut))),
        None => verdict::judge(&work.spec, target.cut),
    }
}
