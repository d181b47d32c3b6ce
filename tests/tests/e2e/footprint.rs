//! What Larder takes of a node: disk, memory, CPU.

use std::{io::Write, time::Duration};

use larder_tests::{Image, ImageBuilder, Layer, Node};

use crate::{fixture::alone, killed::running, larder::ImageCache, slow::is_usable};

/// Not `eprintln!`: that is shown for tests that fail alone.
fn say(text: &str) {
    std::io::stderr().write_all(format!("e2e: {text}\n").as_bytes()).unwrap();
}

/// The bytes that a folder of the node takes on disk.
fn disk(node: &Node, folder: &str) -> u64 {
    let used = node.sh(&format!("du --summarize --block-size=1 {folder}")).unwrap();
    used.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_layer_is_on_the_disk_once() {
    const STORE: &str = "/var/lib/larder";
    const CONTENT: &str = "/var/lib/containerd/io.containerd.content.v1.content";
    let e2e = alone();
    let (larder, node) = (e2e.larder(), e2e.cluster.node("node-1").unwrap());
    let layers = [591, 592, 593].map(|seed| Layer::random(seed, 8_000_000).unwrap());
    // Without busybox, which the node has already.
    let image = layers.iter().fold(Image::builder(), ImageBuilder::layer).build().unwrap();
    let pushed = e2e.registry.push(&image, "e2e/once", "v1").unwrap();
    let before = [STORE, CONTENT].map(|folder| disk(&node, folder));
    let cache = ImageCache::apply_on(&e2e.cluster, "once", "node-1", &[&pushed.name]);
    cache.wait_ready(larder);
    assert!(is_usable(&node, &pushed.name));
    let after = [STORE, CONTENT].map(|folder| disk(&node, folder));
    let [store, content] = [after[0].saturating_sub(before[0]), after[1].saturating_sub(before[1])];
    say(&format!(
        "an image of {} bytes took {content} in containerd's content store, {store} in ours",
        pushed.size
    ));
    // Files take whole blocks; manifest, configuration, index and marks are some.
    assert!(content >= pushed.size && content < pushed.size + 200_000, "{content} for {}", pushed.size);
    assert!(store < 200_000, "{store}");
}

/// The kernel's count of the CPU time of a process, in hundredths of a second, and its resident memory in KiB.
fn cost(node: &Node, process: &str) -> (u64, u64) {
    let stat = node.sh(&format!("cat /proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let cpu = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let rss = node.sh(&format!("grep ^VmRSS: /proc/{process}/status")).unwrap();
    (cpu, rss.split_whitespace().nth(1).unwrap().parse().unwrap())
}

/// `cargo xtask bench delivery` measures it properly. These are programs without optimisation, on a machine that has other
/// things to do: the bounds are those that only a leak or a busy loop reaches.
#[test]
fn an_agent_at_rest_needs_little() {
    let e2e = alone();
    e2e.larder();
    let node = e2e.cluster.node("node-1").unwrap();
    let id = running(&node, "agent").first().unwrap().clone();
    let inspect = ["inspect", "--output", "go-template", "--template", "{{.info.pid}}", &id];
    let process = node.crictl(&inspect).unwrap().ok().unwrap().stdout.trim().to_owned();
    let before = cost(&node, &process);
    std::thread::sleep(Duration::from_secs(20));
    let after = cost(&node, &process);
    let cpu = (after.0 - before.0) * 10;
    say(&format!("an agent at rest has {} KiB of memory and used {cpu} ms of CPU in 20 s", after.1));
    assert!(after.1 < 128 << 10, "{} KiB", after.1);
    assert!(cpu < 5_000, "{cpu} ms of CPU in 20 s");
}
