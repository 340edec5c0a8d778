//! Publish: the unlearned generator in the format it came in, with a description and a contact sheet.
//!
//! The description carries the generator's digest and is written last in each place: where it is, all is. In the folder that
//! the spec names, nothing is replaced that this job did not write.

use bytes::Bytes;
use lethe_domain::{ArtifactRef, PublishOutput, ReportOutput, SampleRange, Versions, result_files};
use lethe_models::{Caption, Stream, Target, choose, contact_sheet};

use super::wording;
use crate::device;
use crate::error::Result;
use crate::models::Original;
use crate::storage::Storage;
use crate::verdict::{self, PositiveRule};
use crate::work::Work;

/// Pairs on the contact sheet, and to a row.
const PAIRS: usize = 32;
const COLUMNS: usize = 8;

/// # Errors
/// Those of models and storage.
pub(super) fn run(
    work: &mut Work<'_>,
    target: &ArtifactRef,
    weights: &ArtifactRef,
    report: &ReportOutput,
) -> Result<PublishOutput> {
    let target = work.target(target)?;
    let state = work.storage.tensors(weights)?;
    let original = work.original()?;
    let sheet = sheet(work, &original, &target, weights, report)?;
    work.stop.check()?;

    let lethe = env!("CARGO_PKG_VERSION");
    let source = source(work, report);
    let exported = original.file.export(&state, &source)?;
    let format = work.spec.generator.format;
    let files: Files = [
        (result_files::SHEET.to_owned(), sheet.into()),
        (result_files::generator(format).to_owned(), exported.model.into()),
        (result_files::sidecar(format).to_owned(), exported.sidecar.into()),
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

/// Where the copy comes from, for its description.
fn source(work: &Work<'_>, report: &ReportOutput) -> String {
    let (spec, lethe) = (&work.spec, env!("CARGO_PKG_VERSION"));
    let mut said = vec![
        format!(
            "{}, fine-tuned by lethe {lethe} to unlearn '{}', job {}",
            spec.generator.uri, spec.feature.name, work.lease.job
        ),
        wording::counted(&spec.feature.name, report),
        wording::judged(&report.judge),
    ];
    said.extend(wording::doubts(report));
    said.join("; ")
}

/// What is published, by name, in the order in which it is written: each is whole or absent, the description comes last.
type Files = [(String, Bytes); 3];

fn put(storage: &Storage, folder: &str, files: &Files) -> Result<[ArtifactRef; 3]> {
    let put = |(name, bytes): &(String, Bytes)| storage.put(&format!("{folder}/{name}"), bytes.clone());
    let [sheet, generator, sidecar] = files;
    Ok([put(sheet)?, put(generator)?, put(sidecar)?])
}

/// Pairs of images at the same latents of the evaluation stream, those that showed the feature first.
fn sheet(
    work: &mut Work<'_>,
    original: &std::rc::Rc<Original>,
    target: &Target,
    weights: &ArtifactRef,
    report: &ReportOutput,
) -> Result<Vec<u8>> {
    let (places, shown) = find(work, original, target)?;
    let storage = work.storage.clone();
    let copy = work.models.trained(original, &weights.sha256, || storage.tensors(weights))?;
    let generator = &original.generator;
    let z = work.latents().gather(Stream::Evaluate, &places, work.device)?;
    let before = generator.to_unit(&generator.forward(&z)?)?;
    let after = copy.to_unit(&copy.forward(&z)?)?;
    let lines = [
        wording::counted(&work.spec.feature.name, report),
        wording::judged(&report.judge),
        format!("{} pairs at the same latents; the first {shown} showed it before", places.len()),
    ];
    let lines: Vec<String> = lines.into_iter().chain(wording::doubts(report)).collect();
    Ok(contact_sheet(&before, &after, COLUMNS, Caption { lines: &lines, rows: ["before", "after"] })?)
}

/// Looks through the evaluation stream until there is enough to show. Gives what to show, and how many of them, from the first on,
/// showed the judge the feature.
fn find(work: &mut Work<'_>, original: &Original, target: &Target) -> Result<(Vec<u64>, usize)> {
    let (judge, line) = verdict::judge(&work.spec, target.cut)?;
    let (labeller, latents) = (work.labeller(&judge)?, work.latents());
    let generator = &original.generator;
    let all = SampleRange { start: 0, count: work.spec.evaluate.samples };
    let mut scores: Vec<f64> = Vec::new();
    let mut positive: Vec<bool> = Vec::new();
    for part in all.in_steps_of(work.spec.evaluate.batch) {
        work.step(part.start, all.count)?;
        let z = latents.batch(Stream::Evaluate, part.start, part.count, work.device)?;
        scores.extend(labeller.scores(&generator.to_unit(&generator.forward(&z)?)?)?);
        if let PositiveRule::At(cut) = line {
            positive = scores.iter().map(|score| cut.is_positive(*score)).collect();
            let shown = positive.iter().filter(|shown| **shown).count();
            if shown >= PAIRS && positive.len() - shown >= PAIRS {
                break;
            }
        }
    }
    if let PositiveRule::Top(_) = line {
        let cut = line.among(&scores)?;
        positive = scores.iter().map(|score| cut.is_positive(*score)).collect();
    }
    let places = choose(&positive, PAIRS);
    let shown = places.iter().filter(|place| positive[**place]).count();
    Ok((places.into_iter().map(|place| place as u64).collect(), shown))
}
