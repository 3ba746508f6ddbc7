//! Which volume a machine claims, and what it does to it.

use quorate::model::plan::Subject;
use quorate::model::*;

use super::scene::*;

/// This machine holds no volume; these are listed.
fn holding_none(volumes: Vec<(u8, Volume)>) -> Observation {
    scene().but(|seen| {
        seen.disk = Fact::Known(None);
        seen.volumes = Fact::Known(volumes.into_iter().map(|(n, listed)| (volume(n), listed)).collect());
    })
}

/// The device is not mounted, and this is on it.
fn device(content: Content, tag: Option<&str>) -> Observation {
    scene().but(|seen| {
        if let Fact::Known(Some(disk)) = &mut seen.disk {
            disk.content = Fact::Known(content);
            disk.mount = Fact::Known(None);
            disk.holds = Fact::unknown("not mounted");
        }
        seen.volumes().get_mut(&volume(1)).unwrap().stamp = tag.map(str::to_owned);
    })
}

#[test]
fn the_free_volume_of_the_zone_is_attached() {
    let plan = does(&holding_none(vec![(1, free(1)), (2, free(2))]), &["attachVolume"]);
    assert_eq!(plan.steps[0], Step::AttachVolume { volume: volume(1), instance: instance(1) });
}

#[test]
fn two_free_volumes_that_nothing_tells_apart_are_refused_by_name() {
    let seen = holding_none(vec![(1, free(1)), (4, free(1))]);
    assert_eq!(halts(&seen), Halt::AmbiguousVolumes { volumes: vec![volume(1), volume(4)] });
    let untagged = |n| (n, Volume { slot: None, ..free(1) });
    let seen = holding_none(vec![untagged(1), untagged(4)]);
    assert!(matches!(halts(&seen), Halt::AmbiguousVolumes { .. }));
}

#[test]
fn of_two_free_volumes_of_a_slot_the_one_that_has_lived_is_attached() {
    let lived = Volume { stamp: Some("member 1 1".to_owned()), ..free(1) };
    let plan = does(&holding_none(vec![(1, free(1)), (4, lived)]), &["attachVolume"]);
    assert!(matches!(&plan.steps[0], Step::AttachVolume { volume: id, .. } if *id == volume(4)));
}

#[test]
fn volumes_of_other_zones_and_clusters_are_not_looked_at() {
    let foreign = Volume { ours: false, ..free(1) };
    assert_eq!(waits(&holding_none(vec![(1, foreign), (2, free(2))])), WaitingOn::FreeSlot);
}

#[test]
fn a_machine_without_a_volume_in_its_zone_stands_by() {
    let plan = plan(&holding_none(vec![]));
    assert_eq!((plan.report.phase, plan.report.waiting), (Phase::Standby, vec![WaitingOn::FreeSlot]));
}

#[test]
fn a_volume_whose_holder_is_on_its_way_out_is_waited_for() {
    let seen =
        holding_none(vec![(1, Volume { attachment: attached_to(instance(4)), ..listed(1) })]).but(|seen| {
            let dying = Instance { state: InstanceState::ShuttingDown, ..running(1) };
            seen.instances().insert(instance(4), dying);
        });
    assert_eq!(waits(&seen), WaitingOn::VolumeReleased { volume: volume(1), holder: instance(4) });
}

#[test]
fn two_attached_volumes_are_refused() {
    let seen = scene().but(|seen| {
        seen.volumes().insert(volume(4), listed(1));
    });
    assert_eq!(halts(&seen), Halt::TwoVolumes { volumes: vec![volume(1), volume(4)] });
}

#[test]
fn a_created_volume_has_the_same_token_however_often_it_is_asked_for() {
    let settings = settings_with("etcd: {volume: {source: created}}\n");
    let ask = |entropy: &str| {
        let seen = holding_none(vec![]).but(|seen| {
            seen.entropy = entropy.parse().unwrap();
            seen.at += HOUR;
        });
        match quorate::plan::plan(&settings, &seen).steps.as_slice() {
            [Step::CreateVolume { slot: found, token, .. }] if *found == slot(1) => token.clone(),
            other => panic!("{other:?}"),
        }
    };
    let token = ask("00000000-0000-0000-0000-0000000000e1");
    assert_eq!(token, ask("00000000-0000-0000-0000-0000000000e2"));
    assert!(token.len() <= 64);
}

#[test]
fn no_second_volume_is_created_while_the_slots_own_may_live() {
    let settings = settings_with("etcd: {volume: {source: created}}\n");
    let creates = |seen: &Observation| !quorate::plan::plan(&settings, seen).steps.is_empty();
    let lost = |state: VolumeState| {
        let listed = match state {
            VolumeState::NotFound => {
                Volume { state, zone: None, ours: false, slot: None, stamp: None, ..free(1) }
            }
            _ => Volume { state, ..free(1) },
        };
        holding_none(vec![(1, listed)]).chartered(charter(&[1, 2, 3])).quorate(&[2, 3], None)
    };
    assert!(!creates(&lost(VolumeState::InUse)));
    assert!(!creates(&lost(VolumeState::NotFound)), "said once");
    assert!(creates(&lost(VolumeState::Deleted)));
    let said_twice = WaitingOn::ConfirmedGone { what: volume(1).to_string() };
    assert!(creates(&lost(VolumeState::NotFound).waiting(said_twice, HOUR)));
    let alone = lost(VolumeState::Deleted).but(|seen| seen.etcd.cluster = Fact::unknown("no quorum"));
    assert!(!creates(&alone), "only etcd knows which volume was the slot's last");
}

#[test]
fn a_blank_device_is_formatted_only_when_its_tag_never_told_of_a_file_system() {
    does(&device(Content::Blank, None), &["format", "mount", "writeStamp", "tagStamp"]);
    for tag in ["formatted", "member 1 1", "what"] {
        let found = halts(&device(Content::Blank, Some(tag)));
        assert_eq!(found, Halt::Wiped { volume: volume(1), tag: tag.to_owned() });
    }
    let unlisted = device(Content::Blank, None).but(|seen| seen.volumes = Fact::unknown("throttled"));
    assert!(matches!(waits(&unlisted), WaitingOn::Answer { about: Subject::Volumes, .. }));
}

#[test]
fn foreign_data_and_partition_tables_are_never_written_to() {
    for found in ["xfs", "dos partition table", "non-zero head"] {
        let seen = device(Content::Foreign(found.to_owned()), None);
        assert_eq!(halts(&seen), Halt::ForeignData { volume: volume(1), found: found.to_owned() });
    }
}

#[test]
fn a_file_system_of_ours_is_mounted() {
    let ours = Content::Ours { kind: "ext4".to_owned(), can_grow: false };
    does(&device(ours, Some("formatted")), &["mount"]);
}

#[test]
fn the_file_system_grows_with_its_device() {
    let seen = whole().but(|seen| {
        if let Fact::Known(Some(disk)) = &mut seen.disk {
            disk.content = Fact::Known(Content::Ours { kind: "ext4".to_owned(), can_grow: true });
        }
    });
    does(&seen, &["growFilesystem"]);
}

#[test]
fn an_unstamped_file_system_is_stamped_only_when_it_holds_nothing() {
    let bare = scene().but(|seen| {
        seen.holds().stamp = Fact::Known(None);
        seen.volumes().get_mut(&volume(1)).unwrap().stamp = None;
    });
    does(&bare, &["writeStamp", "tagStamp"]);
    let filled = bare.clone().but(|seen| seen.holds().strangers = vec!["data.tar".to_owned()]);
    assert!(matches!(halts(&filled), Halt::ForeignData { .. }));
    let etcd = bare.but(|seen| seen.holds().data = DataDir::Present);
    assert!(matches!(halts(&etcd), Halt::ForeignData { .. }));
}

#[test]
fn the_tag_of_a_wiped_volume_goes_on_telling_of_its_life() {
    let seen = scene().but(|seen| {
        seen.holds().stamp = Fact::Known(None);
        seen.volumes().get_mut(&volume(1)).unwrap().stamp = Some("member 1 1".to_owned());
    });
    does(&seen, &["writeStamp"]);
}

#[test]
fn another_clusters_slots_or_volumes_stamp_is_refused_with_what_was_expected() {
    let changes: [fn(&mut Stamp); 3] = [
        |stamp| stamp.cluster = "other".parse().unwrap(),
        |stamp| stamp.slot = slot(2),
        // A copy, made from a snapshot of the original.
        |stamp| stamp.volume = volume(9),
    ];
    for change in changes {
        let seen = scene().but(|seen| {
            if let Fact::Known(Some(stamp)) = &mut seen.holds().stamp {
                change(stamp);
            }
        });
        let Halt::WrongStamp { expected, .. } = halts(&seen) else { panic!("{:#?}", plan(&seen)) };
        assert_eq!(expected, format!("cluster demo, slot 1, volume {}", volume(1)));
    }
    let broken = scene().but(|seen| seen.holds().stamp = Fact::unknown("not JSON"));
    assert!(matches!(halts(&broken), Halt::WrongStamp { .. }));
}

#[test]
fn a_slot_that_is_not_the_zones_is_refused() {
    let seen = scene().chartered(charter(&[])).but(|seen| {
        seen.volumes().get_mut(&volume(1)).unwrap().slot = Some(slot(2));
    });
    assert!(matches!(halts(&seen), Halt::WrongSlot { .. }));
}

#[test]
fn a_read_only_file_system_and_a_foreign_mount_are_refused() {
    let mount = |source: &str, read_only| {
        let source = source.to_owned();
        scene().but(move |seen| {
            if let Fact::Known(Some(disk)) = &mut seen.disk {
                disk.mount = Fact::Known(Some(Mount { source, read_only }));
            }
        })
    };
    assert_eq!(halts(&mount("/dev/nvme1n1", true)), Halt::ReadOnly { volume: volume(1) });
    assert!(matches!(halts(&mount("/dev/sda1", false)), Halt::ForeignMount { .. }));
}

#[test]
fn a_device_that_does_not_appear_is_waited_for_with_a_bound() {
    let seen = scene().but(|seen| {
        if let Fact::Known(Some(disk)) = &mut seen.disk {
            disk.device = None;
        }
    });
    let on = waits(&seen);
    assert_eq!(on, WaitingOn::Device { volume: volume(1) });
    assert_eq!(halts(&seen.waiting(on, HOUR)), Halt::NoDevice { volume: volume(1) });
}

/// The volume of slot 1 is being attached here, and this machine has no certificates.
fn being_attached() -> Observation {
    scene().but(|seen| {
        seen.disk = Fact::Known(None);
        seen.leaves = Fact::Known(None);
        let listed = seen.volumes().get_mut(&volume(1)).unwrap();
        listed.stamp = None;
        listed.attachment.as_mut().unwrap().state = AttachmentState::Attaching;
        seen.volumes().retain(|id, _| *id == volume(1));
    })
}

#[test]
fn certificates_are_issued_while_the_volume_comes() {
    let plan = does(&being_attached(), &["issueLeaves"]);
    assert_eq!(plan.report.waiting, [WaitingOn::Attachment { volume: volume(1) }]);
    let unset = being_attached().but(|seen| seen.clock_synchronised = Fact::Known(false));
    assert_eq!(waits(&unset), WaitingOn::Attachment { volume: volume(1) });
}

#[test]
fn the_authority_is_made_while_the_volume_comes_only_when_nothing_ever_lived() {
    let none = being_attached().but(|seen| seen.authority = Fact::Known(None));
    does(&none, &["createAuthority"]);
    let waits_only: [fn(&mut Observation); 6] = [
        |seen| seen.backups = Fact::Known(true),
        |seen| seen.backups = Fact::unknown("throttled"),
        |seen| seen.charter = Fact::unknown("throttled"),
        |seen| *seen = seen.clone().chartered(charter(&[])),
        |seen| seen.clock_synchronised = Fact::unknown("throttled"),
        |seen| seen.volumes().get_mut(&volume(1)).unwrap().stamp = Some("member 1 1".to_owned()),
    ];
    for forbid in waits_only {
        assert_eq!(waits(&none.clone().but(forbid)), WaitingOn::Attachment { volume: volume(1) });
    }
}

#[test]
fn a_volume_without_a_slot_gets_the_zones_free_one() {
    let seen = scene().but(|seen| seen.volumes().get_mut(&volume(1)).unwrap().slot = None);
    let plan = does(&seen, &["tagSlot"]);
    assert_eq!(plan.steps[0], Step::TagSlot { volume: volume(1), slot: slot(1) });
}

#[test]
fn another_region_is_refused() {
    let elsewhere = scene().but(|seen| {
        if let Fact::Known(me) = &mut seen.identity {
            me.region = "us-east-1".parse().unwrap();
        }
    });
    assert!(matches!(halts(&elsewhere.chartered(charter(&[]))), Halt::OtherRegion { .. }));
    let settings = settings_with("region: us-east-1\n");
    let plan = quorate::plan::plan(&settings, &scene());
    assert!(matches!(plan.report.halt, Some(Halt::OtherRegion { .. })));
}

#[test]
fn a_charter_of_another_cluster_or_size_is_refused() {
    let other = Charter { cluster: "other".parse().unwrap(), ..charter(&[]) };
    assert!(matches!(halts(&scene().chartered(other)), Halt::OtherCharter { .. }));
    let small = Charter { zones: vec![zone(1)], ..charter(&[]) };
    assert_eq!(halts(&scene().chartered(small)), Halt::OtherSize { found: 3, expected: 1 });
}
