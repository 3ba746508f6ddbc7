//! Large objects: uploads in parts, ranges, listings and removal, as the agent's own store makes them and as S3's API
//! has them.

use aws_sdk_ec2::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use quorate::aws::{ObjectError, ObjectStore, Uploaded};
use quorate::lab::region::{AccessRule, FaultKind, FaultSpec, Service, World};
use quorate::model::{BackupKey, BackupPart, ChainName, Generation};

use super::endpoints::{Endpoints, ZONES, s3_client, tags};
use super::suite::{status, text};

/// Two parts and a little more.
const LARGE: usize = (16 << 20) + 5;
/// The smallest size of a part that is not the last.
const SMALLEST: usize = 5 << 20;

fn bytes(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

async fn upload(store: &ObjectStore, key: &str, content: &[u8]) -> Result<Uploaded, ObjectError> {
    let mut upload = store.upload(key, &[("generation", "3".to_owned())]);
    for piece in content.chunks(1_000_003) {
        upload.write(piece).await?;
    }
    upload.finish().await
}

async fn download(store: &ObjectStore, key: &str) -> Vec<u8> {
    let mut download = store.download(key).await.unwrap().unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = download.next().await.unwrap() {
        bytes.extend_from_slice(&piece);
    }
    bytes
}

pub async fn an_upload_in_parts_comes_to_be_whole_and_once(e: &Endpoints) {
    let store = e.store("uploads").await;
    let content = bytes(LARGE);
    let uploaded = upload(&store, "backups/large", &content).await.unwrap();
    assert_eq!(uploaded.size, LARGE as u64);
    let there = store.download("backups/large").await.unwrap().unwrap();
    assert_eq!((there.size(), there.etag()), (LARGE as u64, &uploaded.etag));
    assert_eq!(there.metadata()["generation"], "3");
    assert!(uploaded.etag.as_str().ends_with("-3\""), "{:?}", uploaded.etag);
    drop(there);
    assert!(download(&store, "backups/large").await == content);
    for again in [&content[..], b"small"] {
        assert!(upload(&store, "backups/large", again).await.unwrap_err().is_exists());
    }
    assert_eq!(store.abandoned_uploads("backups/").await.unwrap(), []);
    assert!(download(&store, "backups/large").await == content);
    upload(&store, "backups/small", b"small").await.unwrap();
    assert_eq!(download(&store, "backups/small").await, b"small");
}

pub async fn an_unfinished_upload_is_listed_and_ended(e: &Endpoints) {
    let store = e.store("unfinished").await;
    e.s3.create_multipart_upload().bucket("unfinished").key("c1/backups/1/x").send().await.unwrap();
    let mut left = store.upload("backups/1/y", &[]);
    left.write(&bytes(LARGE)).await.unwrap();
    let uploads = store.abandoned_uploads("backups/").await.unwrap();
    let keys: Vec<_> = uploads.iter().map(|upload| upload.key.as_str()).collect();
    assert_eq!(keys, ["backups/1/x", "backups/1/y"]);
    assert!(uploads[0].begun > 0);
    assert_eq!(store.abandoned_uploads("backups/2/").await.unwrap(), []);
    left.abandon().await.unwrap();
    for _ in 0..2 {
        store.abort_upload(&uploads[0]).await.unwrap();
    }
    assert_eq!(store.abandoned_uploads("backups/").await.unwrap(), []);
}

/// An upload by S3's API, with these parts sent: its id, and the parts' tags.
async fn begun(e: &Endpoints, bucket: &str, parts: &[usize]) -> (String, Vec<String>) {
    let begun = e.s3.create_multipart_upload().bucket(bucket).key("k");
    let begun = begun.checksum_algorithm(ChecksumAlgorithm::Crc32).checksum_type(ChecksumType::FullObject);
    let id = begun.send().await.unwrap().upload_id().unwrap().to_owned();
    let mut tags = Vec::new();
    for (number, size) in (1..).zip(parts) {
        let part = e.s3.upload_part().bucket(bucket).key("k").upload_id(&id).part_number(number);
        let part = part.body(bytes(*size).into()).send().await.unwrap();
        tags.push(part.e_tag().unwrap().to_owned());
    }
    (id, tags)
}

fn part(number: i32, etag: &str) -> CompletedPart {
    CompletedPart::builder().part_number(number).e_tag(etag).build()
}

/// What S3 says when it is to put these parts together.
async fn refused(e: &Endpoints, bucket: &str, id: &str, parts: Vec<CompletedPart>) -> String {
    let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    let complete = e.s3.complete_multipart_upload().bucket(bucket).key("k").upload_id(id);
    let error = complete.multipart_upload(parts).send().await.unwrap_err();
    error.code().unwrap_or_default().to_owned()
}

pub async fn parts_that_are_not_there_or_too_small_are_refused(e: &Endpoints) {
    e.bucket("parts").await;
    let (id, tags) = begun(e, "parts", &[SMALLEST - 1, 10]).await;
    let both = vec![part(1, &tags[0]), part(2, &tags[1])];
    assert_eq!(refused(e, "parts", &id, both).await, "EntityTooSmall");
    assert_eq!(refused(e, "parts", &id, vec![part(1, &tags[1])]).await, "InvalidPart");
    assert_eq!(refused(e, "parts", &id, vec![part(3, &tags[0])]).await, "InvalidPart");
    e.s3.abort_multipart_upload().bucket("parts").key("k").upload_id(&id).send().await.unwrap();
    let absent = e.s3.get_object().bucket("parts").key("k").send().await.unwrap_err();
    assert!(absent.into_service_error().is_no_such_key());
}

pub async fn a_range_of_an_object_is_read_on_condition(e: &Endpoints) {
    e.bucket("ranges").await;
    let put = e.s3.put_object().bucket("ranges").key("k").body(text("0123456789")).send().await.unwrap();
    let get = |range: &str| e.s3.get_object().bucket("ranges").key("k").range(range);
    for (range, content_range, content) in
        [("bytes=2-4", "bytes 2-4/10", "234"), ("bytes=7-", "bytes 7-9/10", "789")]
    {
        let got = get(range).if_match(put.e_tag().unwrap()).send().await.unwrap();
        assert_eq!((got.content_range(), got.e_tag()), (Some(content_range), put.e_tag()));
        assert_eq!(got.body.collect().await.unwrap().to_vec(), content.as_bytes());
    }
    let changed = get("bytes=2-").if_match("\"other\"").send().await.unwrap_err();
    assert_eq!((status(&changed), changed.code()), (412, Some("PreconditionFailed")));
    let beyond = get("bytes=10-").send().await.unwrap_err();
    assert_eq!((status(&beyond), beyond.code()), (416, Some("InvalidRange")));
}

pub async fn objects_are_listed_with_their_sizes_and_by_folders(e: &Endpoints) {
    let store = e.store("folders").await;
    let keys =
        ["backups/1/a/changes/1", "backups/1/a/changes/2", "backups/1/b/manifest.json", "backups/2/c/x"];
    for key in keys {
        upload(&store, key, key.as_bytes()).await.unwrap();
    }
    upload(&store, "charter.json", b"x").await.unwrap();
    let listed = store.objects("backups/").await.unwrap();
    let told: Vec<_> = listed.iter().map(|object| (object.key.as_str(), object.size)).collect();
    assert_eq!(told, keys.map(|key| (key, key.len() as u64)));
    assert!(listed[0].modified > 1_600_000_000_000, "milliseconds since 1970: {}", listed[0].modified);
    assert_eq!(store.folders("backups/").await.unwrap(), ["backups/1/", "backups/2/"]);
    assert_eq!(store.folders("backups/1/").await.unwrap(), ["backups/1/a/", "backups/1/b/"]);
    assert!(store.folders("backups/1/a/changes/").await.unwrap().is_empty());
    assert!(store.folders("nothing/").await.unwrap().is_empty());
    assert_eq!(store.list_after("backups/", "backups/1/b/").await.unwrap(), listed[2..]);
    assert_eq!(store.list_after("backups/1/a/", keys[0]).await.unwrap(), listed[1..2]);
}

pub async fn an_object_of_a_backup_is_removed(e: &Endpoints) {
    let store = e.store("removed").await;
    let key = segment();
    upload(&store, &key.to_string(), b"x").await.unwrap();
    for _ in 0..2 {
        store.remove_backup(&key).await.unwrap();
    }
    assert!(store.download(&key.to_string()).await.unwrap().is_none());
}

fn segment() -> BackupKey {
    let chain = ChainName::new(Generation(1), 10, "0a1b2c3d").unwrap();
    BackupKey { chain, part: BackupPart::Segment(3) }
}

// What follows moto does not do, or does not see.

#[tokio::test]
async fn parts_out_of_order_and_wholes_that_are_not_what_was_said_are_refused() {
    let e = Endpoints::simulated().await;
    e.bucket("parts").await;
    let (id, tags) = begun(&e, "parts", &[SMALLEST, 10]).await;
    let both = || vec![part(1, &tags[0]), part(2, &tags[1])];
    let backwards = both().into_iter().rev().collect();
    assert_eq!(refused(&e, "parts", &id, backwards).await, "InvalidPartOrder");
    assert_eq!(refused(&e, "parts", &id, vec![]).await, "MalformedXML");
    assert_eq!(refused(&e, "parts", "no-such-upload", both()).await, "NoSuchUpload");
    let complete = || {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(both())).build();
        e.s3.complete_multipart_upload().bucket("parts").key("k").upload_id(&id).multipart_upload(parts)
    };
    let wrong = complete().checksum_crc32("AAAAAA==").checksum_type(ChecksumType::FullObject);
    assert_eq!(wrong.send().await.unwrap_err().code(), Some("BadDigest"));
    let wrong = complete().mpu_object_size(11).send().await.unwrap_err();
    assert_eq!(wrong.code(), Some("InvalidRequest"));
    let damaged = e.s3.upload_part().bucket("parts").key("k").upload_id(&id).part_number(2);
    let damaged = damaged.checksum_crc32("AAAAAA==").body(text("x")).send().await.unwrap_err();
    assert_eq!(damaged.code(), Some("BadDigest"));
    e.s3.put_object().bucket("parts").key("k").body(text("first")).send().await.unwrap();
    let second = complete().if_none_match("*").send().await.unwrap_err();
    assert_eq!((status(&second), second.code()), (412, Some("PreconditionFailed")));
    complete().send().await.unwrap();
    let again = complete().send().await.unwrap_err();
    assert_eq!((status(&again), again.code()), (404, Some("NoSuchUpload")));
    let late = e.s3.upload_part().bucket("parts").key("k").upload_id(&id).part_number(3).body(text("x"));
    assert_eq!(late.send().await.unwrap_err().code(), Some("NoSuchUpload"));
}

#[tokio::test]
async fn unfinished_uploads_come_in_pages() {
    let e = Endpoints::simulated().await;
    e.bucket("b").await;
    for key in ["c", "a", "b", "a", "other"] {
        e.s3.create_multipart_upload().bucket("b").key(format!("k/{key}")).send().await.unwrap();
    }
    let (mut keys, mut markers) = (Vec::new(), (None, None));
    loop {
        let page = e.s3.list_multipart_uploads().bucket("b").prefix("k/").max_uploads(2);
        let page = page.set_key_marker(markers.0).set_upload_id_marker(markers.1).send().await.unwrap();
        keys.extend(page.uploads().iter().map(|upload| upload.key().unwrap().to_owned()));
        if page.is_truncated() != Some(true) {
            break;
        }
        markers =
            (page.next_key_marker().map(str::to_owned), page.next_upload_id_marker().map(str::to_owned));
    }
    assert_eq!(keys, ["k/a", "k/a", "k/b", "k/c", "k/other"]);
}

#[tokio::test]
async fn a_role_that_may_not_write_may_not_upload_list_or_remove() {
    let e = Endpoints::simulated().await;
    e.bucket("b").await;
    let instance = e.instance(ZONES[0], &tags(&[])).await;
    let reader = AccessRule {
        role: "node".into(),
        bucket: "b".into(),
        prefix: String::new(),
        read: true,
        write: false,
        list: false,
    };
    e.region().change(|w| w.add_access_rule(reader));
    let own = s3_client(&e.config_of(&instance));
    let begin = own.create_multipart_upload().bucket("b").key("k").send().await.unwrap_err();
    assert_eq!((status(&begin), begin.code()), (403, Some("AccessDenied")));
    let list = own.list_multipart_uploads().bucket("b").send().await.unwrap_err();
    assert_eq!(list.code(), Some("AccessDenied"));
    let removal = own.delete_object().bucket("b").key("k").send().await.unwrap_err();
    assert_eq!(removal.code(), Some("AccessDenied"));
}

fn set(e: &Endpoints, operation: &str, kind: FaultKind, count: Option<u64>) {
    e.region().change(World::clear_faults);
    let operation = Some(operation.to_owned());
    let spec =
        FaultSpec { service: Service::S3, operation, instance: None, kind, rate: 1.0, count, seed: Some(1) };
    e.region().change(|w| w.add_fault(spec));
}

#[tokio::test]
async fn bad_weather_reaches_every_call_of_a_transfer() {
    let e = Endpoints::simulated().await;
    let store = e.store("b").await;
    let content = bytes(LARGE);
    upload(&store, "backups/there", b"x").await.unwrap();
    for operation in ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "PutObject"] {
        set(&e, operation, FaultKind::Throttle, None);
        let content = if operation == "PutObject" { &content[..9] } else { &content };
        let error = upload(&store, "backups/k", content).await.unwrap_err();
        // An end that was answered so may have had an attempt before, whose answer was lost.
        let fits = match operation {
            "CreateMultipartUpload" | "UploadPart" => matches!(error, ObjectError::Throttled { .. }),
            _ => matches!(error, ObjectError::Unsettled { .. }),
        };
        assert!(fits && error.is_retryable(), "{operation}: {error:?}");
    }
    set(&e, "GetObject", FaultKind::ServerError, None);
    assert!(store.download("backups/there").await.is_err());
    set(&e, "ListObjectsV2", FaultKind::LostAnswer, None);
    assert!(store.objects("backups/").await.is_err());
    set(&e, "ListObjectsV2", FaultKind::BrokenAnswer, None);
    assert!(store.folders("backups/").await.is_err());
    set(&e, "ListMultipartUploads", FaultKind::BrokenAnswer, None);
    assert!(store.abandoned_uploads("backups/").await.is_err());
    set(&e, "DeleteObject", FaultKind::AccessDenied, None);
    let error = store.remove_backup(&segment()).await.unwrap_err();
    assert!(matches!(error, ObjectError::Kept { .. }), "{error:?}");
    set(&e, "CompleteMultipartUpload", FaultKind::Conflict, None);
    let error = upload(&store, "backups/k", &content).await.unwrap_err();
    assert!(matches!(error, ObjectError::Conflict { .. }), "{error:?}");
    e.region().change(World::clear_faults);
    assert_eq!(store.abandoned_uploads("").await.unwrap(), [], "what failed was ended");

    set(&e, "AbortMultipartUpload", FaultKind::LostRequest, None);
    let mut left = store.upload("backups/left", &[]);
    left.write(&content).await.unwrap();
    left.abandon().await.unwrap_err();
    let uploads = store.abandoned_uploads("").await.unwrap();
    assert_eq!(uploads.len(), 1);
    e.region().change(World::clear_faults);
    store.abort_upload(&uploads[0]).await.unwrap();
}

#[tokio::test]
async fn an_upload_whose_end_was_not_answered_is_one_and_a_broken_download_goes_on() {
    let e = Endpoints::simulated().await;
    let store = e.store("b").await;
    let content = bytes(LARGE);
    set(&e, "CompleteMultipartUpload", FaultKind::LostAnswer, None);
    upload(&store, "backups/k", &content).await.unwrap();
    set(&e, "CompleteMultipartUpload", FaultKind::LostRequest, None);
    let error = upload(&store, "backups/other", &content).await.unwrap_err();
    assert!(matches!(error, ObjectError::Unsettled { .. }), "{error:?}");
    // Each answer breaks off in its middle, several times over.
    set(&e, "GetObject", FaultKind::BrokenAnswer, Some(4));
    assert!(download(&store, "backups/k").await == content);
    let calls = e.region().with(|w| w.calls_after(0));
    assert_eq!(calls.iter().rev().take_while(|call| call.operation == "GetObject").count(), 5);
}
