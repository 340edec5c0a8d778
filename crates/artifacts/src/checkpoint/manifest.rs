//! A checkpoint's manifest: what it is, what it holds, and a digest of itself.
//!
//! Not here: reading or writing it anywhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Fault, layout::Folder};
use crate::Digest;

/// The newest form of a manifest this version reads, and the one it writes.
pub const SCHEMA_VERSION: u32 = 1;

/// What the digest of a manifest is computed over holds these in the place of the digest.
const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What the caller says about a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Training steps done.
    pub step: u64,
    /// The gang's generation that saves it; never reused.
    pub generation: u64,
    /// The leader's epoch at that time.
    pub epoch: u64,
    /// Ranks of the gang.
    pub world_size: u32,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub created_unix_ms: u64,
    /// Measurements by name, such as `loss`. JSON has no NaN or infinity: `null` stands for them, and is read as NaN.
    #[serde(deserialize_with = "null_is_nan")]
    pub metrics: BTreeMap<String, f64>,
}

/// The content of `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// The job.
    pub job: String,
    /// What the saver said about it.
    #[serde(flatten)]
    pub header: Header,
    /// The files, all of them.
    pub files: Vec<FileDigest>,
    /// The SHA-256 of the manifest's bytes with 64 zeros in this place; the last field.
    manifest_sha256: String,
}

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Its name within the checkpoint.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Digest,
}

impl Manifest {
    pub(super) fn new(job: String, header: Header, files: Vec<FileDigest>) -> Self {
        let manifest_sha256 = ZEROS.to_owned();
        let mut manifest = Self { schema_version: SCHEMA_VERSION, job, header, files, manifest_sha256 };
        manifest.manifest_sha256 = Digest::of(&manifest.encode()).to_string();
        manifest
    }

    /// The bytes of `manifest.json`.
    pub(super) fn encode(&self) -> Vec<u8> {
        // Strings, numbers and lists of them: nothing here can fail to be JSON.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// Reads a manifest of this or an earlier version and checks it against its own digest.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        #[derive(Deserialize)]
        struct Version {
            schema_version: u32,
        }
        let damaged = |reason: &dyn ToString| Fault::Manifest(reason.to_string());
        let text = std::str::from_utf8(bytes).map_err(|error| damaged(&error))?;
        if text.is_empty() {
            return Err(damaged(&"it is empty"));
        }
        let Version { schema_version } = serde_json::from_str(text).map_err(|error| damaged(&error))?;
        if schema_version > SCHEMA_VERSION {
            return Err(Fault::Newer(schema_version));
        }
        let manifest: Self = serde_json::from_str(text).map_err(|error| damaged(&error))?;
        let (before, after) = text
            .rsplit_once(&manifest.manifest_sha256)
            .filter(|_| manifest.manifest_sha256.len() == ZEROS.len())
            .ok_or_else(|| damaged(&"its digest is not a digest"))?;
        let found = Digest::of([before, ZEROS, after].concat().as_bytes()).to_string();
        if found != manifest.manifest_sha256 {
            return Err(damaged(&format!("its SHA-256 is {found}, it says {}", manifest.manifest_sha256)));
        }
        Ok(manifest)
    }

    /// The fault of a manifest that says it is of another job, step or generation than where it was found.
    pub(super) fn foreign_to(&self, job: &str, folder: Folder) -> Option<Fault> {
        let Header { step, generation, .. } = self.header;
        let is_its_own = self.job == job && step == folder.step && generation == folder.generation;
        (!is_its_own)
            .then(|| Fault::Foreign(format!("job {:?}, step {step}, generation {generation}", self.job)))
    }
}

fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let metrics = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    Ok(metrics.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let header = Header {
            step: 200,
            generation: 3,
            epoch: 7,
            world_size: 2,
            created_unix_ms: 1_735_689_600_000,
            metrics: [("loss".to_owned(), 0.125), ("gradient_norm".to_owned(), f64::NAN)].into(),
        };
        let file =
            FileDigest { name: "generator.safetensors".to_owned(), size: 3, sha256: Digest::of(b"abc") };
        Manifest::new("thick-vae".to_owned(), header, vec![file])
    }

    /// A manifest as the first version writes it, made and digested by Python; every later version must go on
    /// reading it, and as this.
    const FIRST: &str = include_str!("manifest_v1.json");

    #[test]
    fn the_first_form_is_still_read_and_written() {
        let read = Manifest::decode(FIRST.as_bytes()).unwrap();
        assert!(read.header.metrics["gradient_norm"].is_nan());
        assert_eq!(format!("{read:?}"), format!("{:?}", manifest()));
        assert_eq!(String::from_utf8(manifest().encode()).unwrap(), FIRST);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = manifest().encode();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert!(Manifest::decode(&damaged).is_err(), "byte {at}, bit {bit}");
            }
            assert!(Manifest::decode(&bytes[..at]).is_err(), "cut to {at} bytes");
        }
        assert!(Manifest::decode(&[bytes.as_slice(), b" "].concat()).is_err());
    }

    #[test]
    fn a_job_named_like_the_zeros_does_no_harm() {
        let manifest = Manifest::new(ZEROS.to_owned(), Header::default(), Vec::new());
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }

    #[test]
    fn a_newer_form_is_told_from_a_damaged_one() {
        assert_eq!(Manifest::decode(br#"{"schema_version": 2, "all": "different"}"#), Err(Fault::Newer(2)));
        assert!(matches!(Manifest::decode(br#"{"schema_version": 1}"#), Err(Fault::Manifest(_))));
        assert_eq!(Manifest::decode(b""), Err(Fault::Manifest("it is empty".to_owned())));
    }
}
