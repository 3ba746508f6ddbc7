//! A machine in a container: systemd as its init, a loop device as its volume, the simulated region
//! around it.
//!
//! Outside, [`outside`] makes what the kernel does not clean up by itself: the disk and the control
//! group. Inside, in namespaces of its own for processes, mounts and the network, [`Machine`] is
//! booted; whatever happens, all that ran and was mounted in there ends with the namespaces, and
//! nothing in there can reach any address but the loopback ones.

use std::env;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use quorate::lab::environment::AgentEnvironment;
use quorate::lab::region::{
    EventKind, GroupSpec, ImdsPlacement, InstanceSpec, Region, RegionConfig, VolumeSpec, WorldConfig,
};
use quorate::lab::settings::{BUCKET, CLUSTER, find_etcd};
use quorate::lab::status::Status;
use serde_json::json;
use tokio::runtime::Runtime;

/// Names the directory of the trial to the process inside.
const INSIDE: &str = "QUORATE_MACHINE_DIR";
/// How long everything may take.
const LIMIT: &str = "240";
/// Where the instance's metadata service listens.
const METADATA_PORT: u16 = 8775;
/// How often something is looked at that announces itself to nobody.
const LOOK: Duration = Duration::from_millis(50);
/// The name, beside the machine's files, of the way to its bus.
const BUS: &str = "bus";
/// The name of the volume's device in the machine.
const DEVICE: &str = "nvme1n1";

/// What a program is that only has to be started: it says with which arguments, each on a line, has a child, and goes on.
const STAND_IN: &str = "#!/bin/sh\nprintf '%s\\n' \"$0\" \"$@\"\nsleep 600 &\nexec sleep 601\n";

/// The image that machines boot: what `scripts/install-tools machine` made.
fn base() -> PathBuf {
    env::var_os("QUORATE_MACHINE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/machine"), PathBuf::from)
}

/// What is missing to run a machine here.
fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("root".to_owned());
    }
    let programs =
        ["systemd-nspawn", "unshare", "nsenter", "timeout", "ip", "losetup", "mknod", "journalctl"];
    if let Some(program) = programs.into_iter().find(|program| !is_there(program)) {
        return Some(format!("{program} on the PATH"));
    }
    if !base().join("usr/lib/systemd/systemd").exists() {
        return Some(format!("{}, which scripts/install-tools machine makes", base().display()));
    }
    if let Err(error) = find_etcd() {
        return Some(error.to_string());
    }
    (!Path::new("/dev/loop-control").exists()).then(|| "loop devices".to_owned())
}

fn is_there(program: &str) -> bool {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(program).exists())
}

/// Runs a program that must succeed; gives its output.
#[track_caller]
pub fn must(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What is taken away at the end, also of a trial that failed.
struct Outside {
    dir: tempfile::TempDir,
    device: String,
    groups: Vec<PathBuf>,
}

impl Outside {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("quorate-machine-").tempdir().unwrap();
        let disk = dir.path().join("disk");
        File::create(&disk).unwrap().set_len(1 << 30).unwrap();
        let device = must("losetup", &["--find", "--show", disk.to_str().unwrap()]);
        let mut outside = Self { dir, device, groups: Vec::new() };
        fs::write(outside.dir.path().join("device"), &outside.device).unwrap();
        // Where systemd does not keep the control groups, nspawn takes the one that it is in.
        for tree in ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"] {
            if Path::new(tree).join("cgroup.procs").exists() && !booted_by_systemd() {
                let group = Path::new(tree).join(format!("quorate-machine-{}", std::process::id()));
                fs::create_dir(&group).unwrap();
                outside.groups.push(group);
            }
        }
        let lines: Vec<_> = outside.groups.iter().map(|group| group.display().to_string()).collect();
        fs::write(outside.dir.path().join("groups"), lines.join("\n")).unwrap();
        outside
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let detached = Command::new("losetup").args(["--detach", &self.device]).status();
        if !detached.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("{} was not detached: {detached:?}", self.device);
        }
        for group in &self.groups {
            if let Err(error) = until(Duration::from_secs(5), || remove_group(group)) {
                eprintln!("{} was not removed: {error}", group.display());
            }
        }
    }
}

/// A control group goes when those below it and its last process are gone.
fn remove_group(group: &Path) -> Result<(), String> {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path())?;
        }
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn booted_by_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Runs the named test again inside, and this in it; says what is missing where that can't be.
pub fn outside(test: &str, inside: impl FnOnce(&Path)) {
    if let Some(dir) = env::var_os(INSIDE) {
        return inside(Path::new(&dir));
    }
    if let Some(missing) = missing() {
        eprintln!("SKIPPED: a machine of its own needs {missing}");
        return;
    }
    let outside = Outside::new();
    let test_program = env::current_exe().unwrap();
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--signal=KILL", LIMIT]);
    if booted_by_systemd() {
        command.args(["systemd-run", "--scope", "--quiet", "--property=Delegate=yes"]);
    }
    command.args(["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(test_program).args(["--exact", test, "--nocapture"]);
    // The machine's own bus, so that what talks to systemd can be tried from here.
    let bus = format!("unix:path={}", outside.dir.path().join(BUS).display());
    command.env("DBUS_SYSTEM_BUS_ADDRESS", bus);
    let output = command.env(INSIDE, outside.dir.path()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    eprintln!("{said}");
    assert!(output.status.success(), "inside: {}", output.status);
}

/// Looks again and again until it is so, or gives what was last in the way.
#[allow(clippy::disallowed_methods, reason = "what a machine does announces itself to nobody, in real time")]
pub fn until<T>(patience: Duration, mut look: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let deadline = Instant::now() + patience;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(why) if Instant::now() >= deadline => return Err(why),
            Err(_) => sleep(LOOK),
        }
    }
}

/// The machine, and the region around it.
pub struct Machine {
    pub runtime: Runtime,
    pub region: Arc<Region>,
    pub address: Ipv4Addr,
    dir: PathBuf,
    /// The major and minor number of the loop device.
    numbers: (String, String),
    etcd: PathBuf,
    nspawn: Option<Child>,
    /// systemd, as the namespace of processes here numbers it.
    init: u32,
}

impl Machine {
    /// Everything but the power.
    pub fn new(dir: &Path) -> Self {
        must("ip", &["link", "set", "lo", "up"]);
        // nspawn leaves things of its own there.
        must("mount", &["-t", "tmpfs", "tmpfs", "/run"]);
        let runtime = Runtime::new().unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let region = runtime.block_on(Region::start(RegionConfig {
            world: WorldConfig { address_base: 16, ..WorldConfig::default() },
            aws: any,
            control: any,
            imds: ImdsPlacement::PrivateAddress(METADATA_PORT),
        }));
        let region = Arc::new(region.unwrap());
        let zone = "eu-west-1a".to_owned();
        let tags = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let volume = VolumeSpec {
            zone: zone.clone(),
            tags: tags(&[("quorate:cluster", CLUSTER), ("quorate:slot", "1")]),
            ..VolumeSpec::default()
        };
        let instance = InstanceSpec {
            zone,
            tags: tags(&[("quorate:cluster", CLUSTER), ("quorate:role", "control-plane")]),
            metadata_tags: true,
            iam_role: Some("control-plane".to_owned()),
            ..InstanceSpec::default()
        };
        // It tells the zones; the machine is launched by hand, as a group would launch it.
        let group = GroupSpec {
            name: "control-plane".to_owned(),
            max: 1,
            tags: instance.tags.clone(),
            template: InstanceSpec { zone: String::new(), ..instance.clone() },
            ..GroupSpec::default()
        };
        let address = region.change(|world| {
            world.create_bucket(BUCKET);
            world.create_group(group).unwrap();
            world.create_volume(volume, None).unwrap();
            let id = world.run_instance(instance).unwrap();
            world.view().instances[&id].private_ip
        });
        let device = fs::metadata(fs::read_to_string(dir.join("device")).unwrap()).unwrap();
        let numbers = std::os::unix::fs::MetadataExt::rdev(&device);
        let numbers =
            (nix::sys::stat::major(numbers).to_string(), nix::sys::stat::minor(numbers).to_string());
        let machine = Self {
            runtime,
            region,
            address,
            dir: dir.to_owned(),
            numbers,
            etcd: real_etcd(),
            nspawn: None,
            init: 0,
        };
        machine.furnish();
        machine
    }

    /// The machine's files, as its operating system sees them when it is off.
    fn disk(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The machine's files as seen by who runs there, with what is mounted.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.init))
    }

    /// Writes a file of the machine while it is off.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.disk().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn furnish(&self) {
        for part in ["root", "upper", "work", "block"] {
            fs::create_dir(self.dir.join(part)).unwrap();
        }
        let at = |part: &str| self.dir.join(part).display().to_string();
        let layers = format!("lowerdir={},upperdir={},workdir={}", base().display(), at("upper"), at("work"));
        must("mount", &["-t", "overlay", "overlay", "-o", &layers, &at("root")]);
        for unit in ["quorate.service", "quorate-etcd.service", "kubelet.service", "kube-proxy.service"] {
            let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(unit));
            self.write(&format!("usr/lib/systemd/system/{unit}"), &text.unwrap());
        }
        let wants = "etc/systemd/system/multi-user.target.wants";
        self.write(&format!("{wants}/.keep"), "");
        let wanted = self.disk().join(wants).join("quorate.service");
        std::os::unix::fs::symlink("/usr/lib/systemd/system/quorate.service", wanted).unwrap();
        // All that it is asked of the real units to be other than they are: where AWS is, and to be
        // as patient as a test can be.
        let mut drop_in = "[Service]\nWatchdogSec=3\nTimeoutAbortSec=2\n".to_owned();
        let metadata = SocketAddr::from((self.address, METADATA_PORT));
        let environment =
            AgentEnvironment::of_node(&self.dir, &self.dir, &self.region.endpoints().aws, metadata).unwrap();
        for (name, value) in environment.variables() {
            if name.starts_with("AWS_") || name == "NO_PROXY" {
                drop_in += &["Environment=", name, "=", value, "\n"].concat();
            }
        }
        self.write("etc/systemd/system/quorate.service.d/50-trial.conf", &drop_in);
        let etcd = json!({ "size": 1, "quota": "256MiB" });
        let fragment = json!({ "cluster": CLUSTER, "bucket": BUCKET, "etcd": etcd, "tick": "2s" });
        self.write("etc/quorate/config.d/50-trial.yaml", &fragment.to_string());
        // A container's clock is its host's, so no time service runs in it.
        self.write(
            "usr/lib/tmpfiles.d/trial.conf",
            "f /run/systemd/timesync/synchronized 0644 root root -\n",
        );
        for program in ["usr/bin/quorate", "usr/bin/etcd"] {
            self.write(program, "");
        }
        for program in ["usr/bin/kubelet", "usr/bin/kube-proxy"] {
            self.write(program, STAND_IN);
            fs::set_permissions(self.disk().join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    /// Switches it on, and waits until its systemd is up.
    pub fn boot(&mut self) {
        assert!(self.nspawn.is_none(), "it is on");
        let (dir, groups) = (self.dir.display(), fs::read_to_string(self.dir.join("groups")).unwrap());
        let enter = |group| format!("echo 0 >'{group}/cgroup.procs' &&");
        let mut script: Vec<_> = groups.lines().map(enter).collect();
        let agent = env!("CARGO_BIN_EXE_quorate");
        script.push(format!(
            "exec systemd-nspawn --quiet --directory='{dir}/root' --machine=trial --register=no --keep-unit \
             --boot --console=pipe --link-journal=no --resolv-conf=off --timezone=off \
             --bind-ro='{agent}':/usr/bin/quorate --bind-ro='{}':/usr/bin/etcd --bind-ro='{dir}/block':/sys/block",
            self.etcd.display(),
        ));
        let log = File::options().create(true).append(true).open(self.dir.join("console")).unwrap();
        let child = Command::new("sh")
            .args(["-c", &script.join(" ")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let nspawn = child.id();
        self.nspawn = Some(child);
        let up = until(Duration::from_secs(30), || {
            let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children"));
            let children = children.map_err(|error| error.to_string())?;
            let init = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
            self.init = init.ok_or_else(|| "there is no init".to_owned())?;
            match self.systemctl(&["is-system-running"]).as_str() {
                "running" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
        if let Err(why) = up {
            panic!("systemd is not up: {why}\n{}", fs::read_to_string(self.dir.join("console")).unwrap());
        }
        let bus = self.dir.join(BUS);
        if let Err(error) = fs::remove_file(&bus) {
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
        std::os::unix::fs::symlink(self.root().join("run/dbus/system_bus_socket"), bus).unwrap();
    }

    /// Has the kernel show the volume, once EC2 calls it attached here.
    pub fn show_volume(&self) {
        let attached = |kind: &EventKind| match kind {
            EventKind::VolumeAttached { volume, .. } => Some(volume.as_str().to_owned()),
            _ => None,
        };
        let volume = until(Duration::from_secs(20), || {
            let events = self.region.with(|world| world.events_after(0));
            events.iter().find_map(|event| attached(&event.kind)).ok_or_else(|| self.plight())
        });
        let device = self.dir.join("block").join(DEVICE).join("device");
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("model"), "Amazon Elastic Block Store              \n").unwrap();
        fs::write(device.join("serial"), format!("{}\n", volume.unwrap().replace('-', ""))).unwrap();
        let node = self.root().join("dev").join(DEVICE);
        must("mknod", &["-m", "660", node.to_str().unwrap(), "b", &self.numbers.0, &self.numbers.1]);
    }

    /// The power is cut: systemd and all else is killed at once, and what was mounted is not
    /// unmounted in any order.
    pub fn cut_power(&mut self) {
        must("kill", &["-KILL", &self.init.to_string()]);
        self.wait_off(Duration::from_secs(10));
    }

    /// It is shut down in good order by its logind, as by EC2's power button.
    pub fn shut_down(&mut self, patience: Duration) {
        let logind = ["org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager"];
        let off = self.run(&[&["busctl", "call"], &logind[..], &["PowerOff", "b", "false"]].concat());
        assert!(off.status.success(), "{off:?}");
        self.wait_off(patience);
    }

    fn wait_off(&mut self, patience: Duration) {
        let mut nspawn = self.nspawn.take().unwrap();
        let ended = until(patience, || match nspawn.try_wait().unwrap() {
            Some(_) => Ok(()),
            None => Err("it is still on".to_owned()),
        });
        assert_eq!(ended, Ok(()));
    }

    /// Runs a program in the machine.
    pub fn run(&self, program: &[&str]) -> Output {
        let init = self.init.to_string();
        let enter = ["-t", &init, "-m", "-u", "-i", "-p", "-n", "--", "timeout", "20"];
        // The way to its bus from here is none from in there.
        Command::new("nsenter")
            .args(enter)
            .args(program)
            .env_remove("DBUS_SYSTEM_BUS_ADDRESS")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What a program of the machine says; its exit code is not looked at.
    pub fn say(&self, program: &[&str]) -> String {
        String::from_utf8_lossy(&self.run(program).stdout).trim().to_owned()
    }

    pub fn systemctl(&self, args: &[&str]) -> String {
        self.say(&[&["systemctl"], args].concat())
    }

    /// A property of a unit.
    pub fn property(&self, unit: &str, property: &str) -> String {
        self.systemctl(&["show", "--value", "--property", property, unit])
    }

    /// The main process of a unit, as the machine numbers it.
    pub fn pid(&self, unit: &str) -> u32 {
        self.property(unit, "MainPID").parse().unwrap()
    }

    /// The journal's entries of this boot that match, as JSON.
    pub fn journal(&self, matches: &[&str]) -> Vec<serde_json::Value> {
        let said = self.say(&[&["journalctl", "--boot", "--output=json", "--no-pager"], matches].concat());
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The last messages that match, read from the disk of a machine that is off.
    pub fn last_words(&self, of: &str) -> String {
        let journal = self.disk().join("var/log/journal").display().to_string();
        must(
            "journalctl",
            &["--directory", &journal, "--boot", "--output=cat", "--no-pager", "--lines=200", of],
        )
    }

    /// The agent's messages of this boot.
    pub fn messages(&self) -> Vec<String> {
        let text = |entry: serde_json::Value| entry["MESSAGE"].as_str().unwrap_or_default().to_owned();
        self.journal(&["--unit=quorate.service"]).into_iter().map(text).collect()
    }

    /// The agent's status, once it was written.
    pub fn status(&self) -> Option<Status> {
        Status::of(&self.root()).unwrap()
    }

    /// Waits until something is so; if it never is, fails with all that may say why.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, patience: Duration, look: impl FnMut() -> Result<T, String>) -> T {
        match until(patience, look) {
            Ok(found) => found,
            Err(why) => panic!("waited for {what}: {why}\n{}", self.plight()),
        }
    }

    /// What the machine says of itself, for a failure.
    fn plight(&self) -> String {
        let units = self.systemctl(&["status", "--no-pager", "--full", "quorate", "quorate-etcd"]);
        format!("{units}\n{}", self.say(&["journalctl", "--no-pager", "--lines=150"]))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut nspawn) = self.nspawn.take() {
            // All of the machine ends with the namespace of processes that this is the first in.
            eprintln!("cutting the power: {:?}", nspawn.kill().and_then(|()| nspawn.wait()));
        }
    }
}

/// etcd's program itself: what `scripts/install-tools` puts on the PATH is a script that calls it.
fn real_etcd() -> PathBuf {
    let etcd = find_etcd().unwrap();
    let is_script = fs::read(&etcd).unwrap().starts_with(b"#!");
    if !is_script {
        return etcd;
    }
    let unpacked = etcd.parent().and_then(Path::parent).unwrap().join("etcd/usr/bin/etcd");
    assert!(unpacked.is_file(), "{} is a script that calls an unknown program", etcd.display());
    unpacked
}
