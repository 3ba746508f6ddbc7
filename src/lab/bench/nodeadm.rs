//! What nodeadm, the configurator of EKS' nodes, takes for a worker's configuration, where its program is given.
//!
//! It runs on the machine that a worker of ours would have: the same simulated metadata service, the same user data and
//! endpoints. Its configuration phase alone runs (`init --skip run`): it ends where its services would be started. It
//! writes to fixed places, so it runs in a mount namespace of its own, in which `/etc`, `/run` and `/var` are directories
//! of the bench's and all else of the root is read-only: nothing of this computer changes. With the feature gate
//! `InstanceIdNodeName` its nodes are named as ours are, and it asks EC2 for nothing. What lies on its image lies on
//! this one: the versions of the kubelet and of containerd, and the credential provider. It connects to systemd before it
//! needs it, so something accepts it there, and hangs up when it is asked for anything.
//!
//! Source: `awslabs/amazon-eks-ami`, `nodeadm/`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::memory;
use super::workers::{One, VERSION, calls_of, laboratory};
use crate::lab::LabError;
use crate::lab::laboratory::Scratch;

/// How long it may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// In the namespace: its places, then, when it is told to, itself. `$1`: the bench's directory; `$2`: the program.
const SCRIPT: &str = "set -eu
mount --bind \"$2\" \"$1/run/nodeadm\"
for dir in etc run var; do mount --rbind \"$1/$dir\" \"/$dir\"; done
mount -o remount,bind,ro /
echo ready
read -r _
exec /run/nodeadm init --skip run --config-source file:///etc/nodeadm.yaml
";

/// What it wrote when it is done.
const MADE: [&str; 3] =
    ["etc/containerd/config.toml", "etc/kubernetes/kubelet/config.json", "var/lib/kubelet/kubeconfig"];

/// One worker's configuration.
pub(super) async fn one(nodeadm: &Path, agent: &Path, seed: u64) -> Result<One, LabError> {
    let scratch = Scratch::new("bench-nodeadm")?;
    let (lab, worker) = laboratory(scratch.path(), agent, seed).await?;
    let ground = scratch.path().join("nodeadm");
    let (time, memory) = configure(nodeadm, &ground, worker.environment().variables()).await?;
    let (metadata, calls) = calls_of(&lab);
    Ok(One { time, memory, metadata, calls })
}

/// How long it takes, in this directory and with this environment, and the most memory that it has, in MiB.
async fn configure(
    nodeadm: &Path,
    ground: &Path,
    environment: &BTreeMap<String, String>,
) -> Result<(Duration, f64), LabError> {
    let nodeadm = &fs::canonicalize(nodeadm).map_err(LabError::file("finding", nodeadm))?;
    lay(ground)?;
    let socket = ground.join("run/systemd/private");
    let listener = UnixListener::bind(&socket).map_err(LabError::file("listening at", &socket))?;
    let systemd = tokio::spawn(stand_in(listener));

    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "--", "sh", "-c", SCRIPT, "nodeadm"]);
    command.arg(ground).arg(nodeadm).env_clear().envs(environment);
    // Not the machine's, which has stand-ins for mounting; and no other bus of this computer.
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().map_err(|source| LabError::Spawn { program: nodeadm.clone(), source })?;
    let ran = timeout(PATIENCE, run(child)).await;
    systemd.abort();
    let why = match ran {
        Err(_) => format!("it did not end within {} s", PATIENCE.as_secs()),
        Ok(Err(error)) => error.to_string(),
        Ok(Ok(Ran { status, said, .. })) if !status.success() => format!("{status}: {}", said.trim()),
        Ok(Ok(Ran { time, memory, .. })) => match MADE.iter().find(|path| !ground.join(path).is_file()) {
            None => return Ok((time, memory)),
            Some(path) => format!("it made no {path}"),
        },
    };
    Err(LabError::Settings(format!("{}: {why}", nodeadm.display())))
}

/// What is on its image, and its configuration.
fn lay(ground: &Path) -> Result<(), LabError> {
    let configuration = format!(
        "apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  featureGates: {{InstanceIdNodeName: true}}\n  \
         cluster:\n    name: demo\n    apiServerEndpoint: https://127.0.0.1:1\n    cidr: 10.96.0.0/12\n    \
         certificateAuthority: {}\n",
        STANDARD.encode("a certificate")
    );
    let files = [
        ("etc/nodeadm.yaml", configuration.as_str(), 0o644),
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644),
        ("etc/resolv.conf", "", 0o644),
        ("etc/eks/kubelet-version.txt", &format!("Kubernetes v{VERSION}\n"), 0o644),
        ("etc/eks/containerd-version.txt", "containerd github.com/containerd/containerd/v2 2.1.4 -\n", 0o644),
        ("etc/eks/image-credential-provider/ecr-credential-provider", "#!/bin/sh\n", 0o755),
        // The program is mounted over it.
        ("run/nodeadm", "", 0o755),
        ("run/systemd/nothing", "", 0o644),
        ("var/nothing", "", 0o644),
    ];
    for (path, text, mode) in files {
        let path = ground.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(LabError::file("making", parent))?;
        }
        fs::write(&path, text).map_err(LabError::file("writing", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .map_err(LabError::file("writing", &path))?;
    }
    Ok(())
}

/// How it ran.
struct Ran {
    status: ExitStatus,
    /// What it said on standard error.
    said: String,
    time: Duration,
    /// The most memory that it had, in MiB.
    memory: f64,
}

/// Tells it to begin when its places are made, and follows it to its end.
async fn run(mut child: Child) -> std::io::Result<Ran> {
    let (Some(pid), Some(mut stdin), Some(stdout), Some(mut stderr)) =
        (child.id(), child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(std::io::Error::other("it has no pipes"));
    };
    let mut said = String::new();
    let mut lines = BufReader::new(stdout).lines();
    if lines.next_line().await?.is_none() {
        stderr.read_to_string(&mut said).await?;
        return Ok(Ran { status: child.wait().await?, said, time: Duration::ZERO, memory: 0.0 });
    }
    let began = Instant::now();
    stdin.write_all(b"\n").await?;
    let mut most = 0.0;
    let ended = async {
        let (status, _) = tokio::join!(child.wait(), stderr.read_to_string(&mut said));
        (status, began.elapsed())
    };
    let (status, time) = tokio::select! {
        ended = ended => ended,
        never = watch(pid, &mut most) => match never {},
    };
    Ok(Ran { status: status?, said, time, memory: most })
}

/// Keeps the most memory that a process ever had, until it is no more. What it had before it became another is less.
async fn watch(pid: u32, most: &mut f64) -> Infallible {
    const AGAIN: Duration = Duration::from_micros(500);
    loop {
        match memory(pid, "VmHWM") {
            Ok(now) => *most = most.max(now),
            Err(_) => std::future::pending().await,
        }
        sleep(AGAIN).await;
    }
}

/// In place of systemd: takes every connection.
async fn stand_in(listener: UnixListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(take(stream));
    }
}

/// Lets a client in, as D-Bus' authentication has it, and hangs up when it then asks for anything.
async fn take(stream: UnixStream) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    while matches!(read.read_until(b'\n', &mut line).await, Ok(1..)) {
        let answer: &[u8] = match String::from_utf8_lossy(&line).trim_matches(['\0', '\r', '\n']) {
            "AUTH" => b"REJECTED EXTERNAL\r\n",
            "NEGOTIATE_UNIX_FD" => b"AGREE_UNIX_FD\r\n",
            "BEGIN" => break,
            line if line.starts_with("AUTH EXTERNAL") => b"OK 0123456789abcdef0123456789abcdef\r\n",
            _ => return,
        };
        if write.write_all(answer).await.is_err() {
            return;
        }
        line.clear();
    }
    let _ = read.fill_buf().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_is_let_in_and_hung_up_on_when_it_asks() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let server = tokio::spawn(take(server));
        let mut answer = [0_u8; 64];
        for (line, expected) in [
            ("\0AUTH\r\n", "REJECTED EXTERNAL\r\n"),
            ("AUTH EXTERNAL 30\r\n", "OK 0123456789abcdef0123456789abcdef\r\n"),
            ("NEGOTIATE_UNIX_FD\r\n", "AGREE_UNIX_FD\r\n"),
        ] {
            client.write_all(line.as_bytes()).await.unwrap();
            let answer = &mut answer[..expected.len()];
            client.read_exact(answer).await.unwrap();
            assert_eq!(answer, expected.as_bytes());
        }
        client.write_all(b"BEGIN\r\nl\x01").await.unwrap();
        server.await.unwrap();
        assert_eq!(client.read(&mut answer).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_program_runs_where_it_can_change_nothing_and_its_failure_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("nodeadm");
        fs::write(&program, "#!/bin/sh\necho $* >&2; touch /usr/changed /nowhere; exit 3\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        match configure(&program, &dir.path().join("ground"), &BTreeMap::new()).await {
            Err(LabError::Settings(text)) if text.contains("unshare: ") => eprintln!("SKIPPED: {text}"),
            Err(LabError::Settings(text)) => {
                assert!(text.contains("init --skip run --config-source file:///etc/nodeadm.yaml"), "{text}");
                assert!(text.contains("exit status: 3") && text.contains("Read-only file system"), "{text}");
                assert!(!Path::new("/usr/changed").exists() && !Path::new("/nowhere").exists());
            }
            other => panic!("{other:?}"),
        }
    }
}
