//! Sizes and ages as docker prints them (docker/go-units).

use jiff::{SignedDuration, Timestamp};

const UNITS: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];

/// A number of bytes with three significant digits, as in lists: `16.4MB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    with_digits(bytes, 3)
}

/// A number of bytes with four significant digits, as in totals: `16.43MB`.
#[must_use]
pub fn total(bytes: u64) -> String {
    with_digits(bytes, 4)
}

/// Like Go's `%.*g`, except that 999.9 MB is `1GB` where docker has `1e+03MB`.
fn with_digits(bytes: u64, digits: usize) -> String {
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 {
        value /= 1000.0;
        unit += 1;
    }
    let text = loop {
        let whole = if value >= 100.0 {
            3
        } else if value >= 10.0 {
            2
        } else {
            1
        };
        let text = format!("{value:.*}", digits.saturating_sub(whole));
        // Rounding may have made four digits of three.
        if !text.starts_with("1000") || unit + 1 == UNITS.len() {
            break text;
        }
        value = 1.0;
        unit += 1;
    };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS.get(unit).copied().unwrap_or_default())
}

/// How long something takes or took, in one unit: `About a minute`, `3 weeks`.
#[must_use]
pub fn duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let hours = seconds.saturating_add(1800) / 3600;
    match (seconds, seconds / 60, hours) {
        (..1, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, minutes @ ..60, _) => format!("{minutes} minutes"),
        (.., 1) => "About an hour".to_owned(),
        (.., ..48) => format!("{hours} hours"),
        (.., ..336) => format!("{} days", hours / 24),
        (.., ..1440) => format!("{} weeks", hours / 24 / 7),
        (.., ..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// How long ago something was: `3 weeks ago`.
#[must_use]
pub fn since(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", duration(now.duration_since(then)))
}

/// A time as Go prints it, always in UTC: `2026-01-01 00:00:00 +0000 UTC`.
#[must_use]
pub fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_those_of_docker() {
        for (bytes, three, four) in [
            (0, "0B", "0B"),
            (1, "1B", "1B"),
            (999, "999B", "999B"),
            (1000, "1kB", "1kB"),
            (1024, "1.02kB", "1.024kB"),
            (16_430_000, "16.4MB", "16.43MB"),
            (78_100_000, "78.1MB", "78.1MB"),
            (117_000_000, "117MB", "117MB"),
            (999_900, "1MB", "999.9kB"),
            (999_990_000, "1GB", "1GB"),
            (1_200_000_000_000, "1.2TB", "1.2TB"),
            (u64::MAX, "18.4EB", "18.45EB"),
        ] {
            assert_eq!((size(bytes).as_str(), total(bytes).as_str()), (three, four), "{bytes}");
        }
    }

    #[test]
    fn ages_are_those_of_docker() {
        const MINUTE: i64 = 60;
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        for (seconds, text) in [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (MINUTE, "About a minute"),
            (2 * MINUTE, "2 minutes"),
            (59 * MINUTE, "59 minutes"),
            (HOUR, "About an hour"),
            (89 * MINUTE, "About an hour"),
            (90 * MINUTE, "2 hours"),
            (47 * HOUR, "47 hours"),
            (2 * DAY, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (59 * DAY, "8 weeks"),
            (60 * DAY, "2 months"),
            (700 * DAY, "23 months"),
            (730 * DAY, "2 years"),
            (20_000 * DAY, "54 years"),
        ] {
            assert_eq!(duration(SignedDuration::from_secs(seconds)), text, "{seconds}");
        }
    }

    proptest! {
        #[test]
        fn a_size_is_short_and_within_half_a_percent(bytes: u64) {
            let text = size(bytes);
            let split = text.find(|c: char| c.is_alphabetic()).unwrap();
            let unit = UNITS.iter().position(|unit| *unit == &text[split..]).unwrap();
            let value = text[..split].parse::<f64>().unwrap() * 1000_f64.powi(i32::try_from(unit).unwrap());
            prop_assert!((value - bytes as f64).abs() <= bytes as f64 * 0.005, "{} {}", text, bytes);
            prop_assert!(text.len() <= 6, "{}", text);
        }

        #[test]
        fn every_duration_has_words(seconds: i64) {
            prop_assert!(!duration(SignedDuration::from_secs(seconds)).is_empty());
        }
    }
}
