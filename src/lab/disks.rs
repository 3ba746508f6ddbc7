//! Volumes as files, and the devices that show them to a node while they are attached.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::LabError;

/// The files of a laboratory's volumes.
#[derive(Debug, Clone)]
pub struct Disks {
    dir: PathBuf,
}

impl Disks {
    /// In a directory, which is made.
    pub fn new(dir: &Path) -> Result<Self, LabError> {
        fs::create_dir_all(dir).map_err(LabError::file("making", dir))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The volume's file; what is mounted from it is the directory of that name with `.d` after it.
    pub fn file(&self, volume: &str) -> PathBuf {
        self.dir.join(volume)
    }

    fn contents(&self, volume: &str) -> PathBuf {
        self.dir.join(format!("{volume}.d"))
    }

    /// Shows a volume to a node: the serial number first, since the device announces itself by it.
    pub fn attach(&self, volume: &str, size_gib: u32, root: &Path) -> Result<(), LabError> {
        let file = self.file(volume);
        let sparse = || {
            let file = File::options().create(true).append(true).open(&file)?;
            file.set_len(u64::from(size_gib) << 30)
        };
        sparse().map_err(LabError::file("making", &file))?;
        // The first NVMe disk of a machine is its root volume.
        let name = (1..=u8::MAX)
            .map(|n| format!("nvme{n}n1"))
            .find(|name| !root.join("dev").join(name).is_symlink())
            .unwrap_or_default();
        let shown = root.join("sys/block").join(&name).join("device");
        fs::create_dir_all(&shown).map_err(LabError::file("making", &shown))?;
        let write = |what: &str, text: &str| {
            let path = shown.join(what);
            fs::write(&path, format!("{text}\n")).map_err(LabError::file("writing", &path))
        };
        write("model", "Amazon Elastic Block Store              ")?;
        write("serial", &volume.replace('-', ""))?;
        let device = root.join("dev").join(&name);
        symlink(&file, &device).map_err(LabError::file("making", &device))
    }

    /// Whether a node has a volume mounted where etcd's data are.
    pub fn is_mounted(&self, volume: &str, root: &Path) -> bool {
        fs::read_link(root.join("var/lib/etcd")).is_ok_and(|target| target == self.contents(volume))
    }

    /// Takes a volume away from a node, with what was mounted from it.
    pub fn detach(&self, volume: &str, root: &Path) -> Result<(), LabError> {
        let file = self.file(volume);
        let dev = root.join("dev");
        for entry in fs::read_dir(&dev).map_err(LabError::file("reading", &dev))? {
            let device = entry.map_err(LabError::file("reading", &dev))?.path();
            if fs::read_link(&device).is_ok_and(|target| target == file) {
                fs::remove_file(&device).map_err(LabError::file("removing", &device))?;
                let shown = root.join("sys/block").join(device.file_name().unwrap_or_default());
                fs::remove_dir_all(&shown).map_err(LabError::file("removing", &shown))?;
            }
        }
        let mounted = root.join("var/lib/etcd");
        if self.is_mounted(volume, root) {
            fs::remove_file(&mounted).map_err(LabError::file("removing", &mounted))?;
            fs::create_dir(&mounted).map_err(LabError::file("making", &mounted))?;
        }
        Ok(())
    }

    /// Destroys a volume and its data.
    pub fn lose(&self, volume: &str) -> Result<(), LabError> {
        let (file, contents) = (self.file(volume), self.contents(volume));
        let gone = |result: io::Result<()>, path: &Path| match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(LabError::file("removing", path)(error))
            }
            _ => Ok(()),
        };
        gone(fs::remove_file(&file), &file)?;
        gone(fs::remove_dir_all(&contents), &contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_there_only_while_its_volume_is_attached() {
        let dir = tempfile::tempdir().unwrap();
        let disks = Disks::new(&dir.path().join("volumes")).unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("dev")).unwrap();
        disks.attach("vol-1", 1, &root).unwrap();
        disks.attach("vol-2", 1, &root).unwrap();
        assert_eq!(fs::metadata(root.join("dev/nvme1n1")).unwrap().len(), 1 << 30);
        let serial = |n: u8| fs::read_to_string(root.join(format!("sys/block/nvme{n}n1/device/serial")));
        assert_eq!(serial(2).unwrap(), "vol2\n");
        disks.detach("vol-1", &root).unwrap();
        assert!(serial(1).is_err() && !root.join("dev/nvme1n1").is_symlink());
        assert!(serial(2).is_ok());
        assert!(disks.file("vol-1").exists(), "a detached volume keeps its data");
        disks.lose("vol-1").unwrap();
        assert!(!disks.file("vol-1").exists());
    }
}
