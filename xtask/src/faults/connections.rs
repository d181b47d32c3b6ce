//! Connections that break, hang and crawl.

use larder_tests::{Fault, Rule};

use super::case::{Case, Draw, NEVER, Span, Target};
use super::raw::{End, RawServer};

const UNREACHABLE: &[&str] = &["cannot be reached"];

/// How a break that lasts ends: what comes each time may be all that is missing.
fn broken(draw: &mut Draw<'_>, target: &Target, offset: u64, what: &str, fault: Fault) -> Case {
    let case = draw.while_it_lasts(target, &format!("{what} after {offset} bytes"), vec![fault], UNREACHABLE);
    // Of a blob, each try goes on from where the last one ended.
    let resumes = offset > 0 && target.kind != "manifest";
    if resumes && case.retry.is_some() { Case::either(case.what) } else { case }
}

pub fn reset(draw: &mut Draw<'_>) -> Case {
    let target = draw.target();
    let offset = draw.offset(target.size);
    broken(draw, &target, offset, "RST", Fault::ResetAfter(offset))
}

pub fn truncated(draw: &mut Draw<'_>) -> Case {
    let target = draw.target();
    let offset = draw.offset(target.size);
    broken(draw, &target, offset, "FIN", Fault::TruncateAfter(offset))
}

/// Each connection brings next to nothing: it must end although there is progress.
pub fn trickle_of_connections(draw: &mut Draw<'_>) -> Case {
    let target = draw.layer_over(100_000);
    let offset = draw.one(&[1, 10, 100]);
    let fault = draw.one(&[Fault::ResetAfter(offset), Fault::TruncateAfter(offset)]);
    draw.add(&target, Span::Always, [fault]);
    let what = format!("every connection ends after {offset} of {} bytes", target.size);
    if target.size < 10_000 { Case::either(what) } else { Case::fails(what, UNREACHABLE) }
}

pub fn no_answer(draw: &mut Draw<'_>) -> Case {
    let target = draw.target();
    draw.while_it_lasts(&target, "no answer to a request", vec![Fault::Delay(NEVER)], UNREACHABLE).soon()
}

pub fn stalled(draw: &mut Draw<'_>) -> Case {
    let target = draw.target();
    let offset = draw.offset(target.size);
    broken(draw, &target, offset, "silence", Fault::StallAfter(offset)).soon()
}

pub fn one_byte_a_second(draw: &mut Draw<'_>) -> Case {
    let target = draw.target();
    // What is so short that it arrives all the same must be right.
    let case = draw.while_it_lasts(&target, "one byte a second", vec![Fault::Rate(1)], UNREACHABLE).soon();
    if target.size < 400 && case.retry.is_some() { Case::either(case.what).soon() } else { case }
}

pub fn slow(draw: &mut Draw<'_>) -> Case {
    let target = draw.target();
    // Twice what is too slow; so that it ends in a few seconds, never more than so much.
    let rate = (target.size / 3).max(512);
    draw.add(&target, Span::Always, [Fault::Rate(rate)]);
    Case::right(format!("a {} of {} bytes at {rate} bytes a second", target.kind, target.size))
}

/// No registry at all, on the registry's port.
pub fn garbage(draw: &mut Draw<'_>) -> Case {
    let (what, bytes, end) = draw.one(RAW);
    let case = Case::fails(
        what,
        &["cannot be reached", "does not answer like a registry", "answered", "larger than"],
    )
    .soon();
    Case { raw: RawServer::start(bytes.to_vec(), end).ok(), ..case }
}

/// What it says, and how that ends.
const RAW: &[(&str, &[u8], End)] = &[
    ("an SSH server", b"SSH-2.0-OpenSSH_9.7\r\n", End::Once),
    ("a TLS alert", &[0x15, 3, 1, 0, 2, 2, 0x46], End::Once),
    ("noise", &[0, 0xff, 0x80, b'\r', b'\n', b'\r', b'\n'], End::Once),
    ("noise without end", b"\x00\xfe\x01 garbage \r", End::Flood),
    ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nhello", End::Once),
    ("a negative length", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}", End::Once),
    (
        "an impossible length",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n{}",
        End::Once,
    ),
    ("a length of 8 EiB", b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n{}", End::Once),
    (
        "a bad chunk",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}",
        End::Once,
    ),
    ("nothing after the header", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", End::Once),
    (
        "headers without end",
        b"HTTP/1.1 200 OK\r\nX-Header: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
        End::Flood,
    ),
    ("a header line without end", b"HTTP/1.1 200 OK", End::Flood),
    ("only 100 Continue, without end", b"HTTP/1.1 100 Continue\r\n\r\n", End::Steady),
    ("a body without end", b"HTTP/1.1 200 OK\r\n\r\n{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{", End::Flood),
    (
        "an error body without end",
        b"HTTP/1.1 500 Oops\r\n\r\n<html><html><html><html><html><html><html>",
        End::Flood,
    ),
    ("a status that does not exist", b"HTTP/1.1 999 Strange\r\nContent-Length: 0\r\n\r\n", End::Once),
];

/// A large layer over several connections, some of which break.
pub fn parts_break_off(draw: &mut Draw<'_>) -> Case {
    let target = draw.layer_over(64 << 20);
    // Slow enough that one connection is not enough.
    draw.proxy.add(Rule::get(&target.path).then(Fault::Rate(24 << 20)));
    let times = draw.rng.u64(1..=4);
    let offset = draw.offset(2 << 20);
    let fault =
        draw.one(&[Fault::ResetAfter(offset), Fault::TruncateAfter(offset), Fault::StallAfter(offset)]);
    let part = Rule::get(&target.path)
        .when(|request| request.headers.get("range").is_some_and(|range| !range.as_bytes().ends_with(b"-")));
    draw.hit(part.times(times).then(fault.clone()));
    Case::right(format!("{times} parts: {fault:?}")).soon()
}
