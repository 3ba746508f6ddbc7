//! etcd: this machine's member, and the cluster.

use std::net::Ipv4Addr;

use tokio::time::Duration;

use crate::host::clock;
use crate::model::machine::{address_of, client_url};
use crate::model::observation::EtcdObservation;
use crate::model::{
    Charter, ClusterUuid, Disk, Fact, Generation, InstanceState, Leaves, Role, ServiceState, Silence,
    Versioned,
};
use crate::reach::Reach;

use super::{Ec2Look, Memory};

/// How long an answer is waited for at first, and at most.
const STARTING: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(6);
/// How long a founder that has not started waits for the others' word. They may be waiting for it:
/// etcd elects at once when all founders are there, and after a whole time-out when one is missing.
const FOUNDING: Duration = Duration::from_millis(75);

/// Whether the charter names this machine as a founder that has not started.
fn is_expected_to_start(reach: &Reach, charter: &Fact<Option<Versioned<Charter>>>) -> bool {
    match charter {
        Fact::Known(Some(charter)) => charter
            .value
            .founders
            .iter()
            .any(|founder| founder.instance == reach.identity.instance && founder.started.is_none()),
        Fact::Known(None) | Fact::Unknown(_) => false,
    }
}

async fn within<T>(limit: Duration, answer: impl Future<Output = Fact<T>>) -> Fact<T> {
    tokio::time::timeout(limit, answer)
        .await
        .unwrap_or_else(|_| Fact::unknown(format!("no answer within {} ms", limit.as_millis())))
}

/// Asks this machine's member and the cluster, as far as there may be one.
pub(super) async fn look(
    reach: &Reach,
    memory: &mut Memory,
    ec2: &Ec2Look,
    charter: &Fact<Option<Versioned<Charter>>>,
    disk: &Fact<Option<Disk>>,
    leaves: &Fact<Option<Leaves>>,
    etcd: &mut EtcdObservation,
) {
    etcd.own = Fact::unknown("etcd does not run here");
    etcd.cluster = Fact::unknown("there is no sign of a cluster yet");
    etcd.care = Fact::unknown("there is no sign of a cluster yet");
    let runs = etcd.service == Fact::Known(ServiceState::Running);
    etcd.silence = if runs { memory.silence } else { None };
    memory.silence = etcd.silence;
    if !matches!(leaves, Fact::Known(Some(_))) {
        etcd.cluster = Fact::unknown("there are no certificates to ask with");
        return;
    }
    let Some(expected) = expected(charter, disk) else { return };
    let me = client_url(reach.identity.address);
    reach.etcd.set_endpoints(endpoints(reach, ec2, charter, runs));
    let own = async {
        if runs { reach.etcd.own(&me).await.into() } else { Fact::unknown("etcd does not run here") }
    };
    // While no majority of the founders has started there can be no quorum, and nobody is asked.
    let forming = matches!(charter, Fact::Known(Some(charter)) if !charter.value.established());
    let cluster = async {
        if forming {
            return Fact::unknown("no majority of the founders has started etcd yet");
        }
        reach.etcd.observe_with_care(Some((&expected.0, expected.1))).await.into()
    };
    // A member that is just starting listens before it serves: asking again soon is better than
    // waiting long for it. One that stays silent is given more time.
    let limit = if is_expected_to_start(reach, charter) {
        FOUNDING
    } else {
        (STARTING * memory.silent.saturating_add(1)).min(LONGEST)
    };
    let (own, cluster) = tokio::join!(within(limit, own), within(limit, cluster));
    memory.silent = if own.is_known() && cluster.is_known() { 0 } else { memory.silent.saturating_add(1) };
    memory.silence = silence(memory.silence, runs && !own.is_known(), clock::now_ms());
    etcd.silence = memory.silence;
    etcd.own = own;
    (etcd.cluster, etcd.care) = match cluster {
        Fact::Known((view, care)) => (Fact::Known(view), Fact::Known(care)),
        Fact::Unknown(why) => (Fact::Unknown(why.clone()), Fact::Unknown(why)),
    };
}

/// The silence of this machine's member after one more look.
fn silence(before: Option<Silence>, is_silent: bool, now: i64) -> Option<Silence> {
    is_silent.then(|| match before {
        Some(Silence { since, looks }) => Silence { since, looks: looks.saturating_add(1) },
        None => Silence { since: now, looks: 1 },
    })
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
        addresses.extend(charter.value.founders.iter().filter_map(|founder| address_of(&founder.peer_url)));
    }
    let mut endpoints: Vec<String> = Vec::new();
    for url in addresses.into_iter().filter(|address| runs || *address != me).map(client_url) {
        if !endpoints.contains(&url) {
            endpoints.push(url);
        }
    }
    endpoints
}
