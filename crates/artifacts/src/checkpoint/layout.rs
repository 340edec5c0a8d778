//! Where a checkpoint is: the folder's name, and the names of the files in it.
//!
//! Not here: what is in the files.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{Fault, MANIFEST, Manifest};
use crate::{Error, Listed, Result};

/// The folder of one step saved by one generation. The newest is the greatest: a step further, or saved later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Folder {
    pub(super) step: u64,
    pub(super) generation: u64,
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step-{:08}-g{}", self.step, self.generation)
    }
}

impl Folder {
    /// Exactly what [`Display`](fmt::Display) writes, and nothing like it: `step-200-copy` is somebody else's.
    fn parse(name: &str) -> Option<Self> {
        let (step, generation) = name.strip_prefix("step-")?.split_once("-g")?;
        let folder = Self { step: step.parse().ok()?, generation: generation.parse().ok()? };
        (folder.to_string() == name).then_some(folder)
    }
}

/// A file found in a checkpoint's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) name: String,
    pub(super) size: u64,
}

/// The checkpoints' folders among the objects below `prefix`, newest first.
pub(super) fn folders(prefix: &str, listed: Vec<Listed>) -> Vec<(Folder, Vec<Object>)> {
    let mut folders: BTreeMap<Reverse<Folder>, Vec<Object>> = BTreeMap::new();
    for object in listed {
        let below = object.path.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/'));
        let Some((folder, name)) = below.and_then(|rest| rest.split_once('/')) else { continue };
        if let Some(folder) = Folder::parse(folder) {
            folders
                .entry(Reverse(folder))
                .or_default()
                .push(Object { name: name.to_owned(), size: object.size });
        }
    }
    folders.into_iter().map(|(Reverse(folder), objects)| (folder, objects)).collect()
}

/// A name is one part of a path, used once, and not the manifest's.
pub(super) fn check_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for name in names {
        let reason = if name == MANIFEST {
            "it is the manifest's own name"
        } else if name.contains('/') {
            "a checkpoint's files have no folders"
        } else if !seen.insert(name) {
            "it is saved twice in one checkpoint"
        } else {
            continue;
        };
        return Err(Error::InvalidPath { path: name.to_owned(), reason: reason.to_owned() });
    }
    Ok(())
}

/// The first file of the manifest that is not there, or has another size.
pub(super) fn missing_or_resized(manifest: &Manifest, objects: &[Object]) -> Option<Fault> {
    manifest.files.iter().find_map(|file| match objects.iter().find(|object| object.name == file.name) {
        None => Some(Fault::Missing(file.name.clone())),
        Some(object) if object.size != file.size => Some(Fault::Damaged {
            file: file.name.clone(),
            expected: file.sha256,
            expected_size: file.size,
            found: None,
            found_size: object.size,
        }),
        Some(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_as_it_is_written() {
        for (step, generation, name) in [
            (0, 0, "step-00000000-g0"),
            (200, 3, "step-00000200-g3"),
            (123_456_789, 10, "step-123456789-g10"),
        ] {
            let folder = Folder { step, generation };
            assert_eq!(folder.to_string(), name);
            assert_eq!(Folder::parse(name), Some(folder));
        }
        for name in [
            "",
            "step-200-g3",
            "step-00000200",
            "step-00000200-g",
            "step-00000200-g03",
            "step-00000200-g3.tmp",
            "latest",
            "step-+0000200-g3",
        ] {
            assert_eq!(Folder::parse(name), None, "{name}");
        }
    }

    #[test]
    fn folders_are_found_newest_first() {
        let listed = [
            "c/step-00000100-g1/a",
            "c/step-00000100-g1/manifest.json",
            "c/step-00000100-g10/a",
            "c/step-00000100-g9/a",
            "c/step-00000090-g11/a",
            "c/step-1000000000-g1/a",
            "c/step-00000100-g1",
            "c/other/a",
            "cc/step-00000100-g1/a",
        ];
        let listed = listed.map(|path| Listed { path: path.to_owned(), size: 1, put_unix_ms: 0 }).to_vec();
        let found: Vec<(u64, u64, usize)> = folders("c", listed)
            .iter()
            .map(|(folder, objects)| (folder.step, folder.generation, objects.len()))
            .collect();
        assert_eq!(found, [(1_000_000_000, 1, 1), (100, 10, 1), (100, 9, 1), (100, 1, 2), (90, 11, 1)]);
    }

    #[test]
    fn bad_names_are_refused() {
        check_names(["a", "b.json", "manifest.json.bak"].into_iter()).unwrap();
        for names in [["manifest.json", "b"], ["a", "a"], ["a", "b/c"], ["../x", "b"]] {
            assert!(check_names(names.into_iter()).is_err(), "{names:?}");
        }
    }
}
