//! Blobs to be pushed: read from any offset, as often as it takes.

use std::{
    io::{Error, ErrorKind, SeekFrom},
    path::PathBuf,
};

use bytes::Bytes;
use futures::{
    StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use tokio::{fs::File, io::AsyncSeekExt};
use tokio_util::io::ReaderStream;

/// The size of the pieces that a file is read in: large enough to be cheap, small enough to hold several.
const PIECE: usize = 128 << 10;

/// The bytes of a blob, as a stream.
pub type ByteStream = BoxStream<'static, Result<Bytes, Error>>;

/// A blob that can be read again from any byte. An upload that broke off goes on where the registry stopped.
pub trait BlobSource: Send + Sync {
    /// The bytes from `offset` on.
    fn open(&self, offset: u64) -> BoxFuture<'_, Result<ByteStream, Error>>;
}

/// A blob in a file.
#[derive(Debug, Clone)]
pub struct BlobFile(pub PathBuf);

impl BlobSource for BlobFile {
    fn open(&self, offset: u64) -> BoxFuture<'_, Result<ByteStream, Error>> {
        Box::pin(async move {
            let mut file = File::open(&self.0).await?;
            file.seek(SeekFrom::Start(offset)).await?;
            Ok(ReaderStream::with_capacity(file, PIECE).boxed())
        })
    }
}

/// A blob in memory.
impl BlobSource for Bytes {
    fn open(&self, offset: u64) -> BoxFuture<'_, Result<ByteStream, Error>> {
        let rest = usize::try_from(offset).ok().filter(|offset| *offset <= self.len());
        let rest = rest.map(|offset| self.slice(offset..));
        Box::pin(async move {
            let rest =
                rest.ok_or_else(|| Error::new(ErrorKind::UnexpectedEof, "it ends before the offset"))?;
            Ok(stream::iter([Ok(rest)]).boxed())
        })
    }
}

/// Exactly `length` bytes of a stream. One that ends earlier ends with an error.
pub(crate) fn exactly(bytes: ByteStream, length: u64) -> ByteStream {
    stream::unfold(Some((bytes, length)), |state| async {
        let (mut bytes, left) = state.filter(|(_, left)| *left > 0)?;
        match bytes.next().await {
            Some(Ok(mut piece)) => {
                piece.truncate(usize::try_from(left).unwrap_or(usize::MAX).min(piece.len()));
                let left = left - piece.len() as u64;
                Some((Ok(piece), Some((bytes, left))))
            }
            Some(Err(error)) => Some((Err(error), None)),
            None => {
                let why = format!("it is {left} bytes shorter than its descriptor says");
                Some((Err(Error::new(ErrorKind::UnexpectedEof, why)), None))
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use futures::TryStreamExt;

    use super::*;

    async fn read(source: &dyn BlobSource, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
        let pieces: Vec<Bytes> = exactly(source.open(offset).await?, length).try_collect().await?;
        Ok(pieces.concat())
    }

    #[tokio::test]
    async fn files_and_bytes_are_read_from_any_offset() {
        let content: Vec<u8> = (0..=255).cycle().take(PIECE * 2 + 100).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&content).unwrap();
        let sources: [&dyn BlobSource; 2] =
            [&BlobFile(file.path().to_owned()), &Bytes::from(content.clone())];
        for source in sources {
            for (offset, length) in [(0, content.len()), (1, PIECE), (PIECE * 2, 100), (content.len(), 0)] {
                let bytes = read(source, offset as u64, length as u64).await.unwrap();
                assert!(bytes == content[offset..offset + length], "{offset} {length}");
            }
            let error = read(source, 10, content.len() as u64).await.unwrap_err();
            assert!(error.to_string().contains("10 bytes shorter"), "{error}");
        }
    }
}
