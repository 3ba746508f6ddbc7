//! The volume as this machine sees it.

use std::path::{Path, PathBuf};

use tokio::time::{Duration, Instant};

use crate::host::{devices, files, filesystem, volume};
use crate::model::{AttachmentState, Content, Disk, Fact, Volume, VolumeContents, VolumeId};
use crate::reach::Reach;

use super::Memory;

/// A volume that was enlarged is noticed within this time.
const PROBED_FOR: Duration = Duration::from_mins(5);

/// Looks at the volume that is attached here.
pub(super) async fn look(
    reach: &Reach,
    memory: &mut Memory,
    volumes: &Fact<std::collections::BTreeMap<VolumeId, Volume>>,
) -> Fact<Option<Disk>> {
    let volume = match volumes {
        Fact::Known(volumes) => match attached(reach, volumes) {
            Some(volume) => volume,
            None => return Fact::Known(None),
        },
        Fact::Unknown(why) => match remembered(reach) {
            Ok(Some(volume)) => volume,
            Ok(None) => return Fact::unknown(format!("EC2 does not say which volume is attached: {why}")),
            Err(error) => return Err(error).into(),
        },
    };
    let hint = reach.settings.etcd.volume.device.as_str();
    let device = match devices::find(&reach.root, &volume, hint) {
        Ok(device) => device,
        Err(error) => return Err(error).into(),
    };
    let Some(device) = device else {
        let none = "there is no device";
        return Fact::Known(Some(Disk {
            volume,
            device: None,
            content: Fact::unknown(none),
            mount: Fact::unknown(none),
            holds: Fact::unknown(none),
        }));
    };
    let dir = reach.mount_point();
    let mount = Fact::from(filesystem::mounted(&dir).await);
    let holds = match &mount {
        Fact::Known(Some(_)) => contents(dir).await,
        Fact::Known(None) => Fact::unknown("it is not mounted"),
        Fact::Unknown(why) => Fact::Unknown(why.clone()),
    };
    let content = content(memory, &volume, &device, matches!(mount, Fact::Known(Some(_)))).await;
    Fact::Known(Some(Disk {
        content,
        device: Some(device.to_string_lossy().into_owned()),
        volume,
        mount,
        holds,
    }))
}

/// What is on the device. Of a mounted one only its size can change, so it is not probed each time.
async fn content(memory: &mut Memory, volume: &VolumeId, device: &Path, mounted: bool) -> Fact<Content> {
    if let Some((at, of, content)) = &memory.probed
        && mounted
        && of == volume
        && at.elapsed() < PROBED_FOR
    {
        return Fact::Known(content.clone());
    }
    let content = Fact::from(filesystem::probe(device, None).await);
    memory.probed = match &content {
        // A file system that is about to be grown is probed again, to see that it was.
        Fact::Known(known @ Content::Ours { can_grow: false, .. }) => {
            Some((Instant::now(), volume.clone(), known.clone()))
        }
        Fact::Known(_) | Fact::Unknown(_) => None,
    };
    content
}

/// Looks again at what the mounted volume holds; the device and the mount are as they were.
pub(super) async fn again(reach: &Reach, last: Fact<Option<Disk>>) -> Fact<Option<Disk>> {
    let mut disk = last;
    if let Fact::Known(Some(disk)) = &mut disk
        && matches!(disk.mount, Fact::Known(Some(_)))
    {
        disk.holds = contents(reach.mount_point()).await;
    }
    disk
}

/// Reads on a thread of its own: a volume that hangs must not hang the agent.
async fn contents(dir: PathBuf) -> Fact<VolumeContents> {
    match tokio::task::spawn_blocking(move || volume::contents(&dir)).await {
        Ok(contents) => contents.into(),
        Err(error) => Fact::unknown(format!("the thread that read the volume ended early: {error}")),
    }
}

fn attached(reach: &Reach, volumes: &std::collections::BTreeMap<VolumeId, Volume>) -> Option<VolumeId> {
    let hint = reach.settings.etcd.volume.device.as_str();
    volumes
        .iter()
        .find(|(_, volume)| {
            volume.attachment.as_ref().is_some_and(|attachment| {
                attachment.instance == reach.identity.instance
                    && (volume.ours || attachment.device == hint)
                    && match attachment.state {
                        AttachmentState::Attached | AttachmentState::Attaching => true,
                        AttachmentState::Detaching | AttachmentState::Busy => false,
                    }
            })
        })
        .map(|(id, _)| id.clone())
}

/// The volume that was mounted here last. That it still is here, its device says.
fn remembered(reach: &Reach) -> Result<Option<VolumeId>, files::FileError> {
    let text = files::read_optional(&reach.remembered_volume())?;
    Ok(text.and_then(|bytes| String::from_utf8_lossy(&bytes).trim().parse().ok()))
}
