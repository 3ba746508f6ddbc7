//! Backups for real: etcd's snapshot and its changes go to S3 and come back, by the programs that do it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, GetOptions, Identity, LeaseGrantOptions,
    PutOptions, TlsOptions, Txn, TxnOp,
};
use quorate::backup::configuration::{self, Configuration};
use quorate::backup::keeper::{Keeper, Pace};
use quorate::backup::rehearsal::{self, Rehearsals};
use quorate::backup::restore::{self, Bench};
use quorate::backup::retention::{self, Retention};
use quorate::backup::segment::Link;
use quorate::backup::ship::Shipping;
use quorate::backup::snapshot::{self, Subject};
use quorate::backup::{BackupError, choose, read};
use quorate::cli::etcd::{Consent, EtcdCommand};
use quorate::config::Settings;
use quorate::model::fact::chain as words;
use quorate::model::{BackupKey, BackupPart, ChainName, Manifest, RestorePoint};

use quorate::model::backup::{BackupProgress, Keeping};
use tokio::task::JoinHandle;

use super::*;
use crate::weather::sky::Sky;

/// One etcd, one bucket.
struct Rig {
    lab: Lab,
    node: Node,
    _sky: Sky,
    reach: quorate::reach::Reach,
    kv: Client,
}

/// All that etcd holds but quorate's own: key, value, creation, modification, version, lease.
type Content = BTreeMap<Vec<u8>, (Vec<u8>, i64, i64, i64, i64)>;

async fn connect(node: &Node) -> Client {
    let read = |name: &str| std::fs::read(node.pki().join(name)).unwrap();
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(read("ca.crt")))
        .identity(Identity::from_pem(read("client.crt"), read("client.key")));
    Client::connect([node.url()], Some(ConnectOptions::new().with_tls(tls))).await.unwrap()
}

/// Ships a chain from its beginning, beside whatever follows.
fn ship(shipping: &Shipping, chain: &ChainName) -> JoinHandle<BackupError> {
    let (shipping, link) = (shipping.clone(), Link::first(uuid(), chain.clone()));
    tokio::spawn(async move { shipping.ship(link).await })
}

async fn content(kv: &Client) -> Content {
    let read = kv.kv_client().get("", Some(GetOptions::new().with_all_keys())).await.unwrap();
    read.kvs()
        .iter()
        .filter(|kv| !kv.key().starts_with(b"/quorate/"))
        .map(|kv| {
            let fields =
                (kv.value().to_vec(), kv.create_revision(), kv.mod_revision(), kv.version(), kv.lease());
            (kv.key().to_vec(), fields)
        })
        .collect()
}

impl Rig {
    async fn new() -> Self {
        let lab = Lab::new();
        let node = lab.single(1, Generation(1)).await;
        let sky = Sky::with_bucket().await;
        let reach = sky.reach().await;
        let kv = connect(&node).await;
        Self { lab, node, _sky: sky, reach, kv }
    }

    fn etcd(&self) -> ClusterClient {
        client(&[&self.node])
    }

    fn shipping(&self) -> Shipping {
        Shipping {
            objects: self.reach.aws.objects.clone(),
            etcd: Arc::new(self.etcd()),
            url: self.node.url(),
            every: Duration::from_millis(100),
            shipped: Arc::default(),
            wanted: Arc::default(),
        }
    }

    async fn put(&self, key: &str, value: &str) -> i64 {
        let put = self.kv.kv_client().put(key, value, None).await.unwrap();
        put.header().unwrap().revision()
    }

    async fn put_leased(&self, key: &str, value: &str, lease: i64) -> i64 {
        let options = PutOptions::new().with_lease(lease);
        let put = self.kv.kv_client().put(key, value, Some(options)).await.unwrap();
        put.header().unwrap().revision()
    }

    async fn grant(&self, lease: i64, ttl: i64) {
        let options = LeaseGrantOptions::new().with_id(lease);
        self.kv.lease_client().grant(ttl, Some(options)).await.unwrap();
    }

    /// Writes of all kinds; gives the last revision.
    async fn write(&self, round: usize) -> i64 {
        for n in 0..40 {
            self.put(&format!("/registry/pods/{n}"), &format!("{round}-{n}-{}", "x".repeat(n * 50))).await;
        }
        let txn = Txn::new().when([Compare::version("/none", CompareOp::Equal, 0)]).and_then([
            TxnOp::put(format!("/registry/a{round}"), "1", None),
            TxnOp::put("/registry/b", format!("{round}"), None),
            TxnOp::delete("/registry/pods/7", None),
        ]);
        self.kv.kv_client().txn(txn).await.unwrap();
        let deleted = etcd_client::DeleteOptions::new().with_range("/registry/pods/2");
        let deleted = self.kv.kv_client().delete("/registry/pods/10", Some(deleted)).await.unwrap();
        assert!(deleted.deleted() > 1);
        self.put("/quorate/tomorrow", "is dropped").await;
        self.put("/quorate/authorities", "are what they were").await;
        self.put("/registry/last", &round.to_string()).await
    }

    async fn begin(&self) -> Subject {
        let standing = self.etcd().standing(&self.node.url()).await.unwrap();
        let chain = ChainName::new(Generation(1), standing.revision, "0a1b2c3d").unwrap();
        let configuration = Configuration::of(&self.reach.settings).unwrap();
        Subject { cluster: name(), uuid: uuid(), chain, standing, configuration }
    }

    async fn snapshot(&self, subject: &Subject) -> Manifest {
        let objects = &self.reach.aws.objects;
        let manifest = snapshot::take(&self.etcd(), &self.node.url(), objects, subject).await;
        let manifest = manifest.map_err(|error| words(&error)).unwrap();
        snapshot::finish(objects, &manifest).await.unwrap();
        manifest
    }

    /// A snapshot, and one round of changes since; gives the last revision.
    async fn one_backup(&self) -> (Manifest, i64) {
        let subject = self.begin().await;
        let shipping = self.shipping();
        let ships = ship(&shipping, &subject.chain);
        let manifest = self.snapshot(&subject).await;
        let last = self.write(1).await;
        self.shipped(&shipping, last).await;
        ships.abort();
        (manifest, last)
    }

    /// Waits until everything up to a revision is in S3.
    async fn shipped(&self, shipping: &Shipping, revision: i64) {
        let told = || shipping.all().values().map(|shipped| shipped.revision).max().unwrap_or(0);
        let all = async {
            while told() < revision {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("{:?}", shipping.all()));
    }

    async fn choose(&self, up_to: read::UpTo) -> Result<RestorePoint, BackupError> {
        choose::newest_whole(&self.reach.aws.objects, &uuid(), Generation(1), up_to).await
    }

    /// Restores to another machine, starts its etcd there, and gives a client of it.
    async fn restore(&self, host: u8, point: &RestorePoint) -> (Node, Client, restore::Replayed) {
        let initial = vec![(slot(1).member_name(), peer_url(self.lab.address(host)))];
        let mut node = self.lab.node(host, slot(1), Generation(2), LaunchState::Existing, initial);
        let tuning = Tuning { quota_bytes: 64 * 1024 * 1024, ..Tuning::default() };
        let bench =
            Bench { dir: node.dir.join("restoring"), etcd: program(), pki: node.pki(), tuning: &tuning };
        let data = node.dir.join("data");
        let objects = &self.reach.aws.objects;
        let done = restore::from_backup(&bench, objects, &uuid(), point, &node.launch, &data).await;
        let replayed = done.map_err(|error| words(&error)).unwrap();
        assert!(!bench.dir.exists());
        node.start();
        formed(&client(&[&node])).await;
        let kv = connect(&node).await;
        (node, kv, replayed)
    }
}

#[tokio::test]
async fn a_snapshot_and_the_changes_since_come_back_exactly() {
    let rig = Rig::new().await;
    rig.grant(77, 3600).await;
    rig.put_leased("/registry/events/old", "e", 77).await;
    rig.write(1).await;
    let subject = rig.begin().await;
    let shipping = rig.shipping();
    let ships = ship(&shipping, &subject.chain);
    // The snapshot is taken while writes go on; whichever it holds, none is missing and none twice.
    let manifest = rig.snapshot(&subject).await;
    rig.grant(78, 1800).await;
    rig.put_leased("/registry/events/new", "e", 78).await;
    for round in 2..5 {
        rig.write(round).await;
    }
    rig.kv.lease_client().revoke(77).await.unwrap();
    let last = rig.write(5).await;
    rig.shipped(&shipping, last).await;
    let before = content(&rig.kv).await;
    ships.abort();

    let point = rig.choose(read::UpTo::Newest).await.unwrap();
    assert_eq!((&point.chain, point.revision, point.passed_over.len()), (&manifest.chain, last, 0));
    let (_node, kv, replayed) = rig.restore(2, &point).await;
    assert_eq!((replayed.revision, replayed.keys), (last, Some(manifest.keys)));
    assert_eq!(content(&kv).await, before);
    // What was quorate's is dropped, revisions are far beyond those that were, and what was before is compacted.
    let own = kv.kv_client().get("/quorate/", Some(GetOptions::new().with_prefix())).await.unwrap();
    let own_keys: Vec<_> = own.kvs().iter().map(|kv| kv.key_str().unwrap()).collect();
    assert_eq!(own_keys, ["/quorate/authorities"]);
    assert!(own.header().unwrap().revision() > last + 900_000_000);
    let past = GetOptions::new().with_revision(last);
    let compacted = kv.kv_client().get("/registry/last", Some(past)).await.unwrap_err();
    assert!(compacted.to_string().contains("compacted"), "{compacted}");
    let leases: BTreeSet<i64> =
        kv.lease_client().leases().await.unwrap().leases().iter().map(etcd_client::LeaseStatus::id).collect();
    assert_eq!(leases, BTreeSet::from([78]));
    let ttl = kv.lease_client().time_to_live(78, None).await.unwrap();
    assert_eq!(ttl.granted_ttl(), 1800);
}

#[tokio::test]
async fn a_moment_and_a_revision_of_the_past_can_be_gone_back_to() {
    let rig = Rig::new().await;
    rig.write(0).await;
    let subject = rig.begin().await;
    let shipping = rig.shipping();
    let ships = ship(&shipping, &subject.chain);
    rig.snapshot(&subject).await;
    let first = rig.write(1).await;
    rig.shipped(&shipping, first).await;
    let then = content(&rig.kv).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let moment = now();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = rig.write(2).await;
    rig.shipped(&shipping, second).await;
    ships.abort();
    let by_moment = rig.choose(read::UpTo::Moment(moment)).await.unwrap();
    let by_revision = rig.choose(read::UpTo::Revision(first)).await.unwrap();
    assert_eq!((by_moment.revision, by_revision.revision), (first, first));
    let (_node, kv, _) = rig.restore(2, &by_revision).await;
    assert_eq!(content(&kv).await, then);
    // What is older than all backups is not there.
    let none = rig.choose(read::UpTo::Revision(1)).await.unwrap_err();
    assert!(matches!(none, BackupError::NoneWhole { .. }), "{none}");
}

#[tokio::test]
async fn a_damaged_chain_is_used_up_to_the_damage_or_the_one_before_it_and_the_loss_is_said() {
    let rig = Rig::new().await;
    let objects = &rig.reach.aws.objects;
    let shipping = rig.shipping();
    let mut chains = Vec::new();
    for (mark, rounds) in [("aaaaaaaa", 1..4), ("bbbbbbbb", 4..7)] {
        let mut subject = rig.begin().await;
        subject.chain = ChainName::new(Generation(1), subject.standing.revision, mark).unwrap();
        let ships = ship(&shipping, &subject.chain);
        let manifest = rig.snapshot(&subject).await;
        let mut lasts = Vec::new();
        for round in rounds {
            let last = rig.write(round).await;
            rig.shipped(&shipping, last).await;
            lasts.push(last);
        }
        ships.abort();
        chains.push((manifest, lasts));
    }
    let ((old, old_lasts), (new, new_lasts)) = (&chains[0], &chains[1]);
    let segments = objects.list(&new.chain.changes()).await.unwrap();
    assert!(segments.len() >= 3, "{segments:?}");
    let stored = |key: String| async move { objects.get(&key).await.unwrap().unwrap().bytes };
    let whole = rig.choose(read::UpTo::Newest).await.unwrap();
    assert_eq!((&whole.chain, whole.revision), (&new.chain, *new_lasts.last().unwrap()));

    // A segment in the middle: flipped, cut off, another chain's, missing.
    let second = new.chain.segment(2);
    let good = stored(second.clone()).await;
    let other = stored(old.chain.segment(2)).await;
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    let first_end = quorate::backup::segment::open(&stored(new.chain.segment(1)).await).unwrap().header.to;
    for (what, bytes) in [
        ("flipped", Some(flipped)),
        ("cut", Some(good[..good.len() - 9].to_vec())),
        ("other", Some(other)),
        ("missing", None),
    ] {
        match bytes {
            Some(bytes) => drop(objects.put(&second, bytes).await.unwrap()),
            None => {
                let key = BackupKey { chain: new.chain.clone(), part: BackupPart::Segment(2) };
                objects.remove_backup(&key).await.unwrap();
            }
        }
        let point = rig.choose(read::UpTo::Newest).await.unwrap();
        assert_eq!((&point.chain, point.segments, point.revision), (&new.chain, 1, first_end), "{what}");
        assert!(point.passed_over.iter().any(|why| why.contains("changes/0000000002")), "{what}: {point:?}");
    }
    objects.put(&second, good).await.unwrap();
    assert_eq!(rig.choose(read::UpTo::Newest).await.unwrap(), whole);

    // The snapshot: the chain before it is used, to its own end.
    let snapshot_key = new.chain.snapshot();
    let good = stored(snapshot_key.clone()).await;
    let mut flipped = good.clone();
    flipped[good.len() / 3] ^= 1;
    for bytes in [flipped, good[..good.len() / 2].to_vec(), Vec::new(), stored(old.chain.snapshot()).await] {
        objects.put(&snapshot_key, bytes).await.unwrap();
        let point = rig.choose(read::UpTo::Newest).await.unwrap();
        assert_eq!((&point.chain, point.revision), (&old.chain, *old_lasts.last().unwrap()));
        assert!(point.passed_over.iter().any(|why| why.contains("snapshot.zst")), "{point:?}");
    }
    // And its manifest.
    let manifest_key = new.chain.manifest();
    for bytes in [b"{".to_vec(), serde_json::to_vec(old).unwrap()] {
        objects.put(&manifest_key, bytes).await.unwrap();
        let point = rig.choose(read::UpTo::Newest).await.unwrap();
        assert_eq!(point.chain, old.chain);
        assert!(point.passed_over.iter().any(|why| why.contains("manifest.json")), "{point:?}");
    }
    let (_node, kv, _) = rig.restore(2, &rig.choose(read::UpTo::Newest).await.unwrap()).await;
    assert!(content(&kv).await.contains_key(b"/registry/last".as_slice()));
}

#[tokio::test]
async fn the_data_of_one_member_that_is_left_are_enough() {
    let lab = Lab::new();
    let mut nodes = lab.founders(3);
    nodes.iter_mut().for_each(Node::start);
    formed(&client(&nodes.iter().collect::<Vec<_>>())).await;
    let kv = connect(&nodes[0]).await;
    for n in 0..200 {
        kv.kv_client().put(format!("/registry/{n}"), "v", None).await.unwrap();
    }
    kv.kv_client().put("/quorate/slots/2", "a record of the cluster that was", None).await.unwrap();
    let before = content(&kv).await;
    nodes.iter_mut().for_each(Node::kill);
    let survivor: PathBuf = nodes[1].dir.join("data");
    let initial = vec![(slot(2).member_name(), peer_url(lab.address(2)))];
    let mut node = lab.node(2, slot(2), Generation(2), LaunchState::Existing, initial);
    let aside = node.dir.join("aside");
    std::fs::rename(&survivor, &aside).unwrap();
    let tuning = Tuning { quota_bytes: 64 * 1024 * 1024, ..Tuning::default() };
    let bench = Bench { dir: node.dir.join("restoring"), etcd: program(), pki: node.pki(), tuning: &tuning };
    let done = restore::from_survivor(&bench, &aside, &node.launch, &survivor).await;
    done.map_err(|error| words(&error)).unwrap();
    assert!(aside.join("member/snap/db").exists(), "what was set aside stays");
    node.start();
    let view = formed(&client(&[&node])).await;
    assert_eq!((view.members.len(), view.records.len()), (1, 0));
    assert_eq!(content(&connect(&node).await).await, before);
}

#[tokio::test]
async fn two_that_ship_one_chain_do_not_both_go_on() {
    let rig = Rig::new().await;
    let subject = rig.begin().await;
    rig.snapshot(&subject).await;
    let (one, two) = (rig.shipping(), rig.shipping());
    let ships = [ship(&one, &subject.chain), ship(&two, &subject.chain)];
    let last = rig.write(1).await;
    let (ended, _, rest) =
        tokio::time::timeout(PATIENCE, futures_util::future::select_all(ships)).await.unwrap();
    let ended = ended.unwrap();
    assert!(matches!(ended, BackupError::Overtaken { .. }), "{ended}");
    let until = async {
        while rig.choose(read::UpTo::Newest).await.unwrap().revision < last {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, until).await.unwrap();
    let point = rig.choose(read::UpTo::Newest).await.unwrap();
    assert_eq!(point.passed_over, Vec::<String>::new());
    rest.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn the_commands_say_what_there_is_and_whether_it_is_whole() {
    let rig = Rig::new().await;
    rig.write(0).await;
    let objects = &rig.reach.aws.objects;
    let run = async |command: EtcdCommand| {
        let mut output = Vec::new();
        let done = quorate::cli::etcd::run(&rig.reach, command, &mut output, &mut std::io::empty()).await;
        (done.map_err(|error| words(&error)), String::from_utf8(output).unwrap())
    };
    let (done, _) = run(EtcdCommand::Backups { json: false }).await;
    assert!(done.unwrap_err().contains("there is no charter"));
    let text = serde_json::to_vec(&charter(1)).unwrap();
    objects.put(quorate::reach::CHARTER, text).await.unwrap();
    let (done, _) = run(EtcdCommand::Verify { all: false }).await;
    assert!(done.unwrap_err().contains("no backup in S3 can be restored: there is none"));

    let (manifest, last) = rig.one_backup().await;
    let (done, told) = run(EtcdCommand::Backups { json: false }).await;
    done.unwrap();
    for named in [manifest.chain.to_string(), last.to_string(), "no backup was ever rehearsed".to_owned()] {
        assert!(told.contains(&named), "{named} is not in\n{told}");
    }
    let (done, told) = run(EtcdCommand::Backups { json: true }).await;
    done.unwrap();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((told["backups"][0]["revision"].as_i64(), told["rehearsal"].is_null()), (Some(last), true));
    for all in [false, true] {
        let (done, told) = run(EtcdCommand::Verify { all }).await;
        done.unwrap();
        assert!(told.contains(&format!("up to revision {last}")), "{told}");
    }

    // What was configured is in the bucket, and a difference is named.
    let mut settings = rig.reach.settings.clone();
    let then = configuration::of_backup(objects, &manifest).await.unwrap();
    assert_eq!(then, Some(serde_json::to_value(&settings).unwrap()));
    // One of an agent that did not put it there is no less a backup.
    let mut older = serde_json::to_value(&manifest).unwrap();
    older.as_object_mut().unwrap().remove("configuration");
    let older: Manifest = serde_json::from_value(older).unwrap();
    assert_eq!(configuration::of_backup(objects, &older).await.unwrap(), None);
    let changed = async |now: &Settings| {
        configuration::changed_since(objects, &uuid(), &manifest.chain, now).await.unwrap()
    };
    assert_eq!(changed(&settings).await, Vec::<String>::new());
    settings.etcd.snapshot_count = 4711;
    assert_eq!(changed(&settings).await, ["etcd.snapshotCount was 10000, and is 4711"]);
    let key = BackupKey { chain: manifest.chain.clone(), part: BackupPart::Configuration };
    let before = objects.get(&key.to_string()).await.unwrap().unwrap().bytes;
    objects.put(&key.to_string(), b"{}".to_vec()).await.unwrap();
    let (done, told) = run(EtcdCommand::Verify { all: true }).await;
    assert!(done.is_err() && told.contains("configuration.json"), "{told}");
    objects.put(&key.to_string(), before).await.unwrap();

    objects.put(&manifest.chain.segment(1), b"something else".to_vec()).await.unwrap();
    let (done, told) = run(EtcdCommand::Verify { all: true }).await;
    assert!(done.unwrap_err().contains("1 of 1 backups are not whole"));
    assert!(told.contains("NOT WHOLE") && told.contains("changes/0000000001"), "{told}");

    let consent = Consent { yes: true };
    let (done, _) = run(EtcdCommand::Restore { at: "yesterday".to_owned(), consent }).await;
    assert!(done.unwrap_err().contains("2026-11-22T10:00:00Z"));
    // A machine without a volume of the cluster founds nothing.
    let (done, _) = run(EtcdCommand::Restore { at: "newest".to_owned(), consent }).await;
    assert!(done.unwrap_err().contains("run this on a control-plane machine that holds a slot"));
    let after = objects.get(quorate::reach::CHARTER).await.unwrap().unwrap();
    assert_eq!(after.bytes, serde_json::to_vec(&charter(1)).unwrap());
}

impl Rig {
    fn rehearsals(&self, every: Duration) -> Rehearsals {
        Rehearsals {
            every,
            dir: self.node.dir.join("rehearsal"),
            etcd: program(),
            pki: self.node.pki(),
            tuning: Tuning { quota_bytes: 64 * 1024 * 1024, ..Tuning::default() },
        }
    }

    async fn rehearse(&self, every: Duration) -> Option<quorate::model::backup::Rehearsal> {
        let objects = &self.reach.aws.objects;
        let done = rehearsal::if_due(objects, &self.rehearsals(every), &uuid(), Generation(1)).await;
        done.map_err(|error| words(&error)).unwrap()
    }

    fn keeper(&self) -> Keeper {
        let day = Duration::from_hours(24);
        let pace = Pace {
            permission: Duration::from_mins(1),
            snapshots: Duration::from_hours(1),
            between: Duration::from_secs(1),
            changes: Duration::from_millis(200),
            retention: Retention { all: day, hourly: day, daily: day },
        };
        let tls = TlsFiles::in_directory(&self.node.pki());
        let settings = self.reach.settings.clone();
        Keeper::new(self.reach.aws.objects.clone(), tls, pace, self.rehearsals(day), settings)
    }

    fn permit(&self, keeper: &Keeper, number: u8) {
        keeper.permit(&instance(number), &name(), (&uuid(), Generation(1)), &self.node.url());
    }
}

async fn until(keeper: &Keeper, what: &str, test: impl Fn(&BackupProgress) -> bool) -> BackupProgress {
    let looks = async {
        loop {
            let told = keeper.progress();
            if test(&told) {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, looks).await;
    done.unwrap_or_else(|_| panic!("{what}: {:?}", keeper.progress()))
}

#[tokio::test]
async fn a_rehearsal_restores_the_newest_backup_and_says_when_it_can_not() {
    let rig = Rig::new().await;
    rig.write(0).await;
    assert_eq!(rig.rehearse(Duration::ZERO).await, None, "there is nothing yet");
    let (manifest, last) = rig.one_backup().await;
    let first = rig.rehearse(Duration::ZERO).await.unwrap();
    assert_eq!(
        (&first.chain, first.revision, first.keys),
        (&manifest.chain, Some(last), Some(manifest.keys))
    );
    assert_eq!(first.error, None);
    assert!(!rig.rehearsals(Duration::ZERO).dir.exists(), "what was made is removed");
    // It is not done again before its time, by whomever.
    assert_eq!(rig.rehearse(Duration::from_hours(1)).await, Some(first));
    let objects = &rig.reach.aws.objects;
    objects.put(&manifest.chain.segment(1), b"something else".to_vec()).await.unwrap();
    let failed = rig.rehearse(Duration::ZERO).await.unwrap();
    let why = failed.error.unwrap();
    assert!(why.contains("changes/0000000001") && failed.revision.is_none(), "{why}");
}

#[tokio::test]
async fn what_is_old_is_removed_and_what_was_never_finished_and_nothing_else() {
    const DAY: i64 = 86_400_000;
    let rig = Rig::new().await;
    rig.write(0).await;
    let objects = &rig.reach.aws.objects;
    let mut chains = Vec::new();
    // The same snapshot, as if it had been taken so many days ago; the oldest was rehearsed.
    let subject = rig.begin().await;
    let manifest = rig.snapshot(&subject).await;
    for (number, age) in [(1_i64, 400), (2, 300), (3, 200), (4, 0), (5, 0)] {
        let chain = ChainName::new(Generation(1), manifest.chain.revision + number, "cccccccc").unwrap();
        let manifest = Manifest { chain: chain.clone(), taken: now() - age * DAY, ..manifest.clone() };
        objects.put(&chain.snapshot(), b"not looked at".to_vec()).await.unwrap();
        objects.put(&chain.segment(1), b"neither".to_vec()).await.unwrap();
        snapshot::finish(objects, &manifest).await.unwrap();
        chains.push(chain);
    }
    let unfinished = ChainName::new(Generation(1), 7, "dddddddd").unwrap();
    objects.put(&unfinished.snapshot(), b"nobody's".to_vec()).await.unwrap();
    objects.put("charter.json", b"{}".to_vec()).await.unwrap();
    let rehearsed = quorate::model::backup::Rehearsal {
        at: now(),
        chain: chains[0].clone(),
        revision: None,
        keys: None,
        took_ms: 1,
        error: None,
    };
    let rehearsed = serde_json::to_vec(&rehearsed).unwrap();
    objects.put(quorate::model::backup::REHEARSAL, rehearsed).await.unwrap();
    let kept = Retention {
        all: Duration::from_hours(24),
        hourly: Duration::from_hours(24),
        daily: Duration::from_hours(90 * 24),
    };
    let thin =
        async |now| retention::thin(objects, &uuid(), &kept, now).await.map_err(|e| words(&e)).unwrap();
    thin(now()).await;
    let left = async || -> BTreeSet<String> {
        let keys = objects.list("").await.unwrap();
        keys.iter()
            .filter_map(|key| Some(key.strip_prefix("backups/1/")?.split_once('/')?.0.to_owned()))
            .collect()
    };
    let of = |chain: &ChainName| chain.to_string().split_once('/').unwrap().1.to_owned();
    let first = left().await;
    for (chain, stays) in chains.iter().zip([true, false, false, true, true]).chain([(&unfinished, true)]) {
        assert_eq!(first.contains(&of(chain)), stays, "{chain}: {first:?}");
    }
    // A day on, what nobody finished is nobody's.
    thin(now() + 2 * DAY).await;
    assert!(!left().await.contains(&of(&unfinished)));
    assert!(objects.get("charter.json").await.unwrap().is_some());
}

#[tokio::test]
async fn one_of_two_keeps_the_backups_and_the_other_goes_on_with_the_same_chain() {
    let rig = Rig::new().await;
    rig.write(0).await;
    let (one, two) = (rig.keeper(), rig.keeper());
    rig.permit(&one, 1);
    let first = until(&one, "the first backup", |told| told.newest.is_some() && told.shipped.is_some()).await;
    assert_eq!(first.keeping, Some(Keeping::Here));
    rig.permit(&two, 2);
    until(&two, "who keeps them", |told| told.keeping == Some(Keeping::Elsewhere { by: instance(1) })).await;
    // An operator asks for one more; then the first machine leaves.
    let wanted = rig.etcd().want_backup(now()).await.unwrap();
    let asked_for =
        |told: &BackupProgress| told.newest.as_ref().is_some_and(|newest| newest.revision >= wanted);
    let second = until(&one, "the one that was asked for", asked_for).await;
    let last = rig.write(1).await;
    until(&one, "all of it", |told| told.shipped >= Some(last) && told.unshipped_since.is_none()).await;
    one.forbid();
    let after = until(&two, "the other", |told| told.shipped >= Some(last)).await;
    assert_eq!(
        (after.keeping, &after.newest),
        (Some(Keeping::Here), &second.newest),
        "no new one was needed"
    );
    let last = rig.write(2).await;
    until(&two, "what came since", |told| told.shipped >= Some(last)).await;
    let point = rig.choose(read::UpTo::Newest).await.unwrap();
    assert_eq!((Some(&point.chain), point.revision >= last), (second.newest.as_ref(), true));
    assert_eq!(point.passed_over, Vec::<String>::new());
    until(&one, "the end of the first", |told| told.keeping.is_none()).await;
}
