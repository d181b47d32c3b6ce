//! The rules that the API server knows: nothing is written, and the message says what to write instead.

use larder_tests::ControlPlane;
use serde_json::{Value, json};

use crate::{image_cache, with, with_image};

/// The API server's answer to an ImageCache that is applied without being kept: what it would be, or the error.
fn try_apply(cluster: &ControlPlane, spec: &Value) -> Result<Value, String> {
    let args = ["apply", "--dry-run=server", "--output=json", "-f", "-"];
    let ran = cluster.try_kubectl(&args, &image_cache("tried", spec)).unwrap();
    if ran.status.success() { Ok(ran.json().unwrap()) } else { Err(ran.stderr) }
}

fn check(refused: &[(Value, &str)], accepted: &[Value]) {
    let cluster = ControlPlane::start().unwrap();
    cluster.install_crds().unwrap();
    let mut wrong = Vec::new();
    for (spec, expected) in refused {
        match try_apply(&cluster, spec) {
            Ok(_) => wrong.push(format!("accepted: {spec}")),
            Err(error) if !error.contains(expected) => {
                wrong.push(format!("{spec}: {expected:?} is not in {error}"));
            }
            Err(_) => {}
        }
    }
    wrong.extend(accepted.iter().filter_map(|spec| {
        let error = try_apply(&cluster, spec).err()?;
        Some(format!("refused: {spec}: {error}"))
    }));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn further_names_and_archives() {
    let tags = |count: usize| (0..count).map(|number| json!(format!("app:{number}"))).collect::<Vec<_>>();
    check(
        &[
            (with_image(&json!({"tags": tags(17)})), "must have at most 16 items"),
            (with_image(&json!({"tags": ["a", "a"]})), "Duplicate value"),
            (with_image(&json!({"tags": [""]})), "should be at least 1 chars long"),
            (with_image(&json!({"save": {"file": "../app.tar"}})), "it cannot lead to another folder"),
            (with_image(&json!({"save": {"file": "/etc/app.tar"}})), "it cannot lead to another folder"),
            (with_image(&json!({"save": {"file": "sub/app.tar"}})), "it cannot lead to another folder"),
            (with_image(&json!({"save": {"file": ".app.tar"}})), "it cannot lead to another folder"),
            (with_image(&json!({"save": {"file": "app.zip"}})), "save.file must end in .tar, .tar.gz"),
            (with_image(&json!({"save": {"file": "app.tar.xz"}})), "save.file must end in .tar, .tar.gz"),
            (with_image(&json!({"save": {}})), "Required value"),
            (
                with_image(&json!({"load": {}})),
                "load needs either a file in the node's import folder or an artifact",
            ),
            (
                with_image(&json!({"load": {"file": "a.tar", "artifact": "registry.corp/a:v1"}})),
                "load needs either a file in the node's import folder or an artifact",
            ),
            (with_image(&json!({"load": {"file": "../../etc/shadow"}})), "it cannot lead to another folder"),
            (
                with_image(&json!({"load": {"artifact": "https://registry.corp/a:v1"}})),
                "load.artifact must be [registry/]repository[:tag][@digest]",
            ),
            (with_image(&json!({"priority": 1001})), "should be less than or equal to 1000"),
            (with_image(&json!({"priority": -1001})), "should be greater than or equal to -1000"),
        ],
        &[
            with_image(&json!({"tags": tags(16), "priority": -5})),
            with_image(&json!({"save": {"file": "App_v1.2-3.tar.zst"}})),
            with_image(&json!({"save": {"file": "a.tar"}, "load": {"file": "b.tgz"}})),
            with_image(&json!({"load": {"artifact": "registry.corp/archives/app:v1"}})),
        ],
    );
}

#[test]
fn removal() {
    let remove = |rule: Value| with(&json!({"remove": [rule]}));
    let rules =
        |count: usize| (0..count).map(|number| json!({"image": format!("app:{number}")})).collect::<Vec<_>>();
    check(
        &[
            (remove(json!({"image": "**"})), "image must not match every image"),
            (remove(json!({"image": "*/*:*"})), "image must not match every image"),
            (remove(json!({"image": "https://quay.io/app"})), "without a scheme or white space"),
            (remove(json!({"image": "a b"})), "without a scheme or white space"),
            (remove(json!({"image": ""})), "should be at least 1 chars long"),
            (remove(json!({})), "Required value"),
            (remove(json!({"image": "app:*", "keepNewest": -1})), "should be greater than or equal to 0"),
            (remove(json!({"image": "app:*", "keepNewest": 1001})), "should be less than or equal to 1000"),
            (remove(json!({"image": "app:*", "except": ["a", "a"]})), "Duplicate value"),
            (with(&json!({"remove": [{"image": "a"}, {"image": "a"}]})), "Duplicate value"),
            (with(&json!({"remove": rules(65)})), "must have at most 64 items"),
        ],
        &[
            remove(
                json!({"image": "docker.io/library/nginx:1.1*", "except": ["docker.io/library/nginx:1.19"]}),
            ),
            remove(json!({"image": "registry.corp/**", "keepNewest": 2, "dryRun": true})),
            json!({"images": [], "remove": rules(64)}),
        ],
    );
}

#[test]
fn times() {
    let refresh = |refresh: Value| with(&json!({"refresh": refresh}));
    check(
        &[
            (refresh(json!({})), "refresh needs either an interval"),
            (refresh(json!({"interval": "1h", "schedule": "0 3 * * *"})), "refresh needs either an interval"),
            (
                refresh(json!({"interval": "1h", "timeZone": "UTC"})),
                "refresh.timeZone goes with refresh.schedule",
            ),
            (refresh(json!({"interval": "30s"})), "refresh.interval must be a duration from 1m to 720h"),
            (refresh(json!({"interval": "721h"})), "refresh.interval must be a duration from 1m to 720h"),
            (refresh(json!({"interval": "1 hour"})), "refresh.interval must be a duration from 1m to 720h"),
            (refresh(json!({"interval": "1.5h"})), "refresh.interval must be a duration from 1m to 720h"),
            (refresh(json!({"schedule": "0 3 * *"})), "refresh.schedule must have five fields"),
            (
                refresh(json!({"schedule": "TZ=Europe/Berlin 0 3 * * *"})),
                "a time zone goes into refresh.timeZone",
            ),
            (
                refresh(json!({"schedule": "0 3 * * *", "timeZone": "../UTC"})),
                "a name of the IANA time zone database",
            ),
            (with(&json!({"pullTimeout": "5s"})), "pullTimeout must be a duration from 10s to 24h"),
            (with(&json!({"pullTimeout": "25h"})), "pullTimeout must be a duration from 10s to 24h"),
            (with(&json!({"pullTimeout": "soon"})), "pullTimeout must be a duration from 10s to 24h"),
            (
                with(&json!({"retry": {"initialDelay": "0s"}})),
                "retry.initialDelay must be a duration from 1s to 1h",
            ),
            (with(&json!({"retry": {"maxDelay": "2h"}})), "retry.maxDelay must be a duration from 1s to 1h"),
            (
                with(&json!({"retry": {"initialDelay": "10m", "maxDelay": "5m"}})),
                "retry.initialDelay must not be longer than retry.maxDelay",
            ),
        ],
        &[
            refresh(json!({"interval": "1m"})),
            refresh(json!({"interval": "1h30m"})),
            refresh(
                json!({"schedule": "*/15 8-18 * * mon-fri", "timeZone": "America/Argentina/Buenos_Aires"}),
            ),
            refresh(json!({"schedule": "@daily"})),
            with(&json!({"pullTimeout": "30m", "retry": {"initialDelay": "5s", "maxDelay": "5m"}})),
            with(&json!({"retry": {}})),
        ],
    );
}

#[test]
fn limits_and_secrets() {
    let secrets =
        |count: usize| (0..count).map(|number| json!({"name": format!("s{number}")})).collect::<Vec<_>>();
    check(
        &[
            (with(&json!({"diskReserve": "0%"})), "diskReserve must be a percentage from 1% to 99%"),
            (with(&json!({"diskReserve": "100%"})), "diskReserve must be a percentage from 1% to 99%"),
            (with(&json!({"diskReserve": "lots"})), "diskReserve must be a percentage from 1% to 99%"),
            (with(&json!({"diskReserve": "1.5Gi"})), "diskReserve must be a percentage from 1% to 99%"),
            (with(&json!({"maxConcurrentDownloads": 0})), "should be greater than or equal to 1"),
            (with(&json!({"maxConcurrentDownloads": 65})), "should be less than or equal to 64"),
            (with(&json!({"pullSecrets": [{"name": "My_Secret"}]})), "name must be the name of a Secret"),
            (with(&json!({"pullSecrets": [{"name": ""}]})), "should be at least 1 chars long"),
            (with(&json!({"pullSecrets": [{"name": "a"}, {"name": "a"}]})), "Duplicate value"),
            (with(&json!({"pullSecrets": secrets(9)})), "must have at most 8 items"),
            (with(&json!({"pullSecrets": ["a"]})), "Invalid value"),
            (
                with(&json!({"rollout": {"maxConcurrentNodes": 0}})),
                "maxConcurrentNodes must be a number of at least 1",
            ),
            (
                with(&json!({"rollout": {"maxConcurrentNodes": "200%"}})),
                "maxConcurrentNodes must be a number",
            ),
            (with(&json!({"pin": "yes"})), "Invalid value"),
            (with(&json!({"deletionPolicy": "Keep"})), "Unsupported value"),
            (with_image(&json!({"pullPolicy": "Never"})), "Unsupported value"),
        ],
        &[
            with(&json!({"diskReserve": "10%", "maxConcurrentDownloads": 64, "pullSecrets": secrets(8)})),
            with(&json!({"diskReserve": "20Gi", "pin": false})),
            with(&json!({"rollout": {"maxConcurrentNodes": "20%"}, "paused": true})),
        ],
    );
}

/// What is not given is written down, outside of lists; `kubectl explain` says the same.
#[test]
fn defaults() {
    let cluster = ControlPlane::start().unwrap();
    cluster.install_crds().unwrap();
    let object = try_apply(&cluster, &with(&json!({}))).unwrap();
    let expected = json!({
        "deletionPolicy": "Delete",
        "images": [{"image": "app:v1"}],
        "paused": false,
        "pin": true,
    });
    assert_eq!(object["spec"], expected, "{object:#}");
    assert_eq!(try_apply(&cluster, &json!({})).unwrap()["spec"]["images"], json!([]));
    let explained = |field: &str| cluster.kubectl(&["explain", &format!("imagecache.spec.{field}")]).unwrap();
    for (field, part) in [
        ("pin", "kubelet's garbage collection"),
        ("remove.keepNewest", "stay in each repository"),
        ("refresh.schedule", "minute, hour, day of the month"),
        ("images.save.file", ".tar.zst"),
        ("diskReserve", "InsufficientDisk"),
        ("pullSecrets", "kubernetes.io/dockerconfigjson"),
    ] {
        let text = explained(field).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(part), "{field}: {text}");
    }
}
