//! What a registry asks for with a 401 (RFC 9110, section 11.6.1).

use http_auth::ChallengeParser;
use reqwest::{
    Url,
    header::{HeaderMap, WWW_AUTHENTICATE},
};

use super::scope::Scope;
use crate::http::is_loopback;

/// A challenge that we can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token from a token server (<https://distribution.github.io/distribution/spec/auth/token/>).
    Bearer {
        /// The token server.
        realm: Url,
        /// What to call the registry there.
        service: Option<String>,
        /// What the registry wants the token to allow.
        scope: Scope,
    },
}

/// The best challenge of an answer: a token before a password, which would go over the wire each time. A header that
/// can't be read is passed over where another can.
pub(crate) fn choose(headers: &HeaderMap, plain: bool) -> Result<Challenge, String> {
    let mut basic = false;
    let mut problem = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(text) = value.to_str() else { continue };
        for challenge in ChallengeParser::new(text) {
            let Ok(challenge) = challenge else {
                problem.get_or_insert_with(|| "its WWW-Authenticate header is malformed".to_owned());
                break;
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                match bearer(&challenge, plain) {
                    Ok(bearer) => return Ok(bearer),
                    Err(why) => problem = Some(why),
                }
            } else if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = true;
            } else {
                let scheme: String = challenge.scheme.chars().take(40).collect();
                problem.get_or_insert_with(|| {
                    format!("it asks for a login by {scheme}, which is not supported")
                });
            }
        }
    }
    match problem {
        _ if basic => Ok(Challenge::Basic),
        Some(problem) => Err(problem),
        None => Err("it asks for a login and does not say which".to_owned()),
    }
}

fn bearer(challenge: &http_auth::ChallengeRef<'_>, plain: bool) -> Result<Challenge, String> {
    let param = |name: &str| {
        let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_unescaped()).filter(|text| !text.is_empty())
    };
    let realm = param("realm").ok_or("its token challenge names no realm")?;
    Ok(Challenge::Bearer {
        realm: check_realm(&realm, plain)?,
        service: param("service"),
        scope: param("scope").map(|text| Scope::parse(&text)).unwrap_or_default(),
    })
}

/// The realm is where the login goes: in the clear only where the registry is spoken to in the clear anyway, or
/// within this machine.
fn check_realm(text: &str, plain: bool) -> Result<Url, String> {
    let shown: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    let url = Url::parse(text).map_err(|_| format!("its token server {shown:?} is not a URL"))?;
    let host = url.host_str().unwrap_or_default();
    if host.is_empty() || !url.username().is_empty() || url.password().is_some() {
        return Err(format!("its token server {shown:?} is not a plain URL"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if plain || is_loopback(host) => Ok(url),
        _ => Err(format!("its token server {shown:?} is not https, and logins don't travel in the clear")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;

    fn read(values: &[&str], plain: bool) -> Result<Challenge, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
        }
        choose(&headers, plain)
    }

    fn bearer(realm: &str, service: Option<&str>, scope: &str) -> Challenge {
        let service = service.map(str::to_owned);
        Challenge::Bearer { realm: realm.parse().unwrap(), service, scope: Scope::parse(scope) }
    }

    #[test]
    fn challenges_that_registries_send() {
        for (values, expected) in [
            (
                &[
                    r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull""#,
                ][..],
                bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    "repository:library/x:pull",
                ),
            ),
            (&[r#"Basic realm="a, b""#], Challenge::Basic),
            (&["basic realm=x"], Challenge::Basic),
            (&[r#"Basic realm="x", Bearer realm="https://a/t""#], bearer("https://a/t", None, "")),
            (
                &[r#"Basic realm="x""#, r#"BEARER Realm="https://a/t", error="invalid_token""#],
                bearer("https://a/t", None, ""),
            ),
            (&["Negotiate", r#"Basic realm="x""#], Challenge::Basic),
            (&["Bearer scope=x", r#"Basic realm="x""#], Challenge::Basic),
            (
                &[r#"Bearer realm="https://a/t?x=1",scope="repository:a:pull,push repository:b:pull""#],
                bearer("https://a/t?x=1", None, "repository:a:pull,push repository:b:pull"),
            ),
        ] {
            assert_eq!(read(values, false), Ok(expected), "{values:?}");
        }
    }

    #[test]
    fn challenges_that_cannot_be_answered_say_why() {
        for (values, why) in [
            (&[][..], "does not say which"),
            (&["Negotiate"], "by Negotiate"),
            (&["Bearer scope=x"], "no realm"),
            (&[r#"Bearer realm="nowhere""#], "not a URL"),
            (&[r#"Bearer realm="https://u:p@a/t""#], "not a plain URL"),
            (&[r#"Bearer realm="http://auth.corp/t""#], "not https"),
            (&[r#"Bearer realm="file:///etc/passwd""#], "not a plain URL"),
            (&["=,=;"], "malformed"),
        ] {
            let error = read(values, false).unwrap_err();
            assert!(error.contains(why), "{values:?}: {error}");
        }
    }

    #[test]
    fn a_realm_in_the_clear_is_for_plain_registries_and_this_machine() {
        assert!(read(&[r#"Bearer realm="http://auth.lab/t""#], true).is_ok());
        assert!(read(&[r#"Bearer realm="http://127.0.0.1:5001/t""#], false).is_ok());
    }

    proptest! {
        #[test]
        fn never_panics(text in "[ -~]{0,200}") {
            let _ = read(&[&text], false);
            let _ = read(&[&format!("Bearer {text}")], true);
        }
    }
}
