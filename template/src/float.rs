//! Floating-point numbers as Go's `strconv.FormatFloat` writes them.

/// More digits than any number has: the smallest has 1,074 of them after its point, and only zeros follow. Rust
/// itself formats no more than 65,535 and panics beyond, while Go allows a million.
const MOST_DIGITS: usize = 1100;

/// Formats with the verb `e`, `f` or `g`; without a precision, with the fewest digits that read back as the
/// same number.
pub(crate) fn format(value: f64, verb: char, precision: Option<usize>) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() };
    }
    match (verb, precision) {
        ('e', Some(precision)) => {
            let text = format!("{value:.digits$e}", digits = precision.min(MOST_DIGITS));
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            go_exponent(&format!("{mantissa}{}e{exponent}", zeros_past_most(precision)))
        }
        ('e', None) => go_exponent(&format!("{value:e}")),
        ('f', Some(precision)) => {
            format!("{value:.digits$}{}", zeros_past_most(precision), digits = precision.min(MOST_DIGITS))
        }
        ('f', None) => format!("{value}"),
        _ => general(value, precision),
    }
}

/// What a precision asks for beyond the digits that a number has.
fn zeros_past_most(precision: usize) -> String {
    "0".repeat(precision.saturating_sub(MOST_DIGITS))
}

/// JSON's form: exponents only for very large and very small numbers, as ECMAScript has it.
pub(crate) fn format_json(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        // e-09 becomes e-9.
        return format(value, 'e', None).replace("e-0", "e-");
    }
    format(value, 'f', None)
}

/// `%g`: `%e` for large exponents and `%f` otherwise, without trailing zeros.
fn general(value: f64, precision: Option<usize>) -> String {
    // Zeros at the end are left out, so that no more digits are needed.
    let precision = precision.map(|p| p.clamp(1, MOST_DIGITS));
    let rounded = match precision {
        Some(p) => format!("{value:.*e}", p - 1),
        None => format!("{value:e}"),
    };
    let (mantissa, exponent) = rounded.split_once('e').unwrap_or((&rounded, "0"));
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let digits = mantissa.trim_start_matches('-').replace('.', "");
    let count = digits.trim_end_matches('0').len().max(1);
    let point = exponent + 1;
    let whole = i64::try_from(count).unwrap_or(i64::MAX);
    let limit = match precision.map(|p| i64::try_from(p).unwrap_or(i64::MAX)) {
        // With the fewest digits, Go decides by a precision of 6.
        None => 6,
        Some(p) if p > whole && whole >= point => whole,
        Some(p) => p,
    };
    if value != 0.0 && (exponent < -4 || exponent >= limit) {
        return go_exponent(&format!("{value:.*e}", count - 1));
    }
    format!("{value:.*}", usize::try_from(whole - point).unwrap_or(0))
}

/// Rust writes 1e5, Go 1e+05.
fn go_exponent(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}
