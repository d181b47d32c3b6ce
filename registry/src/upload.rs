//! One upload session, from its beginning to the blob
//! (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-a-blob-in-chunks>).

use std::ops::Range;

use bytes::Bytes;
use larder_oci::{Digest, ImageName};
use reqwest::{Method, Response, StatusCode, Url, header};
use tokio::time::sleep;

use crate::{
    BlobSource, PushOptions, Registry, RegistryError,
    auth::Scope,
    headers::{text, upload_location, uploaded},
    hosts::Endpoint,
    http::check_status,
    retry::{is_worth_a_retry, pauses, wait_after},
    send::{Body, Outgoing, Part},
    write::{Begun, MONOLITHIC},
};

/// How many sessions the registry may lose. docker-registry 2.8 loses one with each connection that breaks within a
/// chunk.
const MAX_SESSIONS: usize = 5;

/// How many chunks the registry may refuse before the blob is sent whole. Not all registries take chunks.
const MAX_REFUSALS: usize = 2;

/// A blob on its way into a repository.
pub(crate) struct Upload<'a> {
    pub registry: &'a Registry,
    pub at: &'a Endpoint,
    pub name: &'a ImageName,
    pub scope: &'a Scope,
    pub digest: &'a Digest,
    pub size: u64,
    pub source: &'a dyn BlobSource,
    pub options: &'a PushOptions,
}

/// How far the registry is.
struct Session {
    location: Url,
    offset: u64,
    /// Whether to send all in one request, whatever the size.
    whole: bool,
    /// The least size of a chunk that the registry takes, the last one excepted.
    chunk: u64,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Send all bytes and commit.
    Whole,
    /// Send these bytes.
    Chunk(Range<u64>),
    /// Commit what is there.
    Commit,
}

/// The next step of an upload of `size` bytes, `offset` of which are there.
fn next_step(size: u64, offset: u64, chunk: u64, whole: bool) -> Step {
    if offset == 0 && (whole || size <= MONOLITHIC) {
        return Step::Whole;
    }
    if offset >= size {
        return Step::Commit;
    }
    Step::Chunk(offset..size.min(offset.saturating_add(chunk.max(1))))
}

impl Upload<'_> {
    /// Sends the blob. `begun` is a session that the registry has begun already.
    pub async fn run(&self, begun: Option<Box<Response>>) -> Result<(), RegistryError> {
        let mut session = begun.map(|response| self.session(&response)).transpose()?;
        let (mut lost, mut refused) = (0, 0);
        let mut pauses_left = pauses();
        loop {
            let had_session = session.is_some();
            let before = session.as_ref().map_or(0, |session| session.offset);
            let result = match &mut session {
                Some(session) => self.step(session).await,
                None => self.begin().await.map(|begun| {
                    session = Some(Session { whole: refused >= MAX_REFUSALS, ..begun });
                    false
                }),
            };
            let error = match result {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    pauses_left = pauses();
                    continue;
                }
                Err(error) => error,
            };
            let go_on = is_worth_a_retry(&error) || (had_session && out_of_step(&error));
            if !go_on {
                return Err(error);
            }
            let Some(pause) = pauses_left.next() else { return Err(error) };
            tracing::debug!(blob = %self.digest, %error, "the upload broke off");
            sleep(wait_after(&error, pause)).await;
            if self.resume(&mut session).await? {
                return Ok(());
            }
            refused += usize::from(is_refusal(&error));
            if refused == MAX_REFUSALS {
                session = None;
            }
            match &session {
                Some(session) if session.offset > before => pauses_left = pauses(),
                None if had_session => {
                    lost += 1;
                    if lost == MAX_SESSIONS {
                        return Err(error);
                    }
                }
                _ => {}
            }
        }
    }

    async fn begin(&self) -> Result<Session, RegistryError> {
        match self.registry.begin(self.at, self.name, self.scope, &[]).await? {
            Begun::Session(response) => self.session(&response),
            Begun::Mounted => Err(self.protocol("it mounts a blob that it was not asked to mount")),
        }
    }

    fn session(&self, response: &Response) -> Result<Session, RegistryError> {
        let least = text(response, "oci-chunk-min-length").and_then(|text| text.trim().parse().ok());
        let chunk = self.options.chunk_size.max(least.unwrap_or(0)).max(1);
        let location = self.location(response, response.url())?;
        let location = location.ok_or_else(|| self.protocol("it names no Location for the upload"))?;
        Ok(Session { location, offset: 0, chunk, whole: false })
    }

    /// Goes one step on. `true`: the blob is there.
    async fn step(&self, session: &mut Session) -> Result<bool, RegistryError> {
        match next_step(self.size, session.offset, session.chunk, session.whole) {
            Step::Whole => self.put(session, self.part(0..self.size)).await,
            Step::Commit => self.put(session, Body::Bytes(Bytes::new())).await,
            Step::Chunk(range) => self.patch(session, range).await.map(|()| false),
        }
    }

    fn part(&self, range: Range<u64>) -> Body<'_> {
        Body::Part(Part { source: self.source, range, progress: self.options.progress.clone() })
    }

    async fn patch(&self, session: &mut Session, range: Range<u64>) -> Result<(), RegistryError> {
        let content_range = format!("{}-{}", range.start, range.end - 1);
        let request = Outgoing {
            body: self.part(range.clone()),
            ..Outgoing::read(Method::PATCH, session.location.clone())
        }
        .header(header::CONTENT_TYPE, "application/octet-stream")?
        .header(header::CONTENT_RANGE, &content_range)?;
        let response = self.exchange(&request, &[StatusCode::ACCEPTED, StatusCode::NO_CONTENT]).await?;
        if let Some(location) = self.location(&response, &session.location)? {
            session.location = location;
        }
        // What the registry took counts, should it have taken less. Without its word it took all.
        let taken = text(&response, header::RANGE.as_str()).and_then(|range| uploaded(&range));
        let taken = taken.unwrap_or(range.end).min(range.end);
        if taken <= range.start {
            return Err(RegistryError::Unreachable {
                registry: self.at.name(),
                cause: format!("it took none of the bytes from {} on", range.start),
            });
        }
        session.offset = taken;
        Ok(())
    }

    async fn put(&self, session: &mut Session, body: Body<'_>) -> Result<bool, RegistryError> {
        let mut url = session.location.clone();
        url.query_pairs_mut().append_pair("digest", self.digest.as_str());
        let request = Outgoing { body, ..Outgoing::read(Method::PUT, url) }
            .header(header::CONTENT_TYPE, "application/octet-stream")?;
        let response = self.exchange(&request, &[StatusCode::CREATED, StatusCode::NO_CONTENT]).await?;
        match text(&response, "docker-content-digest").map(|text| text.parse::<Digest>()) {
            Some(Ok(actual)) if actual.algorithm() == self.digest.algorithm() && actual != *self.digest => {
                Err(RegistryError::DigestMismatch {
                    registry: self.at.name(),
                    what: self.what(),
                    expected: self.digest.clone(),
                    actual: actual.to_string(),
                })
            }
            _ => Ok(true),
        }
    }

    /// Finds out where the registry is after a fault. `true`: the blob is there, and only the answer got lost.
    async fn resume(&self, session: &mut Option<Session>) -> Result<bool, RegistryError> {
        let Some(known) = session else { return Ok(false) };
        match self.registry.has_blob(self.at, self.name, self.scope, self.digest).await {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) if is_worth_a_retry(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        let request = Outgoing::read(Method::GET, known.location.clone());
        let accepted = [StatusCode::NO_CONTENT, StatusCode::OK, StatusCode::ACCEPTED];
        match self.exchange(&request, &accepted).await {
            Ok(response) => {
                let here = text(&response, header::RANGE.as_str()).and_then(|range| uploaded(&range));
                let location = self.location(&response, &known.location)?;
                match here.filter(|offset| *offset <= self.size) {
                    Some(offset) => {
                        known.offset = offset;
                        known.location = location.unwrap_or_else(|| known.location.clone());
                    }
                    None => *session = None,
                }
            }
            Err(error) if is_worth_a_retry(&error) => {}
            // Lost, or never told: some registries don't say how far an upload is.
            Err(_) => *session = None,
        }
        Ok(false)
    }

    async fn exchange(
        &self,
        request: &Outgoing<'_>,
        success: &[StatusCode],
    ) -> Result<Response, RegistryError> {
        let what = self.what();
        let repository = self.name.repository();
        let response = self.registry.exchange(self.at, repository, self.scope, &what, request).await?;
        check_status(&self.at.name(), &what, response, success).await
    }

    fn location(&self, response: &Response, here: &Url) -> Result<Option<Url>, RegistryError> {
        let location = text(response, header::LOCATION.as_str());
        location
            .map(|location| upload_location(&location, here))
            .transpose()
            .map_err(|why| self.protocol(&why))
    }

    fn what(&self) -> String {
        format!("blob {} of {}/{}", self.digest, self.name.registry(), self.name.repository())
    }

    fn protocol(&self, why: &str) -> RegistryError {
        RegistryError::Protocol { registry: self.at.name(), why: why.to_owned() }
    }
}

/// The registry is at another offset than we think, or has lost the session: ask it.
fn out_of_step(error: &RegistryError) -> bool {
    matches!(error, RegistryError::NotFound { .. }) || is_refusal(error)
}

/// The registry does not take this chunk, or no chunk at all.
fn is_refusal(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Status { status: 405 | 416 | 501, .. })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_blobs_go_in_one_request() {
        for size in [0, 1, MONOLITHIC] {
            assert_eq!(next_step(size, 0, 1 << 20, false), Step::Whole, "{size}");
        }
        assert_eq!(next_step(MONOLITHIC + 1, 0, 1 << 20, false), Step::Chunk(0..1 << 20));
        assert_eq!(next_step(100, 60, 1 << 20, false), Step::Chunk(60..100));
        assert_eq!(next_step(100, 100, 1 << 20, false), Step::Commit);
        assert_eq!(next_step(MONOLITHIC + 1, 5, u64::MAX, false), Step::Chunk(5..MONOLITHIC + 1));
        assert_eq!(next_step(u64::MAX, 0, 1 << 20, true), Step::Whole);
    }

    proptest! {
        #[test]
        fn chunks_cover_a_blob_without_gap_or_overlap(
            size in MONOLITHIC + 1..MONOLITHIC * 8, chunk in 1_u64 << 18..1 << 26
        ) {
            let mut offset = 0;
            loop {
                match next_step(size, offset, chunk, false) {
                    Step::Chunk(range) => {
                        prop_assert_eq!(range.start, offset);
                        prop_assert!(range.end > offset && range.end <= size && range.end - offset <= chunk);
                        // Only the last may be smaller: the registry's least size holds for all others.
                        prop_assert!(range.end == size || range.end - offset == chunk);
                        offset = range.end;
                    }
                    step => {
                        prop_assert_eq!(step, Step::Commit);
                        break;
                    }
                }
            }
            prop_assert_eq!(offset, size);
        }
    }
}
