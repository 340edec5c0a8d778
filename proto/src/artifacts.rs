//! Artifacts by reference: one, and many in little room. A task may name a hundred thousand of them.
//!
//! Not here: what they are for (`task`).

use lethe_domain::{ArtifactRef, sha256_bytes, sha256_text};

use crate::conversion::each;
use crate::{ConversionError, v1};

impl From<ArtifactRef> for v1::ArtifactRef {
    fn from(ArtifactRef { path, sha256, size }: ArtifactRef) -> Self {
        Self { path, sha256, size }
    }
}

impl From<v1::ArtifactRef> for ArtifactRef {
    fn from(v1::ArtifactRef { path, sha256, size }: v1::ArtifactRef) -> Self {
        Self { path, sha256, size }
    }
}

/// Many as one list, if each has a SHA-256 as it should be; otherwise one by one.
pub(crate) fn pack(artifacts: Vec<ArtifactRef>) -> (Vec<v1::ArtifactRef>, Option<v1::ArtifactList>) {
    let Some(digests) = artifacts.iter().map(|one| sha256_bytes(&one.sha256)).collect::<Option<Vec<_>>>()
    else {
        return (each(artifacts), None);
    };
    let paths = || artifacts.iter().map(|one| one.path.as_str());
    let before = paths().reduce(common_start).unwrap_or_default();
    let after = paths().map(|path| &path[before.len()..]).reduce(common_end).unwrap_or_default();
    let list = v1::ArtifactList {
        between: paths().map(|path| path[before.len()..path.len() - after.len()].to_owned()).collect(),
        sha256: digests.concat(),
        size: artifacts.iter().map(|one| one.size).collect(),
        before: before.to_owned(),
        after: after.to_owned(),
    };
    (Vec::new(), Some(list))
}

/// What was packed, or given one by one.
///
/// # Errors
/// A list whose parts are not equally many.
pub(crate) fn unpack(
    plain: Vec<v1::ArtifactRef>,
    list: Option<v1::ArtifactList>,
    field: &str,
) -> Result<Vec<ArtifactRef>, ConversionError> {
    let Some(v1::ArtifactList { before, between, after, sha256, size }) = list else {
        return Ok(each(plain));
    };
    let count = between.len();
    if sha256.len() != 32 * count || size.len() != count {
        let found =
            format!("found {} bytes of digests and {} sizes for {count} paths", sha256.len(), size.len());
        return Err(ConversionError::bad(field, found));
    }
    let artifacts = between.iter().zip(sha256.chunks_exact(32)).zip(size);
    Ok(artifacts
        .map(|((between, digest), size)| ArtifactRef {
            path: format!("{before}{between}{after}"),
            sha256: sha256_text(digest),
            size,
        })
        .collect())
}

/// What two texts begin with.
fn common_start<'a>(one: &'a str, other: &'a str) -> &'a str {
    let same = one.char_indices().zip(other.chars()).take_while(|((_, a), b)| a == b);
    let end = same.last().map_or(0, |((at, last), _)| at + last.len_utf8());
    &one[..end]
}

/// What two texts end with.
fn common_end<'a>(one: &'a str, other: &'a str) -> &'a str {
    let same = one.char_indices().rev().zip(other.chars().rev()).take_while(|((_, a), b)| a == b);
    let start = same.last().map_or(one.len(), |((at, _), _)| at);
    &one[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifacts(paths: &[&str]) -> Vec<ArtifactRef> {
        let artifact = |(index, path): (usize, &&str)| ArtifactRef {
            path: (*path).to_owned(),
            sha256: sha256_text(&[index as u8; 32]),
            size: index as u64,
        };
        paths.iter().enumerate().map(artifact).collect()
    }

    #[test]
    fn what_was_packed_comes_back() {
        for paths in [
            &["jobs/a/sample/00001-a1.npy", "jobs/a/sample/00017-a1.npy", "jobs/a/sample/00018-a12.npy"][..],
            &["aa", "a"],
            &["same", "same"],
            &["", "x"],
            &["é1", "è1", "e1"],
            &["one"],
            &[],
        ] {
            let artifacts = artifacts(paths);
            let (plain, list) = pack(artifacts.clone());
            assert!(plain.is_empty());
            let list = list.unwrap();
            assert_eq!(unpack(plain, Some(list), "scores").unwrap(), artifacts, "{paths:?}");
        }
        let shards = artifacts(&["s/00001.npy", "s/00002.npy"]);
        assert_eq!(pack(shards).1.unwrap().between, ["1", "2"]);
    }

    #[test]
    fn a_hundred_thousand_take_five_megabytes() {
        let path = |shard: u32| format!("jobs/thick-vae-0a1b2c/sample/{shard:05}-a1-of-100000.npy");
        let artifact = |shard| ArtifactRef { path: path(shard), sha256: "0f".repeat(32), size: 4_128 };
        let list = pack((0..100_000).map(artifact).collect()).1.unwrap();
        assert!(prost::Message::encoded_len(&list) < 5_000_000, "{}", prost::Message::encoded_len(&list));
    }

    #[test]
    fn a_strange_digest_is_sent_as_it_is() {
        let strange = vec![ArtifactRef { path: "p".to_owned(), sha256: "none".to_owned(), size: 1 }];
        let (plain, list) = pack(strange.clone());
        assert_eq!((unpack(plain, None, "scores").unwrap(), list), (strange, None));
    }

    #[test]
    fn parts_that_are_not_equally_many_are_refused() {
        let mut list = pack(artifacts(&["a", "b"])).1.unwrap();
        list.sha256.pop();
        let error = unpack(Vec::new(), Some(list), "scores").unwrap_err().to_string();
        assert_eq!(error, "scores: found 63 bytes of digests and 2 sizes for 2 paths");
    }
}
