//! etcd for real: our configuration, our certificates and our client, against the program.
//!
//! Every test has loopback addresses of its own and a directory of its own; what it started is
//! killed by its id when the test ends, however it ends.

mod backup;
mod care;

use std::collections::BTreeSet;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use quorate::etcd::{ClusterClient, EtcdError, LockName, Paths, TlsFiles, Tuning, launch, render};
use quorate::model::machine::{client_url, peer_url};
use quorate::model::{
    Charter, ClusterName, ClusterUuid, ClusterView, EtcdLaunch, EtcdVersion, Fact, Founder, Generation,
    InstanceId, LaunchState, MemberId, Nonce, Slot, SlotRecord,
};
use quorate::pki::{self, EtcdAuthority, LeafRequest};

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// etcd's program: as given, from the PATH, or as `scripts/install-tools` puts it.
fn program() -> PathBuf {
    let given = std::env::var_os("QUORATE_ETCD").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join("etcd"));
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin/etcd");
    given
        .into_iter()
        .chain(on_path)
        .chain([installed])
        .find(|program| program.is_file())
        .expect("no etcd is installed: run scripts/install-tools")
}

fn version() -> EtcdVersion {
    let output = Command::new(program()).arg("--version").output().expect("etcd --version runs");
    let text = String::from_utf8(output.stdout).expect("etcd --version prints text");
    let word = text.lines().next().and_then(|line| line.rsplit(' ').next()).expect("etcd prints its version");
    word.parse().expect("etcd's version is a version")
}

/// The present, in milliseconds since 1970.
fn now() -> i64 {
    let now = time::OffsetDateTime::now_utc();
    i64::try_from(now.unix_timestamp_nanos() / 1_000_000).expect("a time of this age")
}

/// A network of this test's own: tests run at the same time, and so may whole test runs.
struct Network([u8; 3]);

impl Network {
    fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let run = u8::try_from(std::process::id() % 64).expect("less than 64");
        Self([127, 64 + run, NEXT.fetch_add(1, Ordering::Relaxed)])
    }

    fn address(&self, host: u8) -> Ipv4Addr {
        let Self([a, b, c]) = *self;
        Ipv4Addr::new(a, b, c, host)
    }
}

/// A machine with a data directory, leaves and, at times, a running etcd.
struct Node {
    dir: PathBuf,
    launch: EtcdLaunch,
    process: Option<Child>,
}

impl Node {
    fn new(dir: PathBuf, authority: &EtcdAuthority, launch: EtcdLaunch) -> Self {
        let node = Self { dir, launch, process: None };
        node.issue(authority);
        node
    }

    fn issue(&self, authority: &EtcdAuthority) {
        let request = LeafRequest { slot: Some(self.launch.slot), address: self.launch.address, now: now() };
        pki::issue(authority, &self.pki(), request).expect("leaves are issued");
    }

    fn pki(&self) -> PathBuf {
        self.dir.join("pki")
    }

    fn url(&self) -> String {
        client_url(self.launch.address)
    }

    fn start(&mut self) {
        self.start_edited(|text| text);
    }

    /// Starts it with a configuration that was changed by hand.
    fn start_edited(&mut self, edit: impl FnOnce(String) -> String) {
        let tuning = Tuning { quota_bytes: 64 * 1024 * 1024, ..Tuning::default() };
        let paths = Paths { data: self.dir.join("data"), pki: self.pki() };
        let text = render(&self.launch, &tuning, &paths, version()).expect("the configuration is rendered");
        launch::write(&self.dir, &self.launch, &edit(text)).expect("the configuration is written");
        let log = File::options().create(true).append(true).open(self.dir.join("log")).expect("a log");
        let child = Command::new(program())
            .arg("--config-file")
            .arg(self.dir.join(launch::CONFIG_FILE))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd starts");
        self.process = Some(child);
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("etcd is killed");
            process.wait().expect("etcd has ended");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(15).collect();
            eprintln!(
                "--- the last of {}, newest first\n{}",
                self.launch.slot.member_name(),
                last.join("\n")
            );
        }
        self.kill();
    }
}

/// Some machines, one authority.
struct Lab {
    dir: tempfile::TempDir,
    network: Network,
    authority: EtcdAuthority,
}

impl Lab {
    fn new() -> Self {
        let authority = EtcdAuthority::create(&name(), now()).expect("an authority is made");
        Self { dir: tempfile::tempdir().expect("a directory"), network: Network::new(), authority }
    }

    fn address(&self, host: u8) -> Ipv4Addr {
        self.network.address(host)
    }

    /// Machines 1 to `size`, configured to found a cluster together, not started.
    fn founders(&self, size: u8) -> Vec<Node> {
        let initial: Vec<_> =
            Slot::all(size).map(|slot| (slot.member_name(), peer_url(self.address(slot.number())))).collect();
        Slot::all(size)
            .map(|slot| self.node(slot.number(), slot, Generation(1), LaunchState::New, initial.clone()))
            .collect()
    }

    fn node(
        &self,
        host: u8,
        slot: Slot,
        generation: Generation,
        state: LaunchState,
        initial_cluster: Vec<(String, String)>,
    ) -> Node {
        let address = self.address(host);
        let launch = EtcdLaunch { slot, uuid: uuid(), generation, address, state, initial_cluster };
        Node::new(self.dir.path().join(host.to_string()), &self.authority, launch)
    }

    /// One machine that is a cluster by itself, started.
    async fn single(&self, host: u8, generation: Generation) -> Node {
        let initial = vec![(slot(1).member_name(), peer_url(self.address(host)))];
        let mut node = self.node(host, slot(1), generation, LaunchState::New, initial);
        node.start();
        formed(&client(&[&node])).await;
        node
    }
}

fn client(nodes: &[&Node]) -> ClusterClient {
    let first = nodes.first().expect("a node");
    ClusterClient::new(TlsFiles::in_directory(&first.pki()), nodes.iter().map(|node| node.url()).collect())
}

fn name() -> ClusterName {
    "lab".parse().expect("a name")
}

fn uuid() -> ClusterUuid {
    "0d8f6a10-1111-4222-8333-444455556666".parse().expect("a UUID")
}

fn slot(number: u8) -> Slot {
    number.try_into().expect("a slot")
}

fn instance(number: u8) -> InstanceId {
    format!("i-0000000{number}").parse().expect("an instance")
}

fn charter(generation: u64) -> Charter {
    let founder = Founder {
        slot: slot(1),
        volume: "vol-00000001".parse().expect("a volume"),
        instance: instance(1),
        peer_url: "https://10.0.0.1:2380".into(),
        started: Some(1),
    };
    Charter {
        cluster: name(),
        uuid: uuid(),
        region: "eu-west-1".parse().expect("a region"),
        generation: Generation(generation),
        zones: vec!["eu-west-1a".parse().expect("a zone")],
        founders: vec![founder],
        recovery: None,
        nonce: "n".parse::<Nonce>().expect("a nonce"),
    }
}

fn record(member: Option<MemberId>) -> SlotRecord {
    SlotRecord {
        volume: "vol-00000001".parse().expect("a volume"),
        instance: instance(1),
        peer_url: "https://10.0.0.1:2380".into(),
        member,
    }
}

/// Tries until it succeeds; fails at once on what trying again can't help.
async fn retried<T>(mut attempt: impl AsyncFnMut() -> Result<T, EtcdError>) -> T {
    let mut last = None;
    let tries = async {
        loop {
            match attempt().await {
                Ok(value) => return value,
                Err(error) if error.is_retryable() => last = Some(error),
                Err(error) => panic!("{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, tries).await;
    done.unwrap_or_else(|_| panic!("still after {PATIENCE:?}: {last:?}"))
}

/// Looks until what is seen is what is waited for.
async fn seen(client: &ClusterClient, what: &str, test: impl Fn(&ClusterView) -> bool) -> ClusterView {
    let mut last = None;
    let looks = async {
        loop {
            match client.observe(None).await {
                Ok(view) if test(&view) => return view,
                other => last = Some(other),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, looks).await;
    done.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}, but {last:?}"))
}

fn all_healthy(view: &ClusterView) -> bool {
    view.members.values().all(|member| member.healthy == Fact::Known(true)) && view.leader.is_some()
}

async fn formed(client: &ClusterClient) -> ClusterView {
    seen(client, "forming", all_healthy).await
}

fn member_named(view: &ClusterView, slot: Slot) -> MemberId {
    let name = slot.member_name();
    *view.members.iter().find(|(_, member)| member.name == name).expect("a member of that name").0
}

#[tokio::test]
async fn three_members_form_with_our_configuration_and_certificates_and_the_view_is_exact() {
    let lab = Lab::new();
    let mut nodes = lab.founders(3);
    nodes.iter_mut().for_each(Node::start);
    let client = client(&nodes.iter().collect::<Vec<_>>());
    let view = formed(&client).await;
    assert_eq!(view.members.len(), 3);
    for node in &nodes {
        let id = member_named(&view, node.launch.slot);
        assert_eq!(view.members[&id].peer_urls, [peer_url(node.launch.address)]);
        assert!(!view.members[&id].learner);
        let own = client.own(&node.url()).await.unwrap();
        assert_eq!((own.member, own.learner, own.in_sync), (id, false, true));
    }
    assert!(view.members.contains_key(&view.leader.unwrap()));
    assert_eq!((&view.charter, view.records.len(), &view.lock), (&None, 0, &None));

    client.copy_charter(&charter(1)).await.unwrap();
    let id = member_named(&view, slot(2));
    client.record_slot(slot(1), None, &record(None)).await.unwrap();
    client.record_slot(slot(2), None, &record(Some(id))).await.unwrap();
    // Written again it is what it is, and over another one than was read it is not written.
    client.record_slot(slot(1), None, &record(None)).await.unwrap();
    for from in [None, Some(&record(None))] {
        let raced = client.record_slot(slot(2), from, &record(Some(MemberId(7)))).await.unwrap_err();
        assert!(matches!(raced, EtcdError::Raced { .. }), "{raced}");
    }
    client.record_slot(slot(1), Some(&record(None)), &record(Some(id))).await.unwrap();
    client.record_slot(slot(1), Some(&record(Some(id))), &record(None)).await.unwrap();
    client.take_lock(LockName::Membership, &instance(1)).await.unwrap();
    let view = client.observe(Some((&uuid(), Generation(1)))).await.unwrap();
    assert_eq!(view.charter, Some(charter(1)));
    assert_eq!(view.records, [(slot(1), record(None)), (slot(2), record(Some(id)))].into());
    assert_eq!(view.lock, Some(instance(1)));
    client.release_lock(LockName::Membership, &instance(1)).await.unwrap();

    nodes[2].kill();
    let view = seen(&client, "one member is silent", |view| {
        view.members.values().filter(|member| member.healthy == Fact::Known(true)).count() == 2
    })
    .await;
    let silent = &view.members[&member_named(&view, slot(3))];
    assert!(matches!(silent.healthy, Fact::Unknown(_)), "{silent:?}");
    assert_eq!(view.lock, None);
}

#[tokio::test]
async fn a_founder_that_never_ran_has_no_name_and_without_a_quorum_every_call_is_an_error() {
    let lab = Lab::new();
    let mut nodes = lab.founders(3);
    nodes[0].start();
    nodes[1].start();
    let client = client(&nodes.iter().collect::<Vec<_>>());
    let view = seen(&client, "two of three", |view| {
        view.members.values().filter(|member| member.healthy == Fact::Known(true)).count() == 2
    })
    .await;
    let idle: Vec<_> = view.members.values().filter(|member| !member.has_started()).collect();
    assert_eq!(idle.len(), 1);
    assert_eq!(idle[0].peer_urls, [peer_url(nodes[2].launch.address)]);
    assert!(matches!(idle[0].healthy, Fact::Unknown(_)));
    // It has a vote, and may have used it: it is not a learner to be taken over.
    client.take_lock(LockName::Membership, &instance(1)).await.unwrap();
    let taken = client.add_learner(&instance(1), &peer_url(nodes[2].launch.address)).await;
    assert!(matches!(taken, Err(EtcdError::PeerUrlTaken { .. })), "{taken:?}");

    nodes[1].kill();
    let id = member_named(&view, slot(1));
    let (one, record, charter) = (instance(1), record(None), charter(1));
    let (view, added, promoted, removed, moved, taken, released, recorded, copied) = tokio::join!(
        client.observe(None),
        client.add_learner(&one, "https://127.0.0.99:2380"),
        client.promote(&one, id),
        client.remove(&one, MemberId(1)),
        client.update_peer_url(id, "https://127.0.0.99:2380"),
        client.take_lock(LockName::Membership, &one),
        client.release_lock(LockName::Membership, &one),
        client.record_slot(slot(1), None, &record),
        client.copy_charter(&charter),
    );
    let errors =
        [view.map(drop), added.map(drop), promoted, removed, moved, taken, released, recorded, copied];
    for error in errors.map(Result::unwrap_err) {
        assert!(matches!(error, EtcdError::NoQuorum { .. }) && error.is_retryable(), "{error:?}");
        for node in &nodes {
            assert!(error.to_string().contains(&node.url()), "{error}");
        }
    }
    // The member itself can still be asked who it is.
    assert_eq!(client.own(&nodes[0].url()).await.unwrap().member, id);
}

#[tokio::test]
async fn a_learner_is_added_promoted_moved_and_removed() {
    let lab = Lab::new();
    let first = lab.single(1, Generation(1)).await;
    let client = client(&[&first]);
    let holder = instance(1);
    client.take_lock(LockName::Membership, &holder).await.unwrap();

    let url = peer_url(lab.address(2));
    let id = retried(async || client.add_learner(&holder, &url).await).await;
    assert_eq!(client.add_learner(&holder, &url).await.unwrap(), id, "the same learner again");
    let early = client.promote(&holder, id).await;
    assert!(matches!(&early, Err(error @ EtcdError::NotInSync { .. }) if error.is_retryable()), "{early:?}");
    let absent = client.promote(&holder, MemberId(7)).await;
    assert!(matches!(absent, Err(EtcdError::NoSuchMember { .. })), "{absent:?}");

    let members =
        vec![(slot(1).member_name(), peer_url(first.launch.address)), (slot(2).member_name(), url.clone())];
    let mut second = lab.node(2, slot(2), Generation(1), LaunchState::Existing, members);
    second.start();
    client.set_endpoints(vec![second.url(), first.url()]);
    let own = retried(async || client.own(&second.url()).await).await;
    assert_eq!((own.member, own.learner), (id, true));
    let learner = seen(&client, "a healthy learner", all_healthy).await;
    assert!(learner.members[&id].learner, "{learner:?}");
    let taken = client.add_learner(&holder, &url).await;
    assert!(matches!(taken, Err(EtcdError::PeerUrlTaken { .. })), "it has run: {taken:?}");

    retried(async || client.promote(&holder, id).await).await;
    client.promote(&holder, id).await.unwrap();
    let view = seen(&client, "two voters", all_healthy).await;
    assert!(!view.members[&id].learner);
    let own = retried(async || client.own(&second.url()).await).await;
    assert_eq!((own.member, own.learner, own.in_sync), (id, false, true));

    // The same data at another address are the same member.
    let moved = peer_url(lab.address(3));
    client.update_peer_url(id, &moved).await.unwrap();
    client.update_peer_url(id, &moved).await.unwrap();
    let taken = client.update_peer_url(id, &peer_url(first.launch.address)).await;
    assert!(matches!(taken, Err(EtcdError::PeerUrlTaken { .. })), "{taken:?}");
    second.kill();
    second.launch.address = lab.address(3);
    second.issue(&lab.authority);
    second.start();
    client.set_endpoints(vec![first.url(), second.url()]);
    let view = seen(&client, "the member is back elsewhere", all_healthy).await;
    assert_eq!(view.members[&id].peer_urls, [moved]);
    assert_eq!(client.own(&second.url()).await.unwrap().member, id);

    for _ in 0..2 {
        retried(async || client.remove(&holder, id).await).await;
    }
    let view = seen(&client, "one member is left", all_healthy).await;
    assert_eq!(view.members.len(), 1);
    assert!(!view.members.contains_key(&id));
}

#[tokio::test]
async fn members_are_changed_by_the_holder_of_the_lock_only() {
    let lab = Lab::new();
    let node = lab.single(1, Generation(1)).await;
    let client = client(&[&node]);
    let (one, two) = (instance(1), instance(2));
    client.take_lock(LockName::Membership, &one).await.unwrap();
    client.take_lock(LockName::Membership, &one).await.unwrap();
    let held = client.take_lock(LockName::Membership, &two).await;
    assert!(matches!(&held, Err(EtcdError::LockHeld { holder }) if *holder == one), "{held:?}");

    let url = peer_url(lab.address(2));
    let refused = client.add_learner(&two, &url).await;
    assert!(matches!(refused, Err(EtcdError::LockLost { holder: Some(_), .. })), "{refused:?}");
    client.release_lock(LockName::Membership, &two).await.unwrap();
    assert_eq!(client.observe(None).await.unwrap().lock, Some(one.clone()), "it was not two's to release");

    client.release_lock(LockName::Membership, &one).await.unwrap();
    let id = client.observe(None).await.unwrap().leader.unwrap();
    let refused = client.add_learner(&one, &url).await;
    assert!(matches!(refused, Err(EtcdError::LockLost { holder: None, .. })), "{refused:?}");
    let refused = client.remove(&one, id).await;
    assert!(matches!(refused, Err(EtcdError::LockLost { .. })), "{refused:?}");
    assert_eq!(client.observe(None).await.unwrap().members.len(), 1);

    // Of those who take it at the same moment one has it.
    let (first, second) = tokio::join!(
        client.take_lock(LockName::Membership, &one),
        client.take_lock(LockName::Membership, &two)
    );
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    let holder = if first.is_ok() { one } else { two };
    assert_eq!(client.observe(None).await.unwrap().lock, Some(holder.clone()));

    // When its lease has ended, it is nobody's.
    let mut raw = raw(&node).await;
    let lease = raw.get("/quorate/membership", None).await.unwrap().kvs()[0].lease();
    raw.lease_revoke(lease).await.unwrap();
    let refused = client.add_learner(&holder, &url).await;
    assert!(matches!(refused, Err(EtcdError::LockLost { holder: None, .. })), "{refused:?}");
    client.take_lock(LockName::Membership, &instance(3)).await.unwrap();
}

/// A client without any of ours, for what ours can't do.
async fn raw(node: &Node) -> etcd_client::Client {
    let read = |name: &str| std::fs::read(node.pki().join(name)).expect("a certificate or key");
    let tls = etcd_client::TlsOptions::new()
        .ca_certificate(etcd_client::Certificate::from_pem(read("ca.crt")))
        .identity(etcd_client::Identity::from_pem(read("client.crt"), read("client.key")));
    let options = etcd_client::ConnectOptions::new().with_tls(tls);
    etcd_client::Client::connect([node.url()], Some(options)).await.expect("a client")
}

#[tokio::test]
async fn an_endpoint_of_another_generation_is_passed_over() {
    let lab = Lab::new();
    let (old, new) = tokio::join!(lab.single(1, Generation(1)), lab.single(2, Generation(2)));
    client(&[&old]).copy_charter(&charter(1)).await.unwrap();
    client(&[&new]).copy_charter(&charter(2)).await.unwrap();

    let both = client(&[&old, &new]);
    for generation in [2, 1, 2] {
        let view = both.observe(Some((&uuid(), Generation(generation)))).await.unwrap();
        assert_eq!(view.charter, Some(charter(generation)));
        // What is expected holds for changes, too.
        both.record_slot(slot(1), None, &record(Some(MemberId(generation)))).await.unwrap();
        let view = both.observe(Some((&uuid(), Generation(generation)))).await.unwrap();
        assert_eq!(view.records[&slot(1)].member, Some(MemberId(generation)));
    }
    let error = both.observe(Some((&uuid(), Generation(3)))).await.unwrap_err().to_string();
    for part in [old.url(), new.url(), "generation 1".into(), "generation 2".into()] {
        assert!(error.contains(&part), "{error}");
    }
    let other = "ffffffff-1111-4222-8333-444455556666".parse().unwrap();
    let error = both.observe(Some((&other, Generation(2)))).await.unwrap_err();
    assert!(matches!(error, EtcdError::NoQuorum { .. }), "{error:?}");
}

#[tokio::test]
async fn a_copy_of_the_charter_is_never_replaced_by_an_earlier_or_another_clusters() {
    let lab = Lab::new();
    let node = lab.single(1, Generation(2)).await;
    let client = client(&[&node]);
    client.copy_charter(&charter(2)).await.unwrap();
    let earlier = client.copy_charter(&charter(1)).await;
    assert!(matches!(earlier, Err(EtcdError::LaterCharter { .. })), "{earlier:?}");
    let other = Charter { uuid: "ffffffff-1111-4222-8333-444455556666".parse().unwrap(), ..charter(3) };
    let foreign = client.copy_charter(&other).await;
    assert!(matches!(foreign, Err(EtcdError::ForeignCharter { .. })), "{foreign:?}");
    assert_eq!(client.observe(None).await.unwrap().charter, Some(charter(2)));
    client.copy_charter(&charter(3)).await.unwrap();
    assert_eq!(client.observe(None).await.unwrap().charter, Some(charter(3)));

    let mut raw = raw(&node).await;
    raw.put("/quorate/charter", "{", None).await.unwrap();
    let error = client.observe(None).await.unwrap_err();
    assert!(error.to_string().contains("/quorate/charter"), "damage is not absence: {error}");
}

/// The local ports of the connections to a machine's clients' port.
/// Source of the format: the kernel's `Documentation/networking/proc_net_tcp.rst`.
fn connections(to: Ipv4Addr) -> BTreeSet<String> {
    let remote = format!("{:08X}:{:04X}", u32::from_le_bytes(to.octets()), 2379);
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel lists its connections");
    table
        .lines()
        .filter_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [_, local, there, "01", ..] if there == remote => Some(local.to_owned()),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn connections_are_kept_from_look_to_look_until_the_certificates_change() {
    let lab = Lab::new();
    let node = lab.single(1, Generation(1)).await;
    let address = node.launch.address;
    let client = client(&[&node]);
    client.observe(None).await.unwrap();
    let first = connections(address);
    assert!(!first.is_empty());
    for _ in 0..5 {
        client.observe(None).await.unwrap();
        client.own(&node.url()).await.unwrap();
    }
    // Only a connection made before this client's may have gone meanwhile.
    let now = connections(address);
    assert!(!now.is_empty() && now.is_subset(&first), "a look made a new connection: {now:?} {first:?}");
    node.issue(&lab.authority);
    client.observe(None).await.unwrap();
    let second = connections(address);
    assert!(!second.is_subset(&first), "{second:?} {first:?}");
}

#[tokio::test]
async fn who_has_another_authority_is_refused_even_on_a_connection_that_was_good() {
    let lab = Lab::new();
    let node = lab.single(1, Generation(1)).await;
    let files = lab.dir.path().join("agent");
    let request = LeafRequest { slot: None, address: node.launch.address, now: now() };
    pki::issue(&lab.authority, &files, request).unwrap();
    let client = ClusterClient::new(TlsFiles::in_directory(&files), vec![node.url()]);
    client.observe(None).await.unwrap();

    let other = EtcdAuthority::create(&name(), now()).unwrap();
    pki::issue(&other, &files, request).unwrap();
    let error = client.observe(None).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "the client refuses the server: {error}");
    assert!(client.own(&node.url()).await.is_err());

    // The server refuses the client, too.
    pki::issue(&lab.authority, &files, request).unwrap();
    client.observe(None).await.unwrap();
    let stranger = lab.dir.path().join("stranger");
    pki::issue(&other, &stranger, request).unwrap();
    for name in ["client.crt", "client.key"] {
        std::fs::copy(stranger.join(name), files.join(name)).unwrap();
    }
    let error = client.observe(None).await.unwrap_err();
    assert!(matches!(error, EtcdError::NoQuorum { .. }), "{error:?}");
}
