//! All rights of both accounts, as kubectl lists them: none is added unnoticed.

use std::collections::BTreeSet;

use larder_tests::{until, wait::PATIENCE};
use serde_json::Value;

use crate::fixture::{AGENTS, Identity, Installed, SYSTEM};

const NAMESPACES: [&str; 5] = ["default", "kube-system", "kube-public", SYSTEM, AGENTS];

/// What `kubectl auth can-i --list` shows, as `RESOURCES [NAMES] [VERBS]`.
fn list(identity: &Identity<'_>, namespace: &str) -> BTreeSet<String> {
    let shown = identity.may(&["auth", "can-i", "--list", "--namespace", namespace], &Value::Null).stdout;
    let rows = shown.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>().join(" "));
    // An empty pair of brackets is for URLs that are no resources.
    rows.map(|row| row.replacen("[] ", "", 1)).collect()
}

/// Compares what an account may do in a namespace, beyond what every account may, with what it should.
fn check(installed: &Installed, identity: &Identity<'_>, namespace: &str, wanted: &[&str]) {
    let anybody = installed.identity("anybody", "default", "nobody-in-particular", &[]);
    let wanted: BTreeSet<String> = wanted.iter().map(|&right| right.to_owned()).collect();
    let own = || -> BTreeSet<String> {
        list(identity, namespace).difference(&list(&anybody, namespace)).cloned().collect()
    };
    // The authorizer learns of new roles a moment after they are made. No right may be missing then, and none too many.
    let in_force = until("the roles to be in force", PATIENCE, || own().is_superset(&wanted).then_some(()));
    assert_eq!(own(), wanted, "{namespace}: {in_force:?}");
}

/// The rights of both.
#[test]
fn all_rights_are_listed_here() {
    let installed = Installed::without_nodes();
    installed.cluster.kubectl(&["create", "serviceaccount", "nobody-in-particular"]).unwrap();
    of_the_agent(&installed);
    of_the_operator(&installed);
}

fn of_the_agent(installed: &Installed) {
    let identity = installed.identity("agent", AGENTS, "larder-agent", &[]);
    for namespace in NAMESPACES {
        let mut wanted = vec![
            "nodeimagecaches.larder.dev [] [get list watch]",
            "nodeimagecaches.larder.dev/status [] [patch]",
        ];
        if namespace == "default" {
            wanted.push("events.events.k8s.io [] [create patch]");
        }
        check(installed, &identity, namespace, &wanted);
    }
}

fn of_the_operator(installed: &Installed) {
    for namespace in NAMESPACES {
        let mut wanted = vec![
            "imagecaches.larder.dev [] [list watch]",
            "imagecaches.larder.dev/status [] [patch]",
            "nodeimagecaches.larder.dev [] [list watch create patch delete]",
            "nodes [] [list watch]",
        ];
        match namespace {
            "default" => wanted.push("events.events.k8s.io [] [create patch]"),
            SYSTEM => wanted.extend([
                "leases.coordination.k8s.io [] [create]",
                "leases.coordination.k8s.io [larder-operator] [get update]",
                "roles.rbac.authorization.k8s.io [larder-agent-pull-secrets] [list watch patch escalate]",
            ]),
            _ => {}
        }
        check(installed, &installed.operator(), namespace, &wanted);
    }
}
