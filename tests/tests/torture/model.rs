//! What a store may hold after commands that ran at once, some of which were killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use crate::{
    command::{Effect, Planned},
    shop::Id,
};

/// Names, and the images that they stand for.
pub type Names = BTreeMap<String, Id>;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Done,
    /// It said why not, and that is a matter of the order in which things happened.
    Refused,
    Killed,
}

/// A command that was run.
#[derive(Debug, Clone)]
pub struct Played {
    pub planned: Planned,
    pub begin: Instant,
    pub end: Instant,
    pub outcome: Outcome,
    pub said: String,
}

impl Played {
    fn on<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Effect> {
        self.planned.effects.iter().filter(move |effect| effect.name == name)
    }
}

/// What a name may stand for when all is over; `None` is nothing.
///
/// What a command did counts unless one that succeeded has begun after its end: that one's word is the later. What was
/// there before counts if nobody has succeeded with anything else.
pub fn possible(before: &Names, played: &[Played], name: &str) -> BTreeSet<Option<Id>> {
    let overruled = |end: Option<Instant>| {
        played.iter().any(|other| {
            other.outcome == Outcome::Done
                && other.on(name).next().is_some()
                && end.is_none_or(|end| other.begin > end)
        })
    };
    let mut possible = BTreeSet::new();
    if !overruled(None) {
        possible.insert(before.get(name).cloned());
    }
    for one in played.iter().filter(|one| !overruled(Some(one.end))) {
        possible.extend(one.on(name).map(|effect| effect.to.clone()));
    }
    possible
}

/// What is wrong with what is there now.
pub fn judge<'a>(
    before: &Names,
    played: &[Played],
    now: &Names,
    names: impl Iterator<Item = &'a str>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for name in names {
        let possible = possible(before, played, name);
        let found = now.get(name).cloned();
        if !possible.contains(&found) {
            wrong.push(format!("{name} is {found:?}, and may be one of {possible:?}"));
        }
    }
    for one in played.iter().filter(|one| one.outcome == Outcome::Refused) {
        // A refusal is true only if one of the names may have been away.
        let away = |name: &String| {
            let taken = |other: &Played| {
                other.planned.effects.iter().any(|effect| effect.name == *name && effect.to.is_none())
            };
            !before.contains_key(name) || played.iter().any(taken)
        };
        let told = one.planned.is_told_absence(&one.said);
        let changed = one.said.contains("changed while");
        if !told || !(changed || one.planned.needs.iter().any(away)) {
            wrong.push(format!("larder {} failed: {}", one.planned.args.join(" "), one.said.trim()));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use std::{sync::LazyLock, time::Duration};

    use super::*;

    fn played(outcome: Outcome, from: u64, to: u64, effect: Option<&str>) -> Played {
        static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        let at = |second| *BEGIN + Duration::from_secs(second);
        let effects = vec![Effect { name: "name".to_owned(), to: effect.map(str::to_owned) }];
        let (args, needs, said) = (Vec::new(), vec!["name".to_owned()], "No such image: name".to_owned());
        let planned = Planned { verb: "test", args, effects, needs, output: None };
        Played { planned, begin: at(from), end: at(to), outcome, said }
    }

    fn after(all: &[Played]) -> BTreeSet<Option<Id>> {
        possible(&[("name".to_owned(), "old".to_owned())].into(), all, "name")
    }

    #[test]
    fn a_success_overrules_what_ended_before_it_began_and_nothing_else() {
        let [old, new, other] = ["old", "new", "other"].map(|id| Some(id.to_owned()));
        let done = played(Outcome::Done, 10, 20, Some("new"));
        assert_eq!(after(std::slice::from_ref(&done)), [new.clone()].into());
        let killed = |from, to| played(Outcome::Killed, from, to, Some("other"));
        assert_eq!(after(&[killed(1, 2)]), [old, other.clone()].into());
        assert_eq!(after(&[killed(1, 9), done.clone()]), [new.clone()].into());
        assert_eq!(after(&[killed(1, 11), done.clone()]), [new.clone(), other.clone()].into());
        assert_eq!(after(&[done, killed(30, 31)]), [new, other].into());
    }

    #[test]
    fn a_loss_and_a_lie_are_found() {
        let before = Names::from([("name".to_owned(), "old".to_owned())]);
        let judge = |all: &[Played], now: &Names| judge(&before, all, now, ["name"].into_iter()).len();
        assert_eq!(judge(&[], &before), 0);
        assert_eq!(judge(&[], &Names::new()), 1);
        assert_eq!(judge(&[played(Outcome::Killed, 1, 2, None)], &Names::new()), 0);
        // Nobody had taken it, and a command says that it was not there.
        assert_eq!(judge(&[played(Outcome::Refused, 1, 2, Some("old"))], &before), 1);
        let taken = played(Outcome::Killed, 1, 2, None);
        assert_eq!(judge(&[played(Outcome::Refused, 1, 2, Some("old")), taken], &before), 0);
    }
}
