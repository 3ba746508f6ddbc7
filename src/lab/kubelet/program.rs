//! `quorate-lab kubelet` and `quorate-lab kube-proxy`: what a machine's stand-ins have in common as programs.
//!
//! A machine has a program for each in its own `bin` ([`install`]): a script that says on which machine it stands, and
//! passes on the flags that it was given. So the agent starts it as it starts the real one, by its path, with the real
//! one's flags and files. Paths are the machine's, below its root.
//!
//! Nothing of the computer is changed by them, and they listen at loopback addresses only.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::configuration::KubeletConfiguration;
use super::node::Registration;
use super::{Kubelet, Pods, Programs};
use crate::lab::LabError;
use crate::lab::environment::{AgentEnvironment, NODE_MARK};

/// The stand-ins: the names of the programs that they stand for.
pub const NAMES: [&str; 2] = ["kubelet", "kube-proxy"];

/// The machine that a stand-in stands on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ground {
    /// Its directory.
    pub dir: PathBuf,
    /// Its host name.
    pub host_name: String,
    /// Its processes' environment.
    pub environment: AgentEnvironment,
    /// The programs that stand for images; none where nothing runs.
    pub programs: Option<Programs>,
    /// The version of Kubernetes that the stand-ins claim to be.
    pub version: String,
}

impl Ground {
    /// Reads what [`install`] wrote.
    pub fn read(path: &Path) -> Result<Self, LabError> {
        let bytes = fs::read(path).map_err(LabError::file("reading", path))?;
        serde_json::from_slice(&bytes)
            .map_err(|source| LabError::Json { what: path.display().to_string(), source })
    }

    /// The machine's root.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// Where a path of the machine's is on this computer.
    pub fn path(&self, path: &Path) -> PathBuf {
        let root = self.root();
        if path.starts_with(&root) {
            return path.to_owned();
        }
        root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// Where a machine's stand-in is.
pub fn place(machine: &Path, name: &str) -> PathBuf {
    machine.join("bin").join(name)
}

/// Writes the machine's stand-ins, which are `lab`'s, the program `quorate-lab`.
pub fn install(ground: &Ground, lab: &Path) -> Result<(), LabError> {
    let bin = ground.dir.join("bin");
    fs::create_dir_all(&bin).map_err(LabError::file("making", &bin))?;
    let description = ground.dir.join("machine.json");
    let json = serde_json::to_vec_pretty(ground)
        .map_err(|source| LabError::Json { what: "a machine's description".to_owned(), source })?;
    fs::write(&description, json).map_err(LabError::file("writing", &description))?;
    for name in NAMES {
        let path = place(&ground.dir, name);
        let script = format!(
            "#!/bin/sh\n# Stands in for {name} on this machine.\nexport {NODE_MARK}={}\nexec {} {name} --machine {} \"$@\"\n",
            quoted(&ground.dir),
            quoted(lab),
            quoted(&description),
        );
        fs::write(&path, script).map_err(LabError::file("writing", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(LabError::file("making executable", &path))?;
    }
    Ok(())
}

/// A path as a word of the shell's.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

/// The flags of the kubelet's that the stand-in knows: those that are handed to it. Any other is an error.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct KubeletFlags {
    /// The machine that it stands on.
    #[arg(long)]
    machine: PathBuf,
    /// Its configuration.
    #[arg(long, required_unless_present = "version")]
    config: Option<PathBuf>,
    /// How it reaches the API.
    #[arg(long)]
    pub(super) kubeconfig: Option<PathBuf>,
    /// How it asks for its first certificate.
    #[arg(long)]
    pub(super) bootstrap_kubeconfig: Option<PathBuf>,
    /// Its node's name.
    #[arg(long)]
    pub(super) hostname_override: Option<String>,
    /// Its node's address.
    #[arg(long)]
    pub(super) node_ip: Option<std::net::IpAddr>,
    /// Its node's labels.
    #[arg(long, value_delimiter = ',')]
    pub(super) node_labels: Vec<String>,
    /// Where its certificates lie.
    #[arg(long, default_value = "/var/lib/kubelet/pki")]
    pub(super) cert_dir: PathBuf,
    /// Which cloud it runs in.
    #[arg(long)]
    cloud_provider: Option<String>,
    /// Where it asks for credentials of registries.
    #[arg(long)]
    image_credential_provider_config: Option<PathBuf>,
    /// By which programs.
    #[arg(long)]
    image_credential_provider_bin_dir: Option<PathBuf>,
    /// How much it says.
    #[arg(short, long)]
    v: Option<u8>,
    /// Says its version, and ends.
    #[arg(long)]
    version: bool,
}

/// Says the version as Kubernetes' programs do.
pub(in crate::lab) fn say_version(ground: &Ground, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "Kubernetes v{}", ground.version.trim_start_matches('v'))
}

/// Runs the stand-in for the kubelet, until it is dropped.
pub async fn run(flags: &KubeletFlags, out: &mut impl Write) -> Result<(), LabError> {
    let ground = Ground::read(&flags.machine)?;
    if flags.version {
        return say_version(&ground, out).map_err(LabError::file("writing", Path::new("the version")));
    }
    let config = ground.path(flags.config.as_deref().unwrap_or(Path::new("")));
    let configuration = KubeletConfiguration::read(&config).map_err(LabError::Settings)?;
    if let Some(kubeconfig) = flags.kubeconfig.iter().find(|_| flags.bootstrap_kubeconfig.is_none()) {
        let path = ground.path(kubeconfig);
        // As the kubelet: without one it has no node to be, and ends.
        fs::metadata(&path).map_err(LabError::file("reading", &path))?;
    }
    if let Some(address) = configuration.healthz() {
        serve(address, Arc::new(|| true)).await?;
    }
    let manifests = configuration.static_pod_path.clone();
    let node = Registration { ground: ground.clone(), flags: flags.clone(), configuration };
    tokio::join!(static_pods(&ground, manifests.as_deref()), node.run());
    Ok(())
}

/// Runs the static pods, if there are any and programs that stand for their images.
async fn static_pods(ground: &Ground, manifests: Option<&str>) {
    if let (Some(manifests), Some(programs)) = (manifests, &ground.programs) {
        let kubelet = Kubelet {
            root: ground.root(),
            manifests: ground.path(Path::new(manifests)),
            host_name: ground.host_name.clone(),
            environment: ground.environment.clone(),
            programs: programs.clone(),
            pods: Pods::open(Pods::file(&ground.dir)),
        };
        kubelet.run().await;
    }
}

/// Whether all is well.
pub(in crate::lab) type Wellness = Arc<dyn Fn() -> bool + Send + Sync>;

/// Serves `/healthz`, at a loopback address only.
pub(in crate::lab) async fn serve(address: SocketAddr, well: Wellness) -> Result<(), LabError> {
    if !address.ip().is_loopback() {
        return Err(LabError::Settings(format!("{address} is not a loopback address")));
    }
    let answer = move || {
        let well = Arc::clone(&well);
        async move { if well() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "not yet") } }
    };
    let router = Router::new().route("/healthz", get(answer.clone())).route("/livez", get(answer));
    let listener = TcpListener::bind(address).await.map_err(|source| LabError::File {
        what: "listening at",
        path: address.to_string().into(),
        source,
    })?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "healthz is not served any more");
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::process::Command;

    use clap::Parser as _;

    use super::*;
    use crate::lab::cli::Cli;

    fn ground(dir: &Path) -> Ground {
        let metadata = "127.1.2.3:80".parse().unwrap();
        let environment = AgentEnvironment::of_node(dir, dir, "http://127.0.0.1:4", metadata).unwrap();
        Ground {
            dir: dir.to_owned(),
            host_name: "ip-127-1-2-3".to_owned(),
            environment,
            programs: None,
            version: "v1.36.2".to_owned(),
        }
    }

    #[test]
    fn a_flag_that_the_stand_in_does_not_know_is_an_error() {
        let parse = |words: &[&str]| Cli::try_parse_from([&["quorate-lab"], words].concat());
        let kubelet = ["kubelet", "--machine=/m", "--config=/c", "--node-labels=a=b,c=d", "--v=2"];
        assert!(parse(&kubelet).is_ok());
        assert!(parse(&[&kubelet[..], &["--pod-manifest-path=/p"]].concat()).is_err());
        let proxy = ["kube-proxy", "--machine=/m", "--config=/c"];
        assert!(parse(&proxy).is_ok());
        assert!(parse(&[&proxy[..], &["--cleanup"]].concat()).is_err());
    }

    #[test]
    fn paths_are_the_machines() {
        let ground = ground(Path::new("/lab/nodes/a1"));
        let below = Path::new("/lab/nodes/a1/root/var/lib/kubelet/config.yaml");
        assert_eq!(ground.path(Path::new("/var/lib/kubelet/config.yaml")), below);
        assert_eq!(ground.path(below), below);
    }

    #[test]
    fn a_machines_programs_say_on_which_machine_they_stand() {
        let dir = tempfile::Builder::new().prefix("it's ").tempdir().unwrap();
        let ground = ground(dir.path());
        install(&ground, Path::new("/bin/echo")).unwrap();
        for name in NAMES {
            let output = Command::new(place(dir.path(), name)).arg("--config=/a b").output().unwrap();
            let description = dir.path().join("machine.json");
            let said = format!("{name} --machine {} --config=/a b\n", description.display());
            assert_eq!(String::from_utf8_lossy(&output.stdout), said);
            let read = Ground::read(&description).unwrap();
            assert_eq!((read.dir, read.environment), (ground.dir.clone(), ground.environment.clone()));
        }
    }

    #[test]
    fn a_description_that_would_lead_elsewhere_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("machine.json");
        let mut description = serde_json::to_value(ground(dir.path())).unwrap();
        description["environment"] = serde_json::json!(BTreeMap::<String, String>::new());
        fs::write(&path, description.to_string()).unwrap();
        assert!(Ground::read(&path).is_err());
    }

    #[tokio::test]
    async fn nothing_is_served_but_at_a_loopback_address() {
        let refused = serve("0.0.0.0:0".parse().unwrap(), Arc::new(|| true)).await;
        assert!(matches!(refused, Err(LabError::Settings(_))));
    }
}
