//! What one step of the course cost.

use std::collections::{BTreeMap, HashMap};

/// Writes of one kind of object, by the objects' names.
#[derive(Debug, Clone, Default)]
pub(super) struct Writes(pub(super) HashMap<String, usize>);

impl Writes {
    /// All of them.
    pub(super) fn all(&self) -> usize {
        self.0.values().sum()
    }

    /// How many objects they were of.
    pub(super) fn objects(&self) -> usize {
        self.0.len()
    }

    /// The most of one object.
    pub(super) fn most(&self) -> usize {
        self.0.values().max().copied().unwrap_or_default()
    }

    /// The objects with more than so many.
    pub(super) fn above(&self, limit: usize) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(_, writes)| **writes > limit).map(|(name, _)| name.as_str())
    }
}

/// What one step of the course cost.
#[derive(Debug, Clone)]
pub(super) struct Figures {
    pub(super) name: &'static str,
    /// Until it was done.
    pub(super) seconds: f64,
    /// Until the operator had told the last node, where it told any.
    pub(super) told: Option<f64>,
    /// The operator's writes of `NodeImageCache`s.
    pub(super) specs: Writes,
    /// The agents' writes of their statuses.
    pub(super) statuses: Writes,
    /// The operator's writes of statuses of `ImageCache`s.
    pub(super) cache_statuses: usize,
    pub(super) agent_events: usize,
    pub(super) operator_events: usize,
    /// How often the operator ended, and was started anew.
    pub(super) restarts: usize,
    /// Writes that the API server did not accept: by who wanted what, and its answer.
    pub(super) refused: BTreeMap<String, usize>,
    /// The most statuses that a node was to write, where that was looked at.
    pub(super) limit: Option<usize>,
    /// Nodes that wrote more, although no pull of theirs had failed.
    pub(super) hasty: usize,
    /// Requests for the image that changed, and for others.
    pub(super) registry: [usize; 2],
    /// The operator's CPU in seconds.
    pub(super) cpu: f64,
    /// The operator's memory in MiB: the most that it had in this step, and what it had at the end.
    pub(super) peak: f64,
    pub(super) memory: f64,
    /// The API server's memory at the end, in MiB.
    pub(super) apiserver: f64,
}

impl Figures {
    /// All writes.
    pub(super) fn writes(&self) -> usize {
        self.specs.all()
            + self.statuses.all()
            + self.cache_statuses
            + self.agent_events
            + self.operator_events
    }

    /// How many writes the API server did not accept.
    pub(super) fn refused(&self) -> usize {
        self.refused.values().sum()
    }

    /// In a line, while the course runs.
    pub(super) fn line(&self) -> String {
        let refused: Vec<String> =
            self.refused.iter().map(|(what, times)| format!("{what} ({times})")).collect();
        let refused =
            if refused.is_empty() { String::new() } else { format!("; refused: {}", refused.join(", ")) };
        format!(
            "{}: {:.1} s; writes: {} of specifications, {} of nodes' statuses (at most {} of one), {} of ImageCaches', {} events; \
             operator {:.2} s CPU, {:.0} MiB{refused}",
            self.name,
            self.seconds,
            self.specs.all(),
            self.statuses.all(),
            self.statuses.most(),
            self.cache_statuses,
            self.agent_events + self.operator_events,
            self.cpu,
            self.peak,
        )
    }
}
