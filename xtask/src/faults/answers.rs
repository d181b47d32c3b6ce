//! What a registry answers instead: statuses, waits, redirects, challenges, ranges.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use larder_tests::{Answer, Fault, Proxy, Rule};

use super::case::{Case, Draw, NEVER, Span};
use super::content::something_else;

const ANY_REFUSAL: &[&str] = &["denied", "does not answer like a registry", "refuses the login"];

pub fn server_error(draw: &mut Draw<'_>) -> Case {
    let (target, status) = (draw.target(), draw.one(&[500, 502, 503, 504, 520]));
    let envelope = r#"{"errors":[{"code":"UNKNOWN","message":"out of order"}]}"#;
    let body = draw.one(&["", envelope, "<html><body>Bad Gateway</body></html>"]);
    let fault = Answer::status(status).body(body).into();
    draw.while_it_lasts(&target, &format!("status {status}"), vec![fault], &["answered 5"])
}

fn too_many(draw: &mut Draw<'_>, status: u16, wait: Option<&str>) -> (Answer, String) {
    let target = draw.target();
    let answer = wait.iter().fold(Answer::status(status), |answer, wait| answer.header("retry-after", wait));
    let span = Span::Times(draw.rng.u64(1..=2));
    draw.add(&target, span, [answer.clone().into()]);
    (answer, format!("status {status}, Retry-After {wait:?}, of a {}, {span:?}", target.kind))
}

pub fn retry_after_seconds(draw: &mut Draw<'_>) -> Case {
    let wait = draw.one(&[None, Some("0"), Some("1"), Some(" 1 "), Some("soon"), Some("-5")]);
    let status = draw.one(&[429, 503]);
    Case::right(too_many(draw, status, wait).1)
}

/// A date as HTTP has it (RFC 9110, section 5.6.7), so many seconds from now.
fn date(seconds: i64) -> String {
    let then = Timestamp::now().saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    then.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

pub fn retry_after_date(draw: &mut Draw<'_>) -> Case {
    // Also one that has passed, and one without sense.
    let wait = draw.one(&[date(2), date(1), date(-100), "Thu, 99 Foo 2026 25:61:61 GMT".to_owned()]);
    let status = draw.one(&[429, 503]);
    Case::right(too_many(draw, status, Some(&wait)).1)
}

pub fn retry_after_too_long(draw: &mut Draw<'_>) -> Case {
    let wait =
        draw.one(&["3600".to_owned(), "99999999999999999999".to_owned(), "86400".to_owned(), date(4000)]);
    let target = draw.target();
    // The one that is no number of seconds in 64 bits says nothing: then it is tried again, in vain.
    draw.add(&target, Span::Always, [Answer::status(429).header("retry-after", &wait).into()]);
    Case::fails(format!("status 429, Retry-After {wait}, of a {}", target.kind), &["limits requests"])
}

pub fn refused(draw: &mut Draw<'_>) -> Case {
    let (target, status) = (draw.target(), draw.one(&[400, 401, 403, 404, 405, 410, 418, 451]));
    draw.add(&target, Span::Always, [Answer::status(status).into()]);
    let texts = &["denied", "denies", "not found", "not in the registry", "answered 4"];
    Case::fails(format!("status {status} to a request for a {}", target.kind), texts)
}

fn redirect_status(draw: &mut Draw<'_>) -> u16 {
    draw.one(&[301, 302, 303, 307, 308])
}

pub fn redirect_loop(draw: &mut Draw<'_>) -> Case {
    let (target, status) = (draw.target(), redirect_status(draw));
    let host = draw.proxy.host();
    let own = draw.subject.repository.clone();
    let path = target.path.clone();
    let location = draw.one(&[String::new(), "?again=1".to_owned(), format!("http://{host}/v2/{own}{path}")]);
    draw.add(&target, Span::Always, [Answer::status(status).header("location", &location).into()]);
    Case::fails(format!("{status} from a {} to {location:?}", target.kind), &["redirects"])
}

pub fn redirect_to_storage(draw: &mut Draw<'_>) -> Case {
    let Ok(storage) = Proxy::start(&draw.world.open.host()) else { return Case::right("no storage") };
    let (target, status) = (draw.blob(), redirect_status(draw));
    let location =
        format!("http://{}/v2/{}{}?signature=s", storage.host(), draw.subject.repository, target.path);
    draw.add(&target, Span::Always, [Answer::status(status).header("location", &location).into()]);
    let offset = draw.offset(target.size);
    let fault = draw.one(&[
        None,
        Some(Fault::ResetAfter(offset)),
        Some(Fault::TruncateAfter(offset)),
        Some(Answer::status(503).into()),
    ]);
    let what =
        format!("{status} from a {} of {} bytes to storage, where {fault:?}", target.kind, target.size);
    if let Some(fault) = fault {
        storage.add(target.rule(Span::Times(1)).then(fault));
    }
    Case { others: vec![storage], ..Case::right(what) }
}

pub fn redirect_to_nowhere(draw: &mut Draw<'_>) -> Case {
    let (target, status) = (draw.target(), redirect_status(draw));
    let location = draw.one(&[
        Some("http://127.0.0.1:1/nobody".to_owned()),
        Some("file:///etc/passwd".to_owned()),
        Some("ftp://127.0.0.1/x".to_owned()),
        Some("http://[".to_owned()),
        Some("javascript:alert(1)".to_owned()),
        Some(format!("http://127.0.0.1:1/{}", "a".repeat(9000))),
        None,
    ]);
    let answer =
        location.iter().fold(Answer::status(status), |answer, place| answer.header("location", place));
    draw.add(&target, Span::Always, [answer.into()]);
    let shown: Option<String> = location.map(|text| text.chars().take(60).collect());
    let texts = &["cannot be reached", "redirects", "answered 30"];
    Case::fails(format!("{status} from a {} to {shown:?}", target.kind), texts)
}

/// A tag may not lead out of TLS: what it stands for could be anybody's. A blob may: its digest is known.
pub fn redirect_out_of_tls(draw: &mut Draw<'_>) -> Case {
    let Ok(plain) = Proxy::start(&draw.world.open.host()) else { return Case::right("no storage") };
    let (target, status) = (draw.target(), redirect_status(draw));
    let location = format!("http://{}/v2/{}{}", plain.host(), draw.subject.repository, target.path);
    draw.add(&target, Span::Always, [Answer::status(status).header("location", &location).into()]);
    let what = format!("{status} from a {} by https to http", target.kind);
    let case = match target.kind {
        "manifest" => Case::fails(what, &["redirects away from https"]),
        _ => Case::right(what),
    };
    Case { others: vec![plain], ..case }
}

pub fn tokens_end(draw: &mut Draw<'_>) -> Case {
    // Longer than a token holds: what was good when it was sent is over when it arrives.
    let target = draw.blob();
    draw.add(&target, Span::Times(1), [Fault::Delay(Duration::from_secs(4))]);
    Case::right(format!("the token is over when a {} is asked for", target.kind))
}

/// Sends who asks for anything to a token server on the proxy itself, which gives this answer.
fn with_token_server(draw: &mut Draw<'_>, answer: impl Into<Fault>) {
    let challenge = format!(r#"Bearer realm="http://{}/tokens",service="s""#, draw.proxy.host());
    draw.hit(Rule::any("/v2/").then(Answer::unauthorized(&challenge)));
    draw.hit(Rule::any("/tokens").then(answer));
}

pub fn tokens_refused(draw: &mut Draw<'_>) -> Case {
    let token = draw.one(&[r#"{"token":"old"}"#, r#"{"access_token":"x","expires_in":1}"#]);
    with_token_server(draw, Answer::status(200).body(token));
    Case::fails("every token is refused", &["denied"])
}

pub fn token_server_fails(draw: &mut Draw<'_>) -> Case {
    let host = draw.proxy.host();
    let faults: Vec<(&str, Fault)> = vec![
        ("500", Answer::status(500).into()),
        ("404", Answer::status(404).into()),
        ("429 for an hour", Answer::status(429).header("retry-after", "3600").into()),
        ("no JSON", Answer::status(200).body("<html>").into()),
        ("no token", Answer::status(200).body("{}").into()),
        ("an empty token", Answer::status(200).body(r#"{"token":""}"#).into()),
        ("a token with a line break", Answer::status(200).body(r#"{"token":"a\r\nb"}"#).into()),
        ("4 MiB", Answer::status(200).body(vec![b'{'; 4 << 20]).into()),
        (
            "a redirect to itself",
            Answer::status(307).header("location", &format!("http://{host}/tokens")).into(),
        ),
        ("no answer", Fault::Delay(NEVER)),
    ];
    let (what, fault) = draw.one(&faults);
    with_token_server(draw, fault);
    let texts =
        &["token", "cannot be reached", "answered", "limits requests", "denied", "not found", "redirects"];
    Case::fails(format!("the token server: {what}"), texts).soon()
}

pub fn unreadable_challenge(draw: &mut Draw<'_>) -> Case {
    let long = format!("Bearer {}", "a".repeat(20_000));
    let challenge = draw.one(&[
        "",
        "Negotiate",
        "Bearer",
        r#"Bearer realm=""#,
        r#"Bearer realm="nowhere""#,
        r#"Bearer realm="file:///etc/passwd""#,
        r#"Bearer realm="http://user:password@127.0.0.1:1/t""#,
        r#"Bearer realm="http://127.0.0.1:1/t""#,
        "=,=;",
        "Basic realm=\"x",
        long.as_str(),
    ]);
    draw.hit(Rule::any("/v2/").then(Answer::unauthorized(challenge)));
    let shown: String = challenge.chars().take(60).collect();
    let texts = [ANY_REFUSAL, &["cannot be reached"]];
    // Nobody is there at the last but one realm that can be read.
    let texts: &'static [&'static str] =
        if challenge.contains("127.0.0.1:1/t") && !challenge.contains('@') { texts[1] } else { texts[0] };
    Case::fails(format!("challenge {shown:?}"), texts)
}

pub fn ranges_ignored(draw: &mut Draw<'_>) -> Case {
    let target = draw.layer_over(50_000);
    let (offset, span) = (draw.offset(target.size), draw.passing());
    draw.add(&target, Span::Always, [Fault::IgnoreRange]);
    draw.add(&target, span, [Fault::TruncateAfter(offset)]);
    Case::right(format!("all of {} bytes each time; broken off after {offset}, {span:?}", target.size))
}

pub fn ranges_wrong(draw: &mut Draw<'_>) -> Case {
    let target = draw.layer_over(50_000);
    let offset = draw.offset(target.size).max(1);
    draw.hit(target.rule(Span::Times(1)).then(Fault::TruncateAfter(offset)));
    let size = target.size;
    let fault = draw.one(&[
        Answer::status(416).into(),
        Fault::WithoutHeader("content-range"),
        Fault::Header("content-range", format!("bytes 0-0/{size}")),
        Fault::Header("content-range", format!("bytes {offset}-{}/*", size + 5)),
        Fault::Header("content-range", "bytes 18446744073709551615-0/5".to_owned()),
        Fault::Header("content-range", "leaves 1-2".to_owned()),
    ]);
    let what = format!("broken off after {offset} of {size} bytes; to a range {fault:?}");
    draw.hit(Rule::get(&target.path).when(|request| request.headers.contains_key("range")).then(fault));
    Case::right(what)
}

pub fn parts_wrong(draw: &mut Draw<'_>) -> Case {
    let target = draw.layer_over(64 << 20);
    draw.hit(Rule::get(&target.path).then(Fault::Rate(24 << 20)));
    let (fault, expect) = draw.one(&[
        (Fault::IgnoreRange, true),
        (Answer::status(416).into(), true),
        (Answer::status(404).into(), false),
        (Fault::Header("content-range", "bytes 0-9/10".to_owned()), true),
        (Fault::Shorten(1000), true),
        (Fault::Append("more".into()), true),
        (Fault::FlipByte(7), false),
        (Fault::ReplaceBody(something_else(2 << 20).into()), false),
        (Answer::status(500).into(), false),
    ]);
    let shown: String = format!("{fault:?}").chars().take(60).collect();
    let part = Rule::get(&target.path)
        .when(|request| request.headers.get("range").is_some_and(|range| !range.as_bytes().ends_with(b"-")));
    draw.hit(part.then(fault));
    let what = format!("to every part {shown}");
    if expect { Case::right(what) } else { Case::either(what) }
}

pub fn large_headers(draw: &mut Draw<'_>) -> Case {
    let (target, size) = (draw.target(), draw.one(&[4 << 10, 30 << 10, 100 << 10, 600 << 10, 3 << 20]));
    draw.add(&target, Span::Always, [Fault::Header("x-large", "a".repeat(size))]);
    let what = format!("a header of {size} bytes with a {}", target.kind);
    if size < 64 << 10 { Case::right(what) } else { Case::either(what) }
}
