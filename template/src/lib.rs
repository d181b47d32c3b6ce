//! Go's `text/template` as docker's `--format` offers it, over JSON.
//!
//! What docker's users have in their scripts works: every action, function and literal of Go's templates, and
//! docker's `json`, `split`, `join`, `title`, `lower`, `upper`, `pad` and `truncate`. Messages are Go's, with
//! the `template parsing error: ` that docker puts before them. `tests/vectors.json` holds about a thousand
//! templates with what docker's own packages made of them, and this crate renders the same.
//!
//! ```
//! # fn main() -> Result<(), larder_template::TemplateError> {
//! let image = serde_json::json!({"Os": "linux", "Config": {"Env": ["A=1", "B=2"]}});
//! let template = larder_template::Template::parse("{{.Os}}: {{join .Config.Env \", \"}}")?;
//! assert_eq!(template.render(&image)?, "linux: A=1, B=2");
//! # Ok(())
//! # }
//! ```
//!
//! # Why not a crate
//!
//! `gtmpl-ng` (1.0, the maintained fork of `gtmpl`) was run on the same cases. It compares values of different
//! types without an error, reads escapes in raw strings and not all of them in quoted ones, has no
//! `{{else with}}`, and its `printf` puts right what Go shows as a mistake. The texts of its errors are its own,
//! where docker's users know Go's. What a missing label or an empty list prints depends on the types that docker
//! has and JSON does not show (see [`Shape`]), which its values cannot express. Other crates bind to Go itself.
//!
//! # Where it differs from docker
//!
//! - Complex numbers are not supported, nor `printf`'s binary and hexadecimal forms and its `#` flag for
//!   floating-point numbers.
//! - Output is UTF-8: a character that `truncate` or `slice` cuts becomes U+FFFD, where docker prints the
//!   bytes that are left.
//! - In [`Template::inspect`] a number stays a number when docker would compare its digits as text (its
//!   second attempt), and a nested structure prints its fields where docker prints a pointer's address.
//! - A template takes at most a million steps, makes at most 64 MiB of text and nests at most 50 deep, or 150
//!   with the templates that it calls.

mod ast;
mod builtins;
mod docker;
mod eval;
mod exec;
mod expression;
mod float;
mod format;
mod functions;
mod json;
mod lexer;
mod number;
mod out;
mod parser;
mod print;
mod printf;
mod quote;
mod shape;
mod value;

use serde_json::Value as Json;

pub use format::{Format, align};
pub use shape::{Field, IMAGE, Shape};

use exec::MissingKey;
use functions::Mode;
use value::Value;

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    text: String,
    trees: parser::Trees,
}

/// Why a template cannot be used. The text is Go's, after `template parsing error: `, as docker prints it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template itself is wrong. docker exits with status 64.
    #[error("template parsing error: {0}")]
    Parse(String),
    /// The template does not fit the data, or does too much. docker exits with status 1.
    #[error("template parsing error: {0}")]
    Execute(String),
}

impl Template {
    /// Parses a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let trees = parser::parse(text).map_err(TemplateError::Parse)?;
        Ok(Self { text: text.to_owned(), trees })
    }

    /// Renders a document. A key that a map does not have prints as `<no value>`.
    pub fn render(&self, data: &Json) -> Result<String, TemplateError> {
        self.run(data, &Shape::Any, MissingKey::NoValue)
    }

    /// Renders a document in which a key that a map does not have is an error.
    pub fn render_strict(&self, data: &Json) -> Result<String, TemplateError> {
        self.run(data, &Shape::Any, MissingKey::Error)
    }

    /// Renders as docker's `inspect` does: with the types of `shape`, such as [`IMAGE`], under which absent
    /// values are empty ones; if that fails, for instance because the template names a field that the shape
    /// lacks, as the JSON it is, where a key that is not there is an error.
    pub fn inspect(&self, data: &Json, shape: &'static Shape) -> Result<String, TemplateError> {
        self.run(data, shape, MissingKey::NoValue).or_else(|_| self.render_strict(data))
    }

    fn run(
        &self,
        data: &Json,
        shape: &'static Shape,
        missing_key: MissingKey,
    ) -> Result<String, TemplateError> {
        let (text, result) = exec::render(self, &Value::root(data, shape), missing_key, Mode::Document);
        result.map(|()| text)
    }
}
