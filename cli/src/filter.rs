//! docker's `--filter`.

use std::str::FromStr;

use jiff::{Span, SpanRelativeTo, Timestamp, civil::DateTime, tz::TimeZone};
use larder_oci::{Digest, Pattern};

use crate::{
    Failure,
    catalog::{Catalog, Record},
};

/// One `--filter NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Before the first `=`; `label!` for `label!=`.
    pub name: String,
    /// After it.
    pub value: String,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("bad format of filter (expected name=value)")?;
        Ok(Self { name: name.trim().to_lowercase(), value: value.trim().to_owned() })
    }
}

/// All filters of a command. Values of one name are alternatives, except labels, which must all hold, as in docker.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    dangling: Option<bool>,
    labels: Vec<Label>,
    not_labels: Vec<Label>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    references: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Label {
    key: String,
    value: Option<String>,
}

impl Label {
    fn new(text: &str) -> Self {
        match text.split_once('=') {
            Some((key, value)) => Self { key: key.to_owned(), value: Some(value.to_owned()) },
            None => Self { key: text.to_owned(), value: None },
        }
    }

    fn is_on(&self, record: &Record) -> bool {
        let actual = record.content.config.label(&self.key);
        actual.is_some_and(|actual| self.value.as_deref().is_none_or(|value| value == actual))
    }
}

impl Filters {
    /// Understands filters whose names are among `allowed`. `before` and `since` name images of the catalog; `until`
    /// counts back from `now`.
    pub fn new(
        filters: &[Filter],
        allowed: &[&str],
        catalog: &Catalog,
        now: Timestamp,
    ) -> Result<Self, Failure> {
        let mut all = Self::default();
        for Filter { name, value } in filters {
            if !allowed.contains(&name.as_str()) {
                return Err(Failure::response(format_args!(
                    "invalid filter '{name}'; known are {}",
                    allowed.join(", ")
                )));
            }
            match name.as_str() {
                "dangling" => all.dangling = Some(boolean(name, value)?),
                "label" => all.labels.push(Label::new(value)),
                "label!" => all.not_labels.push(Label::new(value)),
                "before" => all.before = min(all.before, Some(made(catalog, value)?)),
                "since" | "after" => all.since = all.since.max(Some(made(catalog, value)?)),
                "until" => all.until = min(all.until, Some(until(value, now)?)),
                _ => all.references.push(Pattern::docker(value)?),
            }
        }
        Ok(all)
    }

    /// Adds a name or pattern, as the argument of `images` does.
    pub fn add_reference(&mut self, pattern: &str) -> Result<(), Failure> {
        self.references.push(Pattern::docker(pattern)?);
        Ok(())
    }

    /// Whether a record passes.
    #[must_use]
    pub fn pass(&self, catalog: &Catalog, record: &Record) -> bool {
        let created = record.content.created().unwrap_or(Timestamp::UNIX_EPOCH);
        self.dangling.is_none_or(|dangling| dangling != catalog.is_tagged(&record.id))
            && self.labels.iter().all(|label| label.is_on(record))
            && !self.not_labels.iter().any(|label| label.is_on(record))
            && self.before.is_none_or(|before| created < before)
            && self.since.is_none_or(|since| created > since)
            && self.until.is_none_or(|until| created <= until)
            && (self.references.is_empty()
                || self.references.iter().any(|pattern| pattern.matches(record.name())))
    }
}

fn min(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

fn boolean(name: &str, value: &str) -> Result<bool, Failure> {
    match value.to_lowercase().as_str() {
        "true" | "1" | "t" => Ok(true),
        "false" | "0" | "f" => Ok(false),
        _ => Err(Failure::response(format_args!("invalid filter '{name}={value}': write true or false"))),
    }
}

/// When the image that a text stands for was made.
fn made(catalog: &Catalog, text: &str) -> Result<Timestamp, Failure> {
    let found = catalog.find(text)?;
    Ok(found.one(None, text)?.content.created().unwrap_or(Timestamp::UNIX_EPOCH))
}

/// A duration before now (`24h`, `1h30m`, `7d`), a date and time, or seconds since 1970.
fn until(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    let moment = || -> Option<Timestamp> {
        if let Ok(seconds) = text.parse::<i64>() {
            return Timestamp::from_second(seconds).ok();
        }
        if let Ok(span) = text.parse::<Span>() {
            let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
            return now.checked_sub(duration).ok();
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            return Some(time);
        }
        let civil = text.parse::<DateTime>().ok()?;
        civil.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    };
    moment().ok_or_else(|| {
        Failure::response(format_args!(
            "invalid filter 'until={text}': write a duration such as 24h, a time such as 2026-01-31T10:00:00Z, or \
             seconds since 1970"
        ))
    })
}

/// Which images are to be kept whatever else is said: `--except`.
#[derive(Debug, Clone, Default)]
pub struct Kept(Vec<Pattern>);

impl Kept {
    /// Understands the patterns.
    pub fn new(patterns: &[String]) -> Result<Self, Failure> {
        patterns.iter().map(|text| Ok(Pattern::keeping(text)?)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether an image with this name and ID is to be kept.
    #[must_use]
    pub fn keeps(&self, record: &Record) -> bool {
        self.0.iter().any(|pattern| matches(pattern, record, &record.id))
    }

    /// The patterns that match nothing. They are refused unless `go_on`: a slip would delete what was to be kept.
    pub fn checked_idle(&self, catalog: &Catalog, go_on: bool) -> Result<Vec<&str>, Failure> {
        let idle = self.idle(catalog);
        if idle.is_empty() || go_on {
            return Ok(idle);
        }
        Err(Failure::new(format_args!(
            "no image matches --except {}; nothing was removed, in case it is a slip (--force goes on)",
            idle.join(" ")
        )))
    }

    /// Patterns that fit no image: probably mistakes, which would cost what they were to keep.
    #[must_use]
    fn idle(&self, catalog: &Catalog) -> Vec<&str> {
        self.0
            .iter()
            .filter(|pattern| !catalog.records.iter().any(|record| matches(pattern, record, &record.id)))
            .map(Pattern::text)
            .collect()
    }
}

fn matches(pattern: &Pattern, record: &Record, id: &Digest) -> bool {
    pattern.matches(record.name()) || pattern.is_id(id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: &str = "2026-06-01T12:00:00Z";

    fn at(text: &str) -> Option<String> {
        until(text, NOW.parse().unwrap()).ok().map(|time| time.to_string())
    }

    #[test]
    fn every_form_of_until() {
        for (text, expected) in [
            ("24h", "2026-05-31T12:00:00Z"),
            ("1h30m", "2026-06-01T10:30:00Z"),
            ("10m", "2026-06-01T11:50:00Z"),
            ("7d", "2026-05-25T12:00:00Z"),
            ("2026-01-31", "2026-01-31T00:00:00Z"),
            ("2026-01-31T10:00:00", "2026-01-31T10:00:00Z"),
            ("2026-01-31T10:00:00+02:00", "2026-01-31T08:00:00Z"),
            ("2026-01-31T10:00:00.5Z", "2026-01-31T10:00:00.5Z"),
            ("0", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(at(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "yesterday", "24", "-", "99999999999999999999"] {
            assert!(text == "24" || at(text).is_none(), "{text}");
        }
    }

    #[test]
    fn filters_are_names_and_values() {
        let filter = |name: &str, value: &str| Filter { name: name.into(), value: value.into() };
        assert_eq!("label!=a=b".parse(), Ok(filter("label!", "a=b")));
        assert_eq!("Dangling=true".parse(), Ok(filter("dangling", "true")));
        assert_eq!("x".parse::<Filter>().unwrap_err(), "bad format of filter (expected name=value)");
        let new = |filters: &[Filter]| {
            Filters::new(filters, &["dangling"], &Catalog::default(), Timestamp::UNIX_EPOCH)
        };
        assert!(new(&[filter("x", "1")]).unwrap_err().to_string().contains("invalid filter 'x'"));
        assert!(new(&[filter("dangling", "perhaps")]).is_err());
        assert!(new(&[filter("dangling", "1")]).is_ok());
    }

    proptest! {
        #[test]
        fn durations_count_back_from_now(hours in 0_i64..100_000, minutes in 0_i64..60) {
            let now: Timestamp = NOW.parse().unwrap();
            let ago = now.as_second() - until(&format!("{hours}h{minutes}m"), now).unwrap().as_second();
            prop_assert_eq!(ago, (hours * 60 + minutes) * 60);
        }

        #[test]
        fn never_panics(text in "\\PC{0,30}") {
            let _ = at(&text);
            let _ = text.parse::<Filter>();
        }
    }
}
