//! The `json` function: values as Go's `encoding/json` writes them.

use crate::float;
use crate::out::Out;
use crate::value::{Kind, Value};

/// Writes a value without spaces. With `html`, `<`, `>` and `&` are escaped, as `json.Marshal` does and
/// docker's `json` function does not.
pub(crate) fn write(out: &mut Out, value: &Value<'_>, html: bool) {
    if out.is_full() {
        return;
    }
    match &value.kind {
        Kind::Missing | Kind::Nil => out.push_str("null"),
        Kind::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Kind::Int(i) => out.push_str(&i.to_string()),
        Kind::Float(f) => out.push_str(&float::format_json(*f)),
        Kind::Text(text) => string(out, text.as_str(), html),
        Kind::List(list) if list.is_nil() => out.push_str("null"),
        Kind::Map(map) if map.is_nil() => out.push_str("null"),
        Kind::List(list) => {
            out.push('[');
            for (i, item) in list.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(out, &item, html);
            }
            out.push(']');
        }
        Kind::Map(map) => {
            out.push('{');
            for (i, (key, item)) in map.json_entries().iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                string(out, key, html);
                out.push(':');
                write(out, item, html);
            }
            out.push('}');
        }
    }
}

fn string(out: &mut Out, text: &str, html: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\0'..' ' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            '<' | '>' | '&' if html => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}
