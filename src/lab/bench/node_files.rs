//! How long the certificates, kubeconfigs and manifests of a control-plane node take, beside kubeadm.
//!
//! Both begin with nothing: they make the authorities of etcd, of the cluster and of the front proxy, the
//! service accounts' key, all leaves, kubeconfigs and manifests. Ours are made by what the agent's steps
//! call, in this process, and each file is synced as the agent syncs it. kubeadm's three phases are three
//! processes, in a root of their own (`--rootfs`), and sync nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{InstanceTags, load};
use crate::host::files::{NewFile, create_dir, create_dir_as, write_durably, write_set_as};
use crate::host::manifests::Manifests;
use crate::host::{Root, capacity, clock};
use crate::kubernetes::{self, ControlPlaneInputs, NodeInputs, RenderedFile, paths};
use crate::lab::LabError;
use crate::lab::error::chain;
use crate::lab::kubelet::Programs;
use crate::lab::laboratory::Scratch;
use crate::model::Role;
use crate::model::ids::InstanceId;
use crate::pki::{ClusterAuthorities, EtcdAuthority, LeafRequest, cluster_leaves, leaves};

/// kubeadm's names of the algorithms.
pub(super) const ALGORITHMS: [&str; 2] = ["ECDSA-P256", "RSA-2048"];
/// The load balancer's name, and the node's address.
const ENDPOINT: &str = "demo-0123.elb.eu-west-1.amazonaws.com";
const ADDRESS: &str = "10.0.1.5";

type Failure = Box<dyn std::error::Error>;

fn failed(what: &str) -> impl Fn(Failure) -> LabError + '_ {
    move |error| LabError::Settings(format!("{what}: {}", chain(error.as_ref())))
}

/// One node's, by us.
pub(super) fn ours(version: &str) -> Result<Duration, LabError> {
    let scratch = Scratch::new("bench-files")?;
    let inputs = inputs(version).map_err(failed("describing a node"))?;
    let began = Instant::now();
    make(scratch.path(), inputs).map_err(failed("making a node's files"))?;
    Ok(began.elapsed())
}

/// Everything that is known of a node before anything is made. The authorities' fingerprint is not.
fn inputs(version: &str) -> Result<ControlPlaneInputs, Failure> {
    let text = "cluster: demo\nbucket: demo-quorate\n";
    let tags = InstanceTags { cluster: None, role: Some("control-plane".to_owned()) };
    let settings = load(Path::new("/nonexistent"), Some(text.as_bytes()), &tags)?.settings;
    let instance: InstanceId = "i-0123456789abcdef0".parse()?;
    let node = NodeInputs {
        cluster: settings.cluster.clone(),
        settings: settings.kubernetes.clone(),
        version: format!("v{version}").parse()?,
        role: Role::ControlPlane,
        name: instance.clone().into(),
        instance,
        zone: "eu-west-1a".parse()?,
        region: "eu-west-1".parse()?,
        address: ADDRESS.parse()?,
        instance_type: None,
        capacity_type: None,
        machine: capacity::machine(&Root::default(), &Root::default())?,
        interface_limits: None,
        drop_ins: Vec::new(),
    };
    Ok(ControlPlaneInputs {
        node,
        endpoint: ENDPOINT.parse()?,
        etcd_endpoints: vec![format!("https://{ADDRESS}:2379")],
        authorities: String::new(),
        recovered: None,
    })
}

/// What the agent's steps do, one after the other.
fn make(dir: &Path, mut inputs: ControlPlaneInputs) -> Result<(), Failure> {
    let (root, now) = (Root::new(dir), clock::now_ms());
    let cluster = inputs.node.cluster.clone();
    let etcd = EtcdAuthority::create(&cluster, now)?;
    let authorities = ClusterAuthorities::create(&cluster, now)?;
    // In S3 on a machine; here they have to be written as durably.
    write_durably(&dir.join("etcd.json"), &etcd.bundle()?, 0o600)?;
    write_durably(&dir.join("kubernetes.json"), &authorities.bundle()?, 0o600)?;

    authorities.fingerprint().clone_into(&mut inputs.authorities);
    let slot = Some(1_u8.try_into()?);
    let pki = root.path("/etc/quorate/pki/etcd");
    if let Some(parent) = pki.parent() {
        create_dir(parent, 0o755)?;
    }
    leaves::issue(&etcd, &pki, LeafRequest { slot, address: inputs.node.address, now })?;
    let kubernetes = root.path(paths::KUBERNETES);
    cluster_leaves::issue(&authorities, &etcd, &kubernetes, &inputs.leaf_request()?, now, None)?;

    let rendered = kubernetes::control_plane(&inputs)?;
    for place in paths::DIRECTORIES {
        create_dir_as(&root.path(place.path), place.mode, None)?;
    }
    let mut sets: BTreeMap<PathBuf, Vec<&RenderedFile>> = BTreeMap::new();
    for file in &rendered.files {
        let dir = Path::new(&file.path).parent().unwrap_or(Path::new("/"));
        sets.entry(dir.to_owned()).or_default().push(file);
    }
    for (dir, set) in sets {
        let name = |file: &'_ RenderedFile| file.path.rsplit('/').next().unwrap_or_default().to_owned();
        let names: Vec<String> = set.iter().map(|file| name(file)).collect();
        let new = set.iter().zip(&names).map(|(file, name)| NewFile {
            name,
            bytes: file.content.as_bytes(),
            mode: file.mode,
        });
        write_set_as(&root.path(&dir), &new.collect::<Vec<_>>(), None)?;
    }
    let manifests = Manifests::of(&root);
    for (component, manifest) in &rendered.manifests {
        manifests.roll_out(*component, &[], None, manifest, now)?;
    }
    Ok(())
}

/// kubeadm, where it is among the programs.
pub(super) fn kubeadm(programs: &Programs) -> Option<PathBuf> {
    Some(programs.dir.join("kubeadm")).filter(|path| path.is_file())
}

/// One node's, by kubeadm.
pub(super) fn theirs(kubeadm: &Path, version: &str, algorithm: &str) -> Result<Duration, LabError> {
    let scratch = Scratch::new("bench-kubeadm")?;
    for dir in ["etc", "tmp"] {
        let path = scratch.path().join(dir);
        fs::create_dir(&path).map_err(LabError::file("making", &path))?;
    }
    let configuration = format!(
        "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n\
         localAPIEndpoint: {{advertiseAddress: {ADDRESS}, bindPort: 6443}}\nnodeRegistration: {{name: node}}\n---\n\
         apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v{version}\n\
         controlPlaneEndpoint: {ENDPOINT}:6443\nencryptionAlgorithm: {algorithm}\n"
    );
    let path = scratch.path().join("kubeadm.yaml");
    fs::write(&path, configuration).map_err(LabError::file("writing", &path))?;
    let began = Instant::now();
    for phase in ["certs", "kubeconfig", "control-plane"] {
        // A user namespace, in which anybody may change the root.
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "--"])
            .arg(kubeadm)
            .args(["init", "phase", phase, "all", "--config", "/kubeadm.yaml", "--rootfs"])
            .arg(scratch.path())
            .stdin(Stdio::null())
            .output()
            .map_err(|source| LabError::Spawn { program: kubeadm.to_owned(), source })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(LabError::Settings(format!("kubeadm init phase {phase} all: {}", said.trim())));
        }
    }
    let elapsed = began.elapsed();
    let made = scratch.path().join("etc/kubernetes/manifests/kube-apiserver.yaml");
    if made.is_file() { Ok(elapsed) } else { Err(LabError::Settings("kubeadm made no manifest".to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_s_files_are_made_whole() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), inputs("1.36.2").unwrap()).unwrap();
        let root = Root::new(dir.path());
        assert!(cluster_leaves::inspect(&root.path(paths::KUBERNETES), None).unwrap().is_some());
        for path in [paths::ADMIN_KUBECONFIG, paths::API_SERVER_MANIFEST, paths::SCHEDULER_CONFIG] {
            assert!(root.path(path).is_file(), "{path}");
        }
    }
}
