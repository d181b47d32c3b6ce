//! What an `ImageCache`'s conditions say, as kstatus reads them
//! (<https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md>): `Reconciling` is work under way,
//! `Stalled` is what only a person can mend, and never both.

use larder_crds::{ConditionReason, ConditionType, ImageFailure, NodeCounts};

use crate::condition::Verdict;

/// How things stand.
#[allow(clippy::struct_excessive_bools, reason = "facts that do not depend on each other")]
pub(crate) struct Picture<'a> {
    pub counts: NodeCounts,
    /// How many images there are to hold.
    pub images: usize,
    pub has_selector: bool,
    pub is_paused: bool,
    /// Selected nodes in service that no agent has reported from.
    pub without_agent: i32,
    /// A node on which an image failed is still fetching another.
    pub is_fetching: bool,
    /// Every failure is one that only a person mends.
    pub needs_person: bool,
    pub first_failure: Option<&'a ImageFailure>,
    pub progress: String,
}

impl Picture<'_> {
    /// Whether all nodes that are waited for hold all images.
    pub fn is_done(&self) -> bool {
        let NodeCounts { selected, ready, unavailable, .. } = self.counts;
        // On a fresh install nodes and agents are about to start: nobody who waits for Ready should be told so before.
        if selected == 0 { self.has_selector } else { ready > 0 && ready + unavailable == selected }
    }

    /// Whether something is under way, or comes by itself when something else is done.
    fn is_progressing(&self) -> bool {
        self.counts.progressing > 0 || self.is_fetching || (self.counts.waiting > 0 && !self.is_paused)
    }

    /// What the work under way is called.
    fn work(&self) -> ConditionReason {
        match self.counts {
            NodeCounts { waiting: 1.., .. } if self.is_paused => ConditionReason::Paused,
            NodeCounts { waiting: 1.., .. } => ConditionReason::RollingOut,
            NodeCounts { progressing: 1.., .. } => ConditionReason::ImagesProgressing,
            _ if self.is_fetching => ConditionReason::ImagesProgressing,
            NodeCounts { failed: 1.., .. } => ConditionReason::ImagesFailing,
            _ => ConditionReason::NodesUnavailable,
        }
    }
}

/// Condition by condition: whether it holds, and why.
struct Verdicts {
    ready: (bool, ConditionReason),
    reconciling: (bool, ConditionReason),
    stalled: (bool, ConditionReason),
    degraded: (bool, ConditionReason),
}

impl Verdicts {
    fn say(self, message: &str) -> Vec<Verdict> {
        ConditionType::ALL
            .into_iter()
            .map(|kind| {
                let (holds, reason) = match kind {
                    ConditionType::Ready => self.ready,
                    ConditionType::Reconciling => self.reconciling,
                    ConditionType::Stalled => self.stalled,
                    ConditionType::Degraded => self.degraded,
                };
                let message = if reason == ConditionReason::NoFailures {
                    "No image has failed".to_owned()
                } else {
                    message.to_owned()
                };
                Verdict { kind, holds, reason, message }
            })
            .collect()
    }
}

/// The conditions of a cache that cannot be used.
pub(crate) fn invalid(why: &str) -> Vec<Verdict> {
    use ConditionReason::{InvalidSpec, NoFailures};
    let verdicts = Verdicts {
        ready: (false, InvalidSpec),
        reconciling: (false, InvalidSpec),
        stalled: (true, InvalidSpec),
        degraded: (false, NoFailures),
    };
    verdicts.say(&format!("{why}. Nodes keep what they hold until this is mended"))
}

/// The conditions of a cache that can be used.
pub(crate) fn verdicts(picture: &Picture<'_>) -> Vec<Verdict> {
    use ConditionReason::{
        AllImagesReady, ImagesFailing, ImagesUnavailable, NoAgents, NoFailures, NoMatchingNodes, Paused,
    };
    let settled = |reason| Verdicts {
        ready: (true, reason),
        reconciling: (false, reason),
        stalled: (false, reason),
        degraded: (false, NoFailures),
    };
    let working = |reason| Verdicts {
        ready: (false, reason),
        reconciling: (true, reason),
        stalled: (false, reason),
        degraded: (false, NoFailures),
    };
    let verdicts = if picture.is_done() {
        settled(if picture.counts.selected == 0 { NoMatchingNodes } else { AllImagesReady })
    } else if picture.counts.selected == 0 {
        working(NoAgents)
    } else if picture.first_failure.is_none() {
        match picture.work() {
            // It waits for a person, who wanted it so: nothing is wrong.
            Paused if picture.counts.progressing == 0 => {
                Verdicts { reconciling: (false, Paused), ..working(Paused) }
            }
            work => working(work),
        }
    } else if picture.is_progressing() || !picture.needs_person {
        Verdicts {
            ready: (false, ImagesFailing),
            reconciling: (true, picture.work()),
            stalled: (false, ImagesFailing),
            degraded: (true, ImagesFailing),
        }
    } else {
        Verdicts {
            ready: (false, ImagesUnavailable),
            reconciling: (false, ImagesUnavailable),
            stalled: (true, ImagesUnavailable),
            degraded: (true, ImagesUnavailable),
        }
    };
    verdicts.say(&message(picture))
}

fn message(picture: &Picture<'_>) -> String {
    let NodeCounts { selected, ready, progressing, failed, waiting, unavailable } = picture.counts;
    let images = match picture.images {
        1 => "the image".to_owned(),
        number => format!("all {number} images"),
    };
    let paused = if picture.is_paused { "; changes wait while spec.paused is true" } else { "" };
    match (selected, picture.has_selector) {
        (0, true) => return "The selector matches no node: nothing to do until one does".to_owned(),
        (0, false) => return "Waiting for the first node's agent to report".to_owned(),
        _ if picture.images == 0 => return format!("No images are listed: nothing to hold{paused}"),
        (1, _) if ready == 1 => return format!("The node holds {images}{paused}"),
        _ if ready == selected => return format!("All {selected} nodes hold {images}{paused}"),
        _ => {}
    }
    let nodes = if selected == 1 { "node holds" } else { "nodes hold" };
    let fetching = progressing - picture.without_agent;
    let verb = |number: i32, one: &'static str, many: &'static str| if number == 1 { one } else { many };
    let mut parts = vec![format!("{ready} of {selected} {nodes} {images}")];
    if fetching > 0 {
        parts.push(format!("{fetching} {} fetching ({})", verb(fetching, "is", "are"), picture.progress));
    }
    if waiting > 0 {
        let what = if picture.is_paused { "since spec.paused is true" } else { "for their turn" };
        let what = if waiting == 1 && !picture.is_paused { "for its turn" } else { what };
        parts.push(format!("{waiting} {} {what}", verb(waiting, "waits", "wait")));
    }
    if picture.without_agent > 0 {
        let without = picture.without_agent;
        parts.push(format!("{without} {} no agent yet", verb(without, "has", "have")));
    }
    if unavailable > 0 {
        let are = verb(unavailable, "is", "are");
        parts.push(format!("{unavailable} {are} not waited for (cordoned or not ready)"));
    }
    if failed > 0 {
        parts.push(format!("{failed} failed"));
    }
    let first = picture.first_failure.map(|failure| {
        format!(". First failure: {} on {}: {}", failure.image, failure.node, failure.message)
    });
    parts.join("; ") + &first.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use larder_crds::FailureReason;

    use super::*;

    fn failure() -> ImageFailure {
        ImageFailure {
            node: "n3".to_owned(),
            image: "app:1".to_owned(),
            reason: FailureReason::NotFound,
            message: "no such tag".to_owned(),
            retry_time: None,
        }
    }

    fn picture(selected: i32, ready: i32, progressing: i32, failure: Option<&ImageFailure>) -> Picture<'_> {
        Picture {
            counts: NodeCounts {
                selected,
                ready,
                progressing,
                failed: selected - ready - progressing,
                waiting: 0,
                unavailable: 0,
            },
            images: 2,
            has_selector: true,
            is_paused: false,
            without_agent: 0,
            is_fetching: false,
            needs_person: true,
            first_failure: failure,
            progress: "67%".to_owned(),
        }
    }

    fn shown(picture: &Picture<'_>) -> (String, &'static str, String) {
        let verdicts = verdicts(picture);
        let holding = verdicts
            .iter()
            .filter(|verdict| verdict.holds)
            .map(|verdict| verdict.kind.as_str())
            .collect::<Vec<_>>();
        (holding.join(" "), verdicts[0].reason.as_str(), verdicts[0].message.clone())
    }

    #[test]
    fn conditions_and_their_words() {
        let failure = failure();
        let of = |selected, ready, progressing| picture(selected, ready, progressing, None);
        let failing = |selected, ready, progressing| picture(selected, ready, progressing, Some(&failure));
        let first = ". First failure: app:1 on n3: no such tag";
        for (picture, holding, reason, message) in [
            (
                of(0, 0, 0),
                "Ready",
                "NoMatchingNodes",
                "The selector matches no node: nothing to do until one does",
            ),
            (
                Picture { has_selector: false, ..of(0, 0, 0) },
                "Reconciling",
                "NoAgents",
                "Waiting for the first node's agent to report",
            ),
            (of(3, 3, 0), "Ready", "AllImagesReady", "All 3 nodes hold all 2 images"),
            (Picture { images: 1, ..of(1, 1, 0) }, "Ready", "AllImagesReady", "The node holds the image"),
            (
                Picture { images: 0, ..of(3, 3, 0) },
                "Ready",
                "AllImagesReady",
                "No images are listed: nothing to hold",
            ),
            (
                of(3, 2, 1),
                "Reconciling",
                "ImagesProgressing",
                "2 of 3 nodes hold all 2 images; 1 is fetching (67%)",
            ),
            (
                Picture { without_agent: 1, ..of(4, 1, 3) },
                "Reconciling",
                "ImagesProgressing",
                "1 of 4 nodes hold all 2 images; 2 are fetching (67%); 1 has no agent yet",
            ),
            (
                failing(3, 1, 1),
                "Reconciling Degraded",
                "ImagesFailing",
                &format!("1 of 3 nodes hold all 2 images; 1 is fetching (67%); 1 failed{first}"),
            ),
            (
                Picture { is_fetching: true, ..failing(3, 2, 0) },
                "Reconciling Degraded",
                "ImagesFailing",
                &format!("2 of 3 nodes hold all 2 images; 1 failed{first}"),
            ),
            (
                Picture { needs_person: false, ..failing(3, 1, 0) },
                "Reconciling Degraded",
                "ImagesFailing",
                &format!("1 of 3 nodes hold all 2 images; 2 failed{first}"),
            ),
            (
                failing(1, 0, 0),
                "Stalled Degraded",
                "ImagesUnavailable",
                &format!("0 of 1 node holds all 2 images; 1 failed{first}"),
            ),
        ] {
            assert_eq!(shown(&picture), (holding.to_owned(), reason, message.to_owned()));
        }
    }

    #[test]
    fn roll_outs_pauses_and_nodes_out_of_service() {
        let failure = failure();
        let of = |counts: NodeCounts| Picture { counts, ..picture(12, 0, 12, None) };
        let counts =
            NodeCounts { selected: 12, ready: 2, progressing: 3, failed: 0, waiting: 7, unavailable: 0 };
        let paused = |counts| Picture { is_paused: true, ..of(counts) };
        let waiting = NodeCounts { ready: 11, progressing: 0, waiting: 1, ..counts };
        let away = NodeCounts { ready: 10, progressing: 0, waiting: 0, unavailable: 2, ..counts };
        let wrong = NodeCounts { progressing: 0, failed: 1, waiting: 9, ..counts };
        let first = ". First failure: app:1 on n3: no such tag";
        for (picture, holding, reason, message) in [
            (
                of(counts),
                "Reconciling",
                "RollingOut",
                "2 of 12 nodes hold all 2 images; 3 are fetching (67%); 7 wait for their turn".to_owned(),
            ),
            (
                paused(counts),
                "Reconciling",
                "Paused",
                "2 of 12 nodes hold all 2 images; 3 are fetching (67%); 7 wait since spec.paused is true"
                    .to_owned(),
            ),
            (
                paused(waiting),
                "",
                "Paused",
                "11 of 12 nodes hold all 2 images; 1 waits since spec.paused is true".to_owned(),
            ),
            (
                paused(NodeCounts { ready: 12, waiting: 0, ..waiting }),
                "Ready",
                "AllImagesReady",
                "All 12 nodes hold all 2 images; changes wait while spec.paused is true".to_owned(),
            ),
            (
                of(away),
                "Ready",
                "AllImagesReady",
                "10 of 12 nodes hold all 2 images; 2 are not waited for (cordoned or not ready)".to_owned(),
            ),
            (
                of(NodeCounts { ready: 0, unavailable: 12, ..away }),
                "Reconciling",
                "NodesUnavailable",
                "0 of 12 nodes hold all 2 images; 12 are not waited for (cordoned or not ready)".to_owned(),
            ),
            (
                Picture { first_failure: Some(&failure), ..of(wrong) },
                "Reconciling Degraded",
                "ImagesFailing",
                format!("2 of 12 nodes hold all 2 images; 9 wait for their turn; 1 failed{first}"),
            ),
            (
                Picture { first_failure: Some(&failure), ..paused(wrong) },
                "Stalled Degraded",
                "ImagesUnavailable",
                format!("2 of 12 nodes hold all 2 images; 9 wait since spec.paused is true; 1 failed{first}"),
            ),
        ] {
            assert_eq!(shown(&picture), (holding.to_owned(), reason, message));
        }
    }

    #[test]
    fn an_invalid_specification_stalls() {
        let holding: Vec<_> =
            invalid("x").into_iter().filter(|verdict| verdict.holds).map(|verdict| verdict.kind).collect();
        assert_eq!(holding, [ConditionType::Stalled]);
    }
}
