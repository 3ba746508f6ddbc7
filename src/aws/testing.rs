//! A server for tests that answers exactly what a test says: also with half an answer, or none.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Access, Clients, Endpoints, StoreLocation};
use crate::model::{ClusterName, Region, Role};

/// The secrets that the clients of tests sign with.
pub(crate) const SECRETS: [&str; 2] = ["secret-of-the-key", "token-of-the-session"];

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// A header's value; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// A field of a form; empty when there is none.
    pub(crate) fn field(&self, name: &str) -> String {
        let body = String::from_utf8_lossy(&self.body).into_owned();
        let value =
            body.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")).map(str::to_owned));
        let mut decoded = Vec::new();
        let value = value.unwrap_or_default().replace('+', " ");
        let mut bytes = value.bytes();
        while let Some(byte) = bytes.next() {
            decoded.push(if byte == b'%' {
                let hex = [bytes.next().unwrap(), bytes.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap()
            } else {
                byte
            });
        }
        String::from_utf8(decoded).unwrap()
    }
}

/// What a request is answered with.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// A status, headers and a body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The connection is closed without an answer.
    Cut,
    /// The head of an answer and a part of its body; then the connection is closed.
    Half,
    /// A status, headers and the first bytes of a body of the length given; then the connection is closed.
    Short(u16, Vec<(&'static str, String)>, Vec<u8>, usize),
    /// The same, and then nothing, for ever.
    Stalled(u16, Vec<(&'static str, String)>, Vec<u8>, usize),
    /// Nothing, for ever.
    Silence,
}

/// An answer with a body.
pub(crate) fn answer(status: u16, body: impl AsRef<[u8]>) -> Reply {
    Reply::Answer(status, Vec::new(), body.as_ref().to_vec())
}

/// S3's form of an error.
pub(crate) fn s3_error(status: u16, code: &str) -> Reply {
    answer(
        status,
        format!("<Error><Code>{code}</Code><Message>said S3</Message><RequestId>R1</RequestId></Error>"),
    )
}

/// EC2's form of an error.
pub(crate) fn ec2_error(status: u16, code: &str, message: &str) -> Reply {
    answer(
        status,
        format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
             <RequestID>R1</RequestID></Response>"
        ),
    )
}

/// A server, until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Request>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// A server whose every request is answered by `handler`.
    pub(crate) async fn start(handler: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let handler = Arc::new(Mutex::new(handler));
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (log, handler) = (Arc::clone(&log), Arc::clone(&handler));
                connections.spawn(async move {
                    serve(stream, |request| {
                        let reply = (handler.lock().unwrap())(&request);
                        log.lock().unwrap().push(request);
                        reply
                    })
                    .await;
                });
            }
        });
        Self { url, seen, task }
    }

    /// The requests so far, in the order of their answers.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// Clients that take this server for all of AWS, and try everything `attempts` times.
    pub(crate) async fn clients(&self, attempts: u32) -> Clients {
        clients(&access(&self.url, attempts)).await
    }

    /// The same, for those who wait for an answer that does not come.
    pub(crate) async fn hasty_clients(&self, attempts: u32) -> Clients {
        clients(&hasty_access(&self.url, attempts)).await
    }
}

async fn clients(access: &Access) -> Clients {
    let region: Region = "eu-west-1".parse().unwrap();
    let location = StoreLocation {
        bucket: "bucket".to_owned(),
        prefix: "some/prefix".to_owned(),
        cluster: cluster(),
        kms_key: None,
    };
    access.clients(&region, Role::ControlPlane, location).await
}

/// The way to one server in place of everything. An attempt may take long: the machine may be busy.
pub(crate) fn access(url: &str, attempts: u32) -> Access {
    access_within(url, attempts, Duration::from_secs(10))
}

/// The same, for those who wait for an answer that does not come.
pub(crate) fn hasty_access(url: &str, attempts: u32) -> Access {
    access_within(url, attempts, Duration::from_millis(500))
}

fn access_within(url: &str, attempts: u32, attempt: Duration) -> Access {
    let [secret, session] = SECRETS;
    Access::to(Endpoints {
        apis: url.to_owned(),
        metadata: url.to_owned(),
        credentials: aws_sdk_ec2::config::Credentials::new(
            "AKIATEST",
            secret,
            Some(session.into()),
            None,
            "test",
        ),
        attempts,
        attempt,
    })
    .unwrap()
}

/// The cluster of all tests.
pub(crate) fn cluster() -> ClusterName {
    "prod".parse().unwrap()
}

async fn serve(mut stream: TcpStream, handle: impl FnOnce(Request) -> Reply) {
    let Some(request) = read(&mut stream).await else { return };
    let bodiless = request.method == "HEAD";
    let mut stalls = false;
    let (status, headers, body, length) = match handle(request) {
        Reply::Answer(status, headers, body) => {
            let length = body.len();
            (status, headers, body, length)
        }
        Reply::Cut => return,
        Reply::Half => (200, vec![("etag", "\"e1\"".to_owned())], b"half".to_vec(), 1000),
        Reply::Short(status, headers, body, length) => (status, headers, body, length),
        Reply::Stalled(status, headers, body, length) => {
            stalls = true;
            (status, headers, body, length)
        }
        Reply::Silence => return std::future::pending().await,
    };
    let mut head = vec![format!("HTTP/1.1 {status} X"), "connection: close".to_owned()];
    // 304 has no body and says no length.
    if status != 304 {
        head.push(format!("content-length: {length}"));
    }
    head.extend(headers.into_iter().map(|(name, value)| format!("{name}: {value}")));
    head.push("\r\n".to_owned());
    let mut bytes = head.join("\r\n").into_bytes();
    if !bodiless {
        bytes.extend(body);
    }
    // Whoever asked may have gone.
    if stream.write_all(&bytes).await.is_err() {
        return;
    }
    if stalls {
        return std::future::pending().await;
    }
    stream.shutdown().await.ok();
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut part = vec![0; 1 << 16];
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => bytes.extend_from_slice(&part[..n]),
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let mut lines = text.lines();
    let mut first = lines.next().unwrap().split(' ').map(str::to_owned);
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    assert!(!headers.contains_key("transfer-encoding"), "this server reads no chunks");
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while bytes.len() < head + 4 + length {
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => bytes.extend_from_slice(&part[..n]),
        }
    }
    Some(Request {
        method: first.next().unwrap(),
        path: first.next().unwrap(),
        headers,
        body: bytes.split_off(head + 4),
    })
}
