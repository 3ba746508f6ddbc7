//! Observations to begin from: three machines in three zones, seen by the first of them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use quorate::config::{InstanceTags, Settings, load};
use quorate::model::charter::Founder;
use quorate::model::cluster::{ClusterView, EtcdLaunch};
use quorate::model::departure::DepartureObservation;
use quorate::model::machine::peer_url;
use quorate::model::observation::{EtcdObservation, Versioned};
use quorate::model::*;

pub const NOW: i64 = 1_700_000_000_000;
pub const HOUR: i64 = 3_600_000;

pub fn settings_with(more: &str) -> Settings {
    let alone = if more.contains("kubernetes:") { "" } else { "kubernetes: {controlPlane: none}\n" };
    let text = format!("cluster: demo\nbucket: demo-quorate\n{alone}{more}");
    let tags = InstanceTags { cluster: None, role: Some("control-plane".to_owned()) };
    load(std::path::Path::new("/nonexistent"), Some(text.as_bytes()), &tags).unwrap().settings
}

pub fn settings() -> Settings {
    settings_with("")
}

pub fn plan(seen: &Observation) -> Plan {
    quorate::plan::plan(&settings(), seen)
}

pub fn instance(n: u8) -> InstanceId {
    format!("i-0000000{n:x}").parse().unwrap()
}

pub fn volume(n: u8) -> VolumeId {
    format!("vol-0000000{n:x}").parse().unwrap()
}

pub fn slot(n: u8) -> Slot {
    Slot::try_from(n).unwrap()
}

pub fn zone(n: u8) -> Zone {
    ["eu-west-1a", "eu-west-1b", "eu-west-1c"][usize::from(n - 1)].parse().unwrap()
}

pub fn address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, n, 10)
}

pub fn url(n: u8) -> String {
    peer_url(address(n))
}

pub fn uuid() -> ClusterUuid {
    "00000000-0000-0000-0000-0000000000c1".parse().unwrap()
}

pub const FIRST: Generation = Generation(1);

pub fn starting() -> StampState {
    StampState::Starting { uuid: uuid(), generation: FIRST }
}

pub fn joining(member: u64) -> StampState {
    StampState::Joining { uuid: uuid(), generation: FIRST, member: MemberId(member) }
}

pub fn member_of(member: u64) -> StampState {
    StampState::Member { uuid: uuid(), generation: FIRST, member: MemberId(member) }
}

pub fn running(n: u8) -> Instance {
    Instance {
        state: InstanceState::Running,
        zone: Some(zone(n)),
        address: Some(address(n)),
        role: Some(Role::ControlPlane),
    }
}

pub fn attached_to(instance: InstanceId) -> Option<Attachment> {
    Some(Attachment {
        instance,
        state: AttachmentState::Attached,
        device: "/dev/xvdf".to_owned(),
        delete_on_termination: false,
    })
}

pub fn listed(n: u8) -> Volume {
    Volume {
        state: VolumeState::InUse,
        zone: Some(zone(n)),
        attachment: attached_to(instance(n)),
        ours: true,
        slot: Some(slot(n)),
        stamp: Some("formatted".to_owned()),
    }
}

/// A volume that nobody holds.
pub fn free(n: u8) -> Volume {
    Volume { state: VolumeState::Available, attachment: None, ..listed(n) }
}

/// Three machines, each with its formatted volume; there is nothing else yet.
pub fn scene() -> Observation {
    let me = Identity {
        instance: instance(1),
        region: "eu-west-1".parse().unwrap(),
        zone: zone(1),
        address: address(1),
    };
    let device = "/dev/nvme1n1".to_owned();
    let disk = Disk {
        volume: volume(1),
        device: Some(device.clone()),
        content: Fact::Known(Content::Ours { kind: "ext4".to_owned(), can_grow: false }),
        mount: Fact::Known(Some(Mount { source: device, read_only: false })),
        holds: Fact::Known(VolumeContents {
            stamp: Fact::Known(Some(Stamp {
                cluster: "demo".parse().unwrap(),
                slot: slot(1),
                volume: volume(1),
                state: StampState::Formatted,
            })),
            data: DataDir::Absent,
            charter: Fact::Known(None),
            strangers: Vec::new(),
        }),
    };
    Observation {
        at: NOW,
        entropy: "00000000-0000-0000-0000-0000000000e1".parse().unwrap(),
        identity: Fact::Known(me),
        clock_synchronised: Fact::Known(true),
        instances: Fact::Known((1..=3).map(|n| (instance(n), running(n))).collect()),
        volumes: Fact::Known((1..=3).map(|n| (volume(n), listed(n))).collect()),
        zones: Fact::Known((1..=3).map(zone).collect()),
        charter: Fact::Known(None),
        backups: Fact::Known(false),
        keeping: None,
        chosen: Fact::Known(None),
        authority: Fact::Known(Some(Authority { fingerprint: "a".to_owned(), not_after: NOW + 9000 * HOUR })),
        leaves: Fact::Known(Some(Leaves {
            authority: "a".to_owned(),
            address: address(1),
            not_before: NOW - HOUR,
            not_after: NOW + 8000 * HOUR,
        })),
        disk: Fact::Known(Some(disk)),
        etcd: EtcdObservation {
            version: Fact::Known("3.5.16".parse().unwrap()),
            service: Fact::Known(ServiceState::Stopped),
            launch: Fact::Known(None),
            own: Fact::unknown("no answer"),
            cluster: Fact::unknown("no quorum"),
            care: Fact::unknown("no quorum"),
            notes: Fact::Known(CareNotes::default()),
            silence: None,
        },
        kubernetes: KubernetesObservation::unknown("not asked for"),
        published: Fact::Known(None),
        departure: DepartureObservation::unknown("not asked for"),
        waiting: Vec::new(),
        noticed: Vec::new(),
    }
}

/// The charter of three founders, those in `started` started in this order.
pub fn charter(started: &[u8]) -> Charter {
    let founders = (1..=3)
        .map(|n| Founder {
            slot: slot(n),
            volume: volume(n),
            instance: instance(n),
            peer_url: url(n),
            started: (1..).zip(started).find(|(_, slot)| **slot == n).map(|(place, _)| place),
        })
        .collect();
    Charter {
        cluster: "demo".parse().unwrap(),
        uuid: uuid(),
        region: "eu-west-1".parse().unwrap(),
        generation: FIRST,
        zones: (1..=3).map(zone).collect(),
        founders,
        recovery: None,
        nonce: "n".parse().unwrap(),
    }
}

/// What the tables change in a scene.
pub trait Change: Sized {
    fn seen(&mut self) -> &mut Observation;
    fn holds(&mut self) -> &mut VolumeContents;
    fn volumes(&mut self) -> &mut BTreeMap<VolumeId, Volume>;
    fn instances(&mut self) -> &mut BTreeMap<InstanceId, Instance>;
    fn view(&mut self) -> &mut ClusterView;

    fn chartered(mut self, charter: Charter) -> Self {
        self.seen().charter = Fact::Known(Some(Versioned { value: charter, etag: "e".parse().unwrap() }));
        self
    }

    /// This volume's stamp, tag and data.
    fn stamped(mut self, state: StampState, data: DataDir) -> Self {
        let tag = state.to_string();
        if let Fact::Known(Some(stamp)) = &mut self.holds().stamp {
            stamp.state = state;
        }
        self.holds().data = data;
        self.volumes().get_mut(&volume(1)).unwrap().stamp = Some(tag);
        self
    }

    /// This machine is the successor of the one that the charter names.
    fn replaced(mut self) -> Self {
        self.instances().get_mut(&instance(1)).unwrap().state = InstanceState::Terminated;
        let me = Identity {
            instance: instance(4),
            region: "eu-west-1".parse().unwrap(),
            zone: zone(1),
            address: address(4),
        };
        let mine = Instance { zone: Some(zone(1)), address: Some(address(4)), ..running(1) };
        self.instances().insert(instance(4), mine);
        self.volumes().get_mut(&volume(1)).unwrap().attachment = attached_to(instance(4));
        if let Fact::Known(Some(leaves)) = &mut self.seen().leaves {
            leaves.address = me.address;
        }
        self.seen().identity = Fact::Known(me);
        self
    }

    /// A quorum answers: three founders, of which these are healthy; the others have run, unless
    /// they are the slot in `never`.
    fn quorate(mut self, healthy: &[u8], never: Option<u8>) -> Self {
        let members = (1..=3)
            .map(|n| {
                let member = Member {
                    name: if never == Some(n) { String::new() } else { slot(n).member_name() },
                    peer_urls: vec![url(n)],
                    learner: false,
                    healthy: if healthy.contains(&n) {
                        Fact::Known(true)
                    } else {
                        Fact::unknown("no answer")
                    },
                };
                (MemberId(u64::from(n)), member)
            })
            .collect();
        let records = (1..=3)
            .filter(|n| never != Some(*n))
            .map(|n| {
                let member = Some(MemberId(u64::from(n)));
                (slot(n), SlotRecord { volume: volume(n), instance: instance(n), peer_url: url(n), member })
            })
            .collect();
        let copy = self.seen().charter.known().cloned().flatten().map(|charter| charter.value);
        self.seen().etcd.cluster = Fact::Known(ClusterView {
            charter: copy,
            members,
            leader: None,
            records,
            lock: None,
            control_plane: ControlPlaneRecords::default(),
        });
        self
    }

    /// etcd runs here, as this member.
    fn serving(mut self, member: u64, learner: bool, in_sync: bool) -> Self {
        self.seen().etcd.service = Fact::Known(ServiceState::Running);
        self.seen().etcd.own = Fact::Known(OwnMember { member: MemberId(member), learner, in_sync });
        self
    }

    fn waiting(mut self, on: WaitingOn, milliseconds: i64) -> Self {
        self.seen().waiting.push(Waiting { on, since: NOW - milliseconds });
        self
    }

    fn but(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Change for Observation {
    fn seen(&mut self) -> &mut Observation {
        self
    }

    fn holds(&mut self) -> &mut VolumeContents {
        match &mut self.disk {
            Fact::Known(Some(Disk { holds: Fact::Known(holds), .. })) => holds,
            other => panic!("{other:?}"),
        }
    }

    fn volumes(&mut self) -> &mut BTreeMap<VolumeId, Volume> {
        match &mut self.volumes {
            Fact::Known(volumes) => volumes,
            Fact::Unknown(why) => panic!("{why}"),
        }
    }

    fn instances(&mut self) -> &mut BTreeMap<InstanceId, Instance> {
        match &mut self.instances {
            Fact::Known(instances) => instances,
            Fact::Unknown(why) => panic!("{why}"),
        }
    }

    fn view(&mut self) -> &mut ClusterView {
        match &mut self.etcd.cluster {
            Fact::Known(view) => view,
            Fact::Unknown(why) => panic!("{why}"),
        }
    }
}

/// The cluster is whole, and this machine's member is in order.
pub fn whole() -> Observation {
    let charter_value = charter(&[1, 2, 3]);
    scene()
        .chartered(charter_value.clone())
        .stamped(member_of(1), DataDir::Present)
        .quorate(&[1, 2, 3], None)
        .serving(1, false, true)
        .but(|seen| {
            seen.holds().charter = Fact::Known(Some(charter_value));
            seen.etcd.launch = Fact::Known(Some(launch(LaunchState::New)));
        })
}

pub fn launch(state: LaunchState) -> EtcdLaunch {
    EtcdLaunch {
        slot: slot(1),
        uuid: uuid(),
        generation: FIRST,
        address: address(1),
        state,
        initial_cluster: (1..=3).map(|n| (slot(n).member_name(), url(n))).collect(),
    }
}

pub fn names(plan: &Plan) -> Vec<&'static str> {
    plan.steps.iter().map(Step::name).collect()
}

/// Asserts the steps, by name.
#[track_caller]
pub fn does(seen: &Observation, steps: &[&str]) -> Plan {
    let plan = plan(seen);
    assert_eq!(names(&plan), steps, "{:#?}", plan.report);
    plan
}

/// Asserts that nothing is done, and what is waited for.
#[track_caller]
pub fn waits(seen: &Observation) -> WaitingOn {
    let plan = plan(seen);
    assert_eq!(names(&plan), [""; 0], "{:#?}", plan.report);
    assert_eq!(plan.report.halt, None);
    plan.report.waiting.first().cloned().unwrap_or_else(|| panic!("{:#?}", plan.report))
}

/// Asserts that the machine halts with no steps, and why.
#[track_caller]
pub fn halts(seen: &Observation) -> Halt {
    let plan = plan(seen);
    assert_eq!(names(&plan), [""; 0]);
    assert_eq!(plan.report.phase, Phase::Halted);
    plan.report.halt.unwrap_or_else(|| panic!("{:#?}", plan.report.waiting))
}
