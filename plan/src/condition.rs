//! Conditions whose transition times move only when their statuses do.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use larder_crds::{ConditionReason, ConditionType, MAX_MESSAGE};

/// What a condition is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The condition's type.
    pub kind: ConditionType,
    /// True or False; an agent and an operator that run always know.
    pub holds: bool,
    /// Why, in a word.
    pub reason: ConditionReason,
    /// Why, in a sentence.
    pub message: String,
}

/// The conditions that state `verdicts`, for an object of generation `generation`, at `now`.
///
/// `lastTransitionTime` is carried over from `previous` where the status is the same, as `metav1.Condition` demands.
#[must_use]
pub fn next(
    previous: &[Condition],
    verdicts: Vec<Verdict>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    verdicts
        .into_iter()
        .map(|verdict| {
            let status = if verdict.holds { "True" } else { "False" };
            let since = previous
                .iter()
                .find(|condition| condition.type_ == verdict.kind.as_str() && condition.status == status)
                .map_or_else(|| Time(whole_seconds(now)), |condition| condition.last_transition_time.clone());
            Condition {
                type_: verdict.kind.as_str().to_owned(),
                status: status.to_owned(),
                reason: verdict.reason.as_str().to_owned(),
                message: shorten(&verdict.message),
                observed_generation: generation,
                last_transition_time: since,
            }
        })
        .collect()
}

/// A message cut to the length that a status carries, at a character boundary.
#[must_use]
pub fn shorten(message: &str) -> String {
    if message.len() <= MAX_MESSAGE {
        return message.to_owned();
    }
    let end =
        (0..=MAX_MESSAGE - '…'.len_utf8()).rev().find(|&end| message.is_char_boundary(end)).unwrap_or(0);
    format!("{}…", &message[..end])
}

/// The API server keeps times in whole seconds: a fraction would make every status look changed.
#[must_use]
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// How far `present` of `total` bytes are, in per cent. Never 100 before `done`: the last byte is not the last step.
#[must_use]
pub fn progress(present: i64, total: i64, done: bool) -> String {
    if done {
        return "100%".to_owned();
    }
    let hundredths = i128::from(present.max(0)) * 100 / i128::from(total.max(1));
    format!("{}%", hundredths.min(99))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(holds: bool, message: &str) -> Vec<Verdict> {
        let reason = if holds { ConditionReason::AllImagesReady } else { ConditionReason::ImagesProgressing };
        vec![Verdict { kind: ConditionType::Ready, holds, reason, message: message.to_owned() }]
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let first = next(&[], ready(false, "a"), Some(1), at(10));
        let same = next(&first, ready(false, "b"), Some(2), at(20));
        assert_eq!((same[0].last_transition_time.0, same[0].message.as_str()), (at(10), "b"));
        assert_eq!(same[0].observed_generation, Some(2));
        let changed = next(&same, ready(true, "c"), Some(2), at(30));
        assert_eq!(changed[0].last_transition_time.0, at(30));
    }

    #[test]
    fn messages_are_cut_at_a_character() {
        let long = "é".repeat(600);
        let cut = shorten(&long);
        assert!(cut.len() <= MAX_MESSAGE && cut.ends_with('…'));
        assert_eq!(shorten("short"), "short");
    }

    #[test]
    fn progress_is_whole_only_when_done() {
        assert_eq!(progress(10, 10, false), "99%");
        assert_eq!(progress(0, 0, false), "0%");
        assert_eq!(progress(0, 0, true), "100%");
        assert_eq!(progress(2, 3, false), "66%");
        assert_eq!(progress(i64::MAX, 1, false), "99%");
    }
}
