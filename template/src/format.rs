//! docker's `--format` of commands that list: `table …`, `json`, or a template for each row.

use std::io::Write as _;

use serde_json::{Map, Value as Json};
use tabwriter::TabWriter;

use crate::exec::{self, MissingKey};
use crate::functions::Mode;
use crate::shape::Shape;
use crate::value::Value;
use crate::{Template, TemplateError};

/// docker's columns are ten wide at least, three of them the space to the next.
const MIN_WIDTH: usize = 7;
const PADDING: usize = 3;

/// A parsed `--format`.
#[derive(Debug)]
pub struct Format {
    table: bool,
    template: Template,
}

impl Format {
    /// Parses what a user gave. `table TEMPLATE` lists in columns under a header, `json` is `{{json .}}`, and
    /// anything else is a template. `\t` and `\n` become a tab and a line break, which shells leave as they are.
    ///
    /// `table` alone, and docker's `raw` and `pretty`, stand for templates of the command that lists: the caller
    /// puts those in their place before.
    pub fn parse(format: &str) -> Result<Self, TemplateError> {
        let (table, text) = match format.strip_prefix("table") {
            Some(rest) => (true, rest),
            None if format == "json" => (false, "{{json .}}"),
            None => (false, format),
        };
        let text = text.trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n");
        Ok(Self { table, template: Template::parse(&text)? })
    }

    /// True for `table …`.
    #[must_use]
    pub fn is_table(&self) -> bool {
        self.table
    }

    /// Renders a line for each row, and for a table the header and aligned columns.
    ///
    /// A row is an object with a value for every column; a name that it does not have is an error. `headers`
    /// gives each column's name its title, such as `("ID", "IMAGE ID")`.
    pub fn render<'r>(
        &self,
        headers: &[(&str, &str)],
        rows: impl IntoIterator<Item = &'r Json>,
    ) -> Result<String, TemplateError> {
        let mut text = String::new();
        for row in rows {
            let row = Value::root(row, &Shape::Any);
            let (line, result) = exec::render(&self.template, &row, MissingKey::Error, Mode::Row);
            result?;
            text.push_str(&line);
            text.push('\n');
        }
        if !self.table {
            return Ok(text);
        }
        let titles = headers
            .iter()
            .map(|(name, title)| ((*name).to_owned(), Json::from(*title)))
            .collect::<Map<_, _>>();
        // Rows that render say that the template is sound. What it cannot do with a title is no reason to
        // keep them back.
        let titles = Json::Object(titles);
        let titles = Value::root(&titles, &Shape::Any);
        let (header, _) = exec::render(&self.template, &titles, MissingKey::NoValue, Mode::Header);
        Ok(align(&format!("{header}\n{text}")))
    }
}

/// Aligns text in tab-separated columns as docker does: at least ten wide, three spaces apart.
#[must_use]
pub fn align(text: &str) -> String {
    let mut writer = TabWriter::new(Vec::new()).minwidth(MIN_WIDTH).padding(PADDING);
    // Writing to memory cannot fail; if it did, the columns would only be crooked.
    let aligned = writer.write_all(text.as_bytes()).and_then(|()| writer.flush()).ok();
    aligned
        .and_then(|()| writer.into_inner().ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_else(|| text.to_owned())
}
