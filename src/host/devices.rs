//! Which device node is a volume's.
//!
//! By the volume's id, never by order. On Nitro machines a volume is an NVMe device whose serial
//! is its id without the dash, whatever device name was asked for. Only on Xen machines, which
//! have no NVMe controller of EBS, does the name that was asked for mean anything.
//! Source: "Map Amazon EBS volumes to NVMe device names" and "Device names for volumes", EBS and
//! EC2 user guides.

use std::io;
use std::path::{Path, PathBuf};

use super::Root;
use super::files::{self, FileError};
use crate::model::VolumeId;

/// The model of NVMe disks that are not EBS volumes.
const INSTANCE_STORE: &str = "Amazon EC2 NVMe Instance Storage";

/// Why nobody can say which device it is.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The kernel's list of disks, or what it says of one, was not read.
    #[error("reading what the kernel says of its disks")]
    Sys(#[source] FileError),
    /// Whether a node exists is unknown.
    #[error("looking for {}", path.display())]
    Look {
        /// The node or link.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Two devices show the same volume's serial.
    #[error("{} and {} both show the serial of {volume}", one.display(), other.display())]
    Twice {
        /// The volume.
        volume: VolumeId,
        /// One device.
        one: PathBuf,
        /// The other.
        other: PathBuf,
    },
}

impl DeviceError {
    /// Whether looking again may help: disks come and go while the kernel is read.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Sys(_) | Self::Look { .. } => true,
            Self::Twice { .. } => false,
        }
    }
}

/// The device node of a volume; `None` while there is none. `hint` is the device name that the
/// attachment asked for (`/dev/xvdf`, `sdf`); it counts on Xen machines only.
pub fn find(root: &Root, volume: &VolumeId, hint: &str) -> Result<Option<PathBuf>, DeviceError> {
    let disks = disks(root)?;
    if let Some(disk) = by_serial(root, volume, &disks)? {
        return Ok(Some(disk));
    }
    if let Some(disk) = by_link(root, volume)? {
        return Ok(Some(disk));
    }
    if disks.iter().any(NvmeDisk::is_ebs_or_unclear) {
        return Ok(None);
    }
    by_name(root, hint)
}

/// An NVMe disk, as the kernel shows it.
struct NvmeDisk {
    /// `nvme1n1`.
    name: String,
    /// Its serial and model, where shown.
    serial: Option<String>,
    model: Option<String>,
}

impl NvmeDisk {
    /// Whether it may be an EBS volume: then this is a Nitro machine.
    fn is_ebs_or_unclear(&self) -> bool {
        self.model.as_deref() != Some(INSTANCE_STORE)
    }
}

fn disks(root: &Root) -> Result<Vec<NvmeDisk>, DeviceError> {
    let block = root.path("/sys/block");
    let mut disks = Vec::new();
    for name in files::list_optional(&block).map_err(DeviceError::Sys)?.unwrap_or_default() {
        if is_nvme_disk(&name) {
            let shown = |what: &str| text(&block.join(&name).join("device").join(what));
            disks.push(NvmeDisk { serial: shown("serial")?, model: shown("model")?, name });
        }
    }
    Ok(disks)
}

/// Whether the name is a whole disk's: `nvme1n1`, and neither the partition `nvme1n1p1` nor the
/// hidden path `nvme1c1n1`.
fn is_nvme_disk(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    name.strip_prefix("nvme")
        .and_then(|rest| rest.split_once('n'))
        .is_some_and(|(controller, namespace)| digits(controller) && digits(namespace))
}

/// A file's text without the blanks that the kernel pads it with.
fn text(path: &Path) -> Result<Option<String>, DeviceError> {
    let bytes = files::read_optional(path).map_err(DeviceError::Sys)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim_matches([' ', '\n', '\t', '\0']).to_owned()))
}

fn by_serial(root: &Root, volume: &VolumeId, disks: &[NvmeDisk]) -> Result<Option<PathBuf>, DeviceError> {
    let serial = volume.nvme_serial();
    let shows_it = |disk: &&NvmeDisk| {
        disk.serial.as_deref().is_some_and(|shown| shown == serial || shown == volume.as_str())
    };
    let mut matching = disks.iter().filter(shows_it).map(|disk| root.path("/dev").join(&disk.name));
    match (matching.next(), matching.next()) {
        (Some(one), Some(other)) => Err(DeviceError::Twice { volume: volume.clone(), one, other }),
        (Some(one), None) => Ok(exists(&one)?.then_some(one)),
        (None, _) => Ok(None),
    }
}

/// By the link that udev makes. The link is followed by its last part only, so that the answer
/// stays below the root.
fn by_link(root: &Root, volume: &VolumeId) -> Result<Option<PathBuf>, DeviceError> {
    let name = format!("/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{}", volume.nvme_serial());
    let link = root.path(name);
    let target = match std::fs::read_link(&link) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DeviceError::Look { path: link, source }),
    };
    let disk = target.file_name().and_then(|name| name.to_str()).filter(|name| is_nvme_disk(name));
    match disk.map(|name| root.path("/dev").join(name)) {
        Some(device) => Ok(exists(&device)?.then_some(device)),
        None => Ok(None),
    }
}

/// By the name that was asked for: Xen's kernels show `sdf` as `xvdf`.
fn by_name(root: &Root, hint: &str) -> Result<Option<PathBuf>, DeviceError> {
    let asked = hint.strip_prefix("/dev/").unwrap_or(hint);
    let letter = asked.strip_prefix("xvd").or_else(|| asked.strip_prefix("sd"));
    let Some(letter) = letter.filter(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_lowercase())) else {
        return Ok(None);
    };
    for name in [format!("xvd{letter}"), format!("sd{letter}")] {
        let device = root.path("/dev").join(&name);
        if exists(&root.path("/sys/block").join(&name))? && exists(&device)? {
            return Ok(Some(device));
        }
    }
    Ok(None)
}

fn exists(path: &Path) -> Result<bool, DeviceError> {
    path.try_exists().map_err(|source| DeviceError::Look { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const HINT: &str = "/dev/sdf";

    struct Machine {
        _dir: tempfile::TempDir,
        root: Root,
    }

    impl Machine {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let root = Root::new(dir.path());
            Self { _dir: dir, root }
        }

        fn write(self, path: &str, text: &str) -> Self {
            let path = self.root.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        fn nvme(self, name: &str, serial: &str, model: &str) -> Self {
            self.write(&format!("/sys/block/{name}/device/serial"), serial)
                .write(&format!("/sys/block/{name}/device/model"), model)
                .write(&format!("/dev/{name}"), "")
        }

        fn ebs(self, name: &str, serial: &str) -> Self {
            self.nvme(name, &format!("{serial}\n"), "Amazon Elastic Block Store              \n")
        }

        fn xen(self, name: &str) -> Self {
            self.write(&format!("/sys/block/{name}/size"), "1").write(&format!("/dev/{name}"), "")
        }

        fn link(self, id: &str, target: &str) -> Self {
            let link = self.root.path("/dev/disk/by-id").join(id);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(target, link).unwrap();
            self
        }

        fn find(&self) -> Result<Option<String>, DeviceError> {
            let volume = "vol-0123456789abcdef0".parse().unwrap();
            let found = find(&self.root, &volume, HINT)?;
            let shown = |path: PathBuf| path.strip_prefix(self.root.as_path()).unwrap().display().to_string();
            Ok(found.map(shown))
        }

        #[track_caller]
        fn finds(&self, expected: Option<&str>) {
            assert_eq!(self.find().unwrap().as_deref(), expected);
        }
    }

    #[test]
    fn a_volume_is_found_by_its_serial_whatever_the_order() {
        Machine::new()
            .ebs("nvme0n1", "vol0aaaaaaaaaaaaaaaa")
            .ebs("nvme1n1", "vol0bbbbbbbbbbbbbbbb")
            .ebs("nvme2n1", "vol0123456789abcdef0")
            .finds(Some("dev/nvme2n1"));
    }

    #[test]
    fn a_serial_is_the_volume_s_in_full_or_not_at_all() {
        Machine::new().ebs("nvme1n1", "vol0123456789abcdef").finds(None);
    }

    #[test]
    fn a_partition_is_not_the_device() {
        Machine::new()
            .ebs("nvme1n1p1", "vol0123456789abcdef0")
            .link("nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0", "../../nvme1n1p1")
            .finds(None);
    }

    #[test]
    fn the_hidden_path_of_a_multipath_disk_is_not_the_device() {
        Machine::new().ebs("nvme1c0n1", "vol0123456789abcdef0").finds(None);
    }

    #[test]
    fn the_link_of_udev_is_followed_below_the_root() {
        Machine::new()
            .ebs("nvme3n1", "")
            .link("nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0", "../../nvme3n1")
            .finds(Some("dev/nvme3n1"));
    }

    #[test]
    fn a_device_without_a_node_is_not_there_yet() {
        let machine = Machine::new().ebs("nvme1n1", "vol0123456789abcdef0");
        fs::remove_file(machine.root.path("/dev/nvme1n1")).unwrap();
        machine.finds(None);
    }

    #[test]
    fn on_nitro_the_name_that_was_asked_for_means_nothing() {
        Machine::new().ebs("nvme0n1", "vol0aaaaaaaaaaaaaaaa").xen("xvdf").finds(None);
        // A disk that does not say what it is may be a volume.
        Machine::new().write("/sys/block/nvme0n1/size", "1").xen("xvdf").finds(None);
    }

    #[test]
    fn on_xen_the_name_that_was_asked_for_is_the_kernel_s() {
        Machine::new().xen("xvda").xen("xvdf").finds(Some("dev/xvdf"));
        Machine::new().xen("sdf").finds(Some("dev/sdf"));
        Machine::new().xen("xvdg").finds(None);
        Machine::new().nvme("nvme0n1", "AWS1234", INSTANCE_STORE).xen("xvdf").finds(Some("dev/xvdf"));
    }

    #[test]
    fn one_serial_on_two_devices_is_refused() {
        let machine =
            Machine::new().ebs("nvme1n1", "vol0123456789abcdef0").ebs("nvme2n1", "vol0123456789abcdef0");
        assert!(matches!(machine.find(), Err(DeviceError::Twice { .. })));
    }

    #[test]
    fn what_cannot_be_read_is_not_absent() {
        let machine = Machine::new().write("/sys/block", "not a directory");
        assert!(matches!(machine.find(), Err(DeviceError::Sys(_))));
        let machine = Machine::new().write("/sys/block/nvme1n1/device/serial/x", "a directory");
        assert!(matches!(machine.find(), Err(DeviceError::Sys(_))));
    }
}
