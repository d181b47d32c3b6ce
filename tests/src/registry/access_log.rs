//! The registry's access log (Apache's combined format), read.

use std::ops::Deref;

/// One request, as the registry logged it once it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The answer's status.
    pub status: u16,
    /// The bytes of the answer's body.
    pub bytes: u64,
    /// The `User-Agent`.
    pub agent: String,
}

impl Request {
    /// Reads a line such as `127.0.0.1 - - [02/Jan/2006:15:04:05 -0700] "GET /v2/ HTTP/1.1" 200 2 "" "skopeo/1.9.3"`.
    /// Nothing when it is none.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut quoted = line.split('"');
        quoted.next()?;
        let mut request = quoted.next()?.split(' ');
        let (method, path, _protocol) = (request.next()?, request.next()?, request.next()?);
        let mut numbers = quoted.next()?.split_whitespace();
        let (status, bytes) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        let agent = quoted.nth(2).unwrap_or_default();
        Some(Self {
            method: method.to_owned(),
            path: path.to_owned(),
            status,
            bytes,
            agent: agent.to_owned(),
        })
    }

    /// Whether it asks for a manifest.
    #[must_use]
    pub fn is_manifest(&self) -> bool {
        self.path.contains("/manifests/")
    }

    /// Whether it asks for a blob, uploads left out.
    #[must_use]
    pub fn is_blob(&self) -> bool {
        self.path.contains("/blobs/") && !self.path.contains("/blobs/uploads")
    }
}

/// Requests in the order of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests(Vec<Request>);

impl Deref for Requests {
    type Target = [Request];

    fn deref(&self) -> &[Request] {
        &self.0
    }
}

impl FromIterator<Request> for Requests {
    fn from_iter<I: IntoIterator<Item = Request>>(requests: I) -> Self {
        Self(requests.into_iter().collect())
    }
}

impl Requests {
    /// Successful GETs of blobs.
    #[must_use]
    pub fn blob_gets(&self) -> usize {
        self.count(|request| request.method == "GET" && request.is_blob() && request.status < 300)
    }

    /// Successful GETs of this blob.
    #[must_use]
    pub fn gets_of(&self, digest: &str) -> usize {
        self.count(|request| request.method == "GET" && request.status < 300 && request.path.contains(digest))
    }

    /// Successful GETs of manifests.
    #[must_use]
    pub fn manifest_gets(&self) -> usize {
        self.count(|request| request.method == "GET" && request.is_manifest() && request.status < 300)
    }

    /// HEADs of manifests, whatever the answer.
    #[must_use]
    pub fn manifest_heads(&self) -> usize {
        self.count(|request| request.method == "HEAD" && request.is_manifest())
    }

    /// The bytes of all blobs given out.
    #[must_use]
    pub fn blob_bytes(&self) -> u64 {
        self.iter().filter(|request| request.method == "GET" && request.is_blob()).map(|r| r.bytes).sum()
    }

    /// The number of requests of some kind.
    #[must_use]
    pub fn count(&self, of: impl Fn(&Request) -> bool) -> usize {
        self.iter().filter(|request| of(request)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_combined_format_is_read() {
        let line = r#"127.0.0.1 - - [25/Nov/2026:13:11:02 +0000] "GET /v2/a/b/blobs/sha256:00?ns=x HTTP/1.1" 206 4096 "" "larder/0.1""#;
        let request = Request::parse(line).unwrap();
        assert_eq!((request.method.as_str(), request.status, request.bytes), ("GET", 206, 4096));
        assert_eq!(
            (request.path.as_str(), request.agent.as_str()),
            ("/v2/a/b/blobs/sha256:00?ns=x", "larder/0.1")
        );
        assert!(request.is_blob() && !request.is_manifest());
    }

    #[test]
    fn other_lines_are_left_out() {
        for line in ["", "time=\"2026\" level=info msg=\"listening\"", "\"\"", "x \"GET /v2/\" 200 2"] {
            assert_eq!(Request::parse(line), None, "{line}");
        }
    }
}
