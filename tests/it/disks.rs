//! Disks for real: blkid, mkfs, mount and their kin, on regular files, and on loop devices where
//! there are root and loop devices.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, too")]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use quorate::host::files;
use quorate::host::filesystem::{self, FilesystemError, Kind};
use quorate::host::manifests::{ManifestError, Manifests};
use quorate::host::{Root, volume};
use quorate::kubernetes::{Component, Owner, RenderedFile, digest};
use quorate::model::{Content, DataDir, Slot, Stamp, StampState};

const MIB: u64 = 1024 * 1024;

/// No machine's root: what is mounted is mounted by this process.
fn elsewhere() -> Root {
    Root::new("/nonexistent")
}

fn slot(number: u8) -> Slot {
    Slot::try_from(number).unwrap()
}

/// A regular file that stands for a disk, all zeros and sparse.
struct Image {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Image {
    fn new(size: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nvme1n1");
        File::create(&path).unwrap().set_len(size).unwrap();
        Self { _dir: dir, path }
    }

    fn write(self, offset: u64, bytes: &[u8]) -> Self {
        OpenOptions::new().write(true).open(&self.path).unwrap().write_all_at(bytes, offset).unwrap();
        self
    }

    fn resize(&self, size: u64) {
        OpenOptions::new().write(true).open(&self.path).unwrap().set_len(size).unwrap();
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    async fn probe(&self) -> Content {
        filesystem::probe(&self.path, Some(slot(1))).await.unwrap()
    }

    /// Asserts that the image is foreign, with these words, and that formatting leaves it alone.
    async fn is_left_alone(&self, words: &str) {
        let found = match self.probe().await {
            Content::Foreign(found) => found,
            other => panic!("{other:?}"),
        };
        assert!(found.contains(words), "{found}");
        let before = self.bytes();
        let error = filesystem::format(&self.path, Kind::Ext4, slot(1)).await.unwrap_err();
        assert!(matches!(error, FilesystemError::NotBlank { .. }), "{error:?}");
        assert!(before == self.bytes(), "the image changed");
    }
}

/// Runs a program that must succeed; gives its output.
fn must(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn has(program: &str) -> bool {
    let found =
        std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|dir| dir.join(program).exists());
    if !found {
        eprintln!("skipped: {program} is not on the PATH");
    }
    found
}

#[tokio::test]
async fn a_blank_disk_is_formatted_and_is_ours_from_then_on() {
    let image = Image::new(64 * MIB);
    assert_eq!(image.probe().await, Content::Blank);
    filesystem::format(&image.path, Kind::Ext4, slot(1)).await.unwrap();
    let ours = Content::Ours { kind: "ext4".to_owned(), can_grow: false };
    assert_eq!(image.probe().await, ours);
    assert_eq!(filesystem::probe(&image.path, None).await.unwrap(), ours);
    let other = filesystem::probe(&image.path, Some(slot(2))).await.unwrap();
    assert!(matches!(&other, Content::Foreign(found) if found.contains("LABEL=quorate-1")), "{other:?}");
    let again = filesystem::format(&image.path, Kind::Ext4, slot(1)).await.unwrap_err();
    assert!(matches!(again, FilesystemError::NotBlank { .. }), "{again:?}");

    image.resize(128 * MIB);
    assert_eq!(image.probe().await, Content::Ours { kind: "ext4".to_owned(), can_grow: true });
}

#[tokio::test]
async fn xfs_serves_as_well() {
    if !has("mkfs.xfs") || !has("xfs_info") {
        return;
    }
    let image = Image::new(400 * MIB);
    filesystem::format(&image.path, Kind::Xfs, slot(1)).await.unwrap();
    assert_eq!(image.probe().await, Content::Ours { kind: "xfs".to_owned(), can_grow: false });
    image.resize(800 * MIB);
    assert_eq!(image.probe().await, Content::Ours { kind: "xfs".to_owned(), can_grow: true });
}

#[tokio::test]
async fn another_s_file_system_is_left_alone() {
    let image = Image::new(16 * MIB);
    must("mkfs.ext4", &["-q", "-L", "data", image.path.to_str().unwrap()]);
    image.is_left_alone("TYPE=ext4 LABEL=data UUID=").await;
}

#[tokio::test]
async fn swap_is_left_alone() {
    let image = Image::new(16 * MIB);
    must("mkswap", &[image.path.to_str().unwrap()]);
    image.is_left_alone("TYPE=swap").await;
}

#[tokio::test]
async fn an_encrypted_disk_is_left_alone() {
    let mut header = vec![0; 512];
    header[..8].copy_from_slice(b"LUKS\xba\xbe\0\x01");
    header[168..204].copy_from_slice(b"6f2b1c1e-8f3a-4b52-9f0e-2d7a5c3b1a90");
    Image::new(16 * MIB).write(0, &header).is_left_alone("TYPE=crypto_LUKS").await;
}

#[tokio::test]
async fn a_physical_volume_of_lvm_is_left_alone_even_with_a_wrong_checksum() {
    let mut label = vec![0; 512];
    label[..8].copy_from_slice(b"LABELONE");
    label[8] = 1;
    label[20] = 32;
    label[24..32].copy_from_slice(b"LVM2 001");
    Image::new(16 * MIB).write(512, &label).is_left_alone("").await;
}

/// A DOS partition table with one Linux partition from 1 MiB on.
fn partition_table() -> Vec<u8> {
    let mut sector = vec![0; 512];
    sector[440..444].copy_from_slice(&[0x78, 0x56, 0x34, 0x12]);
    sector[450] = 0x83;
    sector[454..458].copy_from_slice(&2048_u32.to_le_bytes());
    sector[458..462].copy_from_slice(&16384_u32.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[tokio::test]
async fn a_partition_table_is_left_alone() {
    Image::new(16 * MIB).write(0, &partition_table()).is_left_alone("PTTYPE=dos").await;
}

#[tokio::test]
async fn a_partition_table_by_sfdisk_is_left_alone() {
    if !has("sfdisk") {
        return;
    }
    let image = Image::new(16 * MIB);
    let script = format!("echo 'label: gpt\n,,L' | sfdisk -q {}", image.path.display());
    must("sh", &["-c", &script]);
    image.is_left_alone("PTTYPE=gpt").await;
}

#[tokio::test]
async fn bytes_that_nobody_knows_are_left_alone_at_head_and_tail() {
    let size = 16 * MIB;
    for offset in [0, 511, MIB - 1, size - MIB, size - 512, size - 1] {
        let image = Image::new(size).write(offset, &[1]);
        image.is_left_alone(&format!("non-zero bytes at offset {offset}")).await;
    }
}

#[tokio::test]
async fn a_disk_smaller_than_its_edges_is_looked_at_in_full() {
    Image::new(MIB + 512).write(MIB + 511, &[1]).is_left_alone("non-zero").await;
    Image::new(512).write(100, &[1]).is_left_alone("non-zero bytes at offset 100").await;
}

#[tokio::test]
async fn what_cannot_be_read_is_never_blank() {
    let missing = filesystem::probe(Path::new("/no/such/device"), None).await.unwrap_err();
    assert!(matches!(missing, FilesystemError::Read { .. }), "{missing:?}");
    let empty = Image::new(0);
    let error = filesystem::probe(&empty.path, None).await.unwrap_err();
    assert!(matches!(error, FilesystemError::NoSize { .. }), "{error:?}");
    let error = filesystem::probe(empty.path.parent().unwrap(), None).await.unwrap_err();
    assert!(matches!(error, FilesystemError::Read { .. }), "{error:?}");
}

#[tokio::test]
async fn a_directory_that_is_no_mount_point_has_nothing_mounted() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(filesystem::mounted(dir.path()).await.unwrap(), None);
    assert_eq!(filesystem::mounted(&dir.path().join("missing")).await.unwrap(), None);
}

/// A loop device over an image, and a mount point; both undone at the end, come what may.
struct Loop {
    device: PathBuf,
    dir: tempfile::TempDir,
    image: Image,
}

impl Loop {
    /// `None`, with a word about it, where there is no root or no loop device to be had.
    fn new(size: u64, options: &[&str]) -> Option<Self> {
        Self::over(Image::new(size), options)
    }

    fn over(image: Image, options: &[&str]) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: loop devices need root");
            return None;
        }
        let args = [&["--find", "--show"], options, &[image.path.to_str().unwrap()]].concat();
        let output = match Command::new("losetup").args(&args).output() {
            Ok(output) if output.status.success() => output,
            other => {
                eprintln!("SKIPPED: root, and no loop device: {other:?}");
                return None;
            }
        };
        let device = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        Some(Self { device, dir: tempfile::tempdir().unwrap(), image })
    }

    fn dir(&self) -> PathBuf {
        self.dir.path().join("etcd")
    }

    async fn mount(&self, kind: Kind) {
        filesystem::mount(&elsewhere(), &self.device, kind, &self.dir()).await.unwrap();
    }

    async fn read_only(&self) -> bool {
        filesystem::mounted(&self.dir()).await.unwrap().unwrap().read_only
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // The first fails where nothing is mounted, which is as well.
        let _ = Command::new("umount").arg(self.dir()).output();
        let detached = Command::new("losetup").arg("--detach").arg(&self.device).output();
        eprintln!("{} detached: {:?}", self.device.display(), detached.map(|output| output.status));
    }
}

/// Whether this process has CAP_SYS_RESOURCE (bit 24), which containers' root often lacks.
fn may_use_resources() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap() & (1 << 24) != 0
}

async fn mounts_and_grows(kind: Kind, size: u64) {
    let Some(disk) = Loop::new(size, &[]) else { return };
    assert_eq!(filesystem::probe(&disk.device, Some(slot(1))).await.unwrap(), Content::Blank);
    filesystem::format(&disk.device, kind, slot(1)).await.unwrap();
    assert_eq!(filesystem::mounted(&disk.dir()).await.unwrap(), None);
    disk.mount(kind).await;
    let mount = filesystem::mounted(&disk.dir()).await.unwrap().unwrap();
    assert_eq!((Path::new(&mount.source), mount.read_only), (disk.device.as_path(), false));
    let options = must("findmnt", &["-n", "-o", "OPTIONS", "-M", disk.dir().to_str().unwrap()]);
    for option in ["noatime", "nodev", "nosuid", "noexec"] {
        assert!(options.split(',').any(|found| found == option), "{options}");
    }
    let contents = volume::contents(&disk.dir()).unwrap();
    assert_eq!((contents.data, contents.strangers), (DataDir::Absent, vec![]));

    let before = nix::sys::statvfs::statvfs(&disk.dir()).unwrap().blocks();
    assert!(!filesystem::can_grow(&disk.device, kind).await.unwrap());
    disk.image.resize(size * 2);
    must("losetup", &["--set-capacity", disk.device.to_str().unwrap()]);
    assert!(filesystem::can_grow(&disk.device, kind).await.unwrap());
    let grown = filesystem::grow(&elsewhere(), &disk.device, &disk.dir(), kind).await;
    if kind == Kind::Ext4 && !may_use_resources() {
        eprintln!("SKIPPED: ext4 grows only for who has CAP_SYS_RESOURCE, and this root has not");
        assert!(matches!(grown, Err(FilesystemError::Grow { .. })), "{grown:?}");
    } else {
        grown.unwrap();
        assert!(!filesystem::can_grow(&disk.device, kind).await.unwrap());
        assert!(nix::sys::statvfs::statvfs(&disk.dir()).unwrap().blocks() > before * 3 / 2);
    }

    must("mount", &["-o", "remount,ro", disk.dir().to_str().unwrap()]);
    assert!(disk.read_only().await);
    filesystem::umount(&elsewhere(), &disk.dir()).await.unwrap();
    assert_eq!(filesystem::mounted(&disk.dir()).await.unwrap(), None);
}

#[tokio::test]
async fn ext4_is_mounted_grown_seen_read_only_and_unmounted() {
    mounts_and_grows(Kind::Ext4, 64 * MIB).await;
}

#[tokio::test]
async fn xfs_is_mounted_grown_seen_read_only_and_unmounted() {
    if has("mkfs.xfs") && has("xfs_info") && has("xfs_growfs") {
        mounts_and_grows(Kind::Xfs, 400 * MIB).await;
    }
}

#[tokio::test]
async fn a_read_only_device_is_blank_and_is_not_formatted() {
    let Some(disk) = Loop::new(16 * MIB, &["--read-only"]) else { return };
    assert_eq!(filesystem::probe(&disk.device, Some(slot(1))).await.unwrap(), Content::Blank);
    let error = filesystem::format(&disk.device, Kind::Ext4, slot(1)).await.unwrap_err();
    assert!(matches!(error, FilesystemError::Format { .. }), "{error:?}");
    assert_eq!(filesystem::probe(&disk.device, Some(slot(1))).await.unwrap(), Content::Blank);
}

#[tokio::test]
async fn another_device_s_file_system_is_left_alone_on_a_block_device() {
    let Some(disk) = Loop::over(Image::new(16 * MIB).write(0, &partition_table()), &[]) else { return };
    let content = filesystem::probe(&disk.device, Some(slot(1))).await.unwrap();
    assert!(
        matches!(&content, Content::Foreign(found) if found.contains("block device: PTTYPE=dos")),
        "{content:?}"
    );
    let error = filesystem::format(&disk.device, Kind::Ext4, slot(1)).await.unwrap_err();
    assert!(matches!(error, FilesystemError::NotBlank { .. }), "{error:?}");
}

#[tokio::test]
async fn a_mount_that_fails_says_why() {
    let Some(disk) = Loop::new(16 * MIB, &[]) else { return };
    let error = filesystem::mount(&elsewhere(), &disk.device, Kind::Ext4, &disk.dir()).await.unwrap_err();
    assert!(matches!(error, FilesystemError::Mount { .. }), "{error:?}");
    let words = quorate::model::fact::chain(&error);
    assert!(words.contains("wrong fs type"), "{words}");
}

#[tokio::test]
async fn a_full_disk_is_named_and_leaves_the_old_files_whole() {
    let Some(disk) = Loop::new(8 * MIB, &[]) else { return };
    filesystem::format(&disk.device, Kind::Ext4, slot(1)).await.unwrap();
    disk.mount(Kind::Ext4).await;
    let stamp = |state| Stamp {
        cluster: "prod".parse().unwrap(),
        slot: slot(1),
        volume: "vol-0123456789abcdef0".parse().unwrap(),
        state,
    };
    volume::write_stamp(&disk.dir(), &stamp(StampState::Formatted)).unwrap();
    let key = disk.dir().join("key.pem");
    files::write_durably(&key, b"old", 0o600).unwrap();
    let manifests = Manifests::of(&Root::new(disk.dir()));
    let manifest = |content: Vec<u8>| RenderedFile {
        path: Component::Scheduler.manifest().to_owned(),
        mode: 0o600,
        owner: Owner::Root,
        content: String::from_utf8(content).unwrap(),
    };
    fs::create_dir_all(disk.dir().join("etc/kubernetes")).unwrap();
    manifests.roll_out(Component::Scheduler, &[], None, &manifest(b"old".to_vec()), 1).unwrap();

    // Fill it to the last block.
    let filler = File::create(disk.dir().join("filler")).unwrap();
    for size in [65536, 4096, 512] {
        let mut at = filler.metadata().unwrap().len();
        while let Ok(written @ 1..) = filler.write_at(&vec![1; size], at) {
            at += u64::try_from(written).unwrap();
        }
        filler.sync_all().unwrap();
    }
    let later = StampState::Starting {
        uuid: "6f2b1c1e-8f3a-4b52-9f0e-2d7a5c3b1a90".parse().unwrap(),
        generation: quorate::model::Generation(1),
    };
    let error = files::write_durably(&key, &vec![2; 65536], 0o600).unwrap_err();
    assert!(error.is_disk_full() && !error.is_retryable(), "{error:?}");
    assert!(error.to_string().contains(key.to_str().unwrap()), "{error}");
    assert_eq!(fs::read(&key).unwrap(), b"old");
    let changed = manifest(vec![b'n'; 65536]);
    let error = manifests.roll_out(Component::Scheduler, &[], None, &changed, 2).unwrap_err();
    assert!(matches!(&error, ManifestError::File(error) if error.is_disk_full()), "{error:?}");
    assert_eq!(manifests.digest(Component::Scheduler).unwrap(), Some(digest(b"old")));
    let names = files::list_optional(&disk.dir().join("etc/kubernetes/manifests")).unwrap();
    assert_eq!(names.unwrap(), ["kube-scheduler.yaml"]);
    let error = volume::write_stamp(&disk.dir(), &stamp(later)).unwrap_err();
    assert!(error.is_disk_full(), "{error:?}");
    let contents = volume::contents(&disk.dir()).unwrap();
    assert_eq!(contents.stamp.known(), Some(&Some(stamp(StampState::Formatted))));
    assert!(
        files::list_optional(&disk.dir()).unwrap().unwrap().iter().all(|name| !files::is_temporary(name))
    );
}
