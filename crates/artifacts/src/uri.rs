//! From what a job says (a path or a URI) to a location.
//!
//! Not here: whether anything is there.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use url::Url;

use crate::{Error, Result, store::object_path};

/// A place where a model, a data set or the artifacts of a run can be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// An absolute path of the local file system.
    File(PathBuf),
    /// An object, or everything below a prefix, of an S3-compatible store.
    S3 {
        /// The bucket.
        bucket: String,
        /// The key or prefix as it is (nothing is decoded), without '/' at its ends; may be empty.
        key: String,
    },
}

impl Location {
    /// The path, if this is one of the local file system.
    pub fn local_path(&self) -> Option<&Path> {
        match self {
            Location::File(path) => Some(path),
            Location::S3 { .. } => None,
        }
    }
}

impl fmt::Display for Location {
    /// The URI, with percent-encoding; [`resolve`] reads it back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::File(path) => match Url::from_file_path(path) {
                Ok(url) => url.fmt(f),
                Err(()) => path.display().fmt(f),
            },
            Location::S3 { bucket, key } if key.is_empty() => write!(f, "s3://{bucket}"),
            Location::S3 { bucket, key } => write!(f, "s3://{bucket}/{key}"),
        }
    }
}

/// Makes a location of `uri`: `file:///absolute/path` (percent-encoded, as URIs are), `s3://bucket/key`, an absolute
/// path, or a path relative to `base`, which is the folder of the job's file.
///
/// # Errors
/// [`Error::InvalidUri`] lists what is allowed.
pub fn resolve(uri: &str, base: &Path) -> Result<Location> {
    let refuse = |reason: String| Error::InvalidUri { uri: without_secrets(uri), reason };
    if uri.is_empty() {
        return Err(refuse("it is empty".to_owned()));
    }
    if uri.contains('\0') {
        return Err(refuse("it contains a zero byte".to_owned()));
    }
    match scheme(uri) {
        Some("file") => file_url(uri).map_err(refuse),
        Some("s3") => s3(uri).map_err(refuse),
        Some(other) => Err(refuse(format!("unknown scheme {other:?}"))),
        None => {
            let path = base.join(uri);
            let absolute =
                std::path::absolute(&path).map_err(|source| Error::from_io(path.display(), source))?;
            Ok(Location::File(absolute))
        }
    }
}

/// What stands before `://`, or `file` of `file:`. Other colons are part of a path.
fn scheme(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    (is_scheme && (rest.starts_with("//") || scheme == "file")).then_some(scheme)
}

fn file_url(uri: &str) -> Result<Location, String> {
    let url = Url::parse(uri).map_err(|error| error.to_string())?;
    if let Some(host) = url.host_str() {
        return Err(format!("it names the host {host:?}; a local path has three slashes"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("'?' and '#' in a path are written %3F and %23".to_owned());
    }
    if !uri["file:".len()..].starts_with('/') {
        return Err("it is not absolute; write a relative path without file:".to_owned());
    }
    url.to_file_path().map(Location::File).map_err(|()| "it is not a path".to_owned())
}

/// Keys are taken as they are, as other programs take them: `%20` in one is three characters.
fn s3(uri: &str) -> Result<Location, String> {
    let rest = &uri["s3://".len()..];
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.contains('@') {
        return Err(
            "credentials come from the environment (AWS_ACCESS_KEY_ID and so on), never in a location"
                .to_owned(),
        );
    }
    let end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let plain = bucket.chars().all(|c| end(c) || c == '-' || c == '.');
    if !(3..=63).contains(&bucket.len()) || !plain || !bucket.starts_with(end) || !bucket.ends_with(end) {
        return Err(format!(
            "{bucket:?} is no bucket: 3 to 63 lower-case letters, digits, '-' and '.', then '/' and a key"
        ));
    }
    let key = key.strip_suffix('/').unwrap_or(key);
    if !key.is_empty() {
        object_path(key).map_err(|error| error.to_string())?;
    }
    Ok(Location::S3 { bucket: bucket.to_owned(), key: key.to_owned() })
}

/// The uri without what stands before an '@' in its authority: somebody may have put a password there.
fn without_secrets(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.to_owned() };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((secret, _)) => format!("{scheme}://...{}", &rest[secret.len()..]),
        None => uri.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn path(uri: &str) -> String {
        resolve(uri, Path::new("/jobs/thick")).unwrap().local_path().unwrap().display().to_string()
    }

    #[test]
    fn paths_are_taken_as_they_are() {
        assert_eq!(path("model.pt"), "/jobs/thick/model.pt");
        assert_eq!(path("../models/vae.safetensors"), "/jobs/thick/../models/vae.safetensors");
        assert_eq!(path("/srv/models/a b%20ü#1?.pt"), "/srv/models/a b%20ü#1?.pt");
        assert_eq!(path("odd:name"), "/jobs/thick/odd:name");
        assert_eq!(path("c:/x"), "/jobs/thick/c:/x");
        assert_eq!(path("s3:x"), "/jobs/thick/s3:x");
        let relative = resolve("x", Path::new("sub")).unwrap();
        assert_eq!(relative.local_path().unwrap(), std::env::current_dir().unwrap().join("sub/x"));
    }

    #[test]
    fn file_uris_are_decoded_and_read_back() {
        assert_eq!(path("file:///srv/a%20b%C3%BC%23.pt"), "/srv/a bü#.pt");
        assert_eq!(path("file://localhost/srv/x"), "/srv/x");
        assert_eq!(path("file:/srv/x"), "/srv/x");
        assert_eq!(path("file:///"), "/");
        for uri in ["/srv/a b%20ü#1?.pt", "rel/a:b"] {
            let location = resolve(uri, Path::new("/base")).unwrap();
            assert_eq!(resolve(&location.to_string(), Path::new("/elsewhere")).unwrap(), location);
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_is_allowed() {
        for (uri, reason) in [
            ("", "empty"),
            ("a\0b", "zero byte"),
            ("gs://bucket/x", "unknown scheme \"gs\""),
            ("s3://", "is no bucket"),
            ("s3:///x", "is no bucket"),
            ("s3://Bucket/x", "is no bucket"),
            ("s3://-bucket/x", "is no bucket"),
            ("s3://bucket:9000/x", "is no bucket"),
            ("s3://bucket//x", "starts or ends"),
            ("s3://bucket/a/../x", "invalid artifact path"),
            ("s3://bucket/a#1", "contains '#'"),
            ("https://x/y", "unknown scheme \"https\""),
            ("FILE:///x", "unknown scheme \"FILE\""),
            ("file://models/x", "host \"models\""),
            ("file:model.pt", "not absolute"),
            ("file:///x?y", "%3F"),
            ("file:///x#y", "%23"),
        ] {
            let text = resolve(uri, Path::new("/base")).unwrap_err().to_string();
            assert!(text.contains(reason) && text.contains("file:///absolute/path"), "{uri}: {text}");
            assert!(text.contains(&format!("{uri:?}")), "{text}");
        }
    }

    #[test]
    fn buckets_and_keys_are_taken_as_they_are_and_read_back() {
        for (uri, bucket, key, again) in [
            ("s3://models/vae/g%20 ü.pt", "models", "vae/g%20 ü.pt", "s3://models/vae/g%20 ü.pt"),
            ("s3://a.b-1/x/", "a.b-1", "x", "s3://a.b-1/x"),
            ("s3://models", "models", "", "s3://models"),
            ("s3://models/", "models", "", "s3://models"),
        ] {
            let location = resolve(uri, Path::new("/base")).unwrap();
            let expected = Location::S3 { bucket: bucket.to_owned(), key: key.to_owned() };
            assert_eq!(location, expected);
            assert_eq!((location.to_string().as_str(), location.local_path()), (again, None));
            assert_eq!(resolve(again, Path::new("/base")).unwrap(), location);
        }
    }

    #[test]
    fn a_password_in_a_location_is_refused_and_not_repeated() {
        for uri in ["s3://key:hunter2@bucket/x", "s3://hunter2@bucket", "https://key:hunter2@host/x"] {
            let text = resolve(uri, Path::new("/base")).unwrap_err().to_string();
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
