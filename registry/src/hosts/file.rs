//! `hosts.toml`, parsed
//! (<https://github.com/containerd/containerd/blob/main/docs/hosts.md#hoststoml-content-description---detail>).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::SignedDuration;
use reqwest::{
    Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde::Deserialize;
use toml::Spanned;

use super::{Capabilities, HostsError};
use crate::client::{ClientCertificate, Transport};

/// What a `hosts.toml` says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HostsFile {
    /// The mirrors, in the order of the file.
    pub mirrors: Vec<Host>,
    /// What comes after them.
    pub server: Host,
}

/// One host of a `hosts.toml`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Host {
    /// The root of its API, such as `https://mirror.corp/v2`. Absent for a server that is not named: then it is the
    /// registry itself.
    pub base: Option<Url>,
    pub capabilities: Capabilities,
    pub transport: Transport,
    pub headers: HeaderMap,
}

/// The root table. Its own host fields are read separately: `flatten` loses the places that errors point to.
#[derive(Deserialize)]
struct Root {
    server: Option<Spanned<String>>,
    #[serde(default)]
    host: BTreeMap<Spanned<String>, Fields>,
}

/// What can be said of a host. Fields that a later containerd adds are passed over, as containerd does.
#[derive(Deserialize, Default)]
struct Fields {
    capabilities: Option<Spanned<Vec<String>>>,
    ca: Option<Spanned<Paths>>,
    client: Option<Spanned<Pairs>>,
    skip_verify: Option<bool>,
    header: Option<BTreeMap<Spanned<String>, Values>>,
    override_path: Option<bool>,
    dial_timeout: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a path or a list of paths")]
enum Paths {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a path, or a list of paths or of [certificate, key] pairs")]
enum Pairs {
    One(String),
    Many(Vec<Pair>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a path or a [certificate, key] pair")]
enum Pair {
    Both(String),
    Separate(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum Values {
    One(String),
    Many(Vec<String>),
}

/// Reads the text of the file `path`. Relative paths in it are relative to the file's folder.
pub(super) fn parse(path: &Path, text: &str) -> Result<HostsFile, HostsError> {
    let source = Source { path, text };
    let root: Root = toml::from_str(text).map_err(|error| source.syntax(&error))?;
    let fields: Fields = toml::from_str(text).map_err(|error| source.syntax(&error))?;

    let mut mirrors: Vec<_> = root.host.into_iter().collect();
    // A map of TOML has no order; here the order is the meaning.
    mirrors.sort_by_key(|(name, _)| name.span().start);
    let mirrors = mirrors
        .into_iter()
        .map(|(name, fields)| source.host(Some(&name), "host", fields))
        .collect::<Result<_, _>>()?;
    let server = source.host(root.server.as_ref(), "server", fields)?;
    Ok(HostsFile { mirrors, server })
}

/// The file, for errors that point into it.
#[derive(Clone, Copy)]
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn line(self, offset: usize) -> usize {
        self.text.get(..offset).unwrap_or_default().matches('\n').count() + 1
    }

    /// The parser's message without the line it quotes, which may hold a secret header.
    fn syntax(self, error: &toml::de::Error) -> HostsError {
        let line = self.line(error.span().map_or(0, |span| span.start));
        HostsError::Syntax { path: self.path.to_owned(), line, why: error.message().replace('\n', ", ") }
    }

    fn field<T>(self, field: &str, at: &Spanned<T>, why: impl Into<String>) -> HostsError {
        let line = self.line(at.span().start);
        HostsError::Field { path: self.path.to_owned(), line, field: field.to_owned(), why: why.into() }
    }

    fn host(self, url: Option<&Spanned<String>>, field: &str, fields: Fields) -> Result<Host, HostsError> {
        let override_path = fields.override_path.unwrap_or_default();
        let base = url
            .map(|url| base_url(url.get_ref(), override_path).map_err(|why| self.field(field, url, why)))
            .transpose()?;
        let capabilities = match &fields.capabilities {
            Some(list) => {
                capabilities(list.get_ref()).map_err(|why| self.field("capabilities", list, why))?
            }
            None => Capabilities::ALL,
        };
        let dial_timeout = fields
            .dial_timeout
            .map(|text| duration(text.get_ref()).map_err(|why| self.field("dial_timeout", &text, why)))
            .transpose()?;
        let transport = Transport {
            ca: fields.ca.map(|paths| self.paths(paths.into_inner())).unwrap_or_default(),
            client: fields.client.map(|pairs| self.client(&pairs)).transpose()?.flatten(),
            skip_verify: fields.skip_verify.unwrap_or_default(),
            dial_timeout,
        };
        let headers = self.headers(fields.header.unwrap_or_default())?;
        Ok(Host { base, capabilities, transport, headers })
    }

    fn absolute(self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    fn paths(self, paths: Paths) -> Vec<PathBuf> {
        match paths {
            Paths::One(path) => vec![self.absolute(&path)],
            Paths::Many(paths) => paths.iter().map(|path| self.absolute(path)).collect(),
        }
    }

    fn client(self, pairs: &Spanned<Pairs>) -> Result<Option<ClientCertificate>, HostsError> {
        let both = |path: &str| ClientCertificate { certificate: self.absolute(path), key: None };
        let list = match pairs.get_ref() {
            Pairs::One(path) => return Ok(Some(both(path))),
            Pairs::Many(list) => list,
        };
        let pair = match list.as_slice() {
            [] => return Ok(None),
            [pair] => pair,
            _ => return Err(self.field("client", pairs, "only one client certificate a host is supported")),
        };
        match pair {
            Pair::Both(path) => Ok(Some(both(path))),
            Pair::Separate(pair) => match pair.as_slice() {
                [certificate, key] if key.is_empty() => Ok(Some(both(certificate))),
                [certificate, key] => Ok(Some(ClientCertificate {
                    certificate: self.absolute(certificate),
                    key: Some(self.absolute(key)),
                })),
                _ => Err(self.field("client", pairs, "a pair is [certificate, key]")),
            },
        }
    }

    fn headers(self, headers: BTreeMap<Spanned<String>, Values>) -> Result<HeaderMap, HostsError> {
        let mut map = HeaderMap::new();
        for (name, values) in headers {
            let values = match values {
                Values::One(value) => vec![value],
                Values::Many(values) => values,
            };
            let key = HeaderName::from_bytes(name.get_ref().as_bytes())
                .map_err(|_| self.field("header", &name, "not a name that a header can have"))?;
            for value in values {
                let mut value = HeaderValue::from_str(&value)
                    .map_err(|_| self.field("header", &name, "not a value that a header can have"))?;
                // People put keys here. Nobody who prints a request shall print them.
                value.set_sensitive(true);
                map.append(key.clone(), value);
            }
        }
        Ok(map)
    }
}

/// The root of the API: `/v2` is added unless the path has it or is said to be complete.
fn base_url(text: &str, override_path: bool) -> Result<Url, String> {
    let text = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let mut url = Url::parse(&text).map_err(|error| format!("not a URL ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("expected https://host or http://host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL with a login; use docker's config.json for logins".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("a URL with a query or fragment".to_owned());
    }
    // containerd's own manual names it so, yet the API is elsewhere.
    if matches!(url.host_str(), Some("docker.io" | "index.docker.io")) {
        url.set_host(Some(super::DOCKER_HUB)).map_err(|error| error.to_string())?;
    }
    let mut path = url.path().trim_end_matches('/').to_owned();
    if !override_path && !path.ends_with("/v2") {
        path.push_str("/v2");
    }
    url.set_path(&path);
    Ok(url)
}

fn capabilities(list: &[String]) -> Result<Capabilities, String> {
    let mut found = Capabilities::NONE;
    for capability in list {
        match capability.to_ascii_lowercase().as_str() {
            "pull" => found.pull = true,
            "resolve" => found.resolve = true,
            "push" => found.push = true,
            // Listing what refers to a manifest: known to containerd, not asked for by us.
            "referrers" => {}
            _ => return Err(format!("unknown capability {capability:?}; there are pull, resolve and push")),
        }
    }
    // As containerd reads it: an empty list says nothing.
    Ok(if list.is_empty() { Capabilities::ALL } else { found })
}

/// A duration as Go writes it: `500ms`, `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration =
        text.parse().map_err(|_| format!("{text:?} is not a duration such as \"5s\" or \"500ms\""))?;
    match Duration::try_from(duration) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("the time must be longer than nothing".to_owned()),
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
