//! A folder of this machine that takes a job's result, beside whatever else is there.
//!
//! Nothing is replaced that Lethe did not write, or that somebody has changed since: what it wrote it knows by a receipt
//! below `.lethe`, noted before a file changes. Files are made below `.lethe/part` and move to their places once all of them
//! are whole and durable, result.json last: where it is, all is. A crash at any moment leaves each file absent, as it was, or
//! as it is to be; the next try goes on from there. One process at a time has the folder.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use lethe_artifacts::{Digest, Receipt, digest_file_blocking};
use lethe_client::Client;
use lethe_domain::result_files::{RESULT, SHEET};
use lethe_domain::{JobId, JobResult};
use serde::Serialize;

use crate::error::Error;
use crate::whole_file::{self, Part};

/// An opened folder.
#[derive(Debug)]
pub(crate) struct ResultFolder {
    /// As it was named, for people.
    out: PathBuf,
    /// Our own, inside it. Absolute.
    state: PathBuf,
    receipt: Receipt,
    force: Force,
    /// Held until the end; the system lets go of it whatever happens to this process.
    _lock: File,
}

/// Whether files that Lethe did not write may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Force {
    /// Never: the command has no --force.
    Never,
    /// Not unless --force is said.
    Unsaid,
    /// They may.
    Said,
}

/// A file of a result that is whole, and not in its place yet.
#[derive(Debug)]
struct Made {
    name: String,
    part: Part,
    digest: Digest,
}

/// What has a file's name in the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    /// A file that Lethe wrote.
    Ours(Digest),
    /// Anything else; its digest if it is a file.
    Foreign(Option<Digest>),
}

impl ResultFolder {
    /// Takes the folder, which is made if need be. `job`: the only one whose result may be replaced there; none: the folder
    /// is one of `lethe run`, whose jobs follow one another.
    ///
    /// # Errors
    /// Refused, and nothing is touched, when a file with one of these names is there that may not be replaced, or when
    /// another process has the folder.
    pub(crate) fn take(out: &Path, job: Option<&JobId>, names: &[&str], force: Force) -> Result<Self, Error> {
        let path = std::path::absolute(out).map_err(|error| Error::io("find", out, error))?;
        if path.exists() && !path.is_dir() {
            return Err(Error::Usage(format!("{} is a file, expected a folder", out.display())));
        }
        let state = path.join(".lethe");
        let lock_file = state.join("lock");
        let foreign = fs::read_dir(&state).is_ok_and(|mut entries| entries.next().is_some());
        if foreign && !lock_file.exists() {
            let what =
                "is a folder that Lethe did not make, and it needs one of that name: choose another folder";
            return Err(Error::Usage(format!("{} {what}", state.display())));
        }
        let receipt = receipt_of(&state, job);
        refuse(out, &in_the_way(&path, &receipt, names)?, force)?;
        fs::create_dir_all(&state).map_err(|error| Error::io("create", &state, error))?;
        let lock = lock(&lock_file, out)?;
        // Under the lock nobody else changes it.
        let receipt = receipt_of(&state, job);
        let parts = state.join("part");
        // What a dead process left there.
        let _ = fs::remove_dir_all(&parts);
        fs::create_dir_all(&parts).map_err(|error| Error::io("create", &parts, error))?;
        Ok(Self { out: out.to_owned(), state, receipt, force, _lock: lock })
    }

    /// As it was named, for people.
    pub(crate) fn out(&self) -> &Path {
        &self.out
    }

    /// Where Lethe keeps what is its own.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    fn place(&self, name: &str) -> PathBuf {
        self.state.with_file_name(name)
    }

    /// Fetches a job's files and puts them into the folder with their figures; the result with their names. `finish` has the
    /// last word on what is written.
    pub(crate) async fn deliver(
        &mut self,
        client: &Client,
        id: &JobId,
        mut result: JobResult,
        finish: impl FnOnce(&mut JobResult),
    ) -> Result<JobResult, Error> {
        let mut made = Vec::new();
        if let Some(path) = result.artifacts.generator.take() {
            let name = generator_name(&path);
            made.push(self.fetch(client, id, "generator", name.clone()).await?);
            made.push(self.fetch(client, id, "sidecar", format!("{name}.json")).await?);
            result.artifacts.generator = Some(name);
        }
        if result.artifacts.before_after_png.take().is_some() {
            let name = SHEET.to_owned();
            made.push(self.fetch(client, id, "before_after_png", name.clone()).await?);
            result.artifacts.before_after_png = Some(name);
        }
        finish(&mut result);
        made.push(self.make_json(RESULT, &result)?);
        self.receipt.pass_on(id.as_str());
        self.put(made)?;
        Ok(result)
    }

    async fn fetch(&self, client: &Client, id: &JobId, artifact: &str, name: String) -> Result<Made, Error> {
        let (part, file) = Part::create(self.state.join("part").join(&name))?;
        let mut file = tokio::fs::File::from_std(file);
        let found = client.download(id, artifact, &mut file).await?;
        file.sync_all().await.map_err(|error| Error::io("write", part.path(), error))?;
        let digest = found.sha256.parse().map_err(anyhow::Error::from)?;
        Ok(Made { name, part, digest })
    }

    fn make_json(&self, name: &str, value: &impl Serialize) -> Result<Made, Error> {
        let mut text = serde_json::to_vec_pretty(value).map_err(anyhow::Error::from)?;
        text.push(b'\n');
        let (part, mut file) = Part::create(self.state.join("part").join(name))?;
        let written = std::io::Write::write_all(&mut file, &text).and_then(|()| file.sync_all());
        written.map_err(|error| Error::io("write", part.path(), error))?;
        Ok(Made { name: name.to_owned(), part, digest: Digest::of(&text) })
    }

    /// Moves files to their places, in this order; all of them or, when one may not be replaced, none.
    fn put(&mut self, made: Vec<Made>) -> Result<(), Error> {
        let mut found = Vec::with_capacity(made.len());
        for Made { name, digest, .. } in &made {
            found.push(look(&self.place(name), name, &self.receipt, Some(*digest))?);
        }
        let foreign = made.iter().zip(&found).filter(|(_, found)| matches!(found, Found::Foreign(_)));
        let foreign: Vec<PathBuf> = foreign.map(|(made, _)| self.place(&made.name)).collect();
        refuse(&self.out, &foreign, self.force)?;
        for (Made { name, digest, .. }, found) in made.iter().zip(&found) {
            let before = match found {
                Found::Nothing => None,
                Found::Ours(digest) => Some(*digest),
                Found::Foreign(digest) => *digest,
            };
            self.receipt.note(name, before, *digest);
        }
        whole_file::write(&self.place(Receipt::NAME), &self.receipt.encode())?;
        for (Made { name, part, digest }, found) in made.into_iter().zip(found) {
            let place = self.place(&name);
            match found {
                Found::Nothing => part.appear(&place)?,
                Found::Ours(there) if there == digest => {}
                Found::Ours(_) | Found::Foreign(_) => part.replace(&place)?,
            }
        }
        Ok(())
    }
}

/// The name of a generator that was published at `path`.
pub(crate) fn generator_name(path: &str) -> String {
    let extension = Path::new(path).extension().map_or("bin".into(), |extension| extension.to_string_lossy());
    format!("generator.{extension}")
}

/// What is known to be ours in a folder: what that job wrote, or any when none is asked for.
fn receipt_of(state: &Path, job: Option<&JobId>) -> Receipt {
    let found = fs::read(state.with_file_name(Receipt::NAME)).ok();
    let known = found.as_deref().and_then(Receipt::decode);
    let known = known.filter(|receipt| job.is_none_or(|job| receipt.job() == job.as_str()));
    known.unwrap_or_else(|| Receipt::new(job.map_or("", JobId::as_str)))
}

/// Those of the names that something has which Lethe did not write.
fn in_the_way(folder: &Path, receipt: &Receipt, names: &[&str]) -> Result<Vec<PathBuf>, Error> {
    let mut foreign = Vec::new();
    for name in names {
        let path = folder.join(name);
        if let Found::Foreign(_) = look(&path, name, receipt, None)? {
            foreign.push(path);
        }
    }
    Ok(foreign)
}

/// A file whose bytes are those that are to be there counts as ours.
fn look(path: &Path, name: &str, receipt: &Receipt, wanted: Option<Digest>) -> Result<Found, Error> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        // Below a file there is nothing either; who makes the folder says what is in the way.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Found::Nothing);
        }
        Err(error) => return Err(Error::io("look at", path, error)),
    };
    // Lethe makes no links, and neither a link nor a pipe is to be read.
    if !metadata.is_file() {
        return Ok(Found::Foreign(None));
    }
    let (digest, _) = digest_file_blocking(path).map_err(anyhow::Error::from)?;
    let ours = receipt.wrote(name, digest) || wanted == Some(digest);
    Ok(if ours { Found::Ours(digest) } else { Found::Foreign(Some(digest)) })
}

fn refuse(out: &Path, foreign: &[PathBuf], force: Force) -> Result<(), Error> {
    if foreign.is_empty() || force == Force::Said {
        return Ok(());
    }
    let names: Vec<String> = foreign.iter().map(|path| path.display().to_string()).collect();
    let may_force = force == Force::Unsaid;
    Err(Error::WouldReplace { out: out.display().to_string(), files: names.join(", "), may_force })
}

fn lock(path: &Path, out: &Path) -> Result<File, Error> {
    let file = File::create(path).map_err(|error| Error::io("write", path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Usage(format!(
            "another lethe run or download is at work in {}: wait for it, end it, or choose another --out",
            out.display()
        ))),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 2] = ["generator.pt", RESULT];

    fn job(id: &str) -> JobId {
        JobId::new(id).unwrap()
    }

    fn take(out: &Path, id: &str, force: bool) -> Result<ResultFolder, Error> {
        let force = if force { Force::Said } else { Force::Unsaid };
        ResultFolder::take(out, Some(&job(id)), &NAMES, force)
    }

    fn put(folder: &mut ResultFolder, id: &str, text: &str) -> Result<(), Error> {
        folder.receipt.pass_on(id);
        let made = NAMES.map(|name| folder.make_json(name, &text).unwrap());
        folder.put(made.into())
    }

    fn read(out: &Path, name: &str) -> String {
        fs::read_to_string(out.join(name)).unwrap()
    }

    fn refused(result: Result<impl std::fmt::Debug, Error>) -> String {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::WouldReplace { .. }), "{error:?}");
        error.to_string()
    }

    #[test]
    fn a_result_is_put_again_and_replaced_by_the_same_job_only() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("j-1");
        for text in ["one", "one", "two"] {
            put(&mut take(&out, "j-1", false).unwrap(), "j-1", text).unwrap();
            assert_eq!(read(&out, "generator.pt"), format!("\"{text}\"\n"));
        }
        let said = refused(take(&out, "j-2", false));
        assert!(said.contains("generator.pt") && said.contains("result.json"), "{said}");
        // The folder of a run takes one job after another.
        let mut run = ResultFolder::take(&out, None, &NAMES, Force::Never).unwrap();
        put(&mut run, "j-3", "three").unwrap();
        assert_eq!(read(&out, RESULT), "\"three\"\n");
        assert!(fs::read_dir(out.join(".lethe/part")).unwrap().next().is_none());
    }

    #[test]
    fn what_somebody_else_wrote_or_changed_is_refused_before_anything_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        fs::write(out.join("generator.pt"), "precious").unwrap();
        refused(take(out, "j-1", false));
        assert_eq!(fs::read_dir(out).unwrap().count(), 1, "nothing was made");
        fs::remove_file(out.join("generator.pt")).unwrap();
        put(&mut take(out, "j-1", false).unwrap(), "j-1", "one").unwrap();
        fs::write(out.join("generator.pt"), "changed").unwrap();
        refused(take(out, "j-1", false));
        assert_eq!(read(out, "generator.pt"), "changed");
        put(&mut take(out, "j-1", true).unwrap(), "j-1", "two").unwrap();
        assert_eq!(read(out, "generator.pt"), "\"two\"\n");
    }

    #[test]
    fn a_file_that_comes_while_the_folder_is_taken_stays_and_so_does_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        let mut taken = take(out, "j-1", false).unwrap();
        fs::write(out.join(RESULT), "precious").unwrap();
        refused(put(&mut taken, "j-1", "one"));
        assert_eq!(read(out, RESULT), "precious");
        assert!(!out.join("generator.pt").exists());
        assert!(fs::read_dir(out.join(".lethe/part")).unwrap().next().is_none(), "no part is left");
    }

    #[test]
    fn links_pipes_and_folders_are_neither_followed_nor_read() {
        let folder = tempfile::tempdir().unwrap();
        let (out, mine) = (folder.path().join("out"), folder.path().join("mine"));
        fs::create_dir(&out).unwrap();
        fs::write(&mine, "precious").unwrap();
        std::os::unix::fs::symlink(&mine, out.join("generator.pt")).unwrap();
        nix::unistd::mkfifo(&out.join(RESULT), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let said = refused(take(&out, "j-1", false));
        assert!(said.contains("generator.pt") && said.contains(RESULT), "{said}");
        put(&mut take(&out, "j-1", true).unwrap(), "j-1", "one").unwrap();
        assert_eq!(fs::read_to_string(&mine).unwrap(), "precious", "the link went, not what it led to");
        assert_eq!(read(&out, "generator.pt"), "\"one\"\n");

        let linked = folder.path().join("linked");
        fs::create_dir(&linked).unwrap();
        fs::hard_link(&mine, linked.join("generator.pt")).unwrap();
        refused(take(&linked, "j-1", false));
        put(&mut take(&linked, "j-1", true).unwrap(), "j-1", "one").unwrap();
        assert_eq!(
            fs::read_to_string(&mine).unwrap(),
            "precious",
            "a hard link is replaced, not written through"
        );
    }

    #[test]
    fn a_crash_between_two_files_is_gone_on_from() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        put(&mut take(out, "j-1", false).unwrap(), "j-1", "one").unwrap();
        {
            // Noted, one of two replaced, a part left behind.
            let mut taken = take(out, "j-1", false).unwrap();
            let after = Digest::of(b"\"two\"\n");
            for name in NAMES {
                taken.receipt.note(name, Some(Digest::of(b"\"one\"\n")), after);
            }
            whole_file::write(&out.join(Receipt::NAME), &taken.receipt.encode()).unwrap();
            fs::write(out.join("generator.pt"), "\"two\"\n").unwrap();
            fs::write(out.join(".lethe/part/result.json"), "half").unwrap();
        }
        put(&mut take(out, "j-1", false).unwrap(), "j-1", "two").unwrap();
        assert_eq!((read(out, "generator.pt"), read(out, RESULT)), ("\"two\"\n".into(), "\"two\"\n".into()));
    }

    #[test]
    fn two_at_once_and_places_that_are_no_folders_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let taken = take(folder.path(), "j-1", false).unwrap();
        let said = take(folder.path(), "j-1", false).unwrap_err().to_string();
        assert!(said.contains("another lethe run or download is at work"), "{said}");
        drop(taken);
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(take(&file, "j-1", false).unwrap_err().to_string().contains("is a file, expected a folder"));
        let other = folder.path().join("other");
        fs::create_dir_all(other.join(".lethe/mine")).unwrap();
        assert!(take(&other, "j-1", false).unwrap_err().to_string().contains("did not make"));
    }
}
