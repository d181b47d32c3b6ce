//! What a Lease says about who leads: values only.
//!
//! The rules are those of client-go's leader election
//! (<https://github.com/kubernetes/client-go/blob/master/tools/leaderelection/leaderelection.go>), so that any tool that
//! reads Leases understands ours. Clocks of different nodes are never compared: a candidate measures, by its own clock,
//! how long the Lease has not changed.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use tokio::time::Instant;

/// How long a Lease that does not change is respected, in seconds.
pub(super) const LEASE_SECONDS: i32 = 15;

/// The Lease as last seen, and since when it has looked like this.
#[derive(Debug)]
pub(super) struct Seen {
    pub lease: Lease,
    since: Instant,
}

/// What a candidate makes of a Lease.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim<'a> {
    /// It is this candidate's own.
    Ours,
    /// Nobody's, or that of one who has not renewed it in time.
    Free,
    /// Somebody else's.
    Held(&'a str),
}

impl Seen {
    /// The Lease as it is now, after `earlier`.
    pub fn new(lease: Lease, earlier: Option<Self>, now: Instant) -> Self {
        match earlier {
            Some(earlier) if earlier.lease.spec == lease.spec => Self { lease, since: earlier.since },
            _ => Self { lease, since: now },
        }
    }

    pub fn claim(&self, identity: &str, now: Instant) -> Claim<'_> {
        let holder = holder(&self.lease);
        if holder == identity {
            return Claim::Ours;
        }
        // The holder's own word on how long it is to be respected. One that makes no sense is replaced by ours.
        let spec = self.lease.spec.as_ref();
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds).filter(|&seconds| seconds > 0);
        let respected = Duration::from_secs(u64::from(seconds.unwrap_or(LEASE_SECONDS).unsigned_abs()));
        if holder.is_empty() || now.duration_since(self.since) >= respected {
            Claim::Free
        } else {
            Claim::Held(holder)
        }
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

/// The specification with which `identity` takes or renews the Lease at `now`.
pub(super) fn held_by(identity: &str, previous: Option<&Lease>, now: Timestamp) -> LeaseSpec {
    let spec = previous.and_then(|lease| lease.spec.as_ref());
    let is_renewal = previous.is_some_and(|lease| holder(lease) == identity);
    let acquired = spec.and_then(|spec| spec.acquire_time.clone()).filter(|_| is_renewal);
    let transitions = spec.and_then(|spec| spec.lease_transitions).unwrap_or(0);
    let is_first = spec.is_none_or(|spec| spec.lease_transitions.is_none());
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        acquire_time: Some(acquired.unwrap_or(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if is_renewal || is_first {
            transitions
        } else {
            transitions.saturating_add(1)
        }),
        ..Default::default()
    }
}

/// The specification that gives the Lease up, so that the next candidate need not wait.
pub(super) fn given_up(previous: &Lease, now: Timestamp) -> LeaseSpec {
    let spec = previous.spec.as_ref();
    LeaseSpec {
        holder_identity: Some(String::new()),
        // As client-go: also a candidate that ignores an empty holder waits no longer than this.
        lease_duration_seconds: Some(1),
        acquire_time: Some(MicroTime(now)),
        renew_time: Some(MicroTime(now)),
        lease_transitions: spec.and_then(|spec| spec.lease_transitions),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(spec: LeaseSpec) -> Lease {
        Lease { spec: Some(spec), ..Default::default() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_lease_is_free_once_it_has_not_changed_for_its_duration() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let first = held_by("a", None, at(100));
        let seen = Seen::new(lease(first.clone()), None, start);
        assert_eq!(seen.claim("a", start), Claim::Ours);
        assert_eq!(seen.claim("b", after(14)), Claim::Held("a"));
        assert_eq!(seen.claim("b", after(15)), Claim::Free);

        // The same again changes nothing; a renewal starts a new term, whatever the holder's clock says.
        let seen = Seen::new(lease(first.clone()), Some(seen), after(10));
        assert_eq!(seen.claim("b", after(15)), Claim::Free);
        let renewed = held_by("a", Some(&lease(first)), at(50));
        let seen = Seen::new(lease(renewed), Some(seen), after(14));
        assert_eq!(seen.claim("b", after(28)), Claim::Held("a"));
        assert_eq!(seen.claim("b", after(29)), Claim::Free);
    }

    #[test]
    fn a_lease_given_up_is_free_at_once() {
        let held = lease(held_by("a", None, at(1)));
        let seen = Seen::new(lease(given_up(&held, at(2))), None, Instant::now());
        assert_eq!(seen.claim("b", Instant::now()), Claim::Free);
    }

    #[test]
    fn durations_that_make_no_sense_are_not_believed() {
        let start = Instant::now();
        for seconds in [Some(0), Some(-5), None] {
            let spec = LeaseSpec { lease_duration_seconds: seconds, ..held_by("a", None, at(1)) };
            let seen = Seen::new(lease(spec), None, start);
            assert_eq!(seen.claim("b", start + Duration::from_secs(14)), Claim::Held("a"), "{seconds:?}");
            assert_eq!(seen.claim("b", start + Duration::from_secs(15)), Claim::Free, "{seconds:?}");
        }
        let empty = Seen::new(Lease::default(), None, start);
        assert_eq!(empty.claim("b", start), Claim::Free);
    }

    #[test]
    fn terms_are_counted_and_renewals_are_not() {
        let first = held_by("a", None, at(1));
        assert_eq!((first.lease_transitions, &first.acquire_time), (Some(0), &Some(MicroTime(at(1)))));
        let renewed = held_by("a", Some(&lease(first)), at(2));
        assert_eq!((renewed.lease_transitions, &renewed.acquire_time), (Some(0), &Some(MicroTime(at(1)))));
        let taken = held_by("b", Some(&lease(renewed)), at(3));
        assert_eq!((taken.lease_transitions, &taken.acquire_time), (Some(1), &Some(MicroTime(at(3)))));
        let left = given_up(&lease(taken), at(4));
        let again = held_by("a", Some(&lease(left)), at(5));
        assert_eq!(again.lease_transitions, Some(2));
    }
}
