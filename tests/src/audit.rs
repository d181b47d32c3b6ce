//! What the API server was asked, read from its audit log.

use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{Error, Result, Scratch};

/// A request that the API server has answered. A watch is one when it ends, not before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiRequest {
    /// Who asked.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, …
    pub verb: String,
    /// The kind of object, in plural, such as `nodes`.
    pub resource: String,
    /// The part of it, such as `status`; empty for the object itself.
    pub subresource: String,
    /// The object's name; empty where it is a list, or the API server was to find one.
    pub name: String,
    /// The answer's status.
    pub code: u16,
    /// When the request came.
    pub asked: Timestamp,
    /// When it was answered.
    pub answered: Timestamp,
}

impl ApiRequest {
    /// Reads a line of the log (`audit.k8s.io/v1`, `Event`). Nothing where it is about no object, or cut off.
    fn parse(line: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(line).ok()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &event["objectRef"];
        Some(Self {
            user: text(&event["user"]["username"]),
            verb: text(&event["verb"]),
            resource: object["resource"].as_str()?.to_owned(),
            subresource: text(&object["subresource"]),
            name: text(&object["name"]),
            code: u16::try_from(event["responseStatus"]["code"].as_u64()?).ok()?,
            asked: event["requestReceivedTimestamp"].as_str()?.parse().ok()?,
            answered: event["stageTimestamp"].as_str()?.parse().ok()?,
        })
    }

    /// Whether it was to change something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

/// An audit log that grows, read from where the last reading ended.
#[derive(Debug, Clone)]
pub struct AuditLog {
    path: PathBuf,
    read: u64,
}

impl AuditLog {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), read: 0 }
    }

    /// What was answered since the last call, in the order of the answers.
    pub fn news(&mut self) -> Result<Vec<ApiRequest>> {
        let failed = |source| Error::file("read", &self.path)(source);
        let mut file = std::fs::File::open(&self.path).map_err(failed)?;
        file.seek(SeekFrom::Start(self.read)).map_err(failed)?;
        let (mut reader, mut line, mut requests) = (BufReader::new(file), String::new(), Vec::new());
        loop {
            line.clear();
            reader.read_line(&mut line).map_err(failed)?;
            // The end, or a line that is being written.
            if !line.ends_with('\n') {
                return Ok(requests);
            }
            self.read += line.len() as u64;
            requests.extend(ApiRequest::parse(&line));
        }
    }
}

/// Arguments that have an API server log every request, but for its own.
pub(crate) fn arguments(scratch: &Scratch, log: &Path) -> Result<[(&'static str, String); 3]> {
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [
            {"level": "None", "users": ["system:apiserver"]},
            {"level": "Metadata"},
        ],
    });
    let policy = scratch.write("audit-policy.yaml", policy.to_string())?;
    Ok([
        ("audit-policy-file", policy.to_string_lossy().into_owned()),
        ("audit-log-path", log.to_string_lossy().into_owned()),
        // In MiB: never begun anew.
        ("audit-log-maxsize", "1048576".to_owned()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","stage":"ResponseComplete",
        "verb":"patch","user":{"username":"larder"},"objectRef":{"resource":"nodeimagecaches","name":"n1",
        "apiGroup":"larder.dev","apiVersion":"v1alpha1","subresource":"status"},"responseStatus":{"code":200},
        "requestReceivedTimestamp":"2026-11-25T13:00:00.000001Z","stageTimestamp":"2026-11-25T13:00:00.010001Z"}"#;

    #[test]
    fn lines_are_read_once_they_are_whole() {
        let scratch = Scratch::new("audit").unwrap();
        let whole = LINE.replace('\n', "") + "\n";
        let (first, rest) = whole.split_at(100);
        let path = scratch.write("audit.log", format!("{whole}{first}")).unwrap();
        let mut log = AuditLog::new(&path);
        let news = log.news().unwrap();
        let [request] = &news[..] else { panic!("{news:?}") };
        let read = (request.user.as_str(), request.verb.as_str(), request.subresource.as_str(), request.code);
        assert_eq!(read, ("larder", "patch", "status", 200));
        assert!(request.is_write());
        assert_eq!(request.answered.duration_since(request.asked).as_millis(), 10);
        assert_eq!(log.news().unwrap(), []);
        scratch.write("audit.log", format!("{whole}{first}{rest}")).unwrap();
        assert_eq!(log.news().unwrap(), news);
    }

    #[test]
    fn what_is_about_no_object_is_left_out() {
        assert_eq!(ApiRequest::parse(r#"{"verb":"get","requestURI":"/readyz"}"#), None);
    }
}
