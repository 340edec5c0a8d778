//! SHA-256 digests, and the digest of a file without reading it into memory.
//!
//! Not here: comparing artifacts with their digests (`store`).

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
    str::FromStr,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Error, Result, error::interrupted};

/// A SHA-256 digest; written and read as 64 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 64 lowercase hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a SHA-256 digest: 64 lowercase hexadecimal digits")]
pub struct InvalidDigest(String);

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let invalid = || InvalidDigest(text.chars().take(80).collect());
        if text.len() != 64 || !text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)) {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| invalid())?;
        }
        Ok(Self(bytes))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

/// A digest and a size in the making.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hasher {
    sha256: Sha256,
    size: u64,
}

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// Takes in a large piece away from the async threads.
    pub(crate) async fn absorb(mut self, bytes: Bytes) -> Result<Self> {
        let update = move || {
            self.update(&bytes);
            self
        };
        tokio::task::spawn_blocking(update).await.map_err(interrupted)
    }

    pub(crate) fn finish(self) -> (Digest, u64) {
        (Digest(self.sha256.finalize().into()), self.size)
    }
}

/// The digest and the size in bytes of a local file, read a megabyte at a time.
///
/// # Errors
/// [`Error::NotFound`], [`Error::NoAccess`] and [`Error::Local`] name the file.
pub async fn digest_file(file: &Path) -> Result<(Digest, u64)> {
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || digest_file_blocking(&file)).await.map_err(interrupted)?
}

/// [`digest_file`] for a thread that may wait for a disk.
///
/// # Errors
/// As [`digest_file`].
pub fn digest_file_blocking(file: &Path) -> Result<(Digest, u64)> {
    let read = || -> io::Result<_> {
        let mut input = File::open(file)?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    };
    read().map_err(|source| Error::from_io(file.display(), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-2, appendix B: "abc" and the 56-character message; and the well-known digest of nothing.
    #[test]
    fn digests_are_those_of_the_standard() {
        for (message, hex) in [
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            ),
        ] {
            assert_eq!(Digest::of(message.as_bytes()).to_string(), hex);
            assert_eq!(hex.parse(), Ok(Digest::of(message.as_bytes())));
        }
    }

    #[test]
    fn other_texts_are_no_digests() {
        let hex = Digest::of(b"x").to_string();
        for text in [
            "",
            "sha256:x",
            &hex[1..],
            &hex.to_uppercase(),
            &format!("{hex}0"),
            &"ü".repeat(32),
            &"+1".repeat(32),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        let json = serde_json::to_string(&Digest::of(b"x")).unwrap();
        assert_eq!(json, format!("{hex:?}"));
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), Digest::of(b"x"));
        assert!(serde_json::from_str::<Digest>("\"zz\"").is_err());
    }

    #[tokio::test]
    async fn a_file_has_the_digest_of_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        for size in [0, 1, (1 << 20) - 1, 1 << 20, (3 << 20) + 7] {
            let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let file = folder.path().join("file");
            std::fs::write(&file, &bytes).unwrap();
            assert_eq!(digest_file(&file).await.unwrap(), (Digest::of(&bytes), size as u64));
        }
        let missing = folder.path().join("missing");
        let error = digest_file(&missing).await.unwrap_err();
        assert!(matches!(&error, Error::NotFound { object } if object.contains("missing")), "{error:?}");
        assert!(digest_file(folder.path()).await.is_err());
    }
}
