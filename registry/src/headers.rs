//! Headers of registries' answers, parsed.

use std::ops::{Range, RangeInclusive};

use reqwest::{Response, Url, header};

/// The most pages of a listing, and a bound for what a registry that lies could make us read.
pub(crate) const MAX_PAGES: usize = 1000;

/// A header as text; nothing when it is absent or no text.
pub(crate) fn text(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// The body's length, where the registry announces it and nothing in between changes it.
pub(crate) fn content_length(response: &Response) -> Option<u64> {
    text(response, header::CONTENT_LENGTH.as_str())?.parse().ok()
}

/// Whether a `Content-Range` is the part of a blob that was asked for (RFC 9110, section 14.4). A proxy that serves
/// another would corrupt the blob, and only at the end would we know.
pub(crate) fn is_part(content_range: &str, part: &Range<u64>, size: u64) -> bool {
    let Some((given, whole)) = content_range.strip_prefix("bytes ").and_then(|rest| rest.split_once('/'))
    else {
        return false;
    };
    let Some(given) = range(given) else { return false };
    let right_size = whole == "*" || number(whole) == Some(size);
    right_size && *given.start() == part.start && given.end().checked_add(1) == Some(part.end)
}

/// How many bytes an upload session has, by its `Range: 0-<last>` (distribution specification, "Pushing a blob in
/// chunks"). An empty session says `0-0`, as one with a single byte does; the byte is then sent again.
pub(crate) fn uploaded(range_header: &str) -> Option<u64> {
    let text = range_header.strip_prefix("bytes=").unwrap_or(range_header);
    let range = range(text)?;
    match (range.start(), range.end()) {
        (0, 0) => Some(0),
        (0, end) => end.checked_add(1),
        _ => None,
    }
}

fn range(text: &str) -> Option<RangeInclusive<u64>> {
    let (start, end) = text.trim().split_once('-')?;
    let range = number(start)?..=number(end)?;
    (range.start() <= range.end()).then_some(range)
}

/// Digits alone: `parse` would take a sign too.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The next page by a `Link` header (RFC 8288), if there is one. It must be on the same host: a registry has no
/// business sending us, with our login, elsewhere.
pub(crate) fn next_page(link: &str, here: &Url) -> Option<Url> {
    let mut rest = link;
    while let Some(start) = rest.find('<') {
        let after = &rest[start + 1..];
        let (target, params) = after.split_once('>')?;
        let end = params.find('<').unwrap_or(params.len());
        let is_next = params[..end].split([';', ',']).any(|param| {
            let (name, value) = param.trim().split_once('=').unwrap_or_default();
            let value = value.trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("rel")
                && value.split(' ').any(|rel| rel.eq_ignore_ascii_case("next"))
        });
        if is_next {
            return here.join(target).ok().filter(|url| url.origin() == here.origin());
        }
        rest = &params[end..];
    }
    None
}

/// Where to continue an upload, by its `Location`: absolute or relative. A registry behind a TLS proxy that does not
/// know of it says `http`; what began under TLS goes on under TLS.
pub(crate) fn upload_location(location: &str, here: &Url) -> Result<Url, String> {
    let mut url = here.join(location).map_err(|_| "its Location for the upload is not a URL".to_owned())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("its Location for the upload is not a web address".to_owned());
    }
    if here.scheme() == "https" && url.scheme() == "http" {
        if url.host_str() != here.host_str() {
            return Err("it wants the upload to leave https for another host".to_owned());
        }
        let unchanged = url.set_scheme("https").is_ok() && url.set_port(here.port()).is_ok();
        if !unchanged {
            return Err("its Location for the upload is not a web address".to_owned());
        }
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_part_that_was_asked_for_is_taken() {
        for (text, right) in [
            ("bytes 10-19/100", true),
            ("bytes 10-19/*", true),
            ("bytes 10-20/100", false),
            ("bytes 9-19/100", false),
            ("bytes 10-19/101", false),
            ("bytes 10-19", false),
            ("bytes=10-19/100", false),
            ("items 10-19/100", false),
            ("bytes +10-19/100", false),
            ("bytes 10-18446744073709551615/100", false),
            ("", false),
        ] {
            assert_eq!(is_part(text, &(10..20), 100), right, "{text}");
        }
    }

    #[test]
    fn an_upload_says_how_far_it_is() {
        for (text, bytes) in [
            ("0-0", Some(0)),
            ("0-99", Some(100)),
            ("bytes=0-99", Some(100)),
            (" 0-99 ", Some(100)),
            ("1-99", None),
            ("0-", None),
            ("99-0", None),
            ("0-18446744073709551615", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(uploaded(text), bytes, "{text}");
        }
    }

    #[test]
    fn the_next_page_is_on_the_same_host() {
        let here: Url = "https://a.corp/v2/x/tags/list?n=2".parse().unwrap();
        for (link, next) in [
            (r#"</v2/x/tags/list?last=b&n=2>; rel="next""#, Some("https://a.corp/v2/x/tags/list?last=b&n=2")),
            (r"<https://a.corp/p2>;rel=next", Some("https://a.corp/p2")),
            (
                r#"<https://a.corp/p0>; rel="prev", </p2>; title="x"; rel="last NEXT""#,
                Some("https://a.corp/p2"),
            ),
            (r#"<https://evil.corp/p2>; rel="next""#, None),
            (r#"<http://a.corp/p2>; rel="next""#, None),
            (r#"</p2>; rel="prev""#, None),
            ("</p2", None),
            ("", None),
        ] {
            assert_eq!(next_page(link, &here).as_ref().map(Url::as_str), next, "{link}");
        }
    }

    #[test]
    fn an_upload_goes_on_where_the_registry_says() {
        let here: Url = "https://a.corp:5000/v2/x/blobs/uploads/".parse().unwrap();
        for (location, url) in [
            ("/v2/x/blobs/uploads/1?_state=a%3D", Ok("https://a.corp:5000/v2/x/blobs/uploads/1?_state=a%3D")),
            ("1?b=c", Ok("https://a.corp:5000/v2/x/blobs/uploads/1?b=c")),
            ("https://store.corp/u/1", Ok("https://store.corp/u/1")),
            ("http://a.corp/v2/u/1", Ok("https://a.corp:5000/v2/u/1")),
            ("http://store.corp/u/1", Err("another host")),
            ("ftp://a.corp/u", Err("web address")),
            ("https://", Err("not a URL")),
        ] {
            match (upload_location(location, &here), url) {
                (Ok(actual), Ok(expected)) => assert_eq!(actual.as_str(), expected),
                (Err(actual), Err(expected)) => assert!(actual.contains(expected), "{actual}"),
                (actual, _) => panic!("{location}: {actual:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[ -~]{0,100}") {
            let here: Url = "https://a.corp/v2/".parse().unwrap();
            let _ = next_page(&text, &here);
            let _ = upload_location(&text, &here);
            let _ = uploaded(&text);
            let _ = is_part(&text, &(0..1), 1);
        }

        #[test]
        fn a_right_range_is_always_taken(start in 0_u64..1 << 40, length in 1_u64..1 << 40, rest in 0_u64..1 << 40) {
            let end = start + length;
            let header = format!("bytes {start}-{}/{}", end - 1, end + rest);
            prop_assert!(is_part(&header, &(start..end), end + rest));
        }
    }
}
