//! `print`, `println` and `printf`: values as Go's `fmt` writes them.

use std::fmt::Write as _;

use crate::float;
use crate::out::Out;
use crate::quote::{can_back_quote, is_printable, quote, quote_ascii, quote_char};
use crate::value::{Elements, Kind, List, Map, Value};

const NIL: &str = "<nil>";

/// `fmt.Print`: a space between two operands of which neither is a string.
pub(crate) fn print(out: &mut Out, args: &[Value<'_>]) {
    let mut after_text = true;
    for (i, arg) in args.iter().enumerate() {
        let text = matches!(arg.kind, Kind::Text(_));
        if i > 0 && !text && !after_text {
            out.push(' ');
        }
        print_value(out, arg);
        after_text = text;
    }
}

/// `fmt.Println`: a space between all operands.
pub(crate) fn println(out: &mut Out, args: &[Value<'_>]) {
    for (i, arg) in args.iter().enumerate() {
        if i > 0 {
            out.push(' ');
        }
        print_value(out, arg);
    }
    out.push('\n');
}

/// `%v`
pub(crate) fn print_value(out: &mut Out, value: &Value<'_>) {
    Printer { out, flags: Flags::default() }.value(value, 'v', 0);
}

/// The beginning of a value for a message.
pub(crate) fn describe(value: &Value<'_>, verb: char) -> String {
    let mut out = Out::new(4096);
    Printer { out: &mut out, flags: Flags::default() }.value(value, verb, 0);
    out.take()
}

/// What stands between the percent sign and the verb.
#[derive(Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools)] // Five flags of a verb and two that %v makes of them: Go's own.
pub(crate) struct Flags {
    pub plus: bool,
    pub minus: bool,
    pub sharp: bool,
    pub space: bool,
    pub zero: bool,
    /// `%+v`
    pub plus_v: bool,
    /// `%#v`
    pub sharp_v: bool,
    pub width: Option<usize>,
    pub precision: Option<usize>,
}

/// Writes values under the flags of one verb.
pub(crate) struct Printer<'o> {
    pub out: &'o mut Out,
    pub flags: Flags,
}

impl Printer<'_> {
    fn padding(&mut self, count: usize) {
        let fill = if self.flags.zero && !self.flags.minus { '0' } else { ' ' };
        self.out.push_repeated(fill, count);
    }

    fn pad(&mut self, text: &str) {
        let missing = self.flags.width.unwrap_or(0).saturating_sub(text.chars().count());
        if !self.flags.minus {
            self.padding(missing);
        }
        self.out.push_str(text);
        if self.flags.minus {
            self.padding(missing);
        }
    }

    fn pad_without_zeros(&mut self, text: &str) {
        let zero = std::mem::replace(&mut self.flags.zero, false);
        self.pad(text);
        self.flags.zero = zero;
    }

    fn bad_verb(&mut self, value: &Value<'_>, verb: char) {
        self.out.push_str("%!");
        self.out.push(verb);
        self.out.push('(');
        if matches!(value.kind, Kind::Missing | Kind::Nil) {
            self.out.push_str(NIL);
        } else {
            self.out.push_str(&value.type_name());
            self.out.push('=');
            self.value(value, 'v', 0);
        }
        self.out.push(')');
    }

    /// Writes a value; `depth` is 0 but for elements of lists and maps.
    pub fn value(&mut self, value: &Value<'_>, verb: char, depth: usize) {
        if depth == 0 && !matches!(value.kind, Kind::Missing | Kind::Nil) {
            match verb {
                'T' => return self.pad(&value.type_name()),
                'p' => return self.bad_verb(value, verb),
                _ => {}
            }
        }
        match &value.kind {
            Kind::Missing | Kind::Nil if depth > 0 => {
                self.out.push_str(if self.flags.sharp_v { "interface {}(nil)" } else { NIL });
            }
            Kind::Missing | Kind::Nil if matches!(verb, 'v' | 'T') => self.pad(NIL),
            Kind::Bool(b) if matches!(verb, 't' | 'v') => self.pad(if *b { "true" } else { "false" }),
            Kind::Missing | Kind::Nil | Kind::Bool(_) => self.bad_verb(value, verb),
            Kind::Int(i) => self.int(value, *i, verb),
            Kind::Float(f) => self.float(value, *f, verb),
            Kind::Text(text) => self.text(value, text.as_str(), verb),
            Kind::List(list) => self.list(value, list, verb, depth),
            Kind::Map(map) => self.map(value, map, verb, depth),
        }
    }

    fn list(&mut self, value: &Value<'_>, list: &List<'_>, verb: char, depth: usize) {
        let go_syntax = self.flags.sharp_v;
        if go_syntax {
            self.out.push_str(&value.type_name());
            if list.is_nil() {
                return self.out.push_str("(nil)");
            }
        }
        self.out.push(if go_syntax { '{' } else { '[' });
        for (i, item) in list.iter().enumerate() {
            if self.out.is_full() {
                return;
            }
            self.separator(i);
            self.value(&item, verb, depth + 1);
        }
        self.out.push(if go_syntax { '}' } else { ']' });
    }

    fn map(&mut self, value: &Value<'_>, map: &Map<'_>, verb: char, depth: usize) {
        let go_syntax = self.flags.sharp_v;
        let fields = matches!(map.elements, Elements::Fields(_));
        if go_syntax {
            self.out.push_str(&value.type_name());
            if map.is_nil() && !fields {
                return self.out.push_str("(nil)");
            }
        }
        self.out.push_str(if go_syntax || fields { "{" } else { "map[" });
        for (i, (key, item)) in map.entries().iter().enumerate() {
            if self.out.is_full() {
                return;
            }
            self.separator(i);
            if !fields {
                self.value(&Value::borrowed(key), verb, depth + 1);
                self.out.push(':');
            } else if go_syntax || self.flags.plus_v {
                self.out.push_str(key);
                self.out.push(':');
            }
            self.value(item, verb, depth + 1);
        }
        self.out.push(if go_syntax || fields { '}' } else { ']' });
    }

    fn separator(&mut self, index: usize) {
        if index > 0 {
            self.out.push_str(if self.flags.sharp_v { ", " } else { " " });
        }
    }

    fn int(&mut self, value: &Value<'_>, number: i64, verb: char) {
        let magnitude = number.unsigned_abs();
        let digits = match verb {
            'v' | 'd' => magnitude.to_string(),
            'b' => format!("{magnitude:b}"),
            'o' | 'O' => format!("{magnitude:o}"),
            'x' => format!("{magnitude:x}"),
            'X' => format!("{magnitude:X}"),
            'c' | 'q' | 'U' => return self.code_point(number, verb),
            _ => return self.bad_verb(value, verb),
        };
        self.digits(digits, number < 0, verb);
    }

    fn digits(&mut self, mut digits: String, negative: bool, verb: char) {
        let flags = self.flags;
        let signed = negative || flags.plus || flags.space;
        let least = match (flags.precision, flags.width) {
            // No digits at all, only the width.
            (Some(0), _) if digits == "0" => return self.pad_without_zeros(""),
            (Some(precision), _) => precision,
            (None, Some(width)) if flags.zero && !flags.minus => width.saturating_sub(usize::from(signed)),
            _ => 0,
        };
        let zeros = "0".repeat(least.saturating_sub(digits.len()));
        digits.insert_str(0, &zeros);
        match verb {
            'b' if flags.sharp => digits.insert_str(0, "0b"),
            'o' if flags.sharp && !digits.starts_with('0') => digits.insert(0, '0'),
            'x' if flags.sharp => digits.insert_str(0, "0x"),
            'X' if flags.sharp => digits.insert_str(0, "0X"),
            'O' => {
                if flags.sharp && !digits.starts_with('0') {
                    digits.insert(0, '0');
                }
                digits.insert_str(0, "0o");
            }
            _ => {}
        }
        if signed {
            digits.insert(
                0,
                if negative {
                    '-'
                } else if flags.plus {
                    '+'
                } else {
                    ' '
                },
            );
        }
        self.pad_without_zeros(&digits);
    }

    fn code_point(&mut self, number: i64, verb: char) {
        let c = u32::try_from(number).ok().and_then(char::from_u32);
        match verb {
            'c' => self.pad(c.unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut [0; 4])),
            'q' => self.pad(&quote_char(c.unwrap_or(char::REPLACEMENT_CHARACTER), self.flags.plus)),
            _ => {
                let digits = format!("{number:X}");
                let least = self.flags.precision.unwrap_or(0).max(4);
                let mut text = format!("U+{}{digits}", "0".repeat(least.saturating_sub(digits.len())));
                if let Some(c) = c.filter(|c| self.flags.sharp && is_printable(*c)) {
                    text.extend([" '", c.encode_utf8(&mut [0; 4]), "'"]);
                }
                self.pad_without_zeros(&text);
            }
        }
    }

    /// Decimal verbs only: Go's binary and hexadecimal floating-point forms are not supported.
    fn float(&mut self, value: &Value<'_>, number: f64, verb: char) {
        let flags = self.flags;
        let mut text = match verb {
            'v' | 'g' | 'G' => float::format(number, 'g', flags.precision),
            'f' | 'F' => float::format(number, 'f', flags.precision.or(Some(6))),
            'e' | 'E' => float::format(number, 'e', flags.precision.or(Some(6))),
            _ => return self.bad_verb(value, verb),
        };
        if matches!(verb, 'G' | 'E') {
            text.make_ascii_uppercase();
        }
        if !text.starts_with(['-', '+']) && (flags.plus || flags.space) {
            text.insert(0, if flags.plus { '+' } else { ' ' });
        }
        if !number.is_finite() {
            return self.pad_without_zeros(&text);
        }
        match flags.width {
            Some(width)
                if flags.zero && !flags.minus && text.starts_with(['-', '+', ' ']) && width > text.len() =>
            {
                let (sign, rest) = text.split_at(1);
                self.out.push_str(sign);
                self.padding(width - text.len());
                self.out.push_str(rest);
            }
            _ => self.pad(&text),
        }
    }

    fn text(&mut self, value: &Value<'_>, text: &str, verb: char) {
        let short = match self.flags.precision {
            Some(precision) => text.char_indices().nth(precision).map_or(text, |(end, _)| &text[..end]),
            None => text,
        };
        match verb {
            'v' if self.flags.sharp_v => self.quoted(short),
            'v' | 's' => self.pad(short),
            'q' => self.quoted(short),
            'x' | 'X' => self.hexadecimal(text.as_bytes(), verb),
            _ => self.bad_verb(value, verb),
        }
    }

    fn quoted(&mut self, text: &str) {
        if self.flags.sharp && can_back_quote(text) {
            self.pad(&format!("`{text}`"));
        } else if self.flags.plus {
            self.pad(&quote_ascii(text));
        } else {
            self.pad(&quote(text));
        }
    }

    fn hexadecimal(&mut self, bytes: &[u8], verb: char) {
        let bytes = bytes.get(..self.flags.precision.unwrap_or(bytes.len())).unwrap_or(bytes);
        let prefix = match (self.flags.sharp, verb) {
            (false, _) => "",
            (true, 'x') => "0x",
            (true, _) => "0X",
        };
        let mut text = String::new();
        for (i, byte) in bytes.iter().enumerate() {
            if i > 0 && self.flags.space {
                text.push(' ');
            }
            if i == 0 || self.flags.space {
                text.push_str(prefix);
            }
            // Writing to a String cannot fail.
            let _ = if verb == 'x' { write!(text, "{byte:02x}") } else { write!(text, "{byte:02X}") };
        }
        self.pad(&text);
    }
}
