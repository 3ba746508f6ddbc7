//! Does one step.
//!
//! Behaviour does not live here: what is done, when and why is in [`crate::plan`]. Each step is
//! idempotent and may be cut off at any instruction; the next look sees how far it came. What a
//! step checks for itself is only what may have changed since the look (that the device is still
//! blank, that the volume is still mounted), and then it does nothing.
//!
//! What is written to the volume is written in line, on the agent's only thread: a step that is given
//! up must not take effect later, after another. A volume that hangs so costs the agent's life by the
//! service manager's watchdog, and etcd's none.

mod addons;
mod care;
mod departure;
mod enrolment;
mod error;
mod kubernetes;
mod recovery;
mod services;
mod worker;

use std::ffi::OsString;
use std::path::Path;

use tokio::time::{Duration, sleep};

use crate::aws::NewVolume;
use crate::aws::Written;
use crate::etcd::{LockName, config, launch};
use crate::host::manifests::Manifests;
use crate::host::{clock, files, filesystem, logind, volume};
use crate::model::machine::client_url;
use crate::model::tags;
use crate::model::{Charter, Content, EtcdLaunch, ServiceState, Slot, Step, VolumeId, Zone};
use crate::pki::{EtcdAuthority, LeafRequest, leaves};
use crate::reach::{AUTHORITY, CHARTER, MEMBERS, Reach, STOP_PATIENCE};

pub use error::StepError;

/// Does the step.
pub async fn execute(reach: &Reach, step: &Step) -> Result<(), StepError> {
    // In a box: whoever waits for a step would otherwise hold room for the largest of all.
    Box::pin(whichever(reach, step)).await
}

#[expect(clippy::too_many_lines, reason = "one arm a step, each a line or two")]
async fn whichever(reach: &Reach, step: &Step) -> Result<(), StepError> {
    let me = &reach.identity.instance;
    match step {
        Step::CreateVolume { slot, zone, token } => create_volume(reach, *slot, zone, token).await,
        Step::AttachVolume { volume, instance } => {
            let device = reach.settings.etcd.volume.device.as_str();
            Ok(reach.aws.ec2.attach_volume(volume, instance, device).await?)
        }
        Step::TagSlot { volume, slot } => {
            let slot = slot.to_string();
            let tags = [(tags::CLUSTER, reach.settings.cluster.as_str()), (tags::SLOT, &slot)];
            Ok(reach.aws.ec2.tag(volume.as_str(), &tags).await?)
        }
        Step::Format { device, slot, .. } => {
            Ok(filesystem::format(Path::new(device), reach.filesystem(), *slot).await?)
        }
        Step::Mount { volume, device } => mount(reach, volume, Path::new(device)).await,
        Step::GrowFilesystem { device } => {
            let device = Path::new(device);
            match filesystem::probe(device, None).await? {
                Content::Ours { kind, can_grow: true } => {
                    Ok(filesystem::grow(&reach.root, device, &reach.mount_point(), kind.parse()?).await?)
                }
                Content::Ours { can_grow: false, .. } | Content::Blank | Content::Foreign(_) => Ok(()),
            }
        }
        Step::WriteStamp { stamp } => {
            must_be_mounted(reach).await?;
            Ok(volume::write_stamp(&reach.mount_point(), stamp)?)
        }
        Step::TagStamp { volume, state } => {
            let value = state.to_string();
            Ok(reach.aws.ec2.tag(volume.as_str(), &[(tags::STAMP, &value)]).await?)
        }
        Step::SetDataAside { because } => {
            must_be_mounted(reach).await?;
            if reach.service.state().await? == ServiceState::Running {
                return Err(StepError::EtcdRuns);
            }
            volume::set_aside(&reach.mount_point(), because, clock::now_ms())?;
            Ok(())
        }
        Step::CreateAuthority => create_authority(reach).await,
        Step::IssueLeaves { slot, address, authority: expected } => {
            let authority = authority(reach, expected).await?;
            let request = LeafRequest { slot: *slot, address: *address, now: clock::now_ms() };
            leaves::issue(&authority, &reach.pki(), request)?;
            Ok(())
        }
        Step::CreateCharter { charter } => {
            let written = reach.aws.objects.create(CHARTER, json(charter)?).await?;
            must_be_written(&written)
        }
        Step::AmendCharter { from, charter, .. } => {
            let written = reach.aws.objects.replace(CHARTER, json(charter)?, from).await?;
            must_be_written(&written)
        }
        Step::ChooseBackup { uuid, generation } => recovery::choose(reach, uuid, *generation).await,
        Step::RestoreData { recovery, launch } => {
            must_be_mounted(reach).await?;
            if reach.service.state().await? == ServiceState::Running {
                return Err(StepError::EtcdRuns);
            }
            recovery::restore(reach, recovery, launch).await
        }
        Step::ConfigureEtcd { launch } => configure(reach, launch).await,
        Step::StartEtcd { after } => start(reach, *after).await,
        Step::StopEtcd => Ok(reach.service.stop(STOP_PATIENCE).await?),
        Step::TakeMembershipLock { instance } => {
            Ok(reach.etcd.take_lock(LockName::Membership, instance).await?)
        }
        Step::ReleaseMembershipLock { instance } => {
            Ok(reach.etcd.release_lock(LockName::Membership, instance).await?)
        }
        Step::RemoveMember { member } => Ok(reach.etcd.remove(me, *member).await?),
        Step::AddLearner { peer_url } => {
            reach.etcd.add_learner(me, peer_url).await.map(drop).map_err(Into::into)
        }
        Step::PromoteMember { member } => Ok(reach.etcd.promote(me, *member).await?),
        Step::UpdatePeerUrl { member, peer_url } => Ok(reach.etcd.update_peer_url(*member, peer_url).await?),
        Step::RecordSlot { slot, from, record } => {
            Ok(reach.etcd.record_slot(*slot, from.as_ref(), record).await?)
        }
        Step::CopyCharterToEtcd { charter } => Ok(reach.etcd.copy_charter(charter).await?),
        Step::CopyCharterToVolume { charter } => copy_to_volume(reach, charter).await,
        Step::PublishMembers { members } => {
            reach.aws.objects.put(MEMBERS, json(members)?).await.map(drop).map_err(Into::into)
        }
        Step::CreateClusterAuthorities => kubernetes::create_authorities(reach).await,
        Step::RecordClusterAuthorities { fingerprint } => {
            Ok(reach.etcd.record_authorities(fingerprint).await?)
        }
        Step::IssueClusterLeaves { request, authorities, etcd_authority } => {
            kubernetes::issue(reach, request, authorities, etcd_authority).await
        }
        Step::WriteKubernetesFiles { files, endpoint } => kubernetes::write_files(reach, files, endpoint),
        Step::WriteBootstrapKubeconfig { token, server, authority } => {
            worker::write_bootstrap(reach, token, server, authority).await
        }
        Step::SetNodeIdentityAside { because } => worker::set_identity_aside(reach, because),
        Step::RollOut { component, files, manifest } => {
            kubernetes::roll_out(reach, *component, files, manifest)
        }
        Step::KeepManifest { component } => Ok(Manifests::of(&reach.root).keep(*component)?),
        Step::RollBack { component } => kubernetes::roll_back(reach, *component),
        Step::TakeControlPlaneLock { instance } => {
            Ok(reach.etcd.take_lock(LockName::ControlPlane, instance).await?)
        }
        Step::ReleaseControlPlaneLock { instance } => {
            Ok(reach.etcd.release_lock(LockName::ControlPlane, instance).await?)
        }
        Step::RegisterTarget { balancer, target } => {
            Ok(reach.aws.load_balancers.register_target(balancer, target, balancer.target_port).await?)
        }
        Step::TakeApiLease { instance, duration_s, version } => {
            kubernetes::take_lease(reach, instance, *duration_s, version.as_deref()).await
        }
        Step::RenewApiLease { version, .. } => kubernetes::renew_lease(reach, version).await,
        Step::ApplyAddon { name, place, digest, endpoint } => {
            addons::apply(reach, name, *place, digest, endpoint).await
        }
        Step::PruneAddon { name } => addons::prune(reach, name).await,
        Step::PublishJoin { terms, token_life_s } => enrolment::publish(reach, terms, *token_life_s).await,
        Step::ApproveRequests { requests } => enrolment::approve(reach, requests).await,
        Step::LeaveRequests { requests } => enrolment::leave(reach, requests).await,
        Step::TellSharedZone { message } => enrolment::tell_shared_zone(reach, message).await,
        Step::DeleteNode { node } => enrolment::delete_node(reach, node).await,
        Step::ApplyObjects { objects, endpoint } => kubernetes::apply(reach, objects, endpoint).await,
        Step::ConfigureContainerd { version } => services::configure_containerd(reach, *version),
        Step::StartService { service, launch } => services::start(reach, *service, launch).await,
        Step::RestartService { service, launch } => services::restart(reach, *service, launch).await,
        Step::ReloadLogind { digest } => Ok(logind::reload(&reach.root, digest).await?),
        Step::WriteLogindFile { file } => kubernetes::write_logind_file(reach, file),
        Step::ReleaseShutdown => {
            reach.shutdown.release();
            Ok(())
        }
        Step::BeginDeparture { departure } => departure::begin(reach, departure),
        Step::EndDeparture => departure::end(reach),
        Step::KeepControlPlaneLock { instance } => {
            Ok(reach.etcd.keep_lock(LockName::ControlPlane, instance).await?)
        }
        Step::DeregisterTarget { balancer, target } => {
            Ok(reach.aws.load_balancers.deregister_target(balancer, target, balancer.target_port).await?)
        }
        Step::CordonNode { node } => departure::cordon(reach, node).await,
        Step::ReopenNode { node } => departure::reopen(reach, node).await,
        Step::EvictPods { pods, grace_s } => departure::evict(reach, pods, *grace_s).await,
        Step::MoveLeader { to } => {
            Ok(reach.etcd.move_leader(&client_url(reach.identity.address), *to).await?)
        }
        Step::MarkNodeLeft { node } => departure::mark_left(reach, node, me).await,
        Step::WithdrawManifests { components } => departure::withdraw(reach, components),
        Step::StopService { service } => services::stop(reach, *service).await,
        Step::Unmount => departure::unmount(reach).await,
        Step::DetachVolume { volume, instance } => Ok(reach.aws.ec2.detach_volume(volume, instance).await?),
        Step::SendHeartbeat { group, hook, instance } => {
            departure::heartbeat(reach, group, hook, instance).await;
            Ok(())
        }
        Step::CompleteHook { group, hook, instance, result } => {
            departure::complete(reach, group, hook, instance, *result).await
        }
        Step::CompactEtcd { revision } => Ok(reach.etcd.compact(*revision).await?),
        Step::Defragment { member } => care::defragment(reach, *member).await,
        Step::DisarmAlarm { alarm } => Ok(reach.etcd.disarm(*alarm).await?),
        Step::KeepBackups { uuid, generation } => {
            care::keep_backups(reach, uuid, *generation);
            Ok(())
        }
        Step::CompareHashes { keep } => care::compare(reach, *keep).await,
        Step::NoteWedge { note } => care::note_wedge(reach, *note),
        Step::GiveUpInstance { instance, why } => care::give_up(reach, instance, why).await,
    }
}

async fn create_volume(reach: &Reach, slot: Slot, zone: &Zone, token: &str) -> Result<(), StepError> {
    let wanted = &reach.settings.etcd.volume;
    let cluster = reach.settings.cluster.as_str();
    let tags = [
        (tags::CLUSTER, cluster.to_owned()),
        (tags::SLOT, slot.to_string()),
        ("Name", format!("{cluster} {}", slot.member_name())),
    ];
    let volume = reach
        .aws
        .ec2
        .create_volume(&NewVolume {
            zone: zone.clone(),
            size_gib: u32::try_from(wanted.size.gib_ceil()).unwrap_or(u32::MAX),
            volume_type: wanted.volume_type.as_str().to_owned(),
            iops: wanted.iops,
            throughput: wanted.throughput,
            kms_key: wanted.kms_key_id.as_ref().map(|key| key.as_str().to_owned()),
            client_token: token.to_owned(),
            tags: tags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        })
        .await?;
    tracing::info!(%volume, %slot, "created a volume");
    Ok(())
}

async fn mount(reach: &Reach, volume: &VolumeId, device: &Path) -> Result<(), StepError> {
    let dir = reach.mount_point();
    if filesystem::mounted(&dir).await?.is_none() {
        let kind = match filesystem::probe(device, None).await? {
            Content::Ours { kind, .. } => kind.parse()?,
            Content::Blank => return Err(StepError::NotOurs { found: "a blank device".to_owned() }),
            Content::Foreign(found) => return Err(StepError::NotOurs { found }),
        };
        filesystem::mount(&reach.root, device, kind, &dir).await?;
    }
    let remembered = reach.remembered_volume();
    if let Some(parent) = remembered.parent() {
        files::create_dir(parent, 0o755)?;
    }
    Ok(files::write_durably(&remembered, format!("{volume}\n").as_bytes(), 0o644)?)
}

/// What is written to the mount point of an unmounted volume would lie on the root disk.
async fn must_be_mounted(reach: &Reach) -> Result<(), StepError> {
    match filesystem::mounted(&reach.mount_point()).await? {
        Some(_) => Ok(()),
        None => Err(StepError::NotMounted),
    }
}

async fn copy_to_volume(reach: &Reach, charter: &Charter) -> Result<(), StepError> {
    must_be_mounted(reach).await?;
    Ok(volume::write_charter(&reach.mount_point(), charter)?)
}

async fn create_authority(reach: &Reach) -> Result<(), StepError> {
    let authority = EtcdAuthority::create(&reach.settings.cluster, clock::now_ms())?;
    match reach.aws.objects.create(AUTHORITY, authority.bundle()?).await? {
        Written::Yes(_) => tracing::info!("created the etcd authority"),
        // Another machine was first: its authority is the one.
        Written::No => tracing::info!("another machine created the etcd authority"),
    }
    Ok(())
}

/// The etcd authority in S3, if it is the one that was decided on.
async fn authority(reach: &Reach, expected: &str) -> Result<EtcdAuthority, StepError> {
    let stored = reach.aws.objects.get(AUTHORITY).await?.ok_or(StepError::NoAuthority)?;
    let authority = EtcdAuthority::parse(&stored.bytes, &reach.settings.cluster)?;
    must_be_expected(AUTHORITY, authority.summary().fingerprint, expected)?;
    Ok(authority)
}

/// What is known of an authority may be some minutes old, and the object was replaced since.
fn must_be_expected(key: &'static str, found: String, expected: &str) -> Result<(), StepError> {
    if found == expected {
        return Ok(());
    }
    Err(StepError::OtherAuthority { key, found, expected: expected.to_owned() })
}

async fn configure(reach: &Reach, wanted: &EtcdLaunch) -> Result<(), StepError> {
    let version = reach.etcd_version().await?;
    let rendered = config::render(wanted, &reach.tuning(), &reach.etcd_paths(), version)?;
    Ok(launch::write(&reach.etcd_dir(), wanted, &rendered)?)
}

async fn start(reach: &Reach, after: u64) -> Result<(), StepError> {
    sleep(Duration::from_millis(after)).await;
    must_be_mounted(reach).await?;
    let config = reach.etcd_dir().join(launch::CONFIG_FILE);
    let args = [OsString::from("--config-file"), config.into_os_string()];
    Ok(reach.service.start(&reach.etcd_program(), &args).await?)
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, StepError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(StepError::Json)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn must_be_written(written: &Written) -> Result<(), StepError> {
    match written {
        Written::Yes(_) => Ok(()),
        Written::No => Err(StepError::Overtaken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_step_needs_little_room_for_it() {
        fn room<'a, F>(_: fn(&'a Reach, &'a Step) -> F) -> usize {
            size_of::<F>()
        }
        assert!(room(execute) <= 64, "{} bytes", room(execute));
    }
}
