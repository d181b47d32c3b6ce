//! An operator that is told which registries `ImageCache`s may name.

use larder_tests::{Registry, RegistryOptions, larder, process};

use crate::fixture::{Larder, condition, image, images};

impl Larder {
    /// Starts the operator anew, with further arguments.
    fn replace_operator(&mut self, more: &[&str]) {
        self.operator.kill();
        self.operator = larder::operator(self.cluster.kubeconfig(), self.scratch.path()).unwrap().args(more);
        self.operator.start().unwrap();
    }

    fn wait_refused(&self, cache: &str, image: &str) {
        let cache = self.wait_cache(cache, "refused", |status| {
            condition(status, "Stalled")["status"] == "True"
                && condition(status, "Ready")["reason"] == "InvalidSpec"
        });
        let message = condition(&cache["status"], "Ready")["message"].as_str().unwrap().to_owned();
        assert!(message.contains(&format!("{image} is not allowed here")), "{message}");
        assert!(message.contains("(the operator's --allow-registry says so)"), "{message}");
    }
}

#[test]
fn what_is_not_allowed_is_refused_and_what_is_there_stays() {
    let [ours, theirs] = [(); 2].map(|()| Registry::start(RegistryOptions::default()).unwrap());
    let push = |registry: &Registry, seed, name: &str| {
        registry.push(&image(&[(seed, 50_000)]), name, "v1").unwrap().name
    };
    let (app, tool) = (push(&ours, 1, "team/app"), push(&ours, 2, "other/tool"));
    let (there, more) = (push(&theirs, 3, "team/app"), push(&theirs, 4, "team/more"));
    let mut larder = Larder::start(&[("a", &[])]);
    larder.apply("theirs", &images(None, &[&there]));
    larder.wait_ready("theirs", 1);

    let mark = theirs.mark().unwrap();
    let allowed = [format!("--allow-registry={}/team", ours.host()), "--allow-registry=docker.io".to_owned()];
    larder.replace_operator(&allowed.each_ref().map(String::as_str));
    larder.wait_refused("theirs", &there);
    larder.apply("theirs", &images(None, &[&there, &more]));
    larder.apply("ours", &images(None, &[&app]));
    larder.apply("other", &images(None, &[&tool]));
    larder.wait_refused("other", &tool);
    larder.wait_ready("ours", 1);
    larder.wait_held("a", &[&app, &there]);
    assert_eq!(theirs.requests_since(mark).unwrap().to_vec(), []);

    larder.replace_operator(&[]);
    for cache in ["theirs", "ours", "other"] {
        larder.wait_ready(cache, 1);
    }
}

#[test]
fn a_list_that_cannot_be_read_is_refused_at_the_start() {
    let operator = larder::binary("larder-operator").unwrap();
    let argument = ["--allow-registry", "registry.corp,https://x"];
    let ran = process::run(&operator, &argument, &[], b"").unwrap();
    assert!(!ran.status.success());
    assert!(ran.stderr.contains("\"https://x\" is no registry: write a host"), "{}", ran.stderr);
}
