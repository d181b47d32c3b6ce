//! `printf`: Go's format strings.

use crate::out::Out;
use crate::print::{Flags, Printer, print_value};
use crate::value::{Kind, Value};

/// Width and precision beyond this are refused, as in Go.
const MAX_NUMBER: usize = 1_000_000;

/// `fmt.Printf`. Where format and arguments do not fit, the output says so, in Go's words.
pub(crate) fn printf(out: &mut Out, format: &str, args: &[Value<'_>]) {
    let mut run =
        Printf { rest: format, args, next: 0, reordered: false, good_index: true, after_index: false };
    while let Some((text, rest)) = run.rest.split_once('%') {
        out.push_str(text);
        run.rest = rest;
        if out.is_full() {
            return;
        }
        run.directive(&mut Printer { out, flags: Flags::default() });
    }
    out.push_str(run.rest);
    run.extra(out);
}

struct Printf<'f, 'v> {
    rest: &'f str,
    args: &'f [Value<'v>],
    /// The next argument.
    next: usize,
    /// An argument was named by its number: then it is no mistake when some are unused.
    reordered: bool,
    good_index: bool,
    after_index: bool,
}

impl Printf<'_, '_> {
    /// One directive, the percent sign read.
    fn directive(&mut self, printer: &mut Printer<'_>) {
        self.good_index = true;
        self.flags(&mut printer.flags);
        self.index();
        self.width(printer);
        self.precision(printer);
        if !self.after_index {
            self.index();
        }
        let mut chars = self.rest.chars();
        let Some(verb) = chars.next() else { return printer.out.push_str("%!(NOVERB)") };
        self.rest = chars.as_str();
        match self.args.get(self.next) {
            _ if verb == '%' => printer.out.push('%'),
            _ if !self.good_index => complain(printer.out, verb, "(BADINDEX)"),
            None => complain(printer.out, verb, "(MISSING)"),
            Some(arg) => {
                if verb == 'v' {
                    let flags = &mut printer.flags;
                    flags.sharp_v = std::mem::take(&mut flags.sharp);
                    flags.plus_v = std::mem::take(&mut flags.plus);
                }
                printer.value(arg, verb, 0);
                self.next += 1;
            }
        }
    }

    fn flags(&mut self, flags: &mut Flags) {
        loop {
            let mut chars = self.rest.chars();
            match chars.next() {
                Some('#') => flags.sharp = true,
                Some('0') => flags.zero = true,
                Some('+') => flags.plus = true,
                Some('-') => flags.minus = true,
                Some(' ') => flags.space = true,
                _ => return,
            }
            self.rest = chars.as_str();
        }
    }

    /// `[3]`: the third argument is next.
    fn index(&mut self) {
        self.after_index = false;
        let Some(inside) = self.rest.strip_prefix('[') else { return };
        self.reordered = true;
        let Some((number, rest)) = inside.split_once(']') else {
            self.good_index = false;
            self.rest = inside;
            return;
        };
        self.rest = rest;
        let (number, tail) = take_number(number);
        let number = number.filter(|_| tail.is_empty());
        self.after_index = number.is_some();
        match number.and_then(|n| n.checked_sub(1)) {
            Some(index) if index < self.args.len() => self.next = index,
            _ => self.good_index = false,
        }
    }

    fn width(&mut self, printer: &mut Printer<'_>) {
        if let Some(rest) = self.rest.strip_prefix('*') {
            self.rest = rest;
            self.after_index = false;
            let Some(width) = self.int_argument() else { return printer.out.push_str("%!(BADWIDTH)") };
            printer.flags.width = usize::try_from(width.unsigned_abs()).ok();
            if width < 0 {
                printer.flags.minus = true;
                printer.flags.zero = false;
            }
        } else {
            (printer.flags.width, self.rest) = take_number(self.rest);
            self.good_index &= !(self.after_index && printer.flags.width.is_some());
        }
    }

    fn precision(&mut self, printer: &mut Printer<'_>) {
        // A dot at the very end is taken for the verb.
        let Some(rest) = self.rest.strip_prefix('.').filter(|rest| !rest.is_empty()) else { return };
        self.rest = rest;
        self.good_index &= !self.after_index;
        self.index();
        if let Some(rest) = self.rest.strip_prefix('*') {
            self.rest = rest;
            self.after_index = false;
            printer.flags.precision = self.int_argument().and_then(|n| usize::try_from(n).ok());
            if printer.flags.precision.is_none() {
                printer.out.push_str("%!(BADPREC)");
            }
        } else {
            let (precision, rest) = take_number(self.rest);
            self.rest = rest;
            printer.flags.precision = Some(precision.unwrap_or(0));
        }
    }

    /// The next argument as a width or precision.
    fn int_argument(&mut self) -> Option<i64> {
        let arg = self.args.get(self.next)?;
        self.next += 1;
        match arg.kind {
            Kind::Int(n) if n.unsigned_abs() <= MAX_NUMBER as u64 => Some(n),
            _ => None,
        }
    }

    /// Arguments that no directive took.
    fn extra(&self, out: &mut Out) {
        let unused = self.args.get(self.next..).unwrap_or_default();
        if self.reordered || unused.is_empty() {
            return;
        }
        out.push_str("%!(EXTRA ");
        for (i, arg) in unused.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            if !matches!(arg.kind, Kind::Missing | Kind::Nil) {
                out.push_str(&arg.type_name());
                out.push('=');
            }
            print_value(out, arg);
        }
        out.push(')');
    }
}

fn complain(out: &mut Out, verb: char, what: &str) {
    out.push_str("%!");
    out.push(verb);
    out.push_str(what);
}

/// The number that the text begins with, and what follows. One that is far too large takes all of the text
/// with it, as in Go.
fn take_number(text: &str) -> (Option<usize>, &str) {
    let mut number = None;
    let mut rest = text.chars();
    let mut after = text;
    while let Some(digit) = rest.next().and_then(|c| c.to_digit(10)) {
        let so_far: usize = number.unwrap_or(0);
        if so_far > MAX_NUMBER {
            return (None, "");
        }
        number = Some(so_far * 10 + digit as usize);
        after = rest.as_str();
    }
    (number, after)
}
