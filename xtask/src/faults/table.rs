//! The result as a table, in Markdown, so that it can go into a page as it is.

use std::fmt::Write;

use super::catalogue::CATALOGUE;
use super::pull::Outcome;

/// A row for each fault that had its turn; with `messages`, what the user was told, once for each.
pub fn of(outcomes: &[Outcome], messages: bool) -> String {
    let mut text =
        String::from("\n| fault | pulls | right | one error | wrong | longest | memory | requests |\n");
    text.push_str("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for entry in CATALOGUE {
        let rows: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.name == entry.name).collect();
        if !rows.is_empty() {
            row(&mut text, entry.name, &rows);
        }
    }
    row(&mut text, "all", &outcomes.iter().collect::<Vec<_>>());
    if messages {
        text.push_str("\nWhat the user is told:\n\n");
        for entry in CATALOGUE {
            let told =
                outcomes.iter().find(|outcome| outcome.name == entry.name && !outcome.message.is_empty());
            if let Some(told) = told {
                // Writing to a text cannot fail.
                let _ = writeln!(text, "- {} ({}): `{}`", entry.name, told.what, told.message);
            }
        }
    }
    text
}

fn row(text: &mut String, name: &str, rows: &[&Outcome]) {
    let wrong = rows.iter().filter(|outcome| outcome.wrong.is_some()).count();
    let right = rows.iter().filter(|outcome| outcome.right).count();
    let longest = rows.iter().map(|outcome| outcome.wall.as_secs_f64()).fold(0.0, f64::max);
    let peak = rows.iter().map(|outcome| outcome.peak).max().unwrap_or_default() >> 10;
    let requests = rows.iter().map(|outcome| outcome.requests).max().unwrap_or_default();
    let (all, failed) = (rows.len(), rows.len() - right);
    let _ = writeln!(
        text,
        "| {name} | {all} | {right} | {failed} | {wrong} | {longest:.1} s | {peak} MiB | {requests} |"
    );
}
