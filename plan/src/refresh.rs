//! When tags are looked up again: by the clock or by the calendar, at another moment on each node.

use std::time::Duration;

use cronexpr::{Crontab, MakeTimestamp};
use jiff::{SignedDuration, Timestamp};
use larder_crds::RefreshRule;

/// The most that a look by the calendar comes late: nodes spread over this time, so that a registry does not have them all
/// at midnight.
const SPREAD: Duration = Duration::from_secs(60);

/// The shorthands of crontab(5) that name a time.
const SHORTHANDS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// Which node it is, as far as it matters when it looks: some number that is another on each node, and the same after a
/// restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// The number of the node of this name.
    #[must_use]
    pub fn of(node: &str) -> Self {
        // FNV-1a. What std offers may differ from one version to the next.
        Self(node.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }

    /// Some part of `whole`.
    fn part_of(self, whole: Duration) -> SignedDuration {
        let seconds = whole.as_secs().max(1);
        SignedDuration::from_secs(i64::try_from(self.0 % seconds).unwrap_or_default())
    }
}

/// Why a rule cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// The schedule is no such thing, or never comes.
    Schedule(String),
    /// There is no such time zone.
    TimeZone,
}

/// Checks the schedule of a rule, where it has one.
///
/// # Errors
/// [`Unusable`]: what is wrong with it, and what to write instead.
pub fn check(rule: &RefreshRule) -> Result<(), Unusable> {
    let Some(schedule) = &rule.schedule else { return Ok(()) };
    let crontab = parse(schedule, rule.time_zone.as_deref())?;
    match crontab.find_next(MakeTimestamp(Timestamp::UNIX_EPOCH)) {
        Ok(_) => Ok(()),
        Err(_) => Err(Unusable::Schedule("it never comes: no month has such a day".to_owned())),
    }
}

fn parse(schedule: &str, time_zone: Option<&str>) -> Result<Crontab, Unusable> {
    let named = SHORTHANDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(schedule));
    let fields = named.map_or(schedule, |(_, fields)| fields);
    // The library takes a sixth field for the time zone; ours has a field of its own, and its absence a meaning.
    if fields.split_ascii_whitespace().count() != 5 {
        let why = "it must have five fields: minute, hour, day of the month, month, day of the week";
        return Err(Unusable::Schedule(why.to_owned()));
    }
    let zone = time_zone.unwrap_or("UTC");
    if jiff::tz::TimeZone::get(zone).is_err() {
        return Err(Unusable::TimeZone);
    }
    cronexpr::parse_crontab(&format!("{fields} {zone}")).map_err(|error| {
        // The message is drawn over three lines, with a pointer to the place.
        let text = error.to_string();
        let why = text.rsplit_once("^ ").map_or(text.as_str(), |(_, why)| why);
        Unusable::Schedule(why.to_owned())
    })
}

/// The next time to look, for one who looked at `last`; in the past where it was missed. Nothing for a rule that cannot be
/// used, and for one that says nothing.
///
/// By the clock it is up to a tenth of the interval earlier than asked for, by the calendar up to a minute later.
#[must_use]
pub fn next(rule: &RefreshRule, last: Timestamp, seed: Seed) -> Option<Timestamp> {
    if let Some(schedule) = &rule.schedule {
        let crontab = parse(schedule, rule.time_zone.as_deref()).ok()?;
        let time = crontab.find_next(MakeTimestamp(last)).ok()?.timestamp();
        return time.checked_add(seed.part_of(SPREAD)).ok();
    }
    let seconds = u64::try_from(rule.interval_seconds?).ok().filter(|&seconds| seconds > 0)?;
    let interval = Duration::from_secs(seconds);
    let early = seed.part_of(interval / 10);
    last.checked_add(SignedDuration::try_from(interval).ok()?.checked_sub(early)?).ok()
}

/// The same of several rules: the earliest.
#[must_use]
pub fn next_of(rules: &[RefreshRule], last: Timestamp, seed: Seed) -> Option<Timestamp> {
    rules.iter().filter_map(|rule| next(rule, last, seed)).min()
}

/// When to look for the first time: soon after `now`.
#[must_use]
pub fn first(now: Timestamp, seed: Seed) -> Timestamp {
    now.checked_add(seed.part_of(SPREAD)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(schedule: &str, time_zone: Option<&str>) -> RefreshRule {
        RefreshRule {
            interval_seconds: None,
            schedule: Some(schedule.to_owned()),
            time_zone: time_zone.map(str::to_owned),
        }
    }

    fn every(seconds: i64) -> RefreshRule {
        RefreshRule { interval_seconds: Some(seconds), ..RefreshRule::default() }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn schedules_are_crons() {
        for (schedule, zone, last, expected) in [
            ("0 3 * * *", None, "2026-11-25T19:00:00Z", "2026-11-26T03:00:00Z"),
            ("0 3 * * *", Some("Europe/Berlin"), "2026-11-25T19:00:00Z", "2026-11-26T02:00:00Z"),
            ("0 3 * * *", Some("Europe/Berlin"), "2026-06-25T19:00:00Z", "2026-06-26T01:00:00Z"),
            ("*/15 8-18 * * mon-fri", None, "2026-11-27T18:46:00Z", "2026-11-30T08:00:00Z"),
            ("0 0 29 2 *", None, "2026-11-25T19:00:00Z", "2028-02-29T00:00:00Z"),
            ("@daily", Some("Asia/Kolkata"), "2026-11-25T19:00:00Z", "2026-11-26T18:30:00Z"),
            // On the day that has no such hour, it does not come; as with Kubernetes' CronJobs.
            ("30 2 * * *", Some("Europe/Berlin"), "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"),
        ] {
            assert_eq!(check(&cron(schedule, zone)), Ok(()), "{schedule}");
            let (earliest, found) =
                (at(expected), next(&cron(schedule, zone), at(last), Seed::of("n")).unwrap());
            let late = found.duration_since(earliest).as_secs();
            assert!((0..60).contains(&late), "{schedule} {zone:?} after {last}: {found}, not {expected}");
        }
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        for (schedule, expected) in [
            ("0 0 31 2 *", "it never comes"),
            ("0 0 30 feb *", "it never comes"),
            ("61 * * * *", "range"),
            ("* * *", "five fields"),
            ("0 3 * * * Europe/Berlin", "five fields"),
            ("@reboot", "five fields"),
            ("@sometimes", "five fields"),
            ("a b c d e", ""),
        ] {
            let Err(Unusable::Schedule(why)) = check(&cron(schedule, None)) else { panic!("{schedule}") };
            assert!(why.contains(expected) && !why.contains('\n'), "{schedule}: {why}");
            if expected != "it never comes" {
                assert_eq!(next(&cron(schedule, None), Timestamp::UNIX_EPOCH, Seed::of("n")), None);
            }
        }
        assert_eq!(check(&cron("0 3 * * *", Some("Europe/Atlantis"))), Err(Unusable::TimeZone));
        assert_eq!(check(&every(60)), Ok(()));
    }

    #[test]
    fn nodes_look_at_different_moments_and_never_later_than_asked() {
        let last = at("2026-11-25T19:00:00Z");
        let nodes: Vec<_> = (0..100).map(|number| Seed::of(&format!("node-{number}"))).collect();
        let times: std::collections::BTreeSet<_> =
            nodes.iter().map(|&seed| next(&every(3_600), last, seed).unwrap()).collect();
        assert!(times.len() > 50, "{} moments", times.len());
        for time in times {
            let waited = time.duration_since(last).as_secs();
            assert!((3_240..=3_600).contains(&waited), "{waited}");
        }
        let rules = [every(3_600), cron("5 19 * * *", None)];
        assert!(
            next_of(&rules, last, nodes[0]).unwrap() < at("2026-11-25T19:06:00Z"),
            "the earliest of several"
        );
        assert_eq!(next_of(&[], last, nodes[0]), None);
        assert_eq!(Seed::of("a"), Seed(0xaf63_dc4c_8601_ec8c), "the published value of FNV-1a");
    }
}
