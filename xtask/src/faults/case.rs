//! What happens to one pull, and how it may end.

use std::time::Duration;

use larder_tests::proxy::Hits;
use larder_tests::{Fault, Proxy, Rule};

use super::raw::RawServer;
use super::world::{Subject, World};

/// How a pull may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// With the image.
    Right,
    /// With one error, which contains one of these.
    Error(&'static [&'static str]),
    /// With the image or one error: where both are right.
    Either,
}

/// A fault with all its choices made. The rules are in the proxy already.
pub struct Case {
    /// The choices, for a person.
    pub what: String,
    /// How it may end.
    pub expect: Expect,
    /// `--retry`; the default where nothing is said.
    pub retry: Option<usize>,
    /// `--stall-timeout`, in seconds.
    pub stall_timeout: u64,
    /// Servers that must live as long as the pull.
    pub others: Vec<Proxy>,
    /// A server in place of the proxy.
    pub raw: Option<RawServer>,
    /// The registry that is named, where the proxy is its mirror, and its `hosts.toml`.
    pub mirrored: Option<(String, String)>,
}

impl Case {
    /// One that ends well.
    pub fn right(what: impl Into<String>) -> Self {
        Self::new(what, Expect::Right)
    }

    /// One that ends with an error that contains one of these texts.
    pub fn fails(what: impl Into<String>, texts: &'static [&'static str]) -> Self {
        // A fault that lasts is tried twice, so that retrying is part of it and does not take all day.
        Self { retry: Some(1), ..Self::new(what, Expect::Error(texts)) }
    }

    /// One that may end either way.
    pub fn either(what: impl Into<String>) -> Self {
        Self { retry: Some(1), ..Self::new(what, Expect::Either) }
    }

    fn new(what: impl Into<String>, expect: Expect) -> Self {
        Self {
            what: what.into(),
            expect,
            retry: None,
            stall_timeout: 5,
            others: Vec::new(),
            raw: None,
            mirrored: None,
        }
    }

    /// One in which something stands still.
    pub fn soon(self) -> Self {
        Self { stall_timeout: 1, ..self }
    }
}

/// How long a fault lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// So many requests, and then no longer.
    Times(u64),
    /// For ever.
    Always,
}

/// What is asked of a registry.
#[derive(Debug, Clone)]
pub struct Target {
    /// A part of the request's path.
    pub path: String,
    /// Bytes of the answer.
    pub size: u64,
    /// `manifest`, `configuration` or `layer`.
    pub kind: &'static str,
}

impl Target {
    /// Requests for it.
    pub fn rule(&self, span: Span) -> Rule {
        let rule = Rule::get(&self.path);
        match span {
            Span::Times(times) => rule.times(times),
            Span::Always => rule,
        }
    }
}

/// What the choices are made from.
pub struct Draw<'a> {
    /// The choices of this pull.
    pub rng: fastrand::Rng,
    /// All that there is.
    pub world: &'a World,
    /// What is pulled.
    pub subject: &'a Subject,
    /// Where it is pulled from.
    pub proxy: &'a Proxy,
    /// How often the rules were applied: a fault that never happens proves nothing.
    pub hits: Vec<Hits>,
}

impl Draw<'_> {
    /// One of these.
    pub fn one<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.rng.usize(..list.len())].clone()
    }

    /// The manifest that the tag stands for.
    pub fn manifest(&self) -> Target {
        let size = self.subject.target().manifest.size();
        Target { path: "/manifests/v1".to_owned(), size, kind: "manifest" }
    }

    /// A blob: the configuration now and then, a layer mostly.
    pub fn blob(&mut self) -> Target {
        let blobs = self.subject.blobs();
        let number = self.rng.usize(..blobs.len());
        let blob = &blobs[number];
        let kind = if number == 0 { "configuration" } else { "layer" };
        Target { path: format!("/blobs/{}", blob.digest), size: blob.size(), kind }
    }

    /// The last layer that is larger than so much, else the largest.
    pub fn layer_over(&self, size: u64) -> Target {
        let layers = self.subject.image.layers();
        let found = layers.iter().find(|layer| layer.size() > size);
        let blob =
            found.or(layers.iter().max_by_key(|layer| layer.size())).unwrap_or(&self.subject.image.manifest);
        Target { path: format!("/blobs/{}", blob.digest), size: blob.size(), kind: "layer" }
    }

    /// Any of them.
    pub fn target(&mut self) -> Target {
        if self.rng.u8(..4) == 0 { self.manifest() } else { self.blob() }
    }

    /// A place in so many bytes, from each class: the beginning, the end, and in between.
    pub fn offset(&mut self, size: u64) -> u64 {
        let last = size.saturating_sub(1);
        let places = [0, 1, last, size / 2, 4096.min(last), 65_536.min(last), self.rng.u64(..size.max(1))];
        self.one(&places).min(last)
    }

    /// One that passes: few enough times that no retry is needed above the blob's own.
    pub fn passing(&mut self) -> Span {
        Span::Times(self.rng.u64(1..=2))
    }

    /// One that passes, or one that does not.
    pub fn span(&mut self) -> Span {
        if self.rng.bool() { self.passing() } else { Span::Always }
    }

    /// Adds a rule to the proxy.
    pub fn add(&mut self, target: &Target, span: Span, faults: impl IntoIterator<Item = Fault>) {
        self.hit(faults.into_iter().fold(target.rule(span), Rule::then));
    }

    /// The same with a rule of any kind.
    pub fn hit(&mut self, rule: Rule) {
        let hits = self.proxy.add(rule);
        self.hits.push(hits);
    }

    /// The usual case: the same fault for a while, after which all is well, or for ever, which is an error.
    pub fn while_it_lasts(
        &mut self,
        target: &Target,
        what: &str,
        faults: Vec<Fault>,
        texts: &'static [&'static str],
    ) -> Case {
        let span = self.span();
        self.add(target, span, faults);
        let what = format!("{what} of a {} of {} bytes, {span:?}", target.kind, target.size);
        if span == Span::Always { Case::fails(what, texts) } else { Case::right(what) }
    }
}

/// Longer than any pull may take.
pub const NEVER: Duration = Duration::from_secs(24 * 60 * 60);
