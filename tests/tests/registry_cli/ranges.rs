//! Large layers that arrive slowly: over several connections where the registry serves ranges, over one where not.

use larder_tests::{Answer, Fault, Proxy, Registry, Rule, proxy::Exchange};

use crate::support::{Desk, image, registry};

/// Large enough to be cut.
const SIZE: usize = 80 << 20;
/// Bytes a second of one connection.
const RATE: u64 = 24 << 20;

struct Slow {
    desk: Desk,
    _registry: Registry,
    proxy: Proxy,
    name: String,
    layer: String,
}

/// A registry of which each connection is slow.
fn slow(seed: u64) -> Slow {
    let (desk, registry) = (Desk::new(), registry());
    let built = image(seed, &[SIZE]);
    registry.push(&built, "large", "v1").unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let layer = built.layers()[0].digest.to_string();
    proxy.add(Rule::get(&layer).then(Fault::Rate(RATE)));
    let name = format!("{}/large:v1", proxy.host());
    Slow { desk, _registry: registry, proxy, name, layer }
}

impl Slow {
    fn gets(&self) -> Vec<Exchange> {
        let exchanges = self.proxy.exchanges();
        exchanges.into_iter().filter(|e| e.method == "GET" && e.path.contains(&self.layer)).collect()
    }
}

#[test]
fn several_connections_fetch_a_large_layer() {
    let slow = slow(100);
    slow.desk.ok(&["pull", &slow.name]);
    slow.desk.check_store();
    let (parts, whole): (Vec<_>, Vec<_>) = slow.gets().into_iter().partition(|e| e.range.is_some());
    assert_eq!(whole.len(), 1, "{whole:?}");
    assert!(parts.len() > 10, "{parts:?}");
    assert!(parts.iter().all(|part| part.status == 206));
    // What the first connection had sent beyond the cut is all that came twice.
    let sent = slow.proxy.bytes_for(&slow.layer);
    assert!(sent < SIZE as u64 * 115 / 100, "{sent}");
}

#[test]
fn a_registry_that_answers_with_the_whole_is_left_at_one_connection() {
    let slow = slow(110);
    slow.proxy.add(Rule::get(&slow.layer).then(Fault::IgnoreRange));
    slow.desk.ok(&["pull", &slow.name]);
    slow.desk.check_store();
    let gets = slow.gets();
    assert!(gets.iter().all(|e| e.status == 200), "{gets:?}");
    let complete = gets.iter().filter(|e| e.bytes > SIZE as u64 / 2).count();
    assert_eq!(complete, 1, "{gets:?}");
}

#[test]
fn a_registry_that_refuses_ranges_is_left_at_one_connection() {
    let slow = slow(120);
    let refused = Rule::get(&slow.layer).when(|request| request.headers.contains_key("range"));
    let hits = slow.proxy.add(refused.then(Answer::status(400)));
    slow.desk.ok(&["pull", &slow.name]);
    slow.desk.check_store();
    assert!(hits.count() > 0);
    assert_eq!(slow.gets().iter().filter(|e| e.status == 200).count(), 1);
}

#[test]
fn parts_that_break_off_are_asked_for_again() {
    let slow = slow(130);
    let parts = Rule::get(&slow.layer).when(|request| request.headers.contains_key("range"));
    let hits = slow.proxy.add(parts.times(3).then(Fault::ResetAfter(100_000)));
    slow.desk.ok(&["pull", &slow.name]);
    slow.desk.check_store();
    assert_eq!(hits.count(), 3);
}

#[test]
fn a_part_with_a_wrong_byte_is_noticed() {
    let slow = slow(140);
    let parts = Rule::get(&slow.layer).when(|request| request.headers.contains_key("range"));
    slow.proxy.add(parts.times(1).then(Fault::FlipByte(5_000)));
    let error = slow.desk.fails(&["pull", &slow.name]);
    assert!(error.contains("digest"), "{error}");
    // The bytes are gone, and the next pull fetches them all.
    slow.desk.ok(&["pull", &slow.name]);
    slow.desk.check_store();
}
