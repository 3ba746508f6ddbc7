//! The object store in good and bad weather.

mod downloads;
mod listings;
mod uploads;

use std::sync::{Arc, Mutex};

use super::super::testing::{Reply, Request, Server, answer, s3_error};
use super::*;
use crate::model::fact::chain;

/// S3 with one object, conditional writes and all, where each request may go wrong.
#[derive(Debug, Default)]
struct Bucket {
    object: Option<(Vec<u8>, u32)>,
    writes: u32,
}

impl Bucket {
    fn answer(&mut self, request: &Request) -> Reply {
        let etag = self.object.as_ref().map(|(_, version)| format!("\"v{version}\""));
        if request.method == "GET" {
            return match (&self.object, etag) {
                (Some(_), Some(etag)) if request.header("if-none-match") == etag => answer(304, ""),
                (Some((bytes, _)), Some(etag)) => Reply::Answer(200, vec![("etag", etag)], bytes.clone()),
                _ => s3_error(404, "NoSuchKey"),
            };
        }
        assert_eq!(request.header("content-encoding"), "", "this bucket takes plain bodies");
        match (request.header("if-none-match"), request.header("if-match")) {
            ("*", "") if self.object.is_some() => return s3_error(412, "PreconditionFailed"),
            ("", condition) if !condition.is_empty() => match etag {
                None => return s3_error(404, "NoSuchKey"),
                Some(etag) if etag != condition => return s3_error(412, "PreconditionFailed"),
                Some(_) => {}
            },
            _ => {}
        }
        self.writes += 1;
        self.object = Some((request.body.clone(), self.writes));
        Reply::Answer(200, vec![("etag", format!("\"v{}\"", self.writes))], Vec::new())
    }
}

/// What becomes of a request on its way.
#[derive(Debug, Clone)]
enum Fate {
    /// It is answered.
    Served,
    /// It takes effect, and this is what comes back.
    ThenLost(Reply),
    /// It takes no effect, and this is what comes back.
    Lost(Reply),
    /// It takes effect, another writer follows, and this is what comes back.
    ThenOvertaken(Reply),
    /// Another writer comes first, and this is what comes back.
    Overtaken(Reply),
}

/// A store whose bucket holds `object`, and whose writes (`PUT`) then reads (`GET`) meet their fates
/// in order; after these, all are served.
async fn store(
    object: Option<&[u8]>,
    attempts: u32,
    writes: Vec<Fate>,
    reads: Vec<Fate>,
) -> (Server, ObjectStore, Arc<Mutex<Bucket>>) {
    let bucket = Arc::new(Mutex::new(Bucket { object: object.map(|bytes| (bytes.to_vec(), 0)), writes: 0 }));
    let shared = Arc::clone(&bucket);
    let (mut writes, mut reads) = (writes.into_iter(), reads.into_iter());
    let hasty = [&writes, &reads].iter().any(|fates| format!("{fates:?}").contains("Silence"));
    let server = Server::start(move |request| {
        let mut bucket = shared.lock().unwrap();
        let fate = if request.method == "PUT" { writes.next() } else { reads.next() };
        match fate.unwrap_or(Fate::Served) {
            Fate::Served => bucket.answer(request),
            Fate::Lost(reply) => reply,
            Fate::ThenLost(reply) => {
                bucket.answer(request);
                reply
            }
            Fate::ThenOvertaken(reply) => {
                bucket.answer(request);
                bucket.object = Some((b"another's".to_vec(), 77));
                reply
            }
            Fate::Overtaken(reply) => {
                bucket.object = Some((b"another's".to_vec(), 77));
                reply
            }
        }
    })
    .await;
    let clients = if hasty { server.hasty_clients(attempts).await } else { server.clients(attempts).await };
    (server, clients.objects, bucket)
}

/// A store that answers everything so.
async fn store_that_says(reply: Reply) -> (Server, ObjectStore) {
    let hasty = matches!(reply, Reply::Silence);
    let server = Server::start(move |_| reply.clone()).await;
    let clients = if hasty { server.hasty_clients(1).await } else { server.clients(1).await };
    (server, clients.objects)
}

fn etag(text: &str) -> ETag {
    text.parse().unwrap()
}

/// All the ways to lose an answer.
fn losses() -> Vec<Reply> {
    vec![Reply::Cut, Reply::Silence, s3_error(500, "InternalError"), answer(502, "<html>bad gateway</html>")]
}

#[tokio::test]
async fn an_object_is_read_with_its_version_from_the_clusters_place() {
    let (server, store, _) = store(Some(b"hello"), 1, vec![], vec![]).await;
    let stored = store.get("charter.json").await.unwrap().unwrap();
    assert_eq!((stored.bytes.as_slice(), stored.etag.as_str()), (&b"hello"[..], "\"v0\""));
    let path = server.seen()[0].path.clone();
    assert!(path.starts_with("/bucket/some/prefix/prod/charter.json"), "path style: {path}");
    assert_eq!(store.url("charter.json"), "s3://bucket/some/prefix/prod/charter.json");
}

#[tokio::test]
async fn a_missing_key_is_none_and_every_other_refusal_is_not() {
    let (_server, store, _) = store(None, 1, vec![], vec![]).await;
    assert_eq!(store.get("charter.json").await.unwrap(), None);
    for reply in [
        answer(404, ""),
        answer(404, "<html>no such page</html>"),
        s3_error(404, "NoSuchBucket"),
        s3_error(404, "NoSuchVersion"),
        s3_error(403, "AccessDenied"),
        s3_error(403, "RequestTimeTooSkewed"),
        s3_error(503, "SlowDown"),
        answer(304, ""),
        Reply::Half,
        Reply::Cut,
        Reply::Silence,
    ] {
        let (_server, store) = store_that_says(reply.clone()).await;
        assert!(store.get("charter.json").await.is_err(), "{reply:?}");
    }
}

#[tokio::test]
async fn refusals_have_their_names_and_say_what_to_do() {
    type Is = fn(&ObjectError) -> bool;
    let cases: [(u16, &str, Is, bool, &str); 9] = [
        (404, "NoSuchBucket", |e| matches!(e, ObjectError::NoSuchBucket { .. }), false, "create it"),
        (301, "PermanentRedirect", |e| matches!(e, ObjectError::OtherRegion { .. }), false, "another region"),
        (403, "AccessDenied", |e| matches!(e, ObjectError::AccessDenied { .. }), false, "allow s3:"),
        (403, "RequestTimeTooSkewed", |e| matches!(e, ObjectError::ClockSkewed { .. }), true, "clock"),
        (403, "InvalidAccessKeyId", |e| matches!(e, ObjectError::BadCredentials { .. }), false, "role"),
        (400, "ExpiredToken", |e| matches!(e, ObjectError::BadCredentials { .. }), true, "role"),
        (400, "KMS.DisabledException", |e| matches!(e, ObjectError::Key { .. }), false, "enabled"),
        (503, "SlowDown", |e| matches!(e, ObjectError::Throttled { .. }), true, "later"),
        (400, "InvalidRequest", |e| matches!(e, ObjectError::Refused { .. }), false, "AWS_ENDPOINT_URL_S3"),
    ];
    for (status, code, is, retryable, advice) in cases {
        let (_server, store) = store_that_says(s3_error(status, code)).await;
        let error = store.put("members.json", b"x".to_vec()).await.unwrap_err();
        assert!(is(&error), "{code}: {error:?}");
        assert_eq!(error.is_retryable(), retryable, "{code}");
        let text = chain(&error);
        assert!(text.contains(advice) && text.contains(code) && text.contains("s3://bucket/"), "{text}");
    }
}

#[tokio::test]
async fn what_did_not_change_is_not_read_again() {
    let (_server, store, bucket) = store(Some(b"one"), 1, vec![], vec![]).await;
    assert_eq!(store.get_if_changed("k", &etag("\"v0\"")).await.unwrap(), Changed::No);
    let changed = store.get_if_changed("k", &etag("\"old\"")).await.unwrap();
    assert_eq!(changed, Changed::To(Stored { bytes: b"one".to_vec(), etag: etag("\"v0\"") }));
    bucket.lock().unwrap().object = None;
    assert_eq!(store.get_if_changed("k", &etag("\"v0\"")).await.unwrap(), Changed::Gone);
}

#[tokio::test]
async fn only_the_first_creates() {
    let (_server, store, bucket) = store(None, 1, vec![], vec![]).await;
    assert_eq!(store.create("k", b"mine".to_vec()).await.unwrap(), Written::Yes(etag("\"v1\"")));
    assert_eq!(store.create("k", b"other".to_vec()).await.unwrap(), Written::No);
    assert_eq!(bucket.lock().unwrap().object.as_ref().unwrap().0, b"mine");
}

#[tokio::test]
async fn only_the_version_that_was_read_is_replaced() {
    let (_server, store, bucket) = store(Some(b"old"), 1, vec![], vec![]).await;
    assert_eq!(
        store.replace("k", b"new".to_vec(), &etag("\"v0\"")).await.unwrap(),
        Written::Yes(etag("\"v1\""))
    );
    assert_eq!(store.replace("k", b"newer".to_vec(), &etag("\"v0\"")).await.unwrap(), Written::No);
    bucket.lock().unwrap().object = None;
    assert_eq!(store.replace("k", b"newer".to_vec(), &etag("\"v1\"")).await.unwrap(), Written::No);
}

#[tokio::test]
async fn a_lost_answer_to_a_write_that_took_effect_is_yes() {
    for loss in losses() {
        let (_server, store, _) = store(None, 1, vec![Fate::ThenLost(loss.clone())], vec![]).await;
        let written = store.create("k", b"mine".to_vec()).await.unwrap();
        assert_eq!(written, Written::Yes(etag("\"v1\"")), "{loss:?}");
        let (_server, store, _) =
            self::store(Some(b"old"), 1, vec![Fate::ThenLost(loss.clone())], vec![]).await;
        let written = store.replace("k", b"mine".to_vec(), &etag("\"v0\"")).await.unwrap();
        assert_eq!(written, Written::Yes(etag("\"v1\"")), "{loss:?}");
    }
}

#[tokio::test]
async fn a_retry_that_meets_its_own_first_attempt_is_yes() {
    for loss in losses() {
        let (server, store, bucket) = store(None, 3, vec![Fate::ThenLost(loss.clone())], vec![]).await;
        let written = store.create("k", b"mine".to_vec()).await.unwrap();
        assert_eq!(written, Written::Yes(etag("\"v1\"")), "{loss:?}");
        assert_eq!(bucket.lock().unwrap().writes, 1);
        let puts = server.seen().iter().filter(|request| request.method == "PUT").count();
        assert_eq!(puts, 2, "{loss:?}: the second is refused by what the first wrote");
        let (_server, store, _) =
            self::store(Some(b"old"), 3, vec![Fate::ThenLost(loss.clone())], vec![]).await;
        let written = store.replace("k", b"mine".to_vec(), &etag("\"v0\"")).await.unwrap();
        assert_eq!(written, Written::Yes(etag("\"v1\"")), "{loss:?}");
    }
}

#[tokio::test]
async fn a_lost_answer_while_another_wrote_is_no() {
    for loss in losses() {
        for fate in [Fate::Overtaken(loss.clone()), Fate::ThenOvertaken(loss.clone())] {
            let (_server, store, _) = store(None, 1, vec![fate.clone()], vec![]).await;
            assert_eq!(store.create("k", b"mine".to_vec()).await.unwrap(), Written::No, "{fate:?}");
            let (_server, store, _) = self::store(Some(b"old"), 1, vec![fate.clone()], vec![]).await;
            let written = store.replace("k", b"mine".to_vec(), &etag("\"v0\"")).await.unwrap();
            assert_eq!(written, Written::No, "{fate:?}");
        }
    }
}

#[tokio::test]
async fn a_lost_answer_with_nothing_changed_is_neither_yes_nor_no() {
    for loss in losses() {
        let (_server, store, _) = store(None, 1, vec![Fate::Lost(loss.clone())], vec![]).await;
        let error = store.create("k", b"mine".to_vec()).await.unwrap_err();
        assert!(matches!(error, ObjectError::Unsettled { .. }) && error.is_retryable(), "{error:?}");
        let (_server, store, _) = self::store(Some(b"old"), 1, vec![Fate::Lost(loss.clone())], vec![]).await;
        let error = store.replace("k", b"mine".to_vec(), &etag("\"v0\"")).await.unwrap_err();
        assert!(matches!(error, ObjectError::Unsettled { .. }) && error.is_retryable(), "{error:?}");
    }
}

#[tokio::test]
async fn a_write_that_can_not_be_read_back_is_neither_yes_nor_no() {
    for first in [Fate::ThenLost(Reply::Cut), Fate::Overtaken(s3_error(412, "PreconditionFailed"))] {
        let reads = vec![Fate::Lost(s3_error(403, "AccessDenied"))];
        let (_server, store, _) = store(None, 1, vec![first.clone()], reads).await;
        let error = store.create("k", b"mine".to_vec()).await.unwrap_err();
        assert!(matches!(error, ObjectError::ReadBack { .. }), "{first:?}: {error:?}");
        assert!(chain(&error).contains("AccessDenied"), "{}", chain(&error));
    }
}

#[tokio::test]
async fn a_definite_refusal_of_a_write_is_an_error_at_once() {
    let fates = vec![Fate::Lost(s3_error(403, "AccessDenied"))];
    let (server, store, _) = store(None, 3, fates, vec![]).await;
    let error = store.create("k", b"mine".to_vec()).await.unwrap_err();
    assert!(matches!(error, ObjectError::AccessDenied { .. }), "{error:?}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_conflicting_write_under_way_is_waited_out_for_a_while() {
    let conflict = || Fate::Lost(s3_error(409, "ConditionalRequestConflict"));
    let (_server, store, _) = store(None, 1, vec![conflict(), conflict()], vec![]).await;
    assert_eq!(store.create("k", b"mine".to_vec()).await.unwrap(), Written::Yes(etag("\"v1\"")));

    let forever = std::iter::repeat_with(conflict).take(100).collect();
    let (server, store, _) = self::store(None, 1, forever, vec![]).await;
    let error = store.create("k", b"mine".to_vec()).await.unwrap_err();
    assert!(matches!(error, ObjectError::Conflict { .. }) && error.is_retryable(), "{error:?}");
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn a_write_whose_version_is_not_told_is_read_back() {
    let (_server, store, _) = store(None, 1, vec![Fate::ThenLost(answer(200, ""))], vec![]).await;
    assert_eq!(store.create("k", b"mine".to_vec()).await.unwrap(), Written::Yes(etag("\"v1\"")));
}

#[tokio::test]
async fn objects_are_encrypted_with_the_key_that_is_named() {
    let server = Server::start(|_| Reply::Answer(200, vec![("etag", "\"e\"".to_owned())], Vec::new())).await;
    let access = super::super::testing::access(&server.url, 1);
    let sdk = access.sdk_config(&"eu-west-1".parse().unwrap(), Role::ControlPlane).await;
    let location = StoreLocation {
        bucket: "bucket".to_owned(),
        prefix: String::new(),
        cluster: super::super::testing::cluster(),
        kms_key: Some("alias/quorate".to_owned()),
    };
    let store = ObjectStore::new(&sdk, Role::ControlPlane, location);
    let _ = store.create("k", b"x".to_vec()).await.unwrap();
    store.put("k", b"x".to_vec()).await.unwrap();
    for request in server.seen() {
        assert_eq!(request.header("x-amz-server-side-encryption"), "aws:kms");
        assert_eq!(request.header("x-amz-server-side-encryption-aws-kms-key-id"), "alias/quorate");
        assert!(request.path.starts_with("/bucket/prod/k"), "{}", request.path);
    }
}
