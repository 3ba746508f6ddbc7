//! The simulated region's load balancers at work, held to AWS's user guides: moto has none that
//! listens.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use quorate::lab::region::{
    BalancerKind, BalancerSpec, CheckProtocol, CheckSpec, GroupSpec, PoolHealth, PoolSpec, World,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::endpoints::{Endpoints, SOON, ZONES, tags};

const PORT: u16 = 6443;

fn spec(kind: BalancerKind, protocol: CheckProtocol) -> BalancerSpec {
    let check = CheckSpec { protocol, interval_ms: 50, ..CheckSpec::default() };
    let pool = PoolSpec { port: PORT, check, deregistration_delay_ms: 1_000, ..PoolSpec::default() };
    BalancerSpec { name: "lb".into(), kind, internal: true, port: PORT, pool, tags: tags(&[]) }
}

fn address(e: &Endpoints) -> SocketAddr {
    e.region().with(|w| w.view().balancers["lb"].listens_at())
}

fn ip_of(e: &Endpoints, id: &str) -> Ipv4Addr {
    e.region().with(|w| w.view().instances[id].private_ip)
}

fn health(world: &World, pool: &str, id: &str) -> Option<PoolHealth> {
    let mut targets = world.view().pools[pool].targets.iter();
    targets.find(|t| t.instance.as_str() == id).map(|t| t.health.clone())
}

async fn until(e: &Endpoints, pool: &str, id: &str, fits: impl Fn(Option<PoolHealth>) -> bool) {
    let fitting = e.region().wait_until(SOON, |w| fits(health(w, pool, id))).await;
    assert!(fitting, "{:?}", e.region().with(|w| health(w, pool, id)));
}

#[expect(clippy::needless_pass_by_value, reason = "passed as a predicate of what is looked up")]
fn is_unhealthy(health: Option<PoolHealth>) -> bool {
    matches!(health, Some(PoolHealth::Unhealthy { .. }))
}

/// A server at an instance's address that says its address to whoever connects, then whatever it
/// hears. Its connections end with it.
struct Echo(tokio::task::JoinHandle<()>);

impl Drop for Echo {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn echo(ip: Ipv4Addr) -> Echo {
    let listener = TcpListener::bind((ip, PORT)).await.unwrap();
    Echo(tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, from)) = listener.accept().await {
            connections.spawn(async move {
                let greeting = format!("{ip} to {}\n", from.ip());
                if stream.write_all(greeting.as_bytes()).await.is_ok() {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await.ok();
                }
            });
        }
    }))
}

/// The first line of what comes.
async fn line(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut line = String::new();
    while !line.ends_with('\n') {
        match stream.read_u8().await? {
            byte if byte.is_ascii() => line.push(char::from(byte)),
            _ => return Err(std::io::ErrorKind::InvalidData.into()),
        }
    }
    Ok(line.trim_end().to_owned())
}

async fn greeted(at: SocketAddr) -> std::io::Result<String> {
    line(&mut TcpStream::connect(at).await?).await
}

async fn still_echoes(stream: &mut TcpStream) -> bool {
    stream.write_all(b"x\n").await.is_ok() && line(stream).await.is_ok_and(|line| line == "x")
}

/// Waits for the end of a connection on which nothing is said.
async fn ended(stream: &mut TcpStream) -> std::io::Result<usize> {
    tokio::time::timeout(SOON, stream.read(&mut [0; 16])).await.expect("it ends in time")
}

#[tokio::test]
async fn a_target_is_healthy_by_what_readyz_answers_over_tls() {
    let e = Endpoints::simulated_apart().await;
    let pool = e.balancer(spec(BalancerKind::Network, CheckProtocol::Https)).await;
    let id = e.instance(ZONES[0], &tags(&[])).await;
    let made = rcgen::generate_simple_self_signed(vec!["whoever".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let status = Arc::new(AtomicU16::new(500));
    let listener = TcpListener::bind((ip_of(&e, &id), PORT)).await.unwrap();
    let answers = Arc::clone(&status);
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.is_ok_and(|n| n > 0)
            {
            }
            let asked = request.starts_with(b"GET /readyz HTTP/1.1\r\n");
            let status = if asked { answers.load(Ordering::Relaxed) } else { 404 };
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.ok();
            stream.shutdown().await.ok();
        }
    });
    e.region().change(|w| w.register_target(&pool, &id, None)).unwrap();
    let says_500 = |health| matches!(health, Some(PoolHealth::Unhealthy { why }) if why.contains("[500]"));
    until(&e, &pool, &id, says_500).await;
    status.store(399, Ordering::Relaxed);
    until(&e, &pool, &id, |health| health == Some(PoolHealth::Healthy)).await;
    status.store(401, Ordering::Relaxed);
    until(&e, &pool, &id, is_unhealthy).await;
    server.abort();
    let refused = |health| matches!(health, Some(PoolHealth::Unhealthy { why }) if why.contains("refused"));
    until(&e, &pool, &id, refused).await;
}

#[tokio::test]
async fn connections_go_to_healthy_targets_in_turn() {
    let e = Endpoints::simulated_apart().await;
    let pool = e.balancer(spec(BalancerKind::Network, CheckProtocol::Tcp)).await;
    let at = address(&e);
    assert!(greeted(at).await.is_err(), "there is no target yet");
    let mut ids = Vec::new();
    for zone in ZONES {
        let id = e.instance(zone, &tags(&[])).await;
        e.region().change(|w| w.register_target(&pool, &id, None)).unwrap();
        ids.push(id);
    }
    let mut servers = Vec::new();
    for id in &ids[..2] {
        servers.push(echo(ip_of(&e, id)).await);
        until(&e, &pool, id, |health| health == Some(PoolHealth::Healthy)).await;
    }
    until(&e, &pool, &ids[2], is_unhealthy).await;
    let mut greetings = Vec::new();
    for _ in 0..4 {
        greetings.push(greeted(at).await.unwrap());
    }
    assert_ne!(greetings[0], greetings[1]);
    assert_eq!(greetings[..2], greetings[2..]);
    assert!(greetings[0].ends_with(" to 127.0.0.1"), "the client's address is seen: {greetings:?}");
}

#[tokio::test]
async fn when_no_target_is_healthy_all_get_traffic() {
    let e = Endpoints::simulated_apart().await;
    // The servers do not speak HTTP.
    let pool = e.balancer(spec(BalancerKind::Network, CheckProtocol::Http)).await;
    let mut servers = Vec::new();
    for zone in &ZONES[..2] {
        let id = e.instance(zone, &tags(&[])).await;
        servers.push(echo(ip_of(&e, &id)).await);
        e.region().change(|w| w.register_target(&pool, &id, None)).unwrap();
        until(&e, &pool, &id, is_unhealthy).await;
    }
    let first = greeted(address(&e)).await.unwrap();
    let second = greeted(address(&e)).await.unwrap();
    assert_ne!(first, second);
}

#[tokio::test]
async fn a_classic_load_balancer_without_a_healthy_target_refuses() {
    let e = Endpoints::simulated_apart().await;
    let pool = e.balancer(spec(BalancerKind::Classic, CheckProtocol::Tcp)).await;
    let id = e.instance(ZONES[0], &tags(&[])).await;
    e.region().change(|w| w.register_target(&pool, &id, None)).unwrap();
    until(&e, &pool, &id, is_unhealthy).await;
    assert!(greeted(address(&e)).await.is_err());
    let _server = echo(ip_of(&e, &id)).await;
    until(&e, &pool, &id, |health| health == Some(PoolHealth::Healthy)).await;
    let greeting = greeted(address(&e)).await.unwrap();
    assert!(greeting.ends_with(&format!(" to {}", address(&e).ip())), "the client is hidden: {greeting}");
}

#[tokio::test]
async fn a_target_that_is_taken_out_keeps_its_connections_for_the_delay_and_gets_no_more() {
    let e = Endpoints::simulated_apart().await;
    let pool = e.balancer(spec(BalancerKind::Network, CheckProtocol::Tcp)).await;
    let mut servers = Vec::new();
    let mut ids = Vec::new();
    for zone in &ZONES[..2] {
        let id = e.instance(zone, &tags(&[])).await;
        servers.push(echo(ip_of(&e, &id)).await);
        e.region().change(|w| w.register_target(&pool, &id, None)).unwrap();
        until(&e, &pool, &id, |health| health == Some(PoolHealth::Healthy)).await;
        ids.push(id);
    }
    let at = address(&e);
    let going = ip_of(&e, &ids[0]).to_string();
    let mut open = TcpStream::connect(at).await.unwrap();
    while !line(&mut open).await.unwrap().starts_with(&going) {
        open = TcpStream::connect(at).await.unwrap();
    }
    e.region().change(|w| w.deregister_target(&pool, &ids[0], None)).unwrap();
    assert!(still_echoes(&mut open).await);
    for _ in 0..4 {
        assert!(!greeted(at).await.unwrap().starts_with(&going));
    }
    let end = ended(&mut open).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    until(&e, &pool, &ids[0], |health| health.is_none()).await;
}

#[tokio::test]
async fn a_target_does_not_reach_itself_where_clients_addresses_are_preserved() {
    let e = Endpoints::simulated_apart().await;
    let pool = e.balancer(spec(BalancerKind::Network, CheckProtocol::Tcp)).await;
    let id = e.instance(ZONES[0], &tags(&[])).await;
    let ip = ip_of(&e, &id);
    let _server = echo(ip).await;
    e.region().change(|w| w.register_target(&pool, &id, None)).unwrap();
    until(&e, &pool, &id, |health| health == Some(PoolHealth::Healthy)).await;
    let from = async |source: Ipv4Addr| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((source, 0))).unwrap();
        socket.connect(address(&e)).await.unwrap()
    };
    assert_eq!(line(&mut from(Ipv4Addr::LOCALHOST).await).await.unwrap(), format!("{ip} to 127.0.0.1"));
    let mut own = from(ip).await;
    let heard = tokio::time::timeout(Duration::from_millis(500), line(&mut own)).await;
    assert!(heard.is_err(), "it hangs: {heard:?}");
}

#[tokio::test]
async fn connections_are_reset_when_their_target_dies_or_becomes_unhealthy() {
    let e = Endpoints::simulated_apart().await;
    let pool = e.balancer(spec(BalancerKind::Network, CheckProtocol::Tcp)).await;
    let id = e.instance(ZONES[0], &tags(&[])).await;
    let server = echo(ip_of(&e, &id)).await;
    e.region().change(|w| w.register_target(&pool, &id, None)).unwrap();
    until(&e, &pool, &id, |health| health == Some(PoolHealth::Healthy)).await;
    let mut open = TcpStream::connect(address(&e)).await.unwrap();
    line(&mut open).await.unwrap();
    e.region().change(|w| w.kill_instance(&id)).unwrap();
    assert_eq!(ended(&mut open).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    drop(server);
    until(&e, &pool, &id, is_unhealthy).await;
}

#[tokio::test]
async fn a_load_balancer_that_goes_away_takes_its_connections_and_its_address_with_it() {
    let e = Endpoints::simulated_apart().await;
    let pool = e.balancer(spec(BalancerKind::Network, CheckProtocol::Tcp)).await;
    let id = e.instance(ZONES[0], &tags(&[])).await;
    let _server = echo(ip_of(&e, &id)).await;
    e.region().change(|w| w.register_target(&pool, &id, None)).unwrap();
    until(&e, &pool, &id, |health| health == Some(PoolHealth::Healthy)).await;
    let at = address(&e);
    let mut open = TcpStream::connect(at).await.unwrap();
    line(&mut open).await.unwrap();
    e.region().change(|w| w.delete_balancer("lb")).unwrap();
    assert!(!matches!(ended(&mut open).await, Ok(1..)));
    assert!(TcpStream::connect(at).await.is_err());
    let asked = e.agents().await.load_balancers;
    let found = asked.target_groups(&[pool.parse().unwrap()]).await.unwrap();
    assert_eq!(found.unfit[0].why, quorate::model::Unfit::NoListener, "the target group stays");
    e.balancer(spec(BalancerKind::Network, CheckProtocol::Tcp)).await;
}

#[tokio::test]
async fn a_group_registers_instances_in_service_and_takes_out_those_that_leave() {
    let e = Endpoints::simulated_apart().await;
    let pool = e.balancer(spec(BalancerKind::Network, CheckProtocol::Tcp)).await;
    let group =
        GroupSpec { name: "g".into(), desired: 2, max: 2, pools: vec![pool.clone()], ..GroupSpec::default() };
    e.region().change(|w| w.create_group(group)).unwrap();
    let count = |n: usize| {
        let pool = pool.clone();
        move |w: &World| {
            let gone = |health: &PoolHealth| matches!(health, PoolHealth::Draining { .. });
            w.view().pools[&pool].targets.iter().filter(|t| !gone(&t.health)).count() == n
        }
    };
    assert!(e.region().wait_until(SOON, count(2)).await);
    e.region().change(|w| w.set_desired_capacity("g", 1)).unwrap();
    assert!(e.region().with(count(1)), "taken out before it is terminated");
    let drained = |w: &World| w.view().pools[&pool].targets.len() == 1;
    assert!(e.region().wait_until(SOON, drained).await);
}
