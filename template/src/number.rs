//! Number constants of a template: Go's "ideal constants", which take the type that the place needs.

use crate::quote::{quote, unquote_char};

/// A number as it stands in the template, and as each type that can hold it.
#[derive(Debug)]
pub(crate) struct Number {
    pub text: String,
    pub int: Option<i64>,
    pub float: Option<f64>,
}

impl Number {
    /// A character constant, quotes included.
    pub fn from_char(text: &str) -> Result<Self, String> {
        let code = unquote_char(text)?;
        Ok(Self { text: text.to_owned(), int: Some(i64::from(code)), float: Some(f64::from(code)) })
    }

    /// A decimal, hexadecimal, octal, binary or floating-point constant. Imaginary numbers are not supported.
    pub fn parse(text: &str) -> Result<Self, String> {
        let illegal = || format!("illegal number syntax: {}", quote(text));
        let mut number = Self { text: text.to_owned(), int: None, float: None };
        if let Some(value) = parse_int(text) {
            number.int = i64::try_from(value).ok();
            number.float = Some(value as f64);
        } else {
            let float = parse_float(text).ok_or_else(illegal)?;
            if !text.contains(['.', 'e', 'E', 'p', 'P']) {
                return Err(format!("integer overflow: {}", quote(text)));
            }
            number.float = Some(float);
            number.int = whole(float);
        }
        Ok(number)
    }

    /// True when nothing but its spelling says that this is a floating-point number, and it does.
    pub fn is_float(&self) -> bool {
        let hexadecimal = self.text.len() > 2
            && self.text.starts_with("0x") | self.text.starts_with("0X")
            && !self.text.contains(['p', 'P']);
        !hexadecimal && !self.text.starts_with('\'') && self.text.contains(['.', 'e', 'E', 'p', 'P'])
    }
}

fn whole(float: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if float.fract() != 0.0 || !(-LIMIT..LIMIT).contains(&float) {
        return None;
    }
    // In range and whole, so that this is exact.
    #[allow(clippy::cast_possible_truncation)]
    Some(float as i64)
}

/// Any integer that fits in 64 bits, signed or not.
fn parse_int(text: &str) -> Option<i128> {
    let (negative, magnitude) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = magnitude.to_ascii_lowercase();
    let (radix, digits) = match lower.split_at_checked(2) {
        Some(("0x", rest)) => (16, rest),
        Some(("0o", rest)) => (8, rest),
        Some(("0b", rest)) => (2, rest),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if lower.contains('_') && !underscores_ok(&lower) {
        return None;
    }
    let digits = digits.replace('_', "");
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = i128::from(u64::from_str_radix(&digits, radix).ok()?);
    let signed = if negative { -value } else { value };
    // A sign makes it a signed number, as in Go.
    let limit = if text.starts_with(['+', '-']) { i128::from(i64::MAX) } else { i128::from(u64::MAX) };
    (i128::from(i64::MIN)..=limit).contains(&signed).then_some(signed)
}

fn parse_float(text: &str) -> Option<f64> {
    let lower = text.to_ascii_lowercase();
    let unsigned = lower.trim_start_matches(['+', '-']);
    if lower.contains('_') && !underscores_ok(unsigned) {
        return None;
    }
    let plain = lower.replace('_', "");
    let value = match unsigned.strip_prefix("0x") {
        Some(_) => {
            let (negative, rest) = (plain.starts_with('-'), plain.trim_start_matches(['+', '-']));
            let value = parse_hex_float(rest.strip_prefix("0x")?)?;
            if negative { -value } else { value }
        }
        None => plain.parse().ok()?,
    };
    value.is_finite().then_some(value)
}

/// `1.8p-1` after the prefix: the exponent is of two, and Go requires it.
fn parse_hex_float(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once('p')?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value = 0.0;
    for c in whole.chars().chain(fraction.chars()) {
        value = value * 16.0 + f64::from(c.to_digit(16)?);
    }
    let places = i32::try_from(fraction.len()).ok()?.checked_mul(4)?;
    Some(value * 2f64.powi(exponent.parse::<i32>().ok()?.checked_sub(places)?))
}

/// Underscores stand between digits, or between a base prefix and a digit.
fn underscores_ok(lower: &str) -> bool {
    let hexadecimal = lower.starts_with("0x");
    let prefix = if ["0x", "0o", "0b"].iter().any(|p| lower.starts_with(p)) { 2 } else { 0 };
    let mut saw = if prefix > 0 { '0' } else { '^' };
    for c in lower.chars().skip(prefix) {
        saw = match c {
            c if c.is_ascii_digit() || hexadecimal && c.is_ascii_hexdigit() => '0',
            '_' if saw != '0' => return false,
            '_' => '_',
            _ if saw == '_' => return false,
            _ => '!',
        };
    }
    saw != '_'
}
