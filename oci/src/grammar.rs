//! The grammar of image names, by hand: parsing one name with `oci_spec::distribution::Reference`, which compiles a regular
//! expression, takes 18 MiB and 40 ms in a release build (`VmHWM` and the clock before and after), in each program that
//! reads a single name. A property test holds this to it.
//! (<https://github.com/distribution/reference/blob/main/regexp.go>)

/// The parts of a name, as they are written.
pub(crate) struct Parts<'a> {
    /// The registry, where one is written.
    pub registry: Option<&'a str>,
    pub repository: &'a str,
    pub tag: Option<&'a str>,
    pub digest: Option<&'a str>,
}

/// Takes a name apart; nothing where it breaks the grammar.
pub(crate) fn parse(text: &str) -> Option<Parts<'_>> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest).filter(|digest| is_digest(digest))?.into()),
        None => (text, None),
    };
    // A colon before the last slash belongs to a port.
    let last = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[last..].split_once(':') {
        Some((component, tag)) => (&rest[..last + component.len()], Some(tag)),
        None => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return None;
    }
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
        _ => (None, name),
    };
    let valid = registry.is_none_or(is_host) && repository.split('/').all(is_component);
    valid.then_some(Parts { registry, repository, tag, digest })
}

/// `sha256:…`: an algorithm and at least 32 hexadecimal digits.
fn is_digest(text: &str) -> bool {
    let word = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.split(['-', '_', '+', '.']).all(word)
            && hex.len() >= 32
            && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// A host, which is labels with dots between them, and perhaps a port. (Docker takes IPv6 addresses in brackets too;
/// `oci-spec` and what the API server checks do not.)
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let port = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    port && host.split('.').all(label)
}

/// Lower-case letters and digits, with `.`, `_`, `__` or dashes between them.
fn is_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = |b: Option<u8>| b.is_some_and(alphanumeric);
    let separator =
        |separator: &str| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
    ends(text.bytes().next())
        && ends(text.bytes().last())
        && text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(separator)
}

#[cfg(test)]
mod tests {
    use oci_spec::distribution::Reference;
    use proptest::prelude::*;

    use crate::ImageName;

    /// Names that are nearly right, and some that are.
    fn texts() -> impl Strategy<Value = String> {
        let word = "[a-zA-Z0-9]{0,3}([._-]{0,2}[a-z0-9]{1,3}){0,2}";
        let host =
            "([a-zA-Z0-9-]{1,4}([.][a-z0-9-]{1,3}){0,2}|localhost|\\[[0-9a-f:]{0,6}\\])(:[0-9a]{0,4})?/";
        let tag = "(:[a-zA-Z0-9_.-]{0,5})?";
        let digest = "(@(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}|sha256:[0-9a-g]{30,66}))?";
        let text = format!("({host})?{word}(/{word}){{0,2}}{tag}{digest}");
        proptest::string::string_regex(&text).unwrap()
    }

    proptest! {
        #[test]
        fn it_is_the_grammar_of_oci_spec(text in texts()) {
            let ours = text.parse::<ImageName>();
            let theirs = text.parse::<Reference>();
            match (&ours, &theirs) {
                (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours.as_str(), theirs.whole()),
                // What is told apart on purpose: capitals in the first part, hosts that no DNS knows, and digests of a
                // wrong length.
                (Err(_), Ok(theirs)) => prop_assert!(
                    theirs.repository().chars().any(char::is_uppercase)
                        || theirs.registry().contains('_')
                        || text.contains('@'),
                    "{}", text
                ),
                (Ok(_), Err(error)) => prop_assert!(false, "{}: {}", text, error),
                (Err(_), Err(_)) => {}
            }
        }
    }
}
