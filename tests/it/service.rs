//! etcd itself as a supervised process, without systemd.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate::host::Root;
use quorate::host::service::{self, Service};
use quorate::model::{EtcdVersion, ServiceName, ServiceState};

/// etcd on the `PATH`, or where `scripts/` put it.
fn etcd() -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).chain([tools]).map(|dir| dir.join("etcd")).find(|etcd| etcd.exists());
    if found.is_none() {
        eprintln!("SKIPPED: no etcd on the PATH nor in .tools/bin");
    }
    found
}

/// A root whose etcd is killed at the end, when a test fails before it stops it.
struct Lab(tempfile::TempDir);

impl Drop for Lab {
    fn drop(&mut self) {
        let Ok(note) = std::fs::read(self.0.path().join("run/quorate/etcd.pid")) else { return };
        let Ok(note) = serde_json::from_slice::<serde_json::Value>(&note) else { return };
        if note["ended"].is_null()
            && let Some(pid) = note["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok())
        {
            eprintln!("killing etcd {pid}: {:?}", kill(Pid::from_raw(pid), Signal::SIGKILL));
        }
    }
}

#[tokio::test]
async fn etcd_tells_its_version_runs_on_under_the_next_agent_and_is_stopped_by_term() {
    let Some(etcd) = etcd() else { return };
    let version = service::version(&etcd).await.unwrap();
    assert!(version >= EtcdVersion::OLDEST && version < EtcdVersion::TOO_NEW, "{version}");

    let lab = Lab(tempfile::tempdir().unwrap());
    let root = Root::new(lab.0.path());
    let data = root.path("/var/lib/etcd/etcd");
    std::fs::create_dir_all(data.parent().unwrap()).unwrap();
    let mut args: Vec<OsString> = vec!["--data-dir".into(), data.clone().into()];
    for url in ["client", "peer"] {
        // Port 0: whatever is free; nothing has to find this member.
        args.push(format!("--listen-{url}-urls=http://127.0.0.1:0").into());
    }
    args.push("--advertise-client-urls=http://127.0.0.1:0".into());
    Service::of(&root, ServiceName::Etcd).start(&etcd, &args).await.unwrap();
    let next = Service::of(&root, ServiceName::Etcd);
    assert_eq!(next.state().await.unwrap(), ServiceState::Running);
    next.stop(Duration::from_secs(30)).await.unwrap();
    assert_eq!(next.state().await.unwrap(), ServiceState::Stopped);
    next.stop(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test]
async fn etcd_without_its_configuration_has_failed_and_says_why() {
    let Some(etcd) = etcd() else { return };
    let lab = Lab(tempfile::tempdir().unwrap());
    let service = Service::of(&Root::new(lab.0.path()), ServiceName::Etcd);
    service.start(&etcd, &["--config-file=/no/such/etcd.yaml".into()]).await.unwrap();
    let how = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            match service.state().await.unwrap() {
                ServiceState::Failed(how) => break how,
                ServiceState::Running => tokio::task::yield_now().await,
                ServiceState::Stopped => panic!("stopped, though nobody asked"),
            }
        }
    })
    .await
    .unwrap();
    assert!(how.starts_with("exited with status ") && how.contains("/no/such/etcd.yaml"), "{how}");
}
