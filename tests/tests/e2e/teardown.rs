//! That a cluster leaves nothing behind, however it ends.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use larder_tests::{
    Cluster, ClusterOptions, Pod, PodOptions, Program, Scratch, machine, until, wait::PATIENCE,
};

use crate::fixture::assert_available;

/// What there is on this machine of the clusters of one process.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    processes: BTreeSet<String>,
    places: BTreeSet<PathBuf>,
}

impl Traces {
    /// Of folders, control groups and processes, by the name that they all carry.
    fn of(process: u32) -> Self {
        let mark = format!("-{process}-");
        let is_ours = |name: &str| name.starts_with("larder-cluster-") && name.contains(&mark);
        let tops = machine::cgroup_hierarchies().unwrap().into_iter().chain([std::env::temp_dir()]);
        let places = tops.flat_map(|top| std::fs::read_dir(top).unwrap().flatten()).map(|entry| entry.path());
        let places = places.filter(|path| is_ours(path.file_name().unwrap().to_str().unwrap())).collect();
        Self { processes: processes(&mark), places }
    }

    fn is_empty(&self) -> bool {
        self.processes.is_empty() && self.places.is_empty()
    }
}

/// Those whose command line, control group or mounts name a cluster of this mark.
fn processes(mark: &str) -> BTreeSet<String> {
    let names_ours =
        |text: &str| text.lines().any(|line| line.contains("larder-cluster-") && line.contains(mark));
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |file: &str| {
            let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let is_process =
            entry.file_name().to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()));
        if is_process && ["cmdline", "cgroup", "mountinfo"].iter().any(|file| names_ours(&read(file))) {
            found.insert(format!("{} {}", entry.file_name().to_string_lossy(), read("cmdline")));
        }
    }
    found
}

/// With a pod, so that there are containers, their mounts and their control groups.
fn small_cluster() -> (Cluster, Pod) {
    assert_available();
    let cluster = Cluster::start(ClusterOptions::nodes(1)).unwrap();
    let pod = Pod::start(&cluster, &PodOptions::new("alive")).unwrap();
    (cluster, pod)
}

const FOLDER: &str = "LARDER_E2E_TO_BE_KILLED";

/// A process that starts a cluster, and is killed. (Its own: what a test of this process leaves, others' clusters hide.)
#[test]
fn nothing_outlives_a_killed_owner() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let (_cluster, _pod) = small_cluster();
        std::fs::write(Path::new(&folder).join("up"), "").unwrap();
        loop {
            std::thread::park();
        }
    }
    let (scratch, owner) = owner("nothing_outlives_a_killed_owner");
    owner.start_until("a cluster", || scratch.path().join("up").exists()).unwrap();
    let id = owner.id().unwrap();
    let traces = Traces::of(id);
    assert!(traces.processes.iter().any(|line| line.contains("kubelet")), "{traces:#?}");
    assert!(traces.places.len() >= 2, "{traces:#?}");
    owner.kill();
    assert_gone(id);
}

/// The same in good order: all is gone when `drop` returns.
#[test]
fn a_cluster_that_is_dropped_leaves_nothing() {
    if std::env::var_os(FOLDER).is_some() {
        let (cluster, pod) = small_cluster();
        let id = std::process::id();
        drop(pod);
        drop(cluster);
        let traces = Traces::of(id);
        assert!(traces.is_empty(), "{traces:#?}");
        return;
    }
    let (_scratch, owner) = owner("a_cluster_that_is_dropped_leaves_nothing");
    owner.start().unwrap();
    let status = owner.wait(PATIENCE * 3).unwrap();
    assert!(status.success(), "{}", owner.log_tail());
}

/// This test again, in a process of its own.
fn owner(test: &str) -> (Scratch, Program) {
    let scratch = Scratch::new("owner").unwrap();
    let test = format!("teardown::{test}");
    let owner = Program::new("owner", &std::env::current_exe().unwrap(), scratch.path())
        .args(["--exact", &test, "--nocapture"])
        .env(FOLDER, scratch.path());
    (scratch, owner)
}

fn assert_gone(owner: u32) {
    let gone = until("all of the cluster to go", PATIENCE, || Traces::of(owner).is_empty().then_some(()));
    gone.unwrap_or_else(|error| panic!("{error}: {:#?}", Traces::of(owner)));
}
