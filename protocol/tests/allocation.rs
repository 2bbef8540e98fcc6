//! What a hostile frame can make the decoder allocate.

use bytes::Bytes;
use highwater_protocol::messages::*;
use highwater_protocol::{
    ApiKey, Call, FetchRequest, LENGTH_BYTES, REQUEST_ELEMENTS_MAX, Request, RequestHeader,
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Bytes that decoding a frame of `frame_bytes` may allocate at most, at its peak. A decoded
/// element is at most 250 bytes large; the factor of four is Vec's growth and the tree of tagged
/// fields.
fn allowed(frame_bytes: usize) -> usize {
    let elements = frame_bytes.min(REQUEST_ELEMENTS_MAX);
    4_096 + frame_bytes + 1_000 * elements
}

/// Peak bytes above the present level while a frame is decoded, and whether it was accepted.
fn peak_of(header: &RequestHeader, body: &Bytes) -> (usize, bool) {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let accepted = Request::decode(header, body, 0).is_ok();
    (ALLOCATOR.peak_usage().saturating_sub(before), accepted)
}

fn check(key: ApiKey, version: i16, body: Vec<u8>) {
    let header = RequestHeader {
        key,
        version,
        correlation_id: 0,
        client_id: None,
    };
    let frame_bytes = body.len();
    let (peak, _) = peak_of(&header, &Bytes::from(body));
    assert!(
        peak <= allowed(frame_bytes),
        "{key} {version}: {frame_bytes} bytes made {peak}"
    );
}

fn every_version(mut visit: impl FnMut(ApiKey, i16)) {
    for &key in ApiKey::ALL {
        let versions = key.versions();
        for version in versions.served_min..=versions.max {
            visit(key, version);
        }
    }
}

/// The largest counts of both forms, laid over every position of a frame of otherwise equal bytes.
fn lying_counts(key: ApiKey, version: i16) {
    const LIES: [&[u8]; 4] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x10, 0, 0, 0],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x80, 0x80, 0x80, 0x80, 0x08],
    ];
    for fill in [0, 1, 2, 0x7f] {
        for lie in LIES {
            for at in 0..64 {
                let mut body = vec![fill; 128];
                body[at..at + lie.len()].copy_from_slice(lie);
                check(key, version, body);
            }
        }
    }
}

/// Large frames of the smallest elements there are.
fn smallest_elements(key: ApiKey, version: i16) {
    for fill in [0, 1, 2] {
        for at in 0..24 {
            for count in [[0, 0x10, 0, 0], [0xff, 0xff, 0x3f, fill]] {
                let mut body = vec![fill; 1 << 20];
                body[at..at + 4].copy_from_slice(&count);
                check(key, version, body);
            }
        }
    }
}

/// As many honest elements as a request may hold, and one more.
fn limit_of_elements() {
    let header = RequestHeader {
        key: ApiKey::Metadata,
        version: 9,
        correlation_id: 0,
        client_id: None,
    };
    for (count, accepts) in [
        (REQUEST_ELEMENTS_MAX, true),
        (REQUEST_ELEMENTS_MAX + 1, false),
    ] {
        let topics =
            vec![MetadataRequestTopic::default().with_name(Some(TopicName::default())); count];
        let request = MetadataRequest::default().with_topics(Some(topics));
        let frame = Bytes::from(request.encode(&header).expect("encodes").concat());
        let (read, at) = RequestHeader::decode(&frame[LENGTH_BYTES..]).expect("a header");
        let (peak, accepted) = peak_of(&read, &frame.slice(LENGTH_BYTES + at..));
        assert_eq!(accepted, accepts, "{count} elements");
        assert!(peak <= 16 << 20, "{count} elements made {peak} bytes");
    }
}

/// A good request whose last tagged fields are a million that nobody knows, the same one or others.
fn tagged_fields<C: Call + Default>() {
    let version = C::KEY.versions().max;
    let header = RequestHeader {
        key: C::KEY,
        version,
        correlation_id: 0,
        client_id: None,
    };
    let good = C::default().encode(&header).expect("encodes").concat();
    for step in [0, 1] {
        let mut frame = good[LENGTH_BYTES..].to_vec();
        assert_eq!(frame.pop(), Some(0), "{}: no tagged fields yet", C::KEY);
        frame.extend([0xc0, 0x84, 0x3d]);
        let mut tag = 1_000_u32;
        for _ in 0..1_000_000 {
            frame.extend([low(tag) | 0x80, low(tag >> 7) | 0x80, low(tag >> 14), 0]);
            tag += step;
        }
        let (read, at) = RequestHeader::decode(&frame).expect("a header");
        let frame_bytes = frame.len();
        let (peak, accepted) = peak_of(&read, &Bytes::from(frame).slice(at..));
        assert!(!accepted, "{}", C::KEY);
        assert!(peak <= 4_096, "{}: {frame_bytes} bytes made {peak}", C::KEY);
    }
}

/// The low seven bits.
fn low(value: u32) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

/// One test, so that nothing else allocates in this process meanwhile.
#[test]
fn x08_x09_a_hostile_frame_allocates_in_proportion_to_its_length() {
    every_version(lying_counts);
    every_version(smallest_elements);
    limit_of_elements();
    tagged_fields::<FetchRequest>();
    tagged_fields::<MetadataRequest>();
    tagged_fields::<ApiVersionsRequest>();
    tagged_fields::<CreateTopicsRequest>();
    tagged_fields::<InitProducerIdRequest>();
}
