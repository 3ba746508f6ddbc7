//! Uploads at once and in parts, where each request may go wrong.

use std::collections::BTreeMap;

use super::*;
use crate::digest::sha256;

/// S3 with one object, written at once or in parts.
#[derive(Debug, Default)]
struct Place {
    object: Option<(Vec<u8>, String)>,
    nonce: String,
    begun: bool,
    parts: BTreeMap<u32, Vec<u8>>,
    aborted: bool,
}

/// S3's name of a request.
fn operation(request: &Request) -> &'static str {
    match (request.method.as_str(), request.path.contains("uploadId="), request.path.contains("uploads")) {
        ("POST", false, true) => "CreateMultipartUpload",
        ("POST", true, _) => "CompleteMultipartUpload",
        ("PUT", true, _) => "UploadPart",
        ("DELETE", true, _) => "AbortMultipartUpload",
        ("PUT", false, _) => "PutObject",
        ("GET", false, _) => "GetObject",
        other => panic!("{other:?}"),
    }
}

fn crc32(bytes: &[u8]) -> String {
    use base64::Engine as _;
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    base64::engine::general_purpose::STANDARD.encode(crc.sum().to_be_bytes())
}

fn etag_of(name: &str) -> Reply {
    Reply::Answer(200, vec![("etag", format!("\"{name}\""))], Vec::new())
}

fn begun() -> Reply {
    answer(200, "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>")
}

fn completed() -> Reply {
    answer(200, "<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>")
}

impl Place {
    fn answer(&mut self, request: &Request) -> Reply {
        let nonce = request.header("x-amz-meta-quorate-upload").to_owned();
        let exists = self.object.is_some() && request.header("if-none-match") == "*";
        match operation(request) {
            "CompleteMultipartUpload" if !self.begun => s3_error(404, "NoSuchUpload"),
            "PutObject" | "CompleteMultipartUpload" if exists => s3_error(412, "PreconditionFailed"),
            "PutObject" => {
                assert_eq!(request.header("x-amz-checksum-crc32"), crc32(&request.body));
                self.object = Some((request.body.clone(), nonce));
                etag_of("whole")
            }
            "CreateMultipartUpload" => {
                (self.begun, self.nonce) = (true, nonce);
                begun()
            }
            "UploadPart" => {
                assert_eq!(request.header("x-amz-checksum-crc32"), crc32(&request.body));
                let number = request.path.split("partNumber=").nth(1).unwrap().split('&').next().unwrap();
                self.parts.insert(number.parse().unwrap(), request.body.clone());
                etag_of(&format!("p{number}"))
            }
            "CompleteMultipartUpload" => {
                let whole: Vec<u8> = std::mem::take(&mut self.parts).into_values().flatten().collect();
                assert_eq!(request.header("x-amz-checksum-crc32"), crc32(&whole));
                assert_eq!(request.header("x-amz-mp-object-size"), whole.len().to_string());
                assert_eq!(request.header("if-none-match"), "*");
                self.object = Some((whole, self.nonce.clone()));
                self.begun = false;
                completed()
            }
            "AbortMultipartUpload" => {
                (self.begun, self.aborted) = (false, true);
                answer(204, "")
            }
            _ => match &self.object {
                None => s3_error(404, "NoSuchKey"),
                Some((bytes, nonce)) => {
                    let headers =
                        vec![("etag", "\"whole\"".to_owned()), ("x-amz-meta-quorate-upload", nonce.clone())];
                    Reply::Answer(200, headers, bytes.clone())
                }
            },
        }
    }
}

type Fates = Vec<(&'static str, Fate)>;

/// An empty store, where the requests of these operations meet these fates in order; all others are served.
async fn place(attempts: u32, mut fates: Fates) -> (Server, ObjectStore, Arc<Mutex<Place>>) {
    let hasty = format!("{fates:?}").contains("Silence");
    let place = Arc::new(Mutex::new(Place::default()));
    let shared = Arc::clone(&place);
    let server = Server::start(move |request| {
        let mut place = shared.lock().unwrap();
        let fate = fates.iter().position(|(of, _)| *of == operation(request)).map(|at| fates.remove(at).1);
        let another = Some((b"another's".to_vec(), "another".to_owned()));
        match fate.unwrap_or(Fate::Served) {
            Fate::Served => place.answer(request),
            Fate::Lost(reply) => reply,
            Fate::ThenLost(reply) => {
                place.answer(request);
                reply
            }
            Fate::ThenOvertaken(reply) => {
                place.answer(request);
                place.object = another;
                reply
            }
            Fate::Overtaken(reply) => {
                place.object = another;
                reply
            }
        }
    })
    .await;
    let clients = if hasty { server.hasty_clients(attempts).await } else { server.clients(attempts).await };
    (server, clients.objects, place)
}

/// Bytes that differ from place to place.
fn bytes(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

/// A part of these tests, which S3 would not take.
const PART: usize = 1 << 16;

/// Little more than a part: two of them.
const LARGE: usize = PART + 5;

fn new(store: &ObjectStore) -> Upload {
    let mut upload = store.upload("backups/k", &[("generation", "3".to_owned())]);
    assert!(upload.part >= 5 << 20, "S3 takes no smaller ones");
    upload.part = PART;
    upload
}

async fn upload(store: &ObjectStore, content: &[u8]) -> Result<Uploaded, ObjectError> {
    let mut upload = new(store);
    for piece in content.chunks(10_007) {
        upload.write(piece).await?;
    }
    upload.finish().await
}

fn operations(server: &Server) -> Vec<&'static str> {
    server.seen().iter().map(operation).collect()
}

/// The last requests of an upload at once, and of one in parts.
fn ends() -> [(Vec<u8>, &'static str); 2] {
    [(bytes(10), "PutObject"), (bytes(LARGE), "CompleteMultipartUpload")]
}

/// The losses that need no waiting.
fn quick_losses() -> Vec<Reply> {
    losses().into_iter().filter(|reply| !matches!(reply, Reply::Silence)).collect()
}

#[tokio::test]
async fn what_fits_into_a_part_is_written_at_once_where_there_is_nothing() {
    for content in [bytes(0), bytes(PART - 1)] {
        let (server, store, place) = place(1, vec![]).await;
        let uploaded = upload(&store, &content).await.unwrap();
        assert_eq!((uploaded.size, uploaded.sha256), (content.len() as u64, sha256(&content)));
        assert_eq!(uploaded.etag, etag("\"whole\""));
        assert_eq!(operations(&server), ["PutObject"]);
        let put = &server.seen()[0];
        assert_eq!((put.header("if-none-match"), put.header("x-amz-meta-generation")), ("*", "3"));
        assert_eq!(place.lock().unwrap().object.as_ref().unwrap().0, content);
    }
}

#[tokio::test]
async fn what_is_larger_is_written_in_parts_and_put_together_where_there_is_nothing() {
    let (server, store, place) = place(1, vec![]).await;
    let content = bytes(2 * PART + 5);
    let uploaded = upload(&store, &content).await.unwrap();
    assert_eq!((uploaded.size, uploaded.etag), (content.len() as u64, etag("\"whole\"")));
    assert_eq!(
        operations(&server),
        ["CreateMultipartUpload", "UploadPart", "UploadPart", "UploadPart", "CompleteMultipartUpload"]
    );
    let begun = &server.seen()[0];
    assert_eq!(begun.header("x-amz-meta-generation"), "3");
    assert_eq!(begun.header("x-amz-checksum-type"), "FULL_OBJECT");
    let list = String::from_utf8(server.seen()[4].body.clone()).unwrap();
    let at = |name: &str| list.find(name).unwrap_or_else(|| panic!("{name}: {list}"));
    assert!(at("p1") < at("p2") && at("p2") < at("p3"), "{list}");
    assert!(place.lock().unwrap().object.as_ref().unwrap().0 == content);
}

#[tokio::test]
async fn a_part_that_fails_is_sent_again() {
    for failure in [s3_error(503, "SlowDown"), s3_error(500, "InternalError"), Reply::Cut] {
        for fate in [Fate::Lost(failure.clone()), Fate::ThenLost(failure)] {
            let (server, store, place) = place(3, vec![("UploadPart", fate.clone())]).await;
            upload(&store, &bytes(LARGE)).await.unwrap();
            let sent = operations(&server).into_iter().filter(|of| *of == "UploadPart").count();
            assert_eq!(sent, 3, "{fate:?}");
            assert!(place.lock().unwrap().object.as_ref().unwrap().0 == bytes(LARGE));
        }
    }
}

#[tokio::test]
async fn an_upload_that_fails_is_ended_and_takes_no_more() {
    for of in ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"] {
        let denied = Fate::Lost(s3_error(403, "AccessDenied"));
        let (_server, store, place) = place(1, vec![(of, denied)]).await;
        let mut upload = new(&store);
        let error = match upload.write(&bytes(2 * PART)).await {
            Ok(()) => upload.finish().await.unwrap_err(),
            Err(error) => {
                assert!(matches!(upload.write(b"x").await, Err(ObjectError::UploadOver { .. })));
                assert!(matches!(upload.finish().await, Err(ObjectError::UploadOver { .. })));
                error
            }
        };
        assert!(matches!(error, ObjectError::AccessDenied { .. }), "{of}: {error:?}");
        let place = place.lock().unwrap();
        assert_eq!((place.aborted, place.object.is_none()), (of != "CreateMultipartUpload", true), "{of}");
    }
}

#[tokio::test]
async fn an_upload_that_can_not_be_ended_says_that_its_parts_are_left() {
    let fates = vec![
        ("UploadPart", Fate::Lost(s3_error(503, "SlowDown"))),
        ("AbortMultipartUpload", Fate::Lost(s3_error(403, "AccessDenied"))),
    ];
    let (_server, store, _) = place(1, fates).await;
    let error = upload(&store, &bytes(LARGE)).await.unwrap_err();
    assert!(matches!(error, ObjectError::PartsLeft { .. }) && error.is_retryable(), "{error:?}");
    let text = chain(&error);
    assert!(text.contains("AccessDenied") && text.contains("SlowDown") && text.contains("still"), "{text}");
}

#[tokio::test]
async fn an_upload_that_is_abandoned_leaves_nothing() {
    let (server, store, place) = place(1, vec![]).await;
    let mut large = new(&store);
    large.write(&bytes(LARGE)).await.unwrap();
    large.abandon().await.unwrap();
    assert!(place.lock().unwrap().aborted);
    let before = server.seen().len();
    let mut small = new(&store);
    small.write(b"x").await.unwrap();
    small.abandon().await.unwrap();
    assert_eq!(server.seen().len(), before, "nothing of it was ever sent");
}

#[tokio::test]
async fn what_is_there_already_is_left_as_it_is() {
    for (content, of) in ends() {
        let fate = Fate::Overtaken(s3_error(412, "PreconditionFailed"));
        let (_server, store, place) = place(1, vec![(of, fate)]).await;
        let error = upload(&store, &content).await.unwrap_err();
        assert!(matches!(error, ObjectError::Exists { .. }) && error.is_exists(), "{error:?}");
        assert!(!error.is_retryable());
        let place = place.lock().unwrap();
        assert_eq!(place.object.as_ref().unwrap().0, b"another's");
        assert_eq!(place.aborted, of != "PutObject");
    }
}

#[tokio::test]
async fn a_lost_answer_to_an_end_that_took_effect_is_an_upload() {
    for loss in quick_losses() {
        for (content, of) in ends() {
            // By one attempt, and by more, of which the next meets what the first one did.
            for attempts in [1, 3] {
                let (_server, store, place) = place(attempts, vec![(of, Fate::ThenLost(loss.clone()))]).await;
                let uploaded = upload(&store, &content).await.unwrap();
                assert_eq!(uploaded.etag, etag("\"whole\""), "{loss:?} {of} {attempts}");
                assert!(!place.lock().unwrap().aborted);
            }
        }
    }
}

#[tokio::test]
async fn silence_after_an_end_that_took_effect_is_an_upload() {
    let silence = Fate::ThenLost(Reply::Silence);
    let (_server, store, _) = place(1, vec![("CompleteMultipartUpload", silence)]).await;
    assert_eq!(upload(&store, &bytes(LARGE)).await.unwrap().etag, etag("\"whole\""));
}

#[tokio::test]
async fn an_upload_that_is_gone_with_its_own_end_is_an_upload() {
    // S3 forgets an upload that it finished: a further attempt hears that there is none.
    let gone = Fate::ThenLost(s3_error(404, "NoSuchUpload"));
    let (_server, store, _) = place(1, vec![("CompleteMultipartUpload", gone)]).await;
    upload(&store, &bytes(LARGE)).await.unwrap();
    let never = Fate::Lost(s3_error(404, "NoSuchUpload"));
    let (_server, store, _) = place(1, vec![("CompleteMultipartUpload", never)]).await;
    let error = upload(&store, &bytes(LARGE)).await.unwrap_err();
    assert!(matches!(error, ObjectError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn an_error_that_comes_as_success_is_an_error() {
    let error = "<Error><Code>InternalError</Code><Message>late</Message></Error>";
    let late = Fate::Lost(answer(200, error));
    let (_server, store, place) = place(1, vec![("CompleteMultipartUpload", late)]).await;
    assert!(upload(&store, &bytes(LARGE)).await.is_err());
    assert!(place.lock().unwrap().object.is_none());
}

#[tokio::test]
async fn a_lost_answer_while_another_wrote_is_no_upload() {
    for loss in quick_losses() {
        for (content, of) in ends() {
            for fate in [Fate::Overtaken(loss.clone()), Fate::ThenOvertaken(loss.clone())] {
                let (_server, store, _) = place(1, vec![(of, fate.clone())]).await;
                let error = upload(&store, &content).await.unwrap_err();
                assert!(error.is_exists(), "{of} {fate:?}: {error:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_lost_answer_with_nothing_there_is_neither_and_the_parts_are_gone() {
    for loss in quick_losses() {
        for (content, of) in ends() {
            let (_server, store, place) = place(1, vec![(of, Fate::Lost(loss.clone()))]).await;
            let error = upload(&store, &content).await.unwrap_err();
            assert!(matches!(error, ObjectError::Unsettled { .. }) && error.is_retryable(), "{error:?}");
            assert_eq!(place.lock().unwrap().aborted, of != "PutObject");
        }
    }
}

#[tokio::test]
async fn a_conflict_at_the_end_is_not_tried_again_with_the_same_parts() {
    let conflict = Fate::Lost(s3_error(409, "ConditionalRequestConflict"));
    let (server, store, place) = place(1, vec![("CompleteMultipartUpload", conflict)]).await;
    let error = upload(&store, &bytes(LARGE)).await.unwrap_err();
    assert!(matches!(error, ObjectError::Conflict { .. }) && error.is_retryable(), "{error:?}");
    assert!(place.lock().unwrap().aborted);
    let ends = operations(&server).into_iter().filter(|of| *of == "CompleteMultipartUpload").count();
    assert_eq!(ends, 1);
}

#[tokio::test]
async fn no_more_than_two_parts_are_ever_in_memory() {
    // What S3 takes is not kept, however much it is; and the buffer is a part at most.
    let (server, store, _) = place(1, vec![]).await;
    let mut upload = new(&store);
    for piece in bytes(3 * PART).chunks(7_777) {
        upload.write(piece).await.unwrap();
        assert!(upload.buffer.capacity() <= PART, "{}", upload.buffer.capacity());
        assert!(upload.under_way() <= 1);
    }
    upload.finish().await.unwrap();
    assert_eq!(operations(&server).len(), 5);

    // While S3 does not take the first, only one more gathers.
    let silent = Server::start(|request| match operation(request) {
        "CreateMultipartUpload" => begun(),
        _ => Reply::Silence,
    })
    .await;
    let store = silent.clients(1).await.objects;
    let mut upload = new(&store);
    upload.write(&bytes(2 * PART - 1)).await.unwrap();
    let one_more = tokio::time::timeout(Duration::from_millis(300), upload.write(b"xy")).await;
    assert!(one_more.is_err(), "it waits");
    assert_eq!((upload.buffer.len(), upload.under_way()), (PART, 1));
}

#[tokio::test]
async fn uploads_are_encrypted_with_the_key_that_is_named() {
    let server = Server::start(|request| match operation(request) {
        "CreateMultipartUpload" => begun(),
        "CompleteMultipartUpload" => completed(),
        _ => etag_of("e"),
    })
    .await;
    let mut store = server.clients(1).await.objects;
    store.kms_key = Some("alias/quorate".to_owned());
    for content in [bytes(10), bytes(LARGE)] {
        upload(&store, &content).await.unwrap();
    }
    for request in server.seen() {
        let (algorithm, key) = match operation(&request) {
            "PutObject" | "CreateMultipartUpload" => ("aws:kms", "alias/quorate"),
            _ => ("", ""),
        };
        assert_eq!(request.header("x-amz-server-side-encryption"), algorithm);
        assert_eq!(request.header("x-amz-server-side-encryption-aws-kms-key-id"), key);
        assert_eq!(request.header("x-amz-meta-quorate-upload").is_empty(), algorithm.is_empty());
    }
}
