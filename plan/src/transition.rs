//! What a new status is worth telling a person: the events of an `ImageCache`.
//!
//! Decided from the conditions that the API server has and those that are about to replace them, and from nothing else:
//! an operator that was restarted tells nothing anew.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use larder_crds::ConditionType;

/// One thing that has changed, as an event tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Whether something is wrong. Otherwise it is news.
    pub is_warning: bool,
    /// The condition's reason, from the closed list.
    pub reason: String,
    /// The condition's message.
    pub message: String,
}

/// What replacing the conditions `previous` by `next` is worth telling: at most one transition a reason.
///
/// Told are: Ready begins or ends; Stalled begins or ends; failures (Degraded) begin, or end while others go on. A
/// condition that keeps its status tells nothing, whatever becomes of its message.
#[must_use]
pub fn transitions(previous: &[Condition], next: &[Condition]) -> Vec<Transition> {
    let was = |kind: ConditionType| holds(previous, kind);
    let is = |kind: ConditionType| holds(next, kind);
    let began = |kind| is(kind) == Some(true) && was(kind) != Some(true);
    let ended = |kind| is(kind) == Some(false) && was(kind) == Some(true);
    let is_wrong = is(ConditionType::Stalled) == Some(true) || is(ConditionType::Degraded) == Some(true);
    let is_ready = is(ConditionType::Ready) == Some(true);
    let ready_changed =
        is(ConditionType::Ready).is_some() && was(ConditionType::Ready) != is(ConditionType::Ready);

    let mut told: Vec<Transition> = Vec::new();
    let mut tell = |kind: ConditionType, is_warning: bool| {
        let Some(condition) = find(next, kind) else { return };
        // One cause often moves several conditions; it is told once.
        if told.iter().all(|earlier| earlier.reason != condition.reason) {
            let (reason, message) = (condition.reason.clone(), condition.message.clone());
            told.push(Transition { is_warning, reason, message });
        }
    };
    for kind in [ConditionType::Stalled, ConditionType::Degraded] {
        if began(kind) {
            tell(kind, true);
        }
    }
    if ready_changed || ended(ConditionType::Stalled) {
        tell(ConditionType::Ready, is_wrong && !is_ready);
    }
    // Otherwise that it is ready says it already.
    if ended(ConditionType::Degraded) && !is_ready {
        tell(ConditionType::Degraded, false);
    }
    told
}

fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// Nothing where it is unknown, as on an object that no operator has seen.
fn holds(conditions: &[Condition], kind: ConditionType) -> Option<bool> {
    match find(conditions, kind)?.status.as_str() {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

    use super::*;

    /// Conditions in the order Ready, Stalled, Degraded; `+` holds, `-` does not, `?` is not known.
    fn conditions(statuses: &str, reason: &str) -> Vec<Condition> {
        [ConditionType::Ready, ConditionType::Stalled, ConditionType::Degraded]
            .into_iter()
            .zip(statuses.chars())
            .map(|(kind, status)| Condition {
                type_: kind.as_str().to_owned(),
                status: match status {
                    '+' => "True",
                    '-' => "False",
                    _ => "Unknown",
                }
                .to_owned(),
                reason: if kind == ConditionType::Degraded && status == '-' { "NoFailures" } else { reason }
                    .to_owned(),
                message: "…".to_owned(),
                observed_generation: None,
                last_transition_time: Time(Timestamp::UNIX_EPOCH),
            })
            .collect()
    }

    fn told(previous: (&str, &str), next: (&str, &str)) -> Vec<String> {
        let next = conditions(next.0, next.1);
        transitions(&conditions(previous.0, previous.1), &next)
            .into_iter()
            .map(|told| format!("{}{}", if told.is_warning { "!" } else { "" }, told.reason))
            .collect()
    }

    #[test]
    fn each_change_is_told_once_and_nothing_else() {
        for (previous, next, expected) in [
            (("?", "Pending"), ("---", "ImagesProgressing"), &["ImagesProgressing"] as &[&str]),
            (("?", "Pending"), ("+--", "AllImagesReady"), &["AllImagesReady"]),
            (("?", "Pending"), ("-+-", "InvalidSpec"), &["!InvalidSpec"]),
            (("", ""), ("---", "NoAgents"), &["NoAgents"]),
            (("---", "ImagesProgressing"), ("---", "ImagesProgressing"), &[]),
            (("---", "NoAgents"), ("---", "ImagesProgressing"), &[]),
            (("---", "ImagesProgressing"), ("+--", "AllImagesReady"), &["AllImagesReady"]),
            (("+--", "AllImagesReady"), ("+--", "NoMatchingNodes"), &[]),
            (("+--", "AllImagesReady"), ("---", "ImagesProgressing"), &["ImagesProgressing"]),
            (("+--", "AllImagesReady"), ("--+", "ImagesFailing"), &["!ImagesFailing"]),
            (("---", "ImagesProgressing"), ("--+", "ImagesFailing"), &["!ImagesFailing"]),
            (("--+", "ImagesFailing"), ("-++", "ImagesUnavailable"), &["!ImagesUnavailable"]),
            (("-++", "ImagesUnavailable"), ("--+", "ImagesFailing"), &["!ImagesFailing"]),
            (("-++", "ImagesUnavailable"), ("+--", "AllImagesReady"), &["AllImagesReady"]),
            (("--+", "ImagesFailing"), ("---", "ImagesProgressing"), &["NoFailures"]),
            (("--+", "ImagesFailing"), ("+--", "AllImagesReady"), &["AllImagesReady"]),
            (("-+-", "InvalidSpec"), ("---", "ImagesProgressing"), &["ImagesProgressing"]),
            (("-+-", "InvalidSpec"), ("-++", "ImagesUnavailable"), &["!ImagesUnavailable"]),
        ] {
            assert_eq!(told(previous, next), expected, "{previous:?} → {next:?}");
        }
    }

    #[test]
    fn what_stays_is_never_told() {
        for statuses in ["---", "+--", "-+-", "--+", "-++"] {
            assert!(told((statuses, "A"), (statuses, "B")).is_empty(), "{statuses}");
        }
    }
}
