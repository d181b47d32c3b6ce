//! Which Secrets agents can read: those that `ImageCache`s name. Nobody else can, and the operator can give no more.

use larder_tests::{Program, larder, until, wait::PATIENCE};
use serde_json::{Value, json};

use crate::fixture::{Identity, Installed, SYSTEM, manifests};

const ROLE: &str = "larder-agent-pull-secrets";
/// How the operator writes the Role (`operator/src/apply.rs`), said with kubectl.
const APPLY: &[&str] =
    &["apply", "--server-side", "--force-conflicts", "--field-manager=larder-operator", "-f", "-"];

fn role(name: &str, rules: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": name, "namespace": SYSTEM}, "rules": rules,
    })
}

/// Rules as the operator writes them.
fn rules(names: &[&str]) -> Value {
    if names.is_empty() {
        return json!([]);
    }
    json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": names, "verbs": ["get"]}])
}

fn put_secret(installed: &Installed, name: &str) {
    let config = json!({"auths": {"registry.corp": {"username": "u", "password": "p"}}});
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": name, "namespace": SYSTEM},
        "stringData": {".dockerconfigjson": config.to_string()},
    });
    installed.cluster.apply(&object.to_string()).unwrap();
}

fn put_cache(installed: &Installed, name: &str, secrets: &[&str]) {
    let secrets: Vec<_> = secrets.iter().map(|name| json!({"name": name})).collect();
    let object = json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "ImageCache", "metadata": {"name": name},
        "spec": {"images": [{"image": "registry.invalid/app:v1"}], "pullSecrets": secrets},
    });
    installed.cluster.apply(&object.to_string()).unwrap();
}

fn found(installed: &Installed) -> Value {
    let role = installed.cluster.get(&["role", ROLE, "--namespace", SYSTEM]).unwrap();
    if role["rules"].is_null() { json!([]) } else { role["rules"].clone() }
}

fn wait_rules(installed: &Installed, names: &[&str]) {
    let waited = until(&format!("the Role to name {names:?}"), PATIENCE, || {
        (found(installed) == rules(names)).then_some(())
    });
    waited.unwrap_or_else(|error| panic!("{error}: {:#}", found(installed)));
}

fn get(name: &str) -> Vec<&str> {
    vec!["get", "secret", name, "--namespace", SYSTEM]
}

/// The authorizer learns of what the Role says a moment later.
fn wait_may(agent: &Identity<'_>, name: &str) {
    until(&format!("the agent to be let read {name}"), PATIENCE, || {
        agent.try_kubectl(&get(name), &Value::Null).status.success().then_some(())
    })
    .unwrap();
}

fn wait_may_not(agent: &Identity<'_>, name: &str) {
    until(&format!("the agent not to be let read {name}"), PATIENCE, || {
        agent
            .try_kubectl(&get(name), &Value::Null)
            .stderr
            .contains("cannot get resource \"secrets\"")
            .then_some(())
    })
    .unwrap();
}

fn start_operator(installed: &Installed) -> Program {
    let operator = larder::operator(&installed.operator().kubeconfig, installed.scratch.path()).unwrap();
    let operator = operator.args(["--leader-elect=false"]);
    operator.start().unwrap();
    operator
}

#[test]
fn agents_read_the_secrets_that_image_caches_name() {
    let installed = Installed::start();
    for name in ["one", "two", "three"] {
        put_secret(&installed, name);
    }
    let agent = installed.agent(Some("n1"));
    let operator = start_operator(&installed);
    put_cache(&installed, "a", &["one"]);
    put_cache(&installed, "b", &["two", "one"]);
    wait_rules(&installed, &["one", "two"]);
    wait_may(&agent, "one");
    wait_may(&agent, "two");
    let why = "cannot get resource \"secrets\"";
    agent.may_not(&get("three"), &Value::Null, why);
    agent.may_not(&["get", "secret", "one", "--namespace", "default"], &Value::Null, why);
    let list = ["get", "secrets", "--namespace", SYSTEM];
    agent.may_not(&list, &Value::Null, "cannot list resource \"secrets\"");
    let narrow = [&list[..], &["--field-selector=metadata.name=one"]].concat();
    agent.may_not(&narrow, &Value::Null, "cannot list resource \"secrets\"");
    let delete = ["delete", "secret", "one", "--namespace", SYSTEM];
    agent.may_not(&delete, &Value::Null, "cannot delete resource \"secrets\"");
    installed.operator().may_not(&get("one"), &Value::Null, why);

    // What an administrator writes there is put right.
    let edit = json!({"rules": rules(&["three"])}).to_string();
    let patch = ["patch", "role", ROLE, "--namespace", SYSTEM, "--type=merge", "--patch", &edit];
    installed.cluster.kubectl(&patch).unwrap();
    wait_rules(&installed, &["one", "two"]);
    wait_may_not(&agent, "three");
    // Nothing is written where nothing has changed, also by a new operator and a new version of the manifests.
    let version = || {
        let role = installed.cluster.get(&["role", ROLE, "--namespace", SYSTEM]).unwrap();
        role["metadata"]["resourceVersion"].clone()
    };
    let before = version();
    operator.restart().unwrap();
    installed.cluster.kubectl(&["apply", "--server-side", "-k", &manifests("base")]).unwrap();
    installed.cluster.create_node("n3", &[]).unwrap();
    until("it to have been at work", PATIENCE, || installed.cluster.get(&["nic", "n3"]).ok()).unwrap();
    assert_eq!(version(), before);

    installed.cluster.kubectl(&["delete", "imagecache", "a", "b"]).unwrap();
    wait_rules(&installed, &[]);
    wait_may_not(&agent, "one");
    let log = operator.log().unwrap();
    let lacking = log.lines().find(|line| line.to_lowercase().contains("forbidden"));
    assert_eq!(lacking, None, "a right is missing");
}

/// What somebody could do who has captured the operator.
#[test]
fn the_operator_can_give_agents_named_secrets_and_nothing_else() {
    let installed = Installed::without_nodes();
    let operator = installed.operator();
    until("the operator's rights and the policy to be in force", PATIENCE, || {
        let wide = role(ROLE, &json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]));
        let ran = operator.try_kubectl(&[APPLY, &["--dry-run=server"]].concat(), &wide);
        ran.stderr.contains("allows nothing but to get Secrets").then_some(())
    })
    .unwrap();
    operator.may(APPLY, &role(ROLE, &rules(&["one"])));
    operator.may(APPLY, &role(ROLE, &json!([])));
    let named = |rule: Value| {
        let mut named = rules(&["one"])[0].clone();
        named.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        json!([named])
    };
    let (get_only, must_name) =
        ("allows nothing but to get Secrets", "names the Secrets that it lets agents read");
    for (rules, why) in [
        (named(json!({"verbs": ["get", "list"]})), get_only),
        (named(json!({"verbs": ["*"]})), get_only),
        (named(json!({"verbs": ["get", "update"]})), get_only),
        (named(json!({"resources": ["secrets", "pods"]})), get_only),
        (named(json!({"resources": ["*"]})), get_only),
        (named(json!({"apiGroups": ["", "apps"]})), get_only),
        (named(json!({"apiGroups": ["*"]})), get_only),
        (named(json!({"resourceNames": []})), must_name),
        (
            json!([rules(&["one"])[0], {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]),
            must_name,
        ),
        (rules(&["sh.helm.release.v1.larder.v1"]), "lets nobody read what Helm keeps of a release"),
    ] {
        operator.may_not(APPLY, &role(ROLE, &rules), why);
        // Nor can those who may do everything.
        let ran = installed.cluster.try_kubectl(APPLY, &role(ROLE, &rules).to_string()).unwrap();
        assert!(!ran.status.success() && ran.stderr.contains(why), "{}", ran.stderr);
    }

    // No other Role, and no binding.
    let other = role("larder-operator", &rules(&["one"]));
    operator.may_not(APPLY, &other, "cannot patch resource \"roles\"");
    operator.may_not(APPLY, &role("new", &rules(&["one"])), "cannot patch resource \"roles\"");
    let mut elsewhere = role(ROLE, &rules(&["one"]));
    elsewhere["metadata"]["namespace"] = "kube-system".into();
    operator.may_not(APPLY, &elsewhere, "cannot patch resource \"roles\"");
    let delete = ["delete", "role", ROLE, "--namespace", SYSTEM];
    operator.may_not(&delete, &Value::Null, "cannot delete resource \"roles\"");
    let bind = ["create", "rolebinding", "mine", "--namespace", SYSTEM, "--role", ROLE, "--user=me"];
    operator.may_not(&bind, &Value::Null, "cannot create resource \"rolebindings\"");
}

/// An `ImageCache` that names Helm's records is refused, and spoils nobody else's day.
#[test]
fn names_that_the_policy_refuses_are_not_written() {
    let installed = Installed::start();
    let operator = start_operator(&installed);
    put_cache(&installed, "bad", &["sh.helm.release.v1.larder.v1"]);
    put_cache(&installed, "good", &["one"]);
    wait_rules(&installed, &["one"]);
    until("the reason", PATIENCE, || {
        let status = installed.cluster.get(&["ic", "bad"]).ok()?["status"].to_string();
        (status.contains("InvalidSpec") && status.contains("a record of Helm's")).then_some(())
    })
    .unwrap();
    assert!(!operator.log().unwrap().contains("forbidden"));
}
