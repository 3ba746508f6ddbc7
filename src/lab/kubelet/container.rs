//! A container: a program with a root of its own, which holds what its manifest mounts and nothing
//! else.
//!
//! The root is made in a mount namespace (and a user namespace, so that nobody has to be root), by
//! a script that ends in being the program: the process that was started is the container. The
//! host's network, processes and devices are shared; its name is the machine's.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use k8s_openapi::api::core::v1::{Container, Pod, Volume};
use tokio::process::{Child, Command};

use crate::lab::environment::AgentEnvironment;

/// Takes the host name `$2`, builds the root on `$1` from the arguments before `--`, each `KIND SOURCE
/// TARGET`, and becomes the program after it. Kinds: `ro`, `rw` (a bind of what is there), `empty` (a directory to write
/// to), and `seal`, which makes the root read-only.
const SCRIPT: &str = r#"
set -e
root=$1; echo "$2" >/proc/sys/kernel/hostname; shift 2
mount -t tmpfs -o mode=755 container "$root"
mkdir -p "$root/proc" "$root/dev"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
  kind=$1 source=$2 target=$root$3; shift 3
  case $kind in
    empty) mkdir -p "$target"; mount -t tmpfs empty "$target" ;;
    seal) mount -o remount,ro,bind "$root" ;;
    *)
      if [ -d "$source" ]; then mkdir -p "$target"; else mkdir -p "${target%/*}"; : >"$target"; fi
      mount --bind "$source" "$target"
      [ "$kind" = rw ] || mount -o remount,ro,bind "$target" ;;
  esac
done
shift
exec chroot "$root" "$@"
"#;

/// A container that is about to be started.
pub(super) struct Plan<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    /// The program's name in the container, and where it is on this computer.
    pub program: (String, PathBuf),
    /// The machine's root.
    pub root: &'a Path,
    /// The machine's host name.
    pub host_name: &'a str,
    pub environment: &'a AgentEnvironment,
    /// Where the container's root is mounted: an empty directory.
    pub mount_point: PathBuf,
    /// Where what it says goes.
    pub log: PathBuf,
}

impl Plan<'_> {
    /// Starts it, or says why it can't be started: in the kubelet's words a `CreateContainerConfigError`
    /// or a `CreateContainerError`.
    pub fn start(&self) -> Result<Child, String> {
        let mounts = self.mounts()?;
        fs::create_dir_all(&self.mount_point).map_err(|e| format!("{}: {e}", self.mount_point.display()))?;
        let log = || {
            let file = fs::File::options().create(true).append(true).open(&self.log);
            file.map(Stdio::from).map_err(|error| format!("{}: {error}", self.log.display()))
        };
        let mut command = Command::new("unshare");
        command.args([
            "--user",
            "--map-root-user",
            "--mount",
            "--uts",
            "--",
            "sh",
            "-c",
            SCRIPT,
            "container",
        ]);
        command.arg(&self.mount_point).arg(self.host_name).args(mounts).arg("--").args(self.command()?);
        command.env_clear().envs(self.environment.variables());
        // Not the machine's, which has stand-ins for mounting.
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        for variable in self.container.env.iter().flatten() {
            command.env(&variable.name, variable.value.as_deref().unwrap_or_default());
        }
        command.current_dir("/").stdin(Stdio::null()).stdout(log()?).stderr(log()?).process_group(0);
        command.spawn().map_err(|error| format!("running unshare: {error}"))
    }

    /// Entry point and arguments. The image's own entry point is the program.
    fn command(&self) -> Result<Vec<OsString>, String> {
        let inside = format!("/usr/local/bin/{}", self.program.0);
        let mut words = match self.container.command.as_deref() {
            None | Some([]) => vec![inside],
            Some([first, rest @ ..]) if *first == self.program.0 || *first == inside => {
                [&[inside], rest].concat()
            }
            Some(other) => return Err(format!("the image has no program {:?}", other[0])),
        };
        words.extend(self.container.args.iter().flatten().cloned());
        Ok(words.into_iter().map(OsString::from).collect())
    }

    /// What is mounted where, as the script takes it.
    fn mounts(&self) -> Result<Vec<OsString>, String> {
        let inside = format!("/usr/local/bin/{}", self.program.0);
        let mut words: Vec<OsString> = vec!["ro".into(), self.program.1.clone().into(), inside.into()];
        let volumes = self.pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
        for mount in self.container.volume_mounts.iter().flatten() {
            let volume = volumes.iter().find(|volume| volume.name == mount.name);
            let volume = volume.ok_or_else(|| format!("no volume {:?}", mount.name))?;
            let (kind, source) = match self.source(volume)? {
                Some(source) if mount.read_only == Some(true) => ("ro", source),
                Some(source) => ("rw", source),
                None => ("empty", PathBuf::new()),
            };
            words.extend([kind.into(), source.into(), mount.mount_path.clone().into()]);
        }
        let context = self.container.security_context.as_ref();
        if context.and_then(|context| context.read_only_root_filesystem) == Some(true) {
            words.extend(["seal".into(), "-".into(), "-".into()]);
        }
        Ok(words)
    }

    /// The volume's place on this computer; `None` for an empty directory.
    fn source(&self, volume: &Volume) -> Result<Option<PathBuf>, String> {
        if volume.empty_dir.is_some() {
            return Ok(None);
        }
        let host =
            volume.host_path.as_ref().ok_or_else(|| format!("volume {:?} has no source", volume.name))?;
        let path = self.root.join(host.path.trim_start_matches('/'));
        let (is_right, kind) = match host.type_.as_deref() {
            None | Some("") => (path.exists(), "anything"),
            Some("File") => (path.is_file(), "a file"),
            Some("Directory") => (path.is_dir(), "a directory"),
            Some("DirectoryOrCreate") => {
                fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                (true, "a directory")
            }
            Some(other) => return Err(format!("volume {:?} is of type {other:?}", volume.name)),
        };
        if is_right { Ok(Some(path)) } else { Err(format!("{} is not {kind}", host.path)) }
    }
}
