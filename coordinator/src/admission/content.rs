//! What a file and the description beside it say without libtorch, and whether that is what the spec says. Pure: who has read
//! them calls. What needs libtorch is the probe's.
//!
//! Not here: reading files (`local`, `remote`), the names in archives (`archive`).

use std::collections::BTreeMap;

use lethe_artifacts::Digest;
use lethe_domain::spec::{CLASSIFIERS, ModelFormat};
use lethe_domain::{Draft, Ends, FileKind, ModelKind, Sidecar, SpecProblem, conversion};
use serde::Deserialize;

use super::archive;

/// The version of descriptions that is understood.
const SIDECAR_VERSION: u32 = 1;

/// The key of the classifier all of whose classes count.
const CLASSES: &str = "evaluate.classifier.uri";

/// The keys of files that hold images.
const REFERENCE: &str = "evaluate.reference.uri";
const CALIBRATION: &str = "direction.calibration.uri";

/// A file under a key of the spec, as far as somebody read it.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    /// Its key.
    pub(super) key: &'a str,
    /// What people know it by.
    pub(super) name: &'a str,
    /// Its beginning and its end.
    pub(super) ends: Ends<'a>,
    /// The text of its description `NAME.json`, if it is a model that has one.
    pub(super) sidecar: Option<&'a [u8]>,
}

/// What a model under this key is for; none: it is data.
pub(super) fn kind_of(key: &str) -> Option<ModelKind> {
    match key {
        "generator.uri" => Some(ModelKind::Generator),
        "feature.classifier.uri" | "evaluate.judge.classifier.uri" | CLASSES => Some(ModelKind::Classifier),
        key if CLASSIFIERS.contains(&key) => Some(ModelKind::Classifier),
        "feature.scorer.uri" | "evaluate.judge.scorer.uri" => Some(ModelKind::Scorer),
        "evaluate.features" => Some(ModelKind::Features),
        _ => None,
    }
}

impl Seen<'_> {
    /// Everything that is wrong with it.
    pub(super) fn problems(&self, draft: &Draft) -> Vec<SpecProblem> {
        let one = |found: Result<(), String>| {
            found
                .err()
                .map(|message| SpecProblem { path: self.key.to_owned(), message })
                .into_iter()
                .collect()
        };
        let Some(kind) = kind_of(self.key) else { return one(self.data(draft)) };
        let format = self.format(kind, draft);
        let mut problems: Vec<SpecProblem> = one(self.model(kind, format));
        let described = match self.description() {
            Err(message) => Err(message),
            Ok(None) if kind == ModelKind::Generator && format == ModelFormat::Safetensors => Err(format!(
                "{0} has no description {0}.json: safetensors weights need one, tools/export writes it",
                self.name
            )),
            Ok(None) => Ok(Vec::new()),
            Ok(Some(sidecar)) => self.agreement(&sidecar, kind, draft),
        };
        match described {
            Ok(more) => problems.extend(more),
            Err(message) => problems.push(SpecProblem { path: self.key.to_owned(), message }),
        }
        problems
    }

    /// Its description, if there is one.
    pub(super) fn description(&self) -> Result<Option<Sidecar>, String> {
        let Some(text) = self.sidecar else { return Ok(None) };
        Sidecar::read(text).map(Some).map_err(|what| format!("{}.json {what}", self.name))
    }

    /// Whether the model is the one that is described.
    pub(super) fn digest(&self, found: Digest) -> Result<(), String> {
        match self.description() {
            Ok(Some(sidecar)) if !sidecar.sha256.eq_ignore_ascii_case(&found.to_string()) => Err(format!(
                "{0} has SHA-256 {found}, its description {0}.json says {1}: one of them is damaged or out of date",
                self.name, sidecar.sha256
            )),
            _ => Ok(()),
        }
    }

    /// The format it is to have: that of a generator is what the file is, where nobody says it.
    fn format(&self, kind: ModelKind, draft: &Draft) -> ModelFormat {
        match kind {
            ModelKind::Generator if draft.stands_in("generator.format") => FileKind::of(self.ends).format(),
            ModelKind::Generator => draft.spec().generator.format,
            ModelKind::Classifier | ModelKind::Scorer | ModelKind::Features => ModelFormat::TorchScript,
        }
    }

    /// A model in its format.
    fn model(&self, kind: ModelKind, format: ModelFormat) -> Result<(), String> {
        let found = FileKind::of(self.ends);
        if let Some(reason) = found.refusal(format) {
            return Err(match found {
                FileKind::Pickle => {
                    format!("{} {reason}: convert it with `{}`", self.name, conversion(self.name, kind))
                }
                _ => format!("{} {reason}", self.name),
            });
        }
        match format {
            ModelFormat::TorchScript if archive::has_forward(self.ends) == Some(false) => Err(format!(
                "{} is a TorchScript archive without the method forward: export a module that defines forward, or another method of it (tools/export, --method)",
                self.name
            )),
            ModelFormat::TorchScript => Ok(()),
            ModelFormat::Safetensors => self.tensors().map(drop),
        }
    }

    /// Labels, or real images.
    fn data(&self, draft: &Draft) -> Result<(), String> {
        let kind = FileKind::of(self.ends);
        let never_data = matches!(kind, FileKind::Empty | FileKind::LfsPointer | FileKind::WebPage);
        let holds_images = [REFERENCE, CALIBRATION].contains(&self.key);
        if (never_data || holds_images)
            && let Some(reason) = kind.refusal(ModelFormat::Safetensors)
        {
            return Err(format!("{} {reason}", self.name));
        }
        if !holds_images {
            return Ok(());
        }
        let Some(tensors) = self.tensors()? else { return Ok(()) };
        if draft.stands_in("generator.output") {
            return Ok(());
        }
        let [channels, height, width] = draft.spec().generator.output.shape();
        let wanted = format!("[N, {channels}, {height}, {width}] of U8 or F32, N at least 2");
        let images = tensors
            .get("images")
            .ok_or_else(|| format!("{} has no tensor images, expected {wanted}", self.name))?;
        if self.key == CALIBRATION {
            self.labels(&tensors, images.shape.first().copied().unwrap_or_default())?;
        }
        let fits = matches!(images.shape[..], [count, c, h, w] if count >= 2 && [c, h, w] == [channels, height, width]);
        if fits && ["U8", "F32"].contains(&images.dtype.as_str()) {
            return Ok(());
        }
        Err(format!("{} holds images {:?} of {}, expected {wanted}", self.name, images.shape, images.dtype))
    }

    /// One label for each of so many images.
    fn labels(&self, tensors: &BTreeMap<String, Tensor>, images: i64) -> Result<(), String> {
        let wanted = format!("[{images}] of U8 or BOOL, one for each image");
        let labels = tensors
            .get("labels")
            .ok_or_else(|| format!("{} has no tensor labels, expected {wanted}", self.name))?;
        if labels.shape == [images] && ["U8", "BOOL"].contains(&labels.dtype.as_str()) {
            return Ok(());
        }
        Err(format!("{} holds labels {:?} of {}, expected {wanted}", self.name, labels.shape, labels.dtype))
    }

    /// The header of a safetensors file. None where it is longer than what was read.
    fn tensors(&self) -> Result<Option<BTreeMap<String, Tensor>>, String> {
        let Some((length, rest)) = self.ends.first.split_first_chunk() else { return Ok(None) };
        let length = u64::from_le_bytes(*length);
        let Some(text) = usize::try_from(length).ok().and_then(|length| rest.get(..length)) else {
            return Ok(None);
        };
        let unreadable = |error| format!("{} has a header that cannot be read: {error}", self.name);
        let mut header: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(text).map_err(unreadable)?;
        header.remove("__metadata__");
        let tensor = |(name, value)| serde_json::from_value(value).map(|tensor: Tensor| (name, tensor));
        let tensors: BTreeMap<String, Tensor> =
            header.into_iter().map(tensor).collect::<Result<_, _>>().map_err(unreadable)?;
        let end = tensors.values().map(|tensor| tensor.data_offsets[1]).max().unwrap_or_default();
        let (whole, found) = (end.saturating_add(8 + length), self.ends.size);
        if found == whole {
            return Ok(Some(tensors));
        }
        Err(format!(
            "{} has {found} bytes, its header says {whole}: it was cut off or changed, copy it again",
            self.name
        ))
    }

    /// What the description says otherwise than the spec.
    fn agreement(
        &self,
        sidecar: &Sidecar,
        kind: ModelKind,
        draft: &Draft,
    ) -> Result<Vec<SpecProblem>, String> {
        let spec = draft.spec();
        let name = format!("{}.json", self.name);
        if sidecar.schema_version != SIDECAR_VERSION {
            return Err(format!(
                "{name} has schema_version {}, expected {SIDECAR_VERSION}",
                sidecar.schema_version
            ));
        }
        if sidecar.kind != kind {
            return Err(format!("{name} is of the kind {}, expected {kind}", sidecar.kind));
        }
        let class = spec.classifier_at(self.key).and_then(|classifier| classifier.class);
        match (kind, sidecar.classes, class) {
            (ModelKind::Generator, ..) => Ok(sidecar.contradictions(&name, &spec.generator)),
            (ModelKind::Classifier, ..) if draft.stands_in(&self.key.replace(".uri", ".class")) => {
                Ok(Vec::new())
            }
            (ModelKind::Classifier, Some(classes), Some(class)) if !(0..classes).contains(&class) => {
                Err(format!("found class {class}, but {name} says {classes} classes, counted from 0"))
            }
            (ModelKind::Classifier, Some(classes), None) if classes > 1 && self.key != CLASSES => {
                Err(format!("class is missing, and {name} says {classes} classes: which one is the feature?"))
            }
            _ if sidecar.format != ModelFormat::TorchScript => {
                Err(format!("{name} says the format is {}, expected torchscript", sidecar.format))
            }
            _ => Ok(Vec::new()),
        }
    }
}

/// A tensor by the header of its file.
#[derive(Debug, Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<i64>,
    data_offsets: [u64; 2],
}
