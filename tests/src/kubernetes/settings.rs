//! Configuration files of a node.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::addresses;
use super::images::PAUSE;
use super::options::ContainerdVersion;
use crate::machine::{CgroupVersion, cgroup_version};
use crate::tools::CNI_PLUGINS;

/// `/etc/containerd/config.toml`. What containerd would make outside a node's own folders is moved there.
pub(super) fn containerd(version: ContainerdVersion) -> String {
    let opt = "[plugins.'io.containerd.internal.v1.opt']\npath = '/var/lib/containerd/opt'\n";
    // Without CAP_SYS_RESOURCE, as in many containers, no process may make itself less likely to be killed.
    let cri = "restrict_oom_score_adj = true\n";
    let registry = "config_path = '/etc/containerd/certs.d'\n";
    match version {
        ContainerdVersion::V2 => format!(
            "version = 3\nimports = ['/etc/containerd/conf.d/*.toml']\n{opt}\
             [plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = '{PAUSE}'\n\
             [plugins.'io.containerd.cri.v1.images'.registry]\n{registry}\
             [plugins.'io.containerd.cri.v1.runtime']\n{cri}\
             [plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['{CNI_PLUGINS}']\n"
        ),
        ContainerdVersion::V17 => format!(
            "version = 2\nimports = ['/etc/containerd/conf.d/*.toml']\n{opt}\
             [plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = '{PAUSE}'\n{cri}\
             [plugins.'io.containerd.grpc.v1.cri'.registry]\n{registry}\
             [plugins.'io.containerd.grpc.v1.cri'.cni]\nbin_dir = '{CNI_PLUGINS}'\n"
        ),
    }
}

/// `/etc/cni/net.d/10-pods.conflist`: a bridge for the node's pods.
pub(super) fn cni(number: u8) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": addresses::pods(number)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

/// kubelet's configuration file. `overrides` is laid over it, field by field.
pub(super) fn kubelet(cgroup: &str, address: Ipv4Addr, taints: &[Value], overrides: &Value) -> Value {
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": "/etc/kubernetes/pki/kubelet.crt",
        "tlsPrivateKeyFile": "/etc/kubernetes/pki/kubelet.key",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failSwapOn": false,
        "clusterDomain": "cluster.local",
        "clusterDNS": [addresses::DNS_SERVICE],
        "resolvConf": "/etc/resolv.conf",
        "makeIPTablesUtilChains": false,
        "registerWithTaints": taints,
        // By default a folder in /usr, which is this machine's.
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        // The disk is this machine's, and may be as full as its owner likes: no test is about that unless it says so.
        "evictionHard": {
            "memory.available": "50Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
            "imagefs.available": "0%", "imagefs.inodesFree": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    });
    if cgroup_version() == CgroupVersion::One {
        config["failCgroupV1"] = false.into();
    }
    lay_over(&mut config, overrides);
    config
}

fn lay_over(base: &mut Value, overrides: &Value) {
    match (base, overrides) {
        (Value::Object(base), Value::Object(overrides)) => {
            for (key, value) in overrides {
                lay_over(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (base, value) => *base = value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_reach_single_fields() {
        let overrides = json!({"imageGCHighThresholdPercent": 2, "evictionHard": {"nodefs.available": "5%"}});
        let config = kubelet("/x", Ipv4Addr::LOCALHOST, &[], &overrides);
        assert_eq!(config["imageGCHighThresholdPercent"], 2);
        assert_eq!(config["evictionHard"]["nodefs.available"], "5%");
        assert_eq!(config["evictionHard"]["memory.available"], "50Mi");
        assert_eq!(config["cgroupRoot"], "/x");
    }
}
