//! The functions that every Go template has (package `text/template`).
// The table of functions wants one type for all, those that cannot fail included.
#![allow(clippy::unnecessary_wraps)]

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::functions::{Context, Result, text_arg};
use crate::out::Out;
use crate::print;
use crate::printf;
use crate::quote::is_printable;
use crate::value::{Kind, Lookup, Map, Text, Value};

fn arg<'v, 'a>(args: &'v [Value<'a>], index: usize) -> &'v Value<'a> {
    static MISSING: Value<'static> = Value::missing();
    args.get(index).unwrap_or(&MISSING)
}

// Text.

pub(crate) fn print<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    print::print(context.out, args);
    Ok(context.made())
}

pub(crate) fn println<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    print::println(context.out, args);
    Ok(context.made())
}

pub(crate) fn printf<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    printf::printf(context.out, text_arg(args, 0), args.get(1..).unwrap_or_default());
    Ok(context.made())
}

/// Prints the arguments, each character by way of `escape`.
fn escaped<'a>(context: &mut Context<'_>, args: &[Value<'a>], escape: fn(&mut Out, char)) -> Result<'a> {
    let args: Vec<_> = args
        .iter()
        .map(|arg| if matches!(arg.kind, Kind::Nil) { Value::borrowed("<no value>") } else { arg.clone() })
        .collect();
    let mut text = context.out.scratch();
    print::print(&mut text, &args);
    context.out.settle(&text);
    text.take().chars().for_each(|c| escape(context.out, c));
    Ok(context.made())
}

pub(crate) fn html<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    escaped(context, args, |out, c| match c {
        '\0' => out.push(char::REPLACEMENT_CHARACTER),
        '"' => out.push_str("&#34;"),
        '\'' => out.push_str("&#39;"),
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        c => out.push(c),
    })
}

pub(crate) fn js<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    escaped(context, args, |out, c| match c {
        '\\' | '\'' | '"' => {
            out.push('\\');
            out.push(c);
        }
        '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
        c if c < ' ' || (!c.is_ascii() && !is_printable(c)) => {
            out.push_str(&format!("\\u{:04X}", u32::from(c)));
        }
        c => out.push(c),
    })
}

pub(crate) fn urlquery<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    escaped(context, args, |out, c| match c {
        ' ' => out.push('+'),
        'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' | '~' => out.push(c),
        c => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| out.push_str(&format!("%{byte:02X}"))),
    })
}

// Parts of values.

pub(crate) fn len<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    let item = arg(args, 0);
    let length = match &item.kind {
        Kind::Text(text) => text.as_str().len(),
        Kind::List(list) => list.len(),
        Kind::Map(map) => map.len(),
        Kind::Nil => return Err("len of nil pointer".to_owned()),
        Kind::Missing => return Err("reflect: call of reflect.Value.Type on zero Value".to_owned()),
        _ => return Err(format!("len of type {}", item.type_name())),
    };
    Ok(Value::new(Kind::Int(i64::try_from(length).unwrap_or(i64::MAX))))
}

pub(crate) fn index<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    let mut item = arg(args, 0).clone();
    if matches!(item.kind, Kind::Missing | Kind::Nil) {
        return Err("index of untyped nil".to_owned());
    }
    for key in args.iter().skip(1) {
        item = match &item.kind {
            Kind::List(list) => {
                let at = index_arg(key, list.len())?;
                list.get(at).ok_or("reflect: slice index out of range")?
            }
            Kind::Text(text) => {
                let at = index_arg(key, text.as_str().len())?;
                let byte = text.as_str().as_bytes().get(at).ok_or("reflect: string index out of range")?;
                Value::new(Kind::Int(i64::from(*byte)))
            }
            Kind::Map(map) => index_map(map, key, &item)?,
            Kind::Missing | Kind::Nil => return Err("index of nil pointer".to_owned()),
            _ => return Err(format!("can't index item of type {}", item.type_name())),
        };
    }
    Ok(item)
}

fn index_map<'a>(map: &Map<'a>, key: &Value<'a>, item: &Value<'a>) -> Result<'a> {
    match &key.kind {
        Kind::Text(name) => match map.lookup(name.as_str()) {
            Lookup::Found(value) => Ok(value),
            Lookup::NoEntry => Ok(map.zero()),
            Lookup::NoField => Err(format!("can't index item of type {}", item.type_name())),
        },
        Kind::Missing | Kind::Nil => Err("value is nil; should be of type string".to_owned()),
        _ => Err(format!("value has type {}; should be string", key.type_name())),
    }
}

/// A place in something of this length, its end included.
fn index_arg(key: &Value<'_>, length: usize) -> std::result::Result<usize, String> {
    match key.kind {
        Kind::Int(n) => usize::try_from(n)
            .ok()
            .filter(|at| *at <= length)
            .ok_or_else(|| format!("index out of range: {n}")),
        Kind::Missing | Kind::Nil => Err("cannot index slice/array with nil".to_owned()),
        _ => Err(format!("cannot index slice/array with type {}", key.type_name())),
    }
}

pub(crate) fn slice<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    let (item, indexes) = (arg(args, 0), args.get(1..).unwrap_or_default());
    if matches!(item.kind, Kind::Missing | Kind::Nil) {
        return Err("slice of untyped nil".to_owned());
    }
    if indexes.len() > 3 {
        return Err(format!("too many slice indexes: {}", indexes.len()));
    }
    let length = match &item.kind {
        Kind::Text(_) if indexes.len() == 3 => return Err("cannot 3-index slice a string".to_owned()),
        Kind::Text(text) => text.as_str().len(),
        Kind::List(list) => list.len(),
        _ => return Err(format!("can't slice item of type {}", item.type_name())),
    };
    let mut bounds = [0, length, length];
    for (bound, key) in bounds.iter_mut().zip(indexes) {
        *bound = index_arg(key, length)?;
    }
    let [start, end, capacity] = bounds;
    for (low, high) in [(start, end), (end, capacity)] {
        if low > high {
            return Err(format!("invalid slice index: {low} > {high}"));
        }
    }
    match &item.kind {
        Kind::Text(Text::Borrowed(text)) if text.is_char_boundary(start) && text.is_char_boundary(end) => {
            Ok(Value::borrowed(text.get(start..end).unwrap_or_default()))
        }
        Kind::Text(text) => {
            context.out.push_str(&bytes_of(text.as_str(), start, end));
            Ok(context.made())
        }
        Kind::List(list) => Ok(Value::new(Kind::List(list.slice(start, end)))),
        _ => Ok(Value::missing()),
    }
}

/// Bytes of a string; a character that is cut becomes the replacement character, which is what a terminal
/// shows of it.
pub(crate) fn bytes_of(text: &str, start: usize, end: usize) -> Cow<'_, str> {
    String::from_utf8_lossy(text.as_bytes().get(start..end).unwrap_or_default())
}

// Comparison.

const BAD_COMPARISON: &str = "invalid type for comparison";

pub(crate) fn not<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    Ok(Value::new(Kind::Bool(!arg(args, 0).is_true())))
}

pub(crate) fn eq<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    if args.len() < 2 {
        return Err("missing argument for comparison".to_owned());
    }
    for other in args.iter().skip(1) {
        if equal(arg(args, 0), other)? {
            return Ok(Value::new(Kind::Bool(true)));
        }
    }
    Ok(Value::new(Kind::Bool(false)))
}

pub(crate) fn ne<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    Ok(Value::new(Kind::Bool(!equal(arg(args, 0), arg(args, 1))?)))
}

pub(crate) fn lt<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    compare(args, |order| order == Ordering::Less)
}

pub(crate) fn le<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    compare(args, |order| order != Ordering::Greater)
}

pub(crate) fn gt<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    compare(args, |order| order == Ordering::Greater)
}

pub(crate) fn ge<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Result<'a> {
    compare(args, |order| order != Ordering::Less)
}

fn equal(a: &Value<'_>, b: &Value<'_>) -> std::result::Result<bool, String> {
    match (&a.kind, &b.kind) {
        (Kind::Bool(a), Kind::Bool(b)) => Ok(a == b),
        (Kind::Int(a), Kind::Int(b)) => Ok(a == b),
        // Go compares them exactly too.
        #[allow(clippy::float_cmp)]
        (Kind::Float(a), Kind::Float(b)) => Ok(a == b),
        (Kind::Text(a), Kind::Text(b)) => Ok(a.as_str() == b.as_str()),
        // A nil list or map equals nil, and anything else does not.
        (x, y) if is_none(x) || is_none(y) => Ok(is_nil(x) && is_nil(y)),
        (Kind::List(_), Kind::List(_)) | (Kind::Map(_), Kind::Map(_)) => {
            if is_nil(&a.kind) || is_nil(&b.kind) {
                return Ok(is_nil(&a.kind) == is_nil(&b.kind));
            }
            Err(format!("non-comparable type {}: {}", print::describe(b, 's'), b.type_name()))
        }
        (Kind::List(_), Kind::Map(_)) | (Kind::Map(_), Kind::List(_)) => Err(format!(
            "non-comparable types {}: {}, {}: {}",
            print::describe(a, 's'),
            a.type_name(),
            b.type_name(),
            print::describe(b, 'v')
        )),
        _ => Err(format!("incompatible types for comparison: {} and {}", a.type_name(), b.type_name())),
    }
}

fn is_none(kind: &Kind<'_>) -> bool {
    matches!(kind, Kind::Missing | Kind::Nil)
}

fn is_nil(kind: &Kind<'_>) -> bool {
    match kind {
        Kind::Missing | Kind::Nil => true,
        Kind::List(list) => list.is_nil(),
        Kind::Map(map) => map.is_nil(),
        _ => false,
    }
}

fn compare<'a>(args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Result<'a> {
    let (a, b) = (arg(args, 0), arg(args, 1));
    let order = match (&a.kind, &b.kind) {
        (Kind::Int(a), Kind::Int(b)) => Some(a.cmp(b)),
        (Kind::Float(a), Kind::Float(b)) => a.partial_cmp(b),
        (Kind::Text(a), Kind::Text(b)) => Some(a.as_str().cmp(b.as_str())),
        (a, b) if !is_basic(a) || !is_basic(b) => return Err(BAD_COMPARISON.to_owned()),
        (Kind::Bool(_), Kind::Bool(_)) => return Err(BAD_COMPARISON.to_owned()),
        _ => {
            return Err(format!(
                "incompatible types for comparison: {} and {}",
                a.type_name(),
                b.type_name()
            ));
        }
    };
    Ok(Value::new(Kind::Bool(order.is_some_and(holds))))
}

fn is_basic(kind: &Kind<'_>) -> bool {
    matches!(kind, Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Text(_))
}
