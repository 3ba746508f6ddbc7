//! Health checks, made as load balancers make them.
//!
//! The certificate of a target is not verified: a load balancer has no authority to do it by. HTTPS is
//! asked by TLS 1.2, and a classic load balancer, which exchanges keys by RSA alone, can't ask a target
//! with an ECDSA certificate at all.
//! Sources: "Health checks for Network Load Balancer target groups", user guide; "Cipher suite for
//! back-end connections", user guide of classic load balancers.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::version::TLS12;
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::connect;
use crate::lab::region::server::Shared;
use crate::lab::region::world::{BalancerKind, CheckProtocol, CheckSpec, Probe};

/// The longest first line of an answer.
const LONGEST: u64 = 1024;

/// Makes health checks.
#[derive(Clone)]
pub(super) struct Prober(TlsConnector);

impl Prober {
    pub(super) fn new() -> Option<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let any = Arc::new(AnyCertificate(Arc::clone(&provider)));
        match ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS12]) {
            Ok(builder) => {
                let config = builder.dangerous().with_custom_certificate_verifier(any).with_no_client_auth();
                Some(Self(TlsConnector::from(Arc::new(config))))
            }
            Err(error) => {
                tracing::error!(%error, "load balancers have no TLS");
                None
            }
        }
    }

    /// Checks a target again and again, and tells the world each time.
    pub(super) async fn run(self, shared: Shared, probe: Probe) {
        let plan = shared.with(|world| {
            let pool = world.view().pools.get(&probe.pool)?;
            let balancer = world.view().balancers.values().find(|b| b.pool_key == probe.pool)?;
            Some((pool.spec.check.clone(), pool.kind, balancer.address))
        });
        // It went away; so does this task.
        let Some((check, kind, source)) = plan else { return };
        let mut ticks = tokio::time::interval(Duration::from_millis(check.interval_ms.max(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let patience = Duration::from_millis(check.timeout_ms);
            let outcome =
                tokio::time::timeout(patience, self.check(&check, kind, source.into(), &probe)).await;
            let outcome = outcome.unwrap_or_else(|_| Err("Request timed out".to_owned()));
            shared.change(|world| world.probed(&probe, outcome));
        }
    }

    async fn check(
        &self,
        check: &CheckSpec,
        kind: BalancerKind,
        source: std::net::IpAddr,
        probe: &Probe,
    ) -> Result<(), String> {
        let words = |error: std::io::Error| format!("Health checks failed: {error}");
        let stream = connect(source, probe.address).await.map_err(words)?;
        let status = match check.protocol {
            CheckProtocol::Tcp => return Ok(()),
            CheckProtocol::Http => status(stream, check, probe).await,
            CheckProtocol::Https if kind == BalancerKind::Classic => {
                return Err("Health checks failed: no cipher suite in common".to_owned());
            }
            CheckProtocol::Https => {
                let name = ServerName::from(probe.address.ip());
                let stream = self.0.connect(name, stream).await.map_err(words)?;
                status(stream, check, probe).await
            }
        };
        match status.map_err(words)? {
            200..=399 => Ok(()),
            other => Err(format!("Health checks failed with these codes: [{other}]")),
        }
    }
}

/// Asks for the path and reads the answer's status.
async fn status(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    check: &CheckSpec,
    probe: &Probe,
) -> std::io::Result<u16> {
    let (path, host) = (&check.path, probe.address);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ELB-HealthChecker/2.0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut line = Vec::new();
    let mut answer = stream.take(LONGEST);
    while !line.contains(&b'\n') {
        if answer.read_buf(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let text = String::from_utf8_lossy(&line);
    let status = text.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    status.and_then(|status| status.trim().parse().ok()).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

/// Takes every certificate, whose holder must have its key all the same.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
