//! A pull that is killed goes on where it stopped.

use larder_tests::{Proxy, Registry, RegistryOptions, until, wait::PATIENCE};

use crate::fixture::{Larder, damaged, image, images, names};

/// Twenty kills in one pull, each at a random byte. After each the store is consistent; in the end every byte was
/// fetched about once.
#[test]
fn killed_at_twenty_random_bytes() {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let built = image(&[(80, 22_000_000), (81, 15_000_000), (82, 12_000_000), (83, 500_000)]);
    registry.push(&built, "big", "v1").unwrap();
    let big = format!("{}/big:v1", proxy.host());
    // What is in flight when the agent dies counts as fetched. Slower than a busy machine reads, so that this is little.
    proxy.limit_rate(Some(20_000_000));
    let larder = Larder::start(&[("a", &[])]);
    let (store, share) = (larder.store("a"), built.size() / 21);
    let arm = |seed: u64| {
        let killer = larder.agent("a").killer();
        let bytes = fastrand::Rng::with_seed(seed).u64(1..share * 2);
        proxy.on_bytes(bytes.min(share * 3 / 2), move || killer.kill());
    };

    arm(0);
    larder.apply("big", &images(None, &[&big]));
    let mut kills = 0;
    while kills < 20 {
        until("the agent to be killed, or to be done", PATIENCE, || {
            (!larder.agent("a").is_running() || !names(&store).is_empty()).then_some(())
        })
        .unwrap();
        assert_eq!(damaged(&store), Vec::<std::path::PathBuf>::new(), "after kill {kills}");
        if !names(&store).is_empty() {
            break;
        }
        kills += 1;
        if kills < 20 {
            arm(kills);
        }
        larder.agent("a").start().unwrap();
    }
    larder.wait_ready("big", 1);
    assert!(kills >= 15, "the image was complete after {kills} kills: the test kills too late");
    assert_eq!(damaged(&store), Vec::<std::path::PathBuf>::new());
    let sent = proxy.bytes_sent();
    assert!(
        sent * 10 <= built.size() * 11,
        "{sent} bytes were fetched for {}, with {kills} kills",
        built.size()
    );
}
