//! Bodies that break off, fall silent, change or lie.

use super::*;

const BODY: &[u8] = b"0123456789";

/// The head of an answer with this version, and this range of the body if it is one.
fn head(version: &str, range: Option<&str>) -> Vec<(&'static str, String)> {
    let mut head = vec![("etag", format!("\"{version}\"")), ("x-amz-meta-generation", "3".to_owned())];
    head.extend(range.map(|range| ("content-range", format!("bytes {range}/10"))));
    head
}

/// The first four bytes, and then the connection is closed.
fn broken() -> Reply {
    Reply::Short(200, head("v1", None), BODY[..4].to_vec(), 10)
}

/// A store that answers with one reply after another, the last for ever.
async fn replies(replies: Vec<Reply>) -> (Server, ObjectStore) {
    let hasty = replies.iter().any(|reply| matches!(reply, Reply::Stalled(..)));
    let mut replies = replies.into_iter();
    let mut last = answer(500, "");
    let server = Server::start(move |_| {
        last = replies.next().unwrap_or_else(|| last.clone());
        last.clone()
    })
    .await;
    let clients = if hasty { server.hasty_clients(1).await } else { server.clients(1).await };
    (server, clients.objects)
}

/// All that comes.
async fn read(store: &ObjectStore) -> Result<Vec<u8>, ObjectError> {
    let mut download = store.download("k").await?.expect("the object is there");
    let mut bytes = Vec::new();
    while let Some(piece) = download.next().await? {
        bytes.extend_from_slice(&piece);
        assert!(bytes.len() as u64 <= download.size());
    }
    Ok(bytes)
}

#[tokio::test]
async fn an_object_comes_whole_with_what_was_said_of_it() {
    let (_server, store) = replies(vec![Reply::Answer(200, head("v1", None), BODY.to_vec())]).await;
    let download = store.download("k").await.unwrap().unwrap();
    assert_eq!((download.size(), download.etag().as_str()), (10, "\"v1\""));
    assert_eq!(download.metadata()["generation"], "3");
    assert_eq!(read(&store).await.unwrap(), BODY);
    let (_server, store) = replies(vec![Reply::Answer(200, head("v1", None), Vec::new())]).await;
    assert_eq!(read(&store).await.unwrap(), b"");
}

#[tokio::test]
async fn only_no_such_key_is_nothing() {
    let (_server, store) = replies(vec![s3_error(404, "NoSuchKey")]).await;
    assert!(store.download("k").await.unwrap().is_none());
    for reply in [answer(404, ""), s3_error(404, "NoSuchBucket"), s3_error(403, "AccessDenied"), Reply::Cut] {
        let (_server, store) = replies(vec![reply.clone()]).await;
        assert!(store.download("k").await.is_err(), "{reply:?}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_continued_where_it_ended() {
    let rest = |range| head("v1", Some(range));
    let (server, store) = replies(vec![
        broken(),
        Reply::Short(206, rest("4-9"), BODY[4..7].to_vec(), 6),
        s3_error(503, "SlowDown"),
        Reply::Answer(206, rest("7-9"), BODY[7..].to_vec()),
    ])
    .await;
    assert_eq!(read(&store).await.unwrap(), BODY);
    let seen = server.seen();
    let asked: Vec<_> = seen.iter().map(|r| (r.header("range"), r.header("if-match"))).collect();
    assert_eq!(asked, [("", ""), ("bytes=4-", "\"v1\""), ("bytes=7-", "\"v1\""), ("bytes=7-", "\"v1\"")]);
}

#[tokio::test]
async fn a_body_that_falls_silent_is_continued() {
    let (server, store) = replies(vec![
        Reply::Stalled(200, head("v1", None), BODY[..4].to_vec(), 10),
        Reply::Answer(206, head("v1", Some("4-9")), BODY[4..].to_vec()),
    ])
    .await;
    assert_eq!(read(&store).await.unwrap(), BODY);
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_body_is_never_continued_by_another_version() {
    for changed in [s3_error(412, "PreconditionFailed"), s3_error(404, "NoSuchKey")] {
        let (_server, store) = replies(vec![broken(), changed]).await;
        let error = read(&store).await.unwrap_err();
        assert!(matches!(error, ObjectError::ChangedMeanwhile { .. }), "{error:?}");
    }
    for odd in [
        // All of it, by one who does not know ranges; another part; a part of another version.
        Reply::Answer(200, head("v1", None), BODY.to_vec()),
        Reply::Answer(206, head("v1", Some("3-9")), BODY[3..].to_vec()),
        Reply::Answer(206, head("v2", Some("4-9")), BODY[4..].to_vec()),
    ] {
        let (_server, store) = replies(vec![broken(), odd.clone()]).await;
        let error = read(&store).await.unwrap_err();
        assert!(matches!(error, ObjectError::Malformed { .. }), "{odd:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_body_that_always_breaks_off_is_an_error_and_never_short() {
    // The answers to ranges say that they end where the object does, and are shorter.
    let (server, store) =
        replies(vec![broken(), Reply::Answer(206, head("v1", Some("4-9")), Vec::new())]).await;
    let error = read(&store).await.unwrap_err();
    assert!(matches!(error, ObjectError::NoAnswer { .. }) && error.is_retryable(), "{error:?}");
    assert!(chain(&error).contains("4 bytes of 10"), "{}", chain(&error));
    assert_eq!(server.seen().len(), 6);

    let (server, store) = replies(vec![broken(), s3_error(403, "AccessDenied")]).await;
    assert!(matches!(read(&store).await.unwrap_err(), ObjectError::AccessDenied { .. }));
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_body_that_is_not_what_its_checksum_says_is_an_error() {
    let mut wrong = head("v1", None);
    wrong.extend([
        ("x-amz-checksum-crc32", "AAAAAA==".to_owned()),
        ("x-amz-checksum-type", "FULL_OBJECT".to_owned()),
    ]);
    let (server, store) = replies(vec![Reply::Answer(200, wrong, BODY.to_vec())]).await;
    let error = read(&store).await.unwrap_err();
    assert!(chain(&error).contains("checksum"), "{}", chain(&error));
    assert_eq!(server.seen().len(), 1, "more of the same would not help");
}
