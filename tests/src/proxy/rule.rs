//! Which requests get which faults.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::http::request::Parts;

type Condition = Arc<dyn Fn(&Parts) -> bool + Send + Sync>;

/// Requests, and what happens to them.
#[derive(Clone)]
pub struct Rule {
    method: Option<&'static str>,
    part: String,
    condition: Option<Condition>,
    times: Option<u64>,
    pub(super) faults: Vec<Fault>,
    pub(super) hits: Arc<AtomicU64>,
}

/// What happens to a request or its answer. Offsets count bytes of the body.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The upstream is not asked; this is the answer.
    Answer(Answer),
    /// The answer comes so much later.
    Delay(Duration),
    /// The connection is reset (RST) after so many bytes.
    ResetAfter(u64),
    /// The connection is closed after so many bytes, fewer than `Content-Length` says.
    TruncateAfter(u64),
    /// No more bytes come after so many; the connection stays open.
    StallAfter(u64),
    /// The byte at this offset is another one.
    FlipByte(u64),
    /// So many bytes and no more, with a `Content-Length` that agrees: a blob that is too short.
    Shorten(u64),
    /// These bytes more, with a `Content-Length` that agrees: a blob that is too long.
    Append(Bytes),
    /// Another body in place of the answer's, with a `Content-Length` that agrees.
    ReplaceBody(Bytes),
    /// Another value of a header of the answer, such as `Docker-Content-Digest`.
    Header(&'static str, String),
    /// A header of the answer is missing.
    WithoutHeader(&'static str),
    /// No `Content-Length`, whatever else happens to the body: it is sent in chunks.
    Unannounced,
    /// At most so many bytes a second in this answer.
    Rate(u64),
    /// The request's `Range` is ignored: 200 and the whole body, as some registries do.
    IgnoreRange,
    /// Called when the request has come, before upstream is asked.
    Call(Hook),
    /// Called when upstream has answered, before the answer goes on.
    CallAfter(Hook),
    /// The connection ends without an answer, and upstream is not asked.
    HangUp,
    /// The connection ends without an answer, although upstream has given one: what was asked for is done.
    HangUpAfter,
}

/// Something to do when a request comes through.
#[derive(Clone)]
pub struct Hook(Arc<dyn Fn() + Send + Sync>);

impl Hook {
    /// It runs on the proxy's own task, which waits for it.
    #[must_use]
    pub fn new(call: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }

    /// Does it.
    pub fn call(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// An answer that does not come from upstream.
#[derive(Debug, Clone)]
pub struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

impl Answer {
    /// An answer with this status and an empty body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// 401 with this `WWW-Authenticate`, such as `Basic realm="x"` or
    /// `Bearer realm="http://127.0.0.1:5000/token",service="x"`, and the body that registries send with it.
    #[must_use]
    pub fn unauthorized(challenge: &str) -> Self {
        Self::status(401)
            .header("www-authenticate", challenge)
            .header("content-type", "application/json")
            .body(r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

impl From<Answer> for Fault {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

impl Rule {
    /// GET requests whose path contains `part`: `"/manifests/"`, a digest, `""` for all.
    #[must_use]
    pub fn get(part: &str) -> Self {
        Self { method: Some("GET"), ..Self::any(part) }
    }

    /// HEAD requests whose path contains `part`.
    #[must_use]
    pub fn head(part: &str) -> Self {
        Self { method: Some("HEAD"), ..Self::any(part) }
    }

    /// Requests of any method whose path contains `part`.
    #[must_use]
    pub fn any(part: &str) -> Self {
        Self {
            method: None,
            part: part.to_owned(),
            condition: None,
            times: None,
            faults: Vec::new(),
            hits: Arc::default(),
        }
    }

    /// Only requests that meet this condition too.
    #[must_use]
    pub fn when(mut self, condition: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.condition = Some(Arc::new(condition));
        self
    }

    /// Only so often. Without it, always.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// What happens. May be said several times.
    #[must_use]
    pub fn then(mut self, fault: impl Into<Fault>) -> Self {
        self.faults.push(fault.into());
        self
    }

    /// Whether it applies to this request; if so, that counts.
    pub(super) fn take(&self, request: &Parts) -> bool {
        let path = request.uri.path_and_query().map_or("", |path| path.as_str());
        let applies = self.method.is_none_or(|method| request.method == method)
            && path.contains(&self.part)
            && self.condition.as_ref().is_none_or(|condition| condition(request))
            && self.times.is_none_or(|times| self.hits.load(Ordering::SeqCst) < times);
        if applies {
            self.hits.fetch_add(1, Ordering::SeqCst);
        }
        applies
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({:?} {:?} {:?})", self.method, self.part, self.faults)
    }
}
