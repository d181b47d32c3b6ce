//! What is wanted of an image beside that it is there, and how the wishes of several `ImageCache`s become one.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use larder_crds::{
    CachedImage, DiskReserve, ImageCacheSpec, ImageSource, NodeImage, Refresh, RefreshRule, Retry,
    RetryDelays,
};
use larder_oci::ImageName;

use crate::{
    refresh::{self, Unusable},
    secrets,
    validate::{Problem, Target, cut},
};

/// What a specification wants of its image number `number`: the entry that a node gets for it, without a claim.
pub(crate) fn entry(
    image: &CachedImage,
    target: &Target,
    number: usize,
    common: &Common,
    problems: &mut Vec<Problem>,
) -> NodeImage {
    let mut report = |field: String, message: String| {
        problems.push(Problem { field: format!("spec.images[{number}].{field}"), message });
    };
    let tags = read_tags(&image.tags, &mut report);
    let save = image.save.as_ref().map(|save| save.file.clone());
    if let Some(file) = save.as_deref().filter(|file| !(is_file_name(file) && has_archive_ending(file))) {
        report("save.file".to_owned(), format!("{:?} is no name for an archive: {ARCHIVE_NAME}", cut(file)));
    }
    NodeImage {
        image: target.image.clone(),
        platform: target.platform.clone(),
        pull_policy: image.pull_policy,
        tags,
        save: save.into_iter().collect(),
        load: image.load.clone().map(|source| read_source(source, &mut report)),
        pin: common.pin,
        priority: image.priority.unwrap_or_default(),
        position: i32::try_from(number).unwrap_or(i32::MAX),
        refresh: common.refresh.iter().cloned().collect(),
        pull_timeout_seconds: common.pull_timeout_seconds,
        retry: common.retry,
        pull_secrets: common.pull_secrets.clone(),
        wanted_by: Vec::new(),
    }
}

/// Canonical, in order, each once.
fn read_tags(tags: &[String], report: &mut impl FnMut(String, String)) -> Vec<String> {
    let mut names = BTreeSet::new();
    for (place, tag) in tags.iter().enumerate() {
        match tag.parse::<ImageName>() {
            Ok(name) if name.digest().is_some() => {
                report(
                    format!("tags[{place}]"),
                    format!("{:?} has a digest: a further name is a tag", cut(tag)),
                );
            }
            Ok(name) => drop(names.insert(name.to_string())),
            Err(error) => report(format!("tags[{place}]"), error.to_string()),
        }
    }
    names.into_iter().collect()
}

/// Joins the wishes for an image with further wishes for the same; the claims are the caller's to join.
pub(crate) fn join(entry: &mut NodeImage, other: &NodeImage) {
    entry.pull_policy = entry.pull_policy.max(other.pull_policy);
    unite(&mut entry.tags, &other.tags);
    unite(&mut entry.save, &other.save);
    if entry.load.is_none() {
        entry.load.clone_from(&other.load);
    }
    entry.pin |= other.pin;
    entry.priority = entry.priority.max(other.priority);
    entry.position = entry.position.min(other.position);
    unite(&mut entry.refresh, &other.refresh);
    entry.pull_timeout_seconds = entry.pull_timeout_seconds.max(other.pull_timeout_seconds);
    entry.retry = shorter(entry.retry, other.retry);
    unite(&mut entry.pull_secrets, &other.pull_secrets);
}

/// A wish, with the names and archives that an earlier one for the same image has brought.
pub(crate) fn keeping_names(wish: &NodeImage, earlier: &NodeImage) -> NodeImage {
    let mut entry = wish.clone();
    unite(&mut entry.tags, &earlier.tags);
    unite(&mut entry.save, &earlier.save);
    entry
}

fn unite<T: Ord + Clone>(into: &mut Vec<T>, more: &[T]) {
    into.extend_from_slice(more);
    into.sort();
    into.dedup();
}

fn shorter(one: Option<RetryDelays>, other: Option<RetryDelays>) -> Option<RetryDelays> {
    let (Some(one), Some(other)) = (one, other) else { return one.or(other) };
    let least = |one: Option<i64>, other: Option<i64>| one.into_iter().chain(other).min();
    Some(RetryDelays {
        initial_seconds: least(one.initial_seconds, other.initial_seconds),
        max_seconds: least(one.max_seconds, other.max_seconds),
    })
}

/// What a specification wants of all its images.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Common {
    pin: bool,
    refresh: Option<RefreshRule>,
    pull_timeout_seconds: Option<i64>,
    retry: Option<RetryDelays>,
    pub(crate) pull_secrets: Vec<String>,
}

impl Common {
    pub(crate) fn read(spec: &ImageCacheSpec, problems: &mut Vec<Problem>) -> Self {
        let timeout = spec.pull_timeout.as_deref();
        Self {
            pin: spec.pin.unwrap_or(true),
            refresh: spec.refresh.as_ref().map(|refresh| read_refresh(refresh, problems)),
            pull_timeout_seconds: timeout.and_then(|text| duration("spec.pullTimeout", text, problems)),
            retry: spec.retry.as_ref().map(|retry| read_retry(retry, problems)),
            pull_secrets: secrets::read(
                spec.pull_secrets.iter().map(|secret| secret.name.as_str()),
                problems,
            ),
        }
    }
}

fn read_refresh(refresh: &Refresh, problems: &mut Vec<Problem>) -> RefreshRule {
    if refresh.interval.is_some() == refresh.schedule.is_some() {
        problems.push(Problem {
            field: "spec.refresh".to_owned(),
            message: "it needs either an interval or a schedule, and not both".to_owned(),
        });
    }
    let interval = refresh.interval.as_deref();
    let rule = RefreshRule {
        interval_seconds: interval.and_then(|text| duration("spec.refresh.interval", text, problems)),
        schedule: refresh.schedule.clone(),
        time_zone: refresh.time_zone.clone(),
    };
    let quoted = |text: &Option<String>| cut(text.as_deref().unwrap_or_default());
    match refresh::check(&rule) {
        Ok(()) => {}
        Err(Unusable::Schedule(why)) => problems.push(Problem {
            field: "spec.refresh.schedule".to_owned(),
            message: format!("{:?} is no schedule: {why}", quoted(&refresh.schedule)),
        }),
        Err(Unusable::TimeZone) => problems.push(Problem {
            field: "spec.refresh.timeZone".to_owned(),
            message: format!(
                "{:?} is no time zone: write a name of the IANA database, such as Europe/Berlin",
                quoted(&refresh.time_zone)
            ),
        }),
    }
    rule
}

fn read_retry(retry: &Retry, problems: &mut Vec<Problem>) -> RetryDelays {
    let mut read = |field: &str, text: &Option<String>| {
        text.as_deref().and_then(|text| duration(&format!("spec.retry.{field}"), text, problems))
    };
    RetryDelays {
        initial_seconds: read("initialDelay", &retry.initial_delay),
        max_seconds: read("maxDelay", &retry.max_delay),
    }
}

/// Seconds, at least one.
fn duration(field: &str, text: &str, problems: &mut Vec<Problem>) -> Option<i64> {
    // Go's form, which the schema asks for, is one of those that jiff reads.
    let read = text.parse::<SignedDuration>().ok().map(|duration| duration.as_secs());
    let read = read.filter(|&seconds| (1..=i64::from(i32::MAX)).contains(&seconds));
    if read.is_none() {
        problems.push(Problem {
            field: field.to_owned(),
            message: format!("{:?} is no duration in hours, minutes and seconds, such as 1h30m", cut(text)),
        });
    }
    read
}

fn read_source(source: ImageSource, report: &mut impl FnMut(String, String)) -> ImageSource {
    if source.file.is_some() == source.artifact.is_some() {
        report("load".to_owned(), "it needs either a file or an artifact, and not both".to_owned());
    }
    if let Some(file) = source.file.as_ref().filter(|file| !is_file_name(file)) {
        report("load.file".to_owned(), format!("{:?} is no file's name: {FILE_NAME}", cut(file)));
    }
    let artifact = source.artifact.as_ref().map(|artifact| match artifact.parse::<ImageName>() {
        Ok(name) => name.to_string(),
        Err(error) => {
            report("load.artifact".to_owned(), error.to_string());
            String::new()
        }
    });
    ImageSource { file: source.file, artifact }
}

const FILE_NAME: &str = "write letters, digits, '.', '_' and '-', beginning with a letter or a digit; it cannot lead to another folder";

const ARCHIVE_NAME: &str = "write letters, digits, '.', '_' and '-', ending in .tar, .tar.gz, .tar.bz2 or .tar.zst; it cannot lead to another folder";

/// Whether a text names a file in a folder, and in no other.
#[must_use]
pub fn is_file_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.len() <= 128
        && text.bytes().all(allowed)
        && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
}

fn has_archive_ending(file: &str) -> bool {
    [".tar", ".tar.gz", ".tar.bz2", ".tar.zst"].iter().any(|ending| file.ends_with(ending))
}

/// The free space that is to stay: a percentage, or bytes as Kubernetes writes quantities.
pub(crate) fn disk_reserve(text: &str, problems: &mut Vec<Problem>) -> Option<DiskReserve> {
    let read = match text.strip_suffix('%') {
        Some(percent) => {
            let percent = percent.parse::<i32>().ok().filter(|percent| (1..=99).contains(percent));
            percent.map(|percent| DiskReserve { percent: Some(percent), bytes: None })
        }
        None => quantity(text).map(|bytes| DiskReserve { percent: None, bytes: Some(bytes) }),
    };
    if read.is_none() {
        problems.push(Problem {
            field: "spec.diskReserve".to_owned(),
            message: format!(
                "{:?} is neither a percentage from 1% to 99%, such as 10%, nor a quantity of bytes, such as 20Gi",
                cut(text)
            ),
        });
    }
    read
}

fn quantity(text: &str) -> Option<i64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number = text[..digits].parse::<i64>().ok().filter(|&number| number > 0)?;
    let (base, power): (i64, u32) = match &text[digits..] {
        "" => (1, 1),
        "k" => (1_000, 1),
        "M" => (1_000, 2),
        "G" => (1_000, 3),
        "T" => (1_000, 4),
        "Ki" => (1_024, 1),
        "Mi" => (1_024, 2),
        "Gi" => (1_024, 3),
        "Ti" => (1_024, 4),
        _ => return None,
    };
    number.checked_mul(base.checked_pow(power)?)
}

/// The larger of two reserves, in each of its two measures.
pub(crate) fn larger(one: Option<DiskReserve>, other: Option<DiskReserve>) -> Option<DiskReserve> {
    let (Some(one), Some(other)) = (one, other) else { return one.or(other) };
    Some(DiskReserve { percent: one.percent.max(other.percent), bytes: one.bytes.max(other.bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_cannot_lead_elsewhere() {
        for (name, is_one) in [
            ("app.tar.gz", true),
            ("App_v1.2-3.tar", true),
            ("../app.tar", false),
            ("a/b.tar", false),
            (".hidden.tar", false),
            ("..", false),
            ("", false),
            ("-rf.tar", false),
            ("a b.tar", false),
        ] {
            assert_eq!(is_file_name(name), is_one, "{name}");
        }
    }

    #[test]
    fn reserves_are_percentages_or_bytes() {
        let read = |text| disk_reserve(text, &mut Vec::new());
        let bytes = |bytes| Some(DiskReserve { percent: None, bytes: Some(bytes) });
        assert_eq!(read("10%"), Some(DiskReserve { percent: Some(10), bytes: None }));
        assert_eq!(read("1024"), bytes(1_024));
        assert_eq!(read("20Gi"), bytes(20 << 30));
        assert_eq!(read("500M"), bytes(500_000_000));
        for wrong in ["0%", "100%", "10 %", "x", "", "0", "1.5Gi", "99999999999999Ti", "Gi", "-1"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(
            larger(read("10%"), read("1Gi")),
            Some(DiskReserve { percent: Some(10), bytes: Some(1 << 30) })
        );
        assert_eq!(larger(read("10%"), read("20%")), read("20%"));
    }

    #[test]
    fn durations_are_gos() {
        let read = |text| duration("x", text, &mut Vec::new());
        assert_eq!(read("90s"), Some(90));
        assert_eq!(read("1h30m"), Some(5_400));
        for wrong in ["", "0s", "-1s", "1", "h", "1y2z", "500ms"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn wishes_are_joined() {
        let one = NodeImage {
            tags: vec!["docker.io/library/b:1".to_owned()],
            pin: false,
            priority: 5,
            position: 3,
            retry: Some(RetryDelays { initial_seconds: Some(5), max_seconds: Some(60) }),
            pull_secrets: vec!["b".to_owned()],
            ..NodeImage::default()
        };
        let other = NodeImage {
            tags: vec!["docker.io/library/a:1".to_owned(), "docker.io/library/b:1".to_owned()],
            pin: true,
            position: 1,
            pull_timeout_seconds: Some(60),
            retry: Some(RetryDelays { initial_seconds: None, max_seconds: Some(30) }),
            pull_secrets: vec!["a".to_owned()],
            ..NodeImage::default()
        };
        let mut entry = one.clone();
        join(&mut entry, &other);
        assert_eq!(entry.tags, ["docker.io/library/a:1", "docker.io/library/b:1"]);
        assert_eq!((entry.pin, entry.priority, entry.position), (true, 5, 1));
        assert_eq!(entry.pull_timeout_seconds, Some(60));
        assert_eq!(entry.retry, Some(RetryDelays { initial_seconds: Some(5), max_seconds: Some(30) }));
        assert_eq!(entry.pull_secrets, ["a", "b"]);
        let mut again = other;
        join(&mut again, &one);
        assert_eq!(again, entry, "in whatever order");
    }
}
