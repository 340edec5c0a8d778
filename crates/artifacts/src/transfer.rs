//! Bytes on their way: a stream cut into pieces, and a local file that appears when it is whole.
//!
//! Not here: where they come from or go to (`store`).

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream};

use crate::{Error, Result, error::interrupted};

/// Bytes read or written at a time: larger artifacts are never in memory whole, except where a caller asks for that.
pub(crate) const PIECE: usize = 8 << 20;

/// The same bytes in pieces of exactly [`PIECE`] bytes, the last one excepted.
pub(crate) fn pieces(bytes: impl Stream<Item = Result<Bytes>>) -> impl Stream<Item = Result<Bytes>> {
    let start = (Box::pin(bytes.fuse()), BytesMut::new());
    stream::try_unfold(start, |(mut bytes, mut waiting)| async move {
        while waiting.len() < PIECE {
            match bytes.try_next().await? {
                Some(more) => waiting.extend_from_slice(&more),
                None => break,
            }
        }
        let piece = waiting.split_to(waiting.len().min(PIECE)).freeze();
        Ok((!piece.is_empty()).then_some((piece, (bytes, waiting))))
    })
}

/// A local file in the making: under another name in the same folder until it is finished, gone if it never is.
pub(crate) struct LocalFile {
    file: File,
    unfinished: Unfinished,
    target: Arc<Path>,
}

/// Removes the file it names, unless that was renamed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_file(&self.0);
    }
}

impl LocalFile {
    pub(crate) async fn new(target: &Path) -> Result<Self> {
        let target: Arc<Path> = target.into();
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".partial-{}", std::process::id()));
        let unfinished = target.with_file_name(name);
        let create = move || {
            let created =
                std::fs::create_dir_all(folder_of(&target)).and_then(|()| File::create(&unfinished));
            let file = created.map_err(|source| Error::from_io(target.display(), source))?;
            Ok(Self { file, unfinished: Unfinished(unfinished), target })
        };
        tokio::task::spawn_blocking(create).await.map_err(interrupted)?
    }

    pub(crate) async fn append(self, piece: Bytes) -> Result<Self> {
        self.blocking(move |file| (&*file).write_all(&piece)).await
    }

    pub(crate) async fn finish(self) -> Result<()> {
        let finished = self.blocking(|file| file.sync_all()).await?;
        let rename = move || {
            std::fs::rename(&finished.unfinished.0, &finished.target)
                .and_then(|()| File::open(folder_of(&finished.target))?.sync_all())
                .map_err(|source| Error::from_io(finished.target.display(), source))
        };
        tokio::task::spawn_blocking(rename).await.map_err(interrupted)?
    }

    async fn blocking(
        self,
        operation: impl FnOnce(&File) -> io::Result<()> + Send + 'static,
    ) -> Result<Self> {
        let run = move || {
            operation(&self.file).map_err(|source| Error::from_io(self.target.display(), source))?;
            Ok(self)
        };
        tokio::task::spawn_blocking(run).await.map_err(interrupted)?
    }
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_are_full_but_for_the_last() {
        for chunks in
            [vec![], vec![0], vec![1, PIECE], vec![PIECE, 0, PIECE], vec![3 * PIECE + 5], vec![PIECE / 3; 7]]
        {
            let bytes: Vec<u8> = (0..chunks.iter().sum()).map(|i: usize| (i % 241) as u8).collect();
            let mut rest = Bytes::from(bytes.clone());
            let chunks: Vec<_> = chunks.iter().map(|size| Ok(rest.split_to(*size))).collect();
            let cut: Vec<Bytes> = pieces(stream::iter(chunks)).try_collect().await.unwrap();
            assert!(cut.concat() == bytes);
            assert_eq!(cut.len(), bytes.len().div_ceil(PIECE));
            assert!(cut.iter().rev().skip(1).all(|piece| piece.len() == PIECE));
        }
    }
}
