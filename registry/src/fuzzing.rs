//! Ways in for the fuzz targets (`fuzz/`), to what is nobody else's business.

use std::path::Path;

use jiff::Timestamp;
use reqwest::{
    Url,
    header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};

use crate::{
    auth::{Challenge, challenge},
    headers, hosts, http,
};

/// Reads the text of a `hosts.toml`; the error as it would be shown.
pub fn hosts(text: &str) -> Result<(), String> {
    hosts::check(Path::new("/etc/containerd/certs.d/a.corp/hosts.toml"), text)
}

/// Takes apart the headers of an answer, all of this value.
pub fn headers(value: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(value) else { return };
    let map = HeaderMap::from_iter([(WWW_AUTHENTICATE, value.clone())]);
    for plain in [false, true] {
        if let Ok(Challenge::Bearer { realm, .. }) = challenge::choose(&map, plain) {
            assert!(realm.host_str().is_some_and(|host| !host.is_empty()));
            assert!(realm.username().is_empty() && realm.password().is_none());
        }
    }
    let Ok(text) = value.to_str() else { return };
    let here = Url::parse("https://a.corp:5000/v2/x/tags/list?n=2");
    if let Some(next) = here.ok().and_then(|here| headers::next_page(text, &here)) {
        assert_eq!(next.origin().ascii_serialization(), "https://a.corp:5000");
    }
    let _ = headers::is_part(text, &(10..20), 100);
    let _ = headers::uploaded(text);
    let _ = http::parse_retry_after(text, Timestamp::UNIX_EPOCH);
}
