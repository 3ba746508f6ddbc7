//! Volumes that hold what they should not.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use quorate::model::{Halt, Phase, Plan, Stamp, StampState, Step};
use tokio::process::Command;

use super::node::Node;

#[track_caller]
fn halt(plan: Plan) -> Halt {
    assert_eq!((plan.report.phase, plan.steps.len()), (Phase::Halted, 0), "{plan:?}");
    plan.report.halt.unwrap()
}

async fn ext4(file: &Path, label: &str) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-E", "nodiscard", "-L", label])
        .arg(file)
        .env("PATH", path)
        .status();
    assert!(made.await.unwrap().success());
}

#[tokio::test]
async fn what_is_foreign_on_a_volume_is_named_and_nothing_is_written() {
    let node = Node::new("foreign").await;
    let (id, file) = node.attach().await;
    let plan = node.plan().await;
    assert!(matches!(plan.steps.first(), Some(Step::Format { .. })), "a blank one is formatted: {plan:?}");

    // A partition table.
    let mut sector = [0; 512];
    sector[450] = 0x83;
    sector[454..458].copy_from_slice(&2048_u32.to_le_bytes());
    sector[458..462].copy_from_slice(&16_384_u32.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let disk = OpenOptions::new().write(true).open(&file).unwrap();
    disk.write_all_at(&sector, 0).unwrap();
    match halt(node.plan().await) {
        Halt::ForeignData { volume, found } => {
            assert_eq!(volume.as_str(), id);
            assert!(found.contains("PTTYPE=dos"), "{found}");
        }
        other => panic!("{other:?}"),
    }
    disk.write_all_at(&[0; 512], 0).unwrap();

    // Another's file system.
    ext4(&file, "data").await;
    let found = halt(node.plan().await);
    let words = found.to_string();
    assert!(matches!(found, Halt::ForeignData { .. }), "{found:?}");
    assert!(words.contains(&id) && words.contains("LABEL=data"), "{words}");
    assert!(words.contains("nothing was written"), "{words}");
}

#[tokio::test]
async fn a_stamp_of_another_cluster_slot_or_volume_is_refused_with_both() {
    let node = Node::new("stamps").await;
    let (id, dir) = node.mounted().await;
    let plan = node.plan().await;
    assert!(matches!(plan.steps.first(), Some(Step::WriteStamp { .. })), "ours and empty: {plan:?}");
    let right = Stamp {
        cluster: "demo".parse().unwrap(),
        slot: 1.try_into().unwrap(),
        volume: id.parse().unwrap(),
        state: StampState::Formatted,
    };
    let wrong = [
        Stamp { cluster: "prod".parse().unwrap(), ..right.clone() },
        Stamp { slot: 2.try_into().unwrap(), ..right.clone() },
        Stamp { volume: "vol-0fedcba9876543210".parse().unwrap(), ..right.clone() },
    ];
    for stamp in wrong {
        fs::write(dir.join("quorate.json"), serde_json::to_vec(&stamp).unwrap()).unwrap();
        let found = halt(node.plan().await);
        let words = found.to_string();
        assert!(matches!(found, Halt::WrongStamp { .. }), "{found:?}");
        let says = |s: &Stamp| format!("cluster {}, slot {}, volume {}", s.cluster, s.slot, s.volume);
        assert!(words.contains(&says(&stamp)) && words.contains(&says(&right)), "{words}");
    }
    // One that can't be read is not one that is missing.
    fs::write(dir.join("quorate.json"), "{").unwrap();
    assert!(matches!(halt(node.plan().await), Halt::WrongStamp { .. }));
    // Files of nobody knows whom, without a stamp.
    fs::remove_file(dir.join("quorate.json")).unwrap();
    fs::write(dir.join("photos"), "").unwrap();
    let found = halt(node.plan().await).to_string();
    assert!(found.contains(&id) && found.contains("photos"), "{found}");
}

#[tokio::test]
async fn a_file_system_that_is_read_only_halts_and_is_not_written_to() {
    let node = Node::new("read-only").await;
    let (id, dir) = node.mounted().await;
    let table = dir.with_file_name("etcd.mounted");
    let mounted = fs::read_to_string(&table).unwrap();
    fs::write(&table, mounted.replace("rw,", "ro,")).unwrap();
    assert_eq!(halt(node.plan().await), Halt::ReadOnly { volume: id.parse().unwrap() });
    // As a kernel shows it that found errors.
    fs::write(&table, mounted.replace("rw,", "rw,emergency_ro,")).unwrap();
    assert_eq!(halt(node.plan().await), Halt::ReadOnly { volume: id.parse().unwrap() });
}

#[tokio::test]
async fn another_device_mounted_in_etcd_s_place_is_named() {
    let node = Node::new("other-mount").await;
    let (_, dir) = node.mounted().await;
    let table = dir.with_file_name("etcd.mounted");
    let mounted = fs::read_to_string(&table).unwrap();
    let (_, rest) = mounted.split_once('\n').unwrap();
    fs::write(&table, format!("/dev/sdz9\n{rest}")).unwrap();
    match halt(node.plan().await) {
        Halt::ForeignMount { found, expected } => {
            assert_eq!(found, "/dev/sdz9");
            assert!(expected.ends_with("dev/nvme1n1"), "{expected}");
        }
        other => panic!("{other:?}"),
    }
}
