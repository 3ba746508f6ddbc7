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
    if disks.iter().any(|disk| disk.is_ebs_or_unclear()) {
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
