//! Produce and Fetch, which we decode by hand, against the decoder that is generated from Kafka's own schemas: what ours
//! takes, that one takes too, and what it writes then means the same to ours.
//!
//! But for tagged fields: ours skips those that it need not know by their size (KIP-482). The generated decoder
//! reads those that it knows, whatever size they claim, stops at those of versions to come, and cannot write
//! all tags that it reads. So in versions that have them requests are compared as ours writes them, and
//! responses, which ours only reads, are not.

use bytes::{Bytes, BytesMut};
use highwater_protocol::{
    ApiKey, Call, FetchRequest, ProduceRequest, Request, RequestHeader, decode_response_header,
};
use kafka_protocol::messages as generated;
use kafka_protocol::protocol::{Decodable, Encodable};

pub(crate) fn compare_request(header: &RequestHeader, body: &Bytes, ours: &Request<Bytes>) {
    let version = header.version;
    let written = match header.key {
        ApiKey::Produce => rewrite::<generated::ProduceRequest>(version, body),
        ApiKey::Fetch => rewrite::<generated::FetchRequest>(version, body),
        _ => return,
    };
    let theirs = Request::decode(header, &written, 0).expect("what they write, we read");
    assert_eq!(&theirs, ours);
}

/// A response that ours has taken, of a version without tagged fields.
pub(crate) fn compare_answer(key: ApiKey, version: i16, frame: &Bytes) {
    if key.is_flexible(version) {
        return;
    }
    let (_, at) = decode_response_header(key, version, frame).expect("ours has read it");
    let (header, body) = (frame.slice(..at), frame.slice(at..));
    let again = |written: Bytes| Bytes::from([header, written].concat());
    match key {
        ApiKey::Produce => {
            let read = |frame: &Bytes| ProduceRequest::<Bytes>::decode_answer(version, frame);
            let written = rewrite::<generated::ProduceResponse>(version, &body);
            assert_eq!(read(&again(written)), read(frame));
        }
        ApiKey::Fetch => {
            let read = |frame: &Bytes| FetchRequest::decode_answer(version, frame);
            let written = rewrite::<generated::FetchResponse>(version, &body);
            assert_eq!(read(&again(written)), read(frame));
        }
        _ => {}
    }
}

fn rewrite<M: Decodable + Encodable>(version: i16, body: &Bytes) -> Bytes {
    let theirs = M::decode(&mut body.clone(), version).expect("what we read, they read");
    let mut written = BytesMut::new();
    let encoded = theirs.encode(&mut written, version);
    encoded.expect("what they read, they write");
    written.freeze()
}
