//! Produce and Fetch, which we decode by hand, against the decoder that is generated from Kafka's own schemas: what ours
//! takes, that one takes too, and what it writes then means the same to ours.

use bytes::{Bytes, BytesMut};
use highwater_protocol::{
    ApiKey, Call, FetchRequest, ProduceRequest, Request, RequestHeader, decode_response_header,
};
use kafka_protocol::messages as generated;
use kafka_protocol::protocol::{Decodable, Encodable};

pub(crate) fn compare_request(header: &RequestHeader, body: &Bytes, ours: &Request<Bytes>) {
    let version = header.version;
    let written = match header.key {
        ApiKey::Produce => rewrite::<generated::ProduceRequest>(header.key, version, body),
        ApiKey::Fetch => rewrite::<generated::FetchRequest>(header.key, version, body),
        _ => return,
    };
    let Some(written) = written else {
        return;
    };
    let theirs = Request::decode(header, &written, 0).expect("what they write, we read");
    assert_eq!(&theirs, ours);
}

/// A response that ours has taken.
pub(crate) fn compare_answer(key: ApiKey, version: i16, frame: &Bytes) {
    let (_, at) = decode_response_header(key, version, frame).expect("ours has read it");
    let (header, body) = (frame.slice(..at), frame.slice(at..));
    let again = |written: Bytes| Bytes::from([header, written].concat());
    match key {
        ApiKey::Produce => {
            let read = |frame: &Bytes| ProduceRequest::<Bytes>::decode_answer(version, frame);
            if let Some(written) = rewrite::<generated::ProduceResponse>(key, version, &body) {
                assert_eq!(read(&again(written)), read(frame));
            }
        }
        ApiKey::Fetch => {
            let read = |frame: &Bytes| FetchRequest::decode_answer(version, frame);
            if let Some(written) = rewrite::<generated::FetchResponse>(key, version, &body) {
                assert_eq!(read(&again(written)), read(frame));
            }
        }
        _ => {}
    }
}

/// What the generated code makes of a message. Nothing, if it stops at one that may have tagged fields:
/// ours skips all that it need not know by their size (KIP-482), and the generated decoder reads
/// those that it knows, and stops at one of a version to come, or with nonsense in it.
fn rewrite<M: Decodable + Encodable>(key: ApiKey, version: i16, body: &Bytes) -> Option<Bytes> {
    let theirs = match M::decode(&mut body.clone(), version) {
        Err(_) if key.is_flexible(version) => return None,
        theirs => theirs.expect("what we read, they read"),
    };
    let mut written = BytesMut::new();
    let encoded = theirs.encode(&mut written, version);
    encoded.expect("what they read, they write");
    Some(written.freeze())
}
