//! What the doctor asks. Nothing is changed by it: what EC2 would do is tried with `DryRun`, a write to S3 is on a
//! condition that never holds, and of what lies in S3 nothing is read but that it may be.

mod host;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::join;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::seen::{AroundSeen, BucketSeen, CornerSeen, EndpointSeen, Seen};
use crate::agent::setup::{SetupError, learn};
use crate::aws::{Access, Allowed, ObjectError, ObjectStore, PublishedTag};
use crate::config::settings::VolumeSource;
use crate::host::containerd::Containerd;
use crate::host::service::kubelet_version;
use crate::host::{Root, clock};
use crate::model::containerd::ContainerdObservation;
use crate::model::fact::chain;
use crate::model::{Fact, Observation, Role, Waiting, tags};
use crate::observe::{Depth, Memory, observe};
use crate::reach::Reach;

use super::judge::Scope;

/// How long a name or a connection is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why nothing is known of what is beyond the scope.
const UNASKED: &str = "not asked for";

/// Keys that no object has: it is asked whether they may be read and written, and they are never made.
const NONE: &str = "doctor";

/// Asks for everything of this scope. `waiting` is what the agent waits for, which decides in a plan, too.
pub async fn probe(root: &Root, access: &Access, scope: Scope, waiting: Vec<Waiting>) -> Seen {
    let metadata = access.metadata();
    let identity: Fact<_> = metadata.identity().await.into();
    let tags_published = match metadata.tag(tags::CLUSTER).await {
        Ok(PublishedTag::Value(_) | PublishedTag::NotSet) => Fact::Known(true),
        Ok(PublishedTag::NotPublished) => Fact::Known(false),
        Err(error) => Fact::unknown(chain(&error)),
    };
    // Who does not know who it is has no settings either, and says so once.
    let learnt = match &identity {
        Fact::Known(_) => learn(root, access).await,
        Fact::Unknown(why) => return without_settings(root, Fact::unknown(why), tags_published, why).await,
    };
    let setup = match learnt {
        Ok(setup) => setup,
        Err(error) => {
            let why = match &error {
                SetupError::Config(errors) => errors.to_string(),
                other => chain(other),
            };
            return without_settings(root, identity, tags_published, &why).await;
        }
    };
    let settings = setup.loaded.settings;
    let reach = Reach::new(root.clone(), access, settings.clone(), setup.identity).await;
    let (host, around) = join!(host::look(root), Box::pin(around(&reach, scope, waiting)));
    Seen {
        at: clock::now_ms(),
        identity,
        tags_published,
        settings: Fact::Known(settings),
        host,
        around: Some(Box::new(around)),
    }
}

async fn without_settings(
    root: &Root,
    identity: Fact<crate::model::Identity>,
    tags_published: Fact<bool>,
    why: &str,
) -> Seen {
    let host = host::look(root).await;
    let settings = Fact::unknown(why);
    Seen { at: clock::now_ms(), identity, tags_published, settings, host, around: None }
}

async fn around(reach: &Reach, scope: Scope, waiting: Vec<Waiting>) -> AroundSeen {
    let store = &reach.aws.objects;
    let (corner, bucket) = join!(corner(reach.settings.role, store), bucket(store));
    if scope == Scope::Bucket {
        return AroundSeen {
            metadata: Fact::unknown(UNASKED),
            observation: None,
            kubelet: Fact::unknown(UNASKED),
            kube_proxy: Fact::unknown(UNASKED),
            containerd: ContainerdObservation::unknown(UNASKED),
            ahead_of_s3_ms: Fact::unknown(UNASKED),
            actions: BTreeMap::new(),
            corner,
            bucket,
            endpoint: None,
        };
    }
    let kubernetes = &reach.settings.kubernetes;
    let mut memory = Memory::default();
    let (observation, metadata, kubelet, kube_proxy, ahead) = join!(
        Box::pin(observe(reach, &mut memory, Depth::Full, waiting)),
        metadata_options(reach),
        kubelet_version(kubernetes.kubelet_binary.as_str().as_ref()),
        kubelet_version(kubernetes.kube_proxy_binary.as_str().as_ref()),
        ahead_of_s3(store),
    );
    let actions = match reach.settings.role {
        Role::ControlPlane => actions(reach, &observation).await,
        Role::Worker => BTreeMap::new(),
    };
    let endpoint = match endpoint_of(&observation, reach) {
        Some(endpoint) => Some(endpoint_seen(endpoint).await),
        None => None,
    };
    AroundSeen {
        metadata,
        observation: Some(observation),
        kubelet: kubelet.into(),
        kube_proxy: kube_proxy.into(),
        containerd: Containerd::of(&reach.root).observe().await,
        ahead_of_s3_ms: ahead,
        actions,
        corner,
        bucket,
        endpoint,
    }
}

/// A worker's role may not ask EC2, and need not.
async fn metadata_options(reach: &Reach) -> Fact<crate::aws::MetadataOptions> {
    match reach.settings.role {
        Role::ControlPlane => reach.aws.ec2.metadata_options(&reach.identity.instance).await.into(),
        Role::Worker => Fact::unknown("not asked for: a worker asks EC2 nothing"),
    }
}

/// Half a second is about what S3's clock, which tells whole seconds, is behind itself.
async fn ahead_of_s3(store: &ObjectStore) -> Fact<i64> {
    let began = clock::now_ms();
    let told: Fact<i64> = store.server_time().await.into();
    let ended = clock::now_ms();
    told.map(|told| (began.saturating_add(ended)) / 2 - told - 500)
}

async fn corner(role: Role, store: &ObjectStore) -> CornerSeen {
    let mut folders = vec!["workers", "pki", "backups"];
    if role == Role::ControlPlane {
        folders.sort_unstable();
    }
    let mut read = BTreeMap::new();
    for folder in folders {
        read.insert(folder.to_owned(), store.may_read(&format!("{folder}/{NONE}")).await.into());
    }
    let list = match store.any("workers/").await {
        Ok(_) => Fact::Known(Allowed::Yes),
        Err(ObjectError::AccessDenied { .. }) => Fact::Known(Allowed::No),
        Err(error) => Fact::unknown(chain(&error)),
    };
    CornerSeen { url: store.url(""), read, write: store.may_write(NONE).await.into(), list }
}

async fn bucket(store: &ObjectStore) -> BucketSeen {
    let (region, encryption, versioning, open_to_public, policy_is_public, policy, lifecycle) = join!(
        store.bucket_region(),
        store.bucket_encryption(),
        store.bucket_versioning(),
        store.bucket_open_to_public(),
        store.bucket_policy_is_public(),
        store.bucket_policy(),
        store.bucket_lifecycle(),
    );
    BucketSeen {
        name: store.bucket().to_owned(),
        region: region.into(),
        encryption: encryption.into(),
        versioning: versioning.into(),
        open_to_public: open_to_public.into(),
        policy_is_public: policy_is_public.into(),
        policy: policy.into(),
        lifecycle: lifecycle.into(),
    }
}

/// What EC2 would let this role do with the volume that it holds, or is to take.
async fn actions(reach: &Reach, seen: &Observation) -> BTreeMap<String, Fact<bool>> {
    let (ec2, me) = (&reach.aws.ec2, &reach.identity);
    let cluster = reach.settings.cluster.as_str();
    let source = reach.settings.etcd.volume.source;
    let mut actions = BTreeMap::new();
    let here = seen.volumes.known().into_iter().flatten();
    let mut here: Vec<_> = here.filter(|(_, v)| v.ours && v.zone.as_ref() == Some(&me.zone)).collect();
    // What this machine holds comes first, and then what nobody does.
    here.sort_by_key(|(_, volume)| match volume.holder() {
        Some(holder) if *holder == me.instance => 0,
        None => 1,
        Some(_) => 2,
    });
    match here.first() {
        Some((volume, _)) => {
            if source != VolumeSource::Device {
                actions.insert("AttachVolume".to_owned(), ec2.may_attach(volume, &me.instance).await.into());
            }
            actions.insert("DetachVolume".to_owned(), ec2.may_detach(volume, &me.instance).await.into());
            let may_tag = ec2.may_tag(volume.as_str(), &[(tags::STAMP, "doctor")]).await;
            actions.insert("CreateTags".to_owned(), may_tag.into());
        }
        None => {
            let why = match &seen.volumes {
                Fact::Known(_) => "there is no volume here yet to try it with".to_owned(),
                Fact::Unknown(why) => why.clone(),
            };
            for action in ["AttachVolume", "DetachVolume", "CreateTags"] {
                actions.insert(action.to_owned(), Fact::unknown(&why));
            }
        }
    }
    if source == VolumeSource::Created {
        let may_create = ec2.may_create(&me.zone, &[(tags::CLUSTER, cluster)]).await;
        actions.insert("CreateVolume".to_owned(), may_create.into());
    }
    actions
}

/// Where the API is reached, as `HOST:PORT`: as it is set, found, remembered, or told to workers.
fn endpoint_of(seen: &Observation, reach: &Reach) -> Option<String> {
    let kubernetes = &seen.kubernetes;
    let set = reach.settings.kubernetes.endpoint.as_ref().map(ToString::to_string);
    let remembered =
        || kubernetes.remembered_endpoint.known().and_then(Option::as_ref).map(ToString::to_string);
    let found = || {
        let balancing = kubernetes.load_balancing.known().and_then(Option::as_ref)?;
        balancing.found.fit.first().map(|fit| format!("{}:{}", fit.dns_name, fit.port))
    };
    let told = || {
        let published = kubernetes.worker.published.known().and_then(Option::as_ref);
        published.map(|published| published.told.terms.endpoint.to_string())
    };
    set.or_else(remembered).or_else(found).or_else(told)
}

async fn endpoint_seen(endpoint: String) -> EndpointSeen {
    let addresses = match timeout(PATIENCE, lookup_host(endpoint.as_str())).await {
        Ok(Ok(found)) => {
            let mut addresses: Vec<_> = found.map(|at| at.ip()).collect();
            addresses.sort_unstable();
            addresses.dedup();
            Fact::Known(addresses)
        }
        Ok(Err(error)) => Fact::unknown(chain(&error)),
        Err(_) => Fact::unknown("no answer in time"),
    };
    let connects = match timeout(PATIENCE, TcpStream::connect(endpoint.as_str())).await {
        Ok(Ok(_)) => Fact::Known(()),
        Ok(Err(error)) => Fact::unknown(chain(&error)),
        Err(_) => Fact::unknown("no connection in time"),
    };
    EndpointSeen { endpoint, addresses, connects }
}
