//! docker's own functions (docker/cli, package `templates`).
// The table of functions wants one type for all, those that cannot fail included.
#![allow(clippy::unnecessary_wraps)]

use std::sync::Arc;

use crate::functions::{Context, Mode, Result, int_arg, text_arg};
use crate::print::print_value;
use crate::value::{Kind, List, Value};
use crate::{builtins, json};

/// What a part of a split string takes besides its text.
const PART_BYTES: usize = 48;

/// In a header the functions that would change or break a column's name give the name back.
fn header<'a>(context: &Context<'_>, args: &[Value<'a>]) -> Option<Value<'a>> {
    (context.mode == Mode::Header).then(|| args.first().cloned().unwrap_or(Value::missing()))
}

pub(crate) fn json<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    if let Some(name) = header(context, args) {
        return Ok(name);
    }
    let value = args.first().cloned().unwrap_or(Value::missing());
    // docker writes a whole row with json.Marshal, which escapes for HTML, and everything else without.
    let row = context.mode == Mode::Row && matches!(value.kind, Kind::Map(_));
    json::write(context.out, &value, row);
    Ok(context.made())
}

pub(crate) fn split<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    if let Some(name) = header(context, args) {
        return Ok(name);
    }
    let (text, separator) = (text_arg(args, 0), text_arg(args, 1));
    let mut parts: Vec<Arc<str>> = Vec::new();
    let mut push = |part: &str| {
        let room = context.out.charge(part.len() + PART_BYTES);
        if room {
            parts.push(part.into());
        }
        room
    };
    if separator.is_empty() {
        text.chars().all(|c| push(c.encode_utf8(&mut [0; 4])));
    } else {
        text.split(separator).all(push);
    }
    let count = parts.len();
    Ok(Value::new(Kind::List(List::Texts(parts.into(), 0, count))))
}

pub(crate) fn join<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    if let Some(name) = header(context, args) {
        return Ok(name);
    }
    let separator = text_arg(args, 1);
    match args.first().map(|arg| (&arg.kind, arg)) {
        None | Some((Kind::Missing | Kind::Nil, _)) => {}
        Some((Kind::List(list), _)) => {
            for (i, item) in list.iter().enumerate() {
                if i > 0 {
                    context.out.push_str(separator);
                }
                print_value(context.out, &item);
            }
        }
        Some((Kind::Map(map), _)) => {
            let mut texts: Vec<String> = map
                .entries()
                .iter()
                .map(|(_, item)| {
                    let mut text = context.out.scratch();
                    print_value(&mut text, item);
                    context.out.settle(&text);
                    text.take()
                })
                .collect();
            texts.sort();
            context.out.push_str(&texts.join(separator));
        }
        Some((_, other)) => return Err(format!("expected slice, got {}", other.type_name())),
    }
    Ok(context.made())
}

/// Upper case for the first letter of every word.
pub(crate) fn title<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    if let Some(name) = header(context, args) {
        return Ok(name);
    }
    let mut before = ' ';
    for c in text_arg(args, 0).chars() {
        context.out.push(if is_separator(before) { single(c.to_uppercase(), c) } else { c });
        before = c;
    }
    Ok(context.made())
}

fn is_separator(c: char) -> bool {
    if c.is_ascii() { !c.is_ascii_alphanumeric() && c != '_' } else { c.is_whitespace() }
}

pub(crate) fn lower<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    if let Some(name) = header(context, args) {
        return Ok(name);
    }
    text_arg(args, 0).chars().for_each(|c| context.out.push(single(c.to_lowercase(), c)));
    Ok(context.made())
}

pub(crate) fn upper<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    if let Some(name) = header(context, args) {
        return Ok(name);
    }
    text_arg(args, 0).chars().for_each(|c| context.out.push(single(c.to_uppercase(), c)));
    Ok(context.made())
}

/// Go maps a character to one character: where Unicode has several, such as SS for ß, it leaves it alone.
fn single(mut mapped: impl Iterator<Item = char>, c: char) -> char {
    match (mapped.next(), mapped.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

/// Spaces before and after a string that is not empty.
pub(crate) fn pad<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    let text = text_arg(args, 0);
    if !text.is_empty() {
        let count = |n: i64| usize::try_from(n).map_err(|_| "strings: negative Repeat count".to_owned());
        let (before, after) = (count(int_arg(args, 1))?, count(int_arg(args, 2))?);
        context.out.push_repeated(' ', before);
        context.out.push_str(text);
        context.out.push_repeated(' ', after);
    }
    Ok(context.made())
}

/// The first bytes of a string.
pub(crate) fn truncate<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    if let Some(name) = header(context, args) {
        return Ok(name);
    }
    let (text, length) = (text_arg(args, 0), int_arg(args, 1));
    let length = usize::try_from(length)
        .map_err(|_| format!("runtime error: slice bounds out of range [:{length}]"))?;
    context.out.push_str(&builtins::bytes_of(text, 0, length.min(text.len())));
    Ok(context.made())
}
