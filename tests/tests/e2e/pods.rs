//! That pods do on this cluster what they do on any.

use std::path::Path;

use larder_tests::{
    Answer, Layer, Pod, PodOptions, Proxy, Registry, RegistryOptions, Rule,
    kubernetes::images::{BUSYBOX, busybox},
    until,
    wait::PATIENCE,
};
use serde_json::json;

use crate::fixture::{PULL_SECRET, any_cluster, together};

#[test]
fn an_imported_image_runs_without_being_pulled() {
    let e2e = together();
    let image = busybox(&[Layer::random(101, 100_000).unwrap()]).unwrap();
    let name = "larder.test/imported:1";
    let node = e2e.cluster.node("node-1").unwrap();
    node.import(&image, name).unwrap();
    assert!(node.images().unwrap().iter().any(|image| image["repoTags"][0] == name));

    let options = PodOptions::new("imported").image(name).node("node-1");
    let pod = Pod::start(&e2e.cluster, &options).unwrap();
    assert_eq!(pod.node().unwrap(), "node-1");
    // The other node has not got it, and may not pull.
    let elsewhere = PodOptions::new("not-imported").image(name).node("node-2");
    let refused = Pod::create(&e2e.cluster, &elsewhere).unwrap().wait_reason("ErrImageNeverPull").unwrap();
    assert!(refused.contains(name), "{refused}");
    pod.delete().unwrap();
    node.ctr(&["images", "rm", name]).unwrap();
}

#[test]
fn a_private_registry_needs_its_login() {
    let e2e = together();
    let image = busybox(&[Layer::random(102, 100_000).unwrap()]).unwrap();
    let pushed = e2e.registry.push(&image, "e2e/private", "v1").unwrap();
    let options = PodOptions::new("private").image(&pushed.name).pull_policy("IfNotPresent").node("node-2");

    let stranger = Pod::create(&e2e.cluster, &options).unwrap();
    let refused = until("a pull without a login to be refused", PATIENCE, || {
        let described = stranger.describe();
        (described.contains("ErrImagePull") && described.contains("no basic auth")).then_some(())
    });
    refused.unwrap_or_else(|error| panic!("{error}\n{}", stranger.describe()));
    stranger.delete().unwrap();

    let pod = Pod::start(&e2e.cluster, &options.pull_secret(PULL_SECRET)).unwrap();
    let status = &pod.get().unwrap()["status"]["containerStatuses"][0];
    assert_eq!(status["imageID"], format!("{}@{}", pushed.repository, pushed.digest), "{status:#}");
}

/// What tests of faults rest on: kubelet's pull fails as the proxy wants it, and goes on when it no longer does.
#[test]
fn a_proxy_of_the_harness_stands_between_node_and_registry() {
    let e2e = together();
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let proxy = Proxy::start(&registry.host()).unwrap();
    let door = e2e.cluster.expose(&proxy.host()).unwrap();
    let image = busybox(&[Layer::random(103, 100_000).unwrap()]).unwrap();
    registry.push(&image, "e2e/faults", "v1").unwrap();
    proxy.add(Rule::get("/blobs/").then(Answer::status(503)));
    let options = PodOptions::new("patient")
        .image(&format!("{}/e2e/faults:v1", door.host()))
        .pull_policy("IfNotPresent");
    let pod = Pod::create(&e2e.cluster, &options).unwrap();
    until("a pull to fail", PATIENCE, || pod.describe().contains("503").then_some(())).unwrap();
    proxy.clear();
    pod.wait_phase("Running").unwrap();
    assert!(proxy.bytes_sent() > 100_000);
}

#[test]
fn logs_and_exec_reach_the_container() {
    let e2e = together();
    let options = PodOptions::new("talker").command(&["sh", "-c", "echo here I am; exec sleep 2147483647"]);
    let pod = Pod::start(&e2e.cluster, &options).unwrap();
    until("the log", PATIENCE, || (pod.logs().ok()? == "here I am\n").then_some(())).unwrap();
    let ran = pod.exec(&["sh", "-c", "hostname; id -u"]).unwrap();
    assert_eq!(ran.stdout, "talker\n0\n");
}

/// By the service's address, so through kube-proxy. The API server's answer is let through only with the token; curl and
/// its libraries are the node's.
#[test]
fn a_service_account_reaches_the_api_server() {
    let e2e = together();
    let script = "cd /var/run/secrets/kubernetes.io/serviceaccount; \
        exec curl --silent --show-error --fail --cacert ca.crt --header \"Authorization: Bearer $(cat token)\" \
        https://$KUBERNETES_SERVICE_HOST/apis/authentication.k8s.io/v1";
    let folders = ["/usr", "/lib", "/lib64"].into_iter().filter(|folder| Path::new(folder).exists());
    let folders: Vec<_> = folders.map(|folder| (folder.trim_start_matches('/'), folder)).collect();
    let spec = json!({
        "containers": [{
            "name": "main",
            "image": BUSYBOX,
            "imagePullPolicy": "Never",
            "command": ["sh", "-c", script],
            "env": [{"name": "PATH", "value": "/bin:/usr/bin"}],
            "volumeMounts": folders.iter().map(|(name, path)| json!({"name": name, "mountPath": path, "readOnly": true})).collect::<Vec<_>>(),
        }],
        "volumes": folders.iter().map(|(name, path)| json!({"name": name, "hostPath": {"path": path}})).collect::<Vec<_>>(),
    });
    for node in e2e.cluster.nodes() {
        let options =
            PodOptions::new(&format!("caller-{}", node.name())).node(node.name()).spec(spec.clone());
        let pod = Pod::create(&e2e.cluster, &options).unwrap();
        pod.wait_phase("Succeeded").unwrap_or_else(|error| panic!("{error}\n{}", pod.logs().unwrap()));
        let answer = pod.logs().unwrap();
        assert!(answer.contains("selfsubjectreviews"), "{answer}");
    }
}

#[test]
fn pods_on_different_nodes_reach_each_other() {
    let e2e = together();
    let serve = "mkdir /www; echo from afar >/www/index.html; exec httpd -f -p 8080 -h /www";
    let server = PodOptions::new("server").node("node-1").command(&["sh", "-c", serve]);
    let server = Pod::start(&e2e.cluster, &server).unwrap();
    let address = server.get().unwrap()["status"]["podIP"].as_str().unwrap().to_owned();
    let client = Pod::start(&e2e.cluster, &PodOptions::new("client").node("node-2")).unwrap();
    let url = format!("http://{address}:8080/");
    let answer =
        until("the server to listen", PATIENCE, || client.exec(&["wget", "-q", "-O", "-", &url]).ok());
    assert_eq!(answer.unwrap().stdout, "from afar\n");
}

#[test]
fn nodes_are_ready() {
    let nodes = any_cluster().get(&["nodes"]).unwrap();
    let nodes = nodes["items"].as_array().unwrap();
    assert!(!nodes.is_empty());
    for node in nodes {
        let conditions = node["status"]["conditions"].as_array().unwrap();
        assert!(conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"), "{node:#}");
    }
}
