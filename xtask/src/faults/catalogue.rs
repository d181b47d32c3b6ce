//! All faults.

use super::case::{Case, Draw};
use super::{answers, connections, content};

/// What stands behind the proxy, and what it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// A registry without logins.
    Open,
    /// One with a token server.
    Tokens,
    /// One without logins, reached by TLS.
    Tls,
}

/// A kind of fault.
pub struct Entry {
    /// Its name in the table.
    pub name: &'static str,
    /// Where it happens.
    pub site: Site,
    /// Whether it needs the image with a large layer.
    pub large: bool,
    /// Makes the choices.
    pub make: fn(&mut Draw<'_>) -> Case,
}

const fn open(name: &'static str, make: fn(&mut Draw<'_>) -> Case) -> Entry {
    Entry { name, site: Site::Open, large: false, make }
}

const fn at(site: Site, name: &'static str, make: fn(&mut Draw<'_>) -> Case) -> Entry {
    Entry { name, site, large: false, make }
}

const fn large(name: &'static str, make: fn(&mut Draw<'_>) -> Case) -> Entry {
    Entry { name, site: Site::Open, large: true, make }
}

/// In the order in which they take turns.
pub const CATALOGUE: &[Entry] = &[
    open("no fault", |_| Case::right("nothing happens")),
    open("connection reset", connections::reset),
    open("connection closed", connections::truncated),
    open("broken off for ever", connections::trickle_of_connections),
    open("hung before the answer", connections::no_answer),
    open("hung in the answer", connections::stalled),
    open("one byte a second", connections::one_byte_a_second),
    open("slow, and steady", connections::slow),
    open("not HTTP", connections::garbage),
    open("server error", answers::server_error),
    open("429, Retry-After in seconds", answers::retry_after_seconds),
    open("429, Retry-After as a date", answers::retry_after_date),
    open("429, a wait too long", answers::retry_after_too_long),
    open("not found, denied", answers::refused),
    open("redirect without end", answers::redirect_loop),
    open("redirect to another host", answers::redirect_to_storage),
    open("redirect to nowhere", answers::redirect_to_nowhere),
    at(Site::Tls, "redirect out of TLS", answers::redirect_out_of_tls),
    at(Site::Tokens, "tokens end in the middle", answers::tokens_end),
    at(Site::Tokens, "tokens refused for ever", answers::tokens_refused),
    open("token server fails", answers::token_server_fails),
    open("challenge that cannot be read", answers::unreadable_challenge),
    open("ranges ignored", answers::ranges_ignored),
    open("ranges answered wrongly", answers::ranges_wrong),
    large("parts answered wrongly", answers::parts_wrong),
    large("parts break off", connections::parts_break_off),
    open("large headers", answers::large_headers),
    open("wrong digest header", content::wrong_digest_header),
    open("missing headers", content::missing_headers),
    open("wrong bytes", content::wrong_bytes),
    open("too short, and says so", content::too_short),
    open("too long, and says so", content::too_long),
    open("no Content-Length", content::no_content_length),
    open("compressed unasked", content::compressed),
    open("garbage manifest", content::garbage_manifest),
    open("huge manifest", content::huge_manifest),
    open("mirror with wrong bytes", content::lying_mirror),
];

/// The fault of the pull of this number.
pub fn entry(number: usize) -> &'static Entry {
    &CATALOGUE[number % CATALOGUE.len()]
}
