//! docker's `--format` and `--quiet` of commands that list.

use larder_template::Format;
use serde_json::Value;

use crate::{Context, Failure, args::Report};

/// The columns that a command can show.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    /// Names for templates, with their titles.
    pub headers: &'static [(&'static str, &'static str)],
    /// The template of the plain table, without `table `.
    pub table: &'a str,
}

/// Prints rows as the user wants them. Every row has a value for every column.
pub fn print(
    context: &Context,
    columns: Columns<'_>,
    format: Option<&str>,
    report: Report,
    rows: &[Value],
) -> Result<(), Failure> {
    if report.is_json() && format.is_none() {
        return context.line(pretty(&Value::Array(rows.to_vec())));
    }
    let format = match format.map(str::trim) {
        None | Some("" | "table") => format!("table {}", columns.table),
        Some(other) => other.to_owned(),
    };
    context.print(Format::parse(&format)?.render(columns.headers, rows)?)
}

/// JSON for people to read: with docker's four spaces.
#[must_use]
pub fn pretty(value: &impl serde::Serialize) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let written = value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter));
    // Writing to memory cannot fail, and none of our types refuses to be written.
    written.ok().and_then(|()| String::from_utf8(bytes).ok()).unwrap_or_default()
}
