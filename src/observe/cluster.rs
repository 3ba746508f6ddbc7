//! etcd: this machine's member, and the cluster.

use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::model::machine::client_url;
use crate::model::observation::EtcdObservation;
use crate::model::{
    Charter, ClusterUuid, Disk, EtcdVersion, Fact, Generation, InstanceState, Leaves, Role, ServiceState,
    Versioned,
};
use crate::reach::Reach;

use super::{Ec2Look, Memory};

/// A program's file: another one in its place is another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Program {
    device: u64,
    inode: u64,
    length: u64,
    modified: i64,
}

impl Program {
    fn at(path: &Path) -> Option<Self> {
        // Whatever is wrong with it, running it says so.
        let found = std::fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            length: found.len(),
            modified: found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec()),
        })
    }
}

/// The program's version; it is asked again when the program was replaced.
pub(super) async fn version(reach: &Reach, memory: &mut Memory) -> Fact<EtcdVersion> {
    let path = reach.etcd_program();
    let program = Program::at(&path);
    if let (Some(program), Some((asked, version))) = (program, memory.version)
        && program == asked
    {
        return Fact::Known(version);
    }
    let version = Fact::from(crate::host::service::version(&path).await);
    memory.version = program.zip(version.known().copied());
    version
}

/// Asks this machine's member and the cluster, as far as there may be one.
pub(super) async fn look(
    reach: &Reach,
    ec2: &Ec2Look,
    charter: &Fact<Option<Versioned<Charter>>>,
    disk: &Fact<Option<Disk>>,
    leaves: &Fact<Option<Leaves>>,
    etcd: &mut EtcdObservation,
) {
    etcd.own = Fact::unknown("etcd does not run here");
    etcd.cluster = Fact::unknown("there is no sign of a cluster yet");
    if !matches!(leaves, Fact::Known(Some(_))) {
        etcd.cluster = Fact::unknown("there are no certificates to ask with");
        return;
    }
    let expected = expected(charter, disk);
    if expected.is_none() {
        return;
    }
    let runs = etcd.service == Fact::Known(ServiceState::Running);
    let me = client_url(reach.identity.address);
    reach.etcd.set_endpoints(endpoints(reach, ec2, charter, runs));
    let own = async {
        if runs { reach.etcd.own(&me).await.into() } else { Fact::unknown("etcd does not run here") }
    };
    let cluster = reach.etcd.observe(expected.as_ref().map(|(uuid, generation)| (uuid, *generation)));
    let (own, cluster) = tokio::join!(own, cluster);
    etcd.own = own;
    etcd.cluster = cluster.into();
}

/// The cluster and generation to look for: the charter's, or what the volume remembers.
fn expected(
    charter: &Fact<Option<Versioned<Charter>>>,
    disk: &Fact<Option<Disk>>,
) -> Option<(ClusterUuid, Generation)> {
    if let Fact::Known(Some(charter)) = charter {
        return Some((charter.value.uuid.clone(), charter.value.generation));
    }
    let holds = disk.known()?.as_ref()?.holds.known()?;
    let stamp = holds.stamp.known()?.as_ref()?;
    stamp.state.life().map(|(uuid, generation)| (uuid.clone(), generation))
}

/// Where members may be: this machine first, then the group's machines, then the founders.
fn endpoints(
    reach: &Reach,
    ec2: &Ec2Look,
    charter: &Fact<Option<Versioned<Charter>>>,
    runs: bool,
) -> Vec<String> {
    let me = reach.identity.address;
    let mut addresses: Vec<Ipv4Addr> = Vec::new();
    if runs {
        addresses.push(me);
    }
    if let Fact::Known(instances) = &ec2.instances {
        addresses.extend(instances.values().filter_map(|instance| {
            let running = match instance.state {
                InstanceState::Pending | InstanceState::Running | InstanceState::Stopping => true,
                InstanceState::Stopped
                | InstanceState::ShuttingDown
                | InstanceState::Terminated
                | InstanceState::NotFound => false,
            };
            (running && instance.role == Some(Role::ControlPlane)).then_some(instance.address).flatten()
        }));
    } else if let Fact::Known(Some(charter)) = charter {
        addresses.extend(charter.value.founders.iter().filter_map(|founder| host_of(&founder.peer_url)));
    }
    let mut endpoints: Vec<String> = Vec::new();
    for url in addresses.into_iter().filter(|address| runs || *address != me).map(client_url) {
        if !endpoints.contains(&url) {
            endpoints.push(url);
        }
    }
    endpoints
}

fn host_of(peer_url: &str) -> Option<Ipv4Addr> {
    peer_url.strip_prefix("https://")?.rsplit_once(':')?.0.parse().ok()
}
