//! Go's string and character literals, read and written as `strconv` does.

use std::fmt::Write as _;

/// What Go says of a malformed literal.
pub(crate) const INVALID_SYNTAX: &str = "invalid syntax";

/// True for what Go prints as it is in a quoted string: letters, marks, numbers, punctuation, symbols and the
/// ASCII space.
pub(crate) fn is_printable(c: char) -> bool {
    // A character on its own is also escaped when it would combine with the quote before it: put a letter
    // there instead.
    matches!(c, '\'' | '"' | '\\') || ['a', c].iter().collect::<String>().escape_debug().count() == 2
}

/// A double-quoted Go string literal.
pub(crate) fn quote(text: &str) -> String {
    quote_with(text, '"', false)
}

/// The same in ASCII alone.
pub(crate) fn quote_ascii(text: &str) -> String {
    quote_with(text, '"', true)
}

/// A Go character literal.
pub(crate) fn quote_char(c: char, ascii: bool) -> String {
    quote_with(c.encode_utf8(&mut [0; 4]), '\'', ascii)
}

fn quote_with(text: &str, mark: char, ascii: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(mark);
    for c in text.chars() {
        match c {
            c if c == mark || c == '\\' => out.extend(['\\', c]),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if is_printable(c) && (!ascii || c.is_ascii()) => out.push(c),
            c => push_escape(&mut out, u32::from(c)),
        }
    }
    out.push(mark);
    out
}

fn push_escape(out: &mut String, code: u32) {
    // Writing to a String cannot fail.
    let _ = match code {
        0..0x80 if code < 0x20 || code == 0x7f => write!(out, "\\x{code:02x}"),
        0..0x1_0000 => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
}

/// True when the text can stand between back quotes.
pub(crate) fn can_back_quote(text: &str) -> bool {
    !text.chars().any(|c| (c < ' ' && c != '\t') || matches!(c, '`' | '\x7f' | '\u{feff}'))
}

/// What a `"…"` or `` `…` `` literal says. Bytes that are no UTF-8 (`\xff`) become the replacement character.
pub(crate) fn unquote(literal: &str) -> Result<String, &'static str> {
    if let Some(raw) = literal.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
        return Ok(raw.replace('\r', ""));
    }
    let mut rest = literal.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(INVALID_SYNTAX)?;
    let mut bytes = Vec::with_capacity(rest.len());
    while !rest.is_empty() {
        let (unit, tail) = unquote_one(rest, '"')?;
        match unit {
            Unit::Byte(byte) => bytes.push(byte),
            Unit::Char(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        rest = tail;
    }
    Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

/// The code point of a `'c'` literal; an error says what is wrong with it.
pub(crate) fn unquote_char(literal: &str) -> Result<u32, String> {
    let (unit, tail) = unquote_one(literal.strip_prefix('\'').unwrap_or(literal), '\'')?;
    if tail != "'" {
        return Err(format!("malformed character constant: {literal}"));
    }
    Ok(match unit {
        Unit::Byte(byte) => u32::from(byte),
        Unit::Char(c) => u32::from(c),
    })
}

enum Unit {
    Byte(u8),
    Char(char),
}

fn unquote_one(text: &str, mark: char) -> Result<(Unit, &str), &'static str> {
    let mut chars = text.chars();
    let first = chars.next().ok_or(INVALID_SYNTAX)?;
    if first == mark {
        return Err(INVALID_SYNTAX);
    }
    if first != '\\' {
        return Ok((Unit::Char(first), chars.as_str()));
    }
    let escape = chars.next().ok_or(INVALID_SYNTAX)?;
    let rest = chars.as_str();
    let simple = |c| Ok((Unit::Char(c), rest));
    match escape {
        'a' => simple('\x07'),
        'b' => simple('\x08'),
        'f' => simple('\x0c'),
        'n' => simple('\n'),
        'r' => simple('\r'),
        't' => simple('\t'),
        'v' => simple('\x0b'),
        '\\' => simple('\\'),
        c @ ('\'' | '"') if c == mark => simple(c),
        'x' => digits(rest, 2, 16).and_then(byte),
        'u' => digits(rest, 4, 16).and_then(code_point),
        'U' => digits(rest, 8, 16).and_then(code_point),
        '0'..='7' => digits(text.get(1..).unwrap_or_default(), 3, 8).and_then(byte),
        _ => Err(INVALID_SYNTAX),
    }
}

fn digits(text: &str, count: usize, radix: u32) -> Result<(u32, &str), &'static str> {
    let (number, rest) = text.split_at_checked(count).ok_or(INVALID_SYNTAX)?;
    if !number.chars().all(|c| c.is_digit(radix)) {
        return Err(INVALID_SYNTAX);
    }
    Ok((u32::from_str_radix(number, radix).map_err(|_| INVALID_SYNTAX)?, rest))
}

fn byte((code, rest): (u32, &str)) -> Result<(Unit, &str), &'static str> {
    Ok((Unit::Byte(u8::try_from(code).map_err(|_| INVALID_SYNTAX)?), rest))
}

fn code_point((code, rest): (u32, &str)) -> Result<(Unit, &str), &'static str> {
    Ok((Unit::Char(char::from_u32(code).ok_or(INVALID_SYNTAX)?), rest))
}
