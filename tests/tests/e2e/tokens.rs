//! What whoever has taken over a node can do with its agent's token.

use std::ffi::OsStr;

use larder_tests::{Ran, Scratch, process};
use serde_json::{Value, json};

use crate::{
    fixture::{E2e, together},
    larder::AGENTS,
};

/// Somebody with a token of the agents' service account.
struct Agent {
    scratch: Scratch,
    kubectl: std::path::PathBuf,
}

impl Agent {
    /// `bound` are arguments of `kubectl create token`.
    fn with_token<T>(e2e: &E2e<T>, bound: &[&str]) -> Self {
        let create = ["create", "token", "larder-agent", "--namespace", AGENTS];
        let token = e2e.cluster.kubectl(&[&create[..], bound].concat()).unwrap().stdout;
        let admin = std::fs::read(e2e.cluster.kubeconfig()).unwrap();
        let mut config: Value = serde_json::from_slice(&admin).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        let scratch = Scratch::new("token").unwrap();
        scratch.write("kubeconfig", config.to_string()).unwrap();
        Self { scratch, kubectl: e2e.cluster.kubectl_program().to_owned() }
    }

    /// With the token that the agent's pod on a node has, but for its life time.
    fn on<T>(e2e: &E2e<T>, node: &str) -> Self {
        let pod = e2e.larder().agent_pod(node).unwrap();
        let text = |field: &str| pod["metadata"][field].as_str().unwrap().to_owned();
        let (name, uid) = (text("name"), text("uid"));
        let bound = [&format!("--bound-object-name={name}"), &format!("--bound-object-uid={uid}")];
        Self::with_token(e2e, &["--bound-object-kind=Pod", bound[0], bound[1]])
    }

    fn kubectl(&self, args: &[&str], input: &str) -> Ran {
        let (config, cache) = (self.scratch.path().join("kubeconfig"), self.scratch.path().join("cache"));
        let env: [(&str, &OsStr); 2] =
            [("KUBECONFIG", config.as_os_str()), ("KUBECACHEDIR", cache.as_os_str())];
        process::run(&self.kubectl, args, &env, input.as_bytes()).unwrap()
    }

    /// Writes a status that says of an image that it is there.
    fn write_status(&self, node: &str) -> Ran {
        let status = json!({
            "apiVersion": "larder.dev/v1alpha1", "kind": "NodeImageCache", "metadata": {"name": node},
            "status": {"images": [{"image": "docker.io/library/not-there:v1", "state": "Ready"}]},
        });
        let apply = ["apply", "--server-side", "--force-conflicts", "--subresource=status", "-f", "-"];
        // A dry run goes through all the same checks.
        self.kubectl(&[&apply[..], &["--dry-run=server"]].concat(), &status.to_string())
    }
}

#[test]
fn an_agents_token_is_of_little_use_elsewhere() {
    let e2e = together();
    let agent = Agent::on(&e2e, "node-1");
    agent.write_status("node-1").ok().unwrap();
    let refused = agent.write_status("node-2");
    assert!(!refused.status.success(), "{}", refused.stdout);
    let why = "this token is for node node-1, the NodeImageCache is node-2's";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    let nowhere = Agent::with_token(&e2e, &[]).write_status("node-1");
    assert!(nowhere.stderr.contains("the agent's token names no node"), "{}", nowhere.stderr);

    for args in [
        &["get", "secrets", "--all-namespaces"][..],
        // Those that are mounted into its own pod, it has as files.
        &["get", "secret", "larder-registry-logins", "--namespace", AGENTS],
        &["get", "pods", "--all-namespaces"],
        &["get", "pods", "--namespace", AGENTS],
        &["get", "nodes"],
        &["get", "imagecaches"],
        &["delete", "nodeimagecache", "node-1"],
        &["create", "token", "larder-agent", "--namespace", AGENTS],
        &["patch", "nodeimagecache", "node-1", "--type=merge", "--patch", r#"{"spec":{"images":[]}}"#],
    ] {
        let ran = agent.kubectl(args, "");
        assert!(!ran.status.success(), "{} was allowed: {}", ran.command, ran.stdout);
        assert!(ran.stderr.contains("orbidden"), "{}: {}", ran.command, ran.stderr);
    }
}
