//! What the machine has, as its kernel tells below `/proc` and `/sys`, and the operator's drop-ins.
//!
//! These are the effective values: what a hypervisor or a boot parameter takes away is not there. What a node makes
//! of them is in [`crate::kubernetes`].

use std::io;
use std::path::Path;

use super::Root;
use super::files::{self, FileError};
use crate::kubernetes::paths;
use crate::model::ids::ParseIdError;
use crate::model::node::{CgroupVersion, DropIn, Machine};

/// Where distributions put `nft`, which kube-proxy runs: its service's path has them all.
const NFT: [&str; 4] = ["/usr/sbin/nft", "/usr/local/sbin/nft", "/usr/bin/nft", "/usr/local/bin/nft"];

/// Where machine images put `ecr-credential-provider`: EKS' own first, then the places of image-builder and kubelet.
const ECR_CREDENTIAL_PROVIDER: [&str; 4] = [
    "/etc/eks/image-credential-provider",
    "/usr/local/bin",
    "/usr/libexec/kubernetes/kubelet-plugins/credential-provider/exec",
    "/usr/bin",
];

/// What could not be found out about the machine.
#[derive(Debug, thiserror::Error)]
pub enum CapacityError {
    /// A file was not read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file does not say what Linux has it say.
    #[error("{path} does not say {what}")]
    Malformed {
        /// The file.
        path: &'static str,
        /// What was looked for.
        what: &'static str,
    },
    /// The kernel's release is none.
    #[error("/proc/sys/kernel/osrelease")]
    Release(#[source] ParseIdError),
    /// A drop-in is no text.
    #[error("{path} is not UTF-8")]
    NotText {
        /// The file.
        path: String,
    },
}

impl CapacityError {
    /// Whether it may go away without anybody changing anything: a file that is being replaced may.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::File(_) => true,
            Self::Malformed { .. } | Self::Release(_) | Self::NotText { .. } => false,
        }
    }
}

/// Looks at the machine. `kernel` is where `/proc` and `/sys` are, `root` where all other files are.
pub fn machine(kernel: &Root, root: &Root) -> Result<Machine, CapacityError> {
    let release = text(kernel, "/proc/sys/kernel/osrelease")?;
    Ok(Machine {
        cpus: cpus(&text(kernel, "/sys/devices/system/cpu/online")?)
            .ok_or(malformed("/sys/devices/system/cpu/online", "which CPUs are online"))?,
        memory: memory(&text(kernel, "/proc/meminfo")?)
            .ok_or(malformed("/proc/meminfo", "how much memory there is"))?,
        // The first line has the columns' names; a kernel without swap has no such file.
        swap: optional(kernel, "/proc/swaps")?.is_some_and(|swaps| swaps.trim().lines().count() > 1),
        kernel: release.parse().map_err(CapacityError::Release)?,
        cgroup: cgroup(kernel),
        nftables: NFT.iter().any(|path| root.path(path).is_file())
            && nf_tables(kernel, root, release.trim())?,
        ecr_credential_provider: ECR_CREDENTIAL_PROVIDER
            .iter()
            .find(|dir| root.path(dir).join(paths::ECR_CREDENTIAL_PROVIDER).is_file())
            .map(|dir| (*dir).to_owned()),
    })
}

/// The operator's drop-ins: what ends in `.conf`, in the order of the names, as the kubelet's own `--config-dir` has
/// it. A directory that is not there has none.
pub fn drop_ins(root: &Root) -> Result<Vec<DropIn>, CapacityError> {
    let dir = root.path(paths::KUBELET_DROP_INS);
    let names = files::list_optional(&dir)?.unwrap_or_default();
    let mut found = Vec::new();
    let is_drop_in = |name: &String| {
        !name.starts_with('.') && Path::new(name).extension().is_some_and(|extension| extension == "conf")
    };
    for name in names.into_iter().filter(is_drop_in) {
        let path = format!("{}/{name}", paths::KUBELET_DROP_INS);
        // One that was removed in between is not there.
        let Some(bytes) = files::read_optional(&dir.join(&name))? else { continue };
        let text = String::from_utf8(bytes).map_err(|_| CapacityError::NotText { path: path.clone() })?;
        found.push(DropIn { path, text });
    }
    Ok(found)
}

const fn malformed(path: &'static str, what: &'static str) -> CapacityError {
    CapacityError::Malformed { path, what }
}

fn optional(root: &Root, path: &str) -> Result<Option<String>, CapacityError> {
    let bytes = files::read_optional(&root.path(path))?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn text(root: &Root, path: &'static str) -> Result<String, CapacityError> {
    optional(root, path)?.ok_or_else(|| {
        FileError::Read { path: root.path(path), source: io::Error::from(io::ErrorKind::NotFound) }.into()
    })
}

/// How many numbers are in a list like `0-3,8`.
fn cpus(online: &str) -> Option<u32> {
    let mut count: u32 = 0;
    for range in online.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

/// `MemTotal` in bytes.
fn memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The unified hierarchy has this file at its root, which a directory of version 1's hierarchies has not.
/// Source: "About cgroup v2", Kubernetes' documentation, and cgroups(7).
fn cgroup(kernel: &Root) -> CgroupVersion {
    let unified: &Path = &kernel.path("/sys/fs/cgroup/cgroup.controllers");
    if unified.exists() { CgroupVersion::V2 } else { CgroupVersion::V1 }
}

/// Whether `nf_tables` is loaded, built in, or a module of this kernel's.
fn nf_tables(kernel: &Root, root: &Root, release: &str) -> Result<bool, CapacityError> {
    if kernel.path("/sys/module/nf_tables").exists() {
        return Ok(true);
    }
    for list in ["modules.builtin", "modules.dep"] {
        let modules = optional(root, &format!("/lib/modules/{release}/{list}"))?.unwrap_or_default();
        if modules
            .lines()
            .any(|line| line.split(':').next().is_some_and(|path| path.contains("/nf_tables.ko")))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::node::KernelVersion;

    fn put(dir: &tempfile::TempDir, path: &str, text: &str) {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A machine of two CPUs on Amazon Linux.
    fn small() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        put(&dir, "sys/devices/system/cpu/online", "0-1\n");
        put(&dir, "proc/meminfo", "MemTotal:        3933168 kB\nMemFree:          100 kB\n");
        put(&dir, "proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
        put(&dir, "proc/sys/kernel/osrelease", "6.1.115-126.197.amzn2023.x86_64\n");
        put(&dir, "sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n");
        dir
    }

    fn seen(dir: &tempfile::TempDir) -> Machine {
        let root = Root::new(dir.path());
        machine(&root, &root).unwrap()
    }

    #[test]
    fn a_machine_is_what_its_kernel_says() {
        let machine = seen(&small());
        assert_eq!(
            machine,
            Machine {
                cpus: 2,
                memory: 3_933_168 * 1024,
                swap: false,
                kernel: KernelVersion { major: 6, minor: 1 },
                cgroup: CgroupVersion::V2,
                nftables: false,
                ecr_credential_provider: None,
            }
        );
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let machine = machine(&Root::default(), &Root::default()).unwrap();
        assert!(machine.cpus >= 1 && machine.memory > 64 << 20, "{machine:?}");
    }

    #[test]
    fn cpus_that_are_offline_do_not_count() {
        for (online, count) in [("0\n", Some(1)), ("0-191", Some(192)), ("0-1,4-5,7", Some(5))] {
            assert_eq!(cpus(online), count, "{online}");
        }
        for broken in ["", "a", "3-1", "0-", "0-4294967295,1"] {
            assert_eq!(cpus(broken), None, "{broken}");
        }
    }

    #[test]
    fn swap_counts_when_it_is_in_use_and_old_control_groups_are_told() {
        let dir = small();
        put(&dir, "proc/swaps", "Filename Type Size Used Priority\n/swapfile file 1048572 0 -2\n");
        fs::remove_file(dir.path().join("sys/fs/cgroup/cgroup.controllers")).unwrap();
        let machine = seen(&dir);
        assert!(machine.swap);
        assert_eq!(machine.cgroup, CgroupVersion::V1);
    }

    #[test]
    fn nftables_takes_the_module_and_the_program() {
        let dir = small();
        put(&dir, "usr/sbin/nft", "");
        assert!(!seen(&dir).nftables, "no module");
        let modules = "lib/modules/6.1.115-126.197.amzn2023.x86_64";
        put(
            &dir,
            &format!("{modules}/modules.dep"),
            "kernel/net/nft_ct.ko: kernel/net/netfilter/nf_tables.ko\n",
        );
        assert!(!seen(&dir).nftables, "only another one's need");
        put(&dir, &format!("{modules}/modules.dep"), "kernel/net/netfilter/nf_tables.ko.xz: kernel/x.ko\n");
        assert!(seen(&dir).nftables);
        fs::remove_file(dir.path().join("usr/sbin/nft")).unwrap();
        put(&dir, "sys/module/nf_tables/refcnt", "1");
        assert!(!seen(&dir).nftables, "no program");
        put(&dir, "usr/bin/nft", "");
        assert!(seen(&dir).nftables);
    }

    #[test]
    fn the_credential_provider_is_found_where_images_put_it() {
        let dir = small();
        put(&dir, "usr/bin/ecr-credential-provider", "");
        assert_eq!(seen(&dir).ecr_credential_provider.as_deref(), Some("/usr/bin"));
        put(&dir, "etc/eks/image-credential-provider/ecr-credential-provider", "");
        let found = seen(&dir).ecr_credential_provider;
        assert_eq!(found.as_deref(), Some("/etc/eks/image-credential-provider"));
    }

    #[test]
    fn drop_ins_come_in_the_order_of_their_names() {
        let dir = small();
        let root = Root::new(dir.path());
        assert!(drop_ins(&root).unwrap().is_empty());
        for name in ["20-b.conf", "10-a.conf", ".hidden.conf", "note.txt"] {
            put(&dir, &format!("etc/quorate/kubelet.d/{name}"), name);
        }
        let found = drop_ins(&root).unwrap();
        let paths: Vec<&str> = found.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["/etc/quorate/kubelet.d/10-a.conf", "/etc/quorate/kubelet.d/20-b.conf"]);
        assert_eq!(found[0].text, "10-a.conf");
        fs::write(dir.path().join("etc/quorate/kubelet.d/30-c.conf"), [0xff]).unwrap();
        let error = drop_ins(&root).unwrap_err();
        assert!(matches!(&error, CapacityError::NotText { path } if path.ends_with("30-c.conf")), "{error}");
    }

    #[test]
    fn a_file_that_is_missing_or_strange_is_named() {
        let dir = small();
        put(&dir, "proc/meminfo", "MemFree: 3 kB\n");
        let root = Root::new(dir.path());
        assert!(machine(&root, &root).unwrap_err().to_string().contains("/proc/meminfo"));
        fs::remove_file(dir.path().join("proc/meminfo")).unwrap();
        let error = machine(&root, &root).unwrap_err();
        assert!(error.to_string().contains("proc/meminfo") && error.is_retryable(), "{error}");
    }
}
