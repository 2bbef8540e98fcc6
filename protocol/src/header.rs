//! What stands in front of every request and response.

use bytes::{BufMut, BytesMut};
use thiserror::Error;

use crate::messages::StrBytes;
use crate::wire::{Allowance, Reader, Writer};
use crate::{ApiKey, DecodeError};

/// The header of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    /// What is asked.
    pub key: ApiKey,
    /// In which version; decoding lets only served versions through.
    pub version: i16,
    /// The sender's number for this request, repeated in the response.
    pub correlation_id: i32,
    /// The sender's name for itself, for logs. A copy: it does not keep the frame alive.
    pub client_id: Option<StrBytes>,
}

/// Why a request's header was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// The bytes are not a request header. Close the connection.
    #[error("request header: {0}")]
    Malformed(#[from] DecodeError),
    /// A request that this crate does not know, and so did not advertise. Close the connection:
    /// the form of its response is unknown too.
    #[error("request key {key} version {version} is not known")]
    UnknownKey {
        /// The key as sent.
        key: i16,
        /// The version as sent.
        version: i16,
        /// The sender's number for the request.
        correlation_id: i32,
    },
    /// A version outside of the served range. For [`ApiKey::ApiVersions`] answer with
    /// [`crate::encode_unsupported_api_versions`], otherwise close the connection.
    #[error("{key} version {version} is not served (served: {min} to {max})",
        min = key.versions().served_min, max = key.versions().max)]
    UnsupportedVersion {
        /// What is asked.
        key: ApiKey,
        /// The version as sent.
        version: i16,
        /// The sender's number for the request.
        correlation_id: i32,
    },
}

impl RequestHeader {
    /// Reads the header at the front of a request `frame` (its bytes behind the length prefix)
    /// and says at which byte the body begins.
    ///
    /// # Errors
    /// [`HeaderError`] says for each case what the receiver should do.
    pub fn decode(frame: &[u8]) -> Result<(Self, usize), HeaderError> {
        let mut reader = Reader::new(frame, 0, false, Allowance::request());
        let code = reader.i16()?;
        let version = reader.i16()?;
        let correlation_id = reader.i32()?;
        let Some(key) = ApiKey::from_code(code) else {
            return Err(HeaderError::UnknownKey {
                key: code,
                version,
                correlation_id,
            });
        };
        if !key.versions().serves(version) {
            return Err(HeaderError::UnsupportedVersion {
                key,
                version,
                correlation_id,
            });
        }
        // The client id keeps its INT16 length even in flexible versions.
        let client_id = reader
            .nullable_text()?
            .map(|text| StrBytes::from_string(text.to_owned()));
        let mut tail = Reader::new(
            frame,
            reader.position(),
            key.is_flexible(version),
            Allowance::request(),
        );
        tail.skip_tagged_fields()?;
        let header = Self {
            key,
            version,
            correlation_id,
            client_id,
        };
        Ok((header, tail.position()))
    }

    /// Appends the header, as a client sends it.
    pub(crate) fn encode(&self, bytes: BytesMut) -> BytesMut {
        let mut writer = Writer::new(bytes, false);
        writer.i16(self.key.code());
        writer.i16(self.version);
        writer.i32(self.correlation_id);
        writer.nullable_text(self.client_id.as_deref());
        let mut tail = Writer::new(writer.bytes, self.key.is_flexible(self.version));
        tail.no_tagged_fields();
        tail.bytes
    }
}

/// Appends the header of a response.
pub(crate) fn encode_response_header(
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    bytes: &mut BytesMut,
) {
    bytes.put_i32(correlation_id);
    if key.response_header_is_flexible(version) {
        bytes.put_u8(0);
    }
}

/// Reads the header of a response to a request of `key` and `version`: its correlation id and at
/// which byte the body begins.
///
/// # Errors
/// [`DecodeError`] if the frame is shorter than a header or its tagged fields do not hold.
pub fn decode_response_header(
    key: ApiKey,
    version: i16,
    frame: &[u8],
) -> Result<(i32, usize), DecodeError> {
    let flexible = key.response_header_is_flexible(version);
    let mut reader = Reader::new(frame, 0, flexible, Allowance::response());
    let correlation_id = reader.i32()?;
    reader.skip_tagged_fields()?;
    Ok((correlation_id, reader.position()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(key: ApiKey, version: i16, client_id: Option<&'static str>) -> RequestHeader {
        RequestHeader {
            key,
            version,
            correlation_id: 7,
            client_id: client_id.map(StrBytes::from_static_str),
        }
    }

    #[test]
    fn golden_bytes_of_both_forms() {
        let old = header(ApiKey::Metadata, 1, Some("kcat")).encode(BytesMut::new());
        assert_eq!(&old[..], b"\0\x03\0\x01\0\0\0\x07\0\x04kcat");
        let flexible = header(ApiKey::Metadata, 9, None).encode(BytesMut::new());
        assert_eq!(&flexible[..], b"\0\x03\0\x09\0\0\0\x07\xff\xff\0");
    }

    #[test]
    fn every_served_version_round_trips() {
        for &key in ApiKey::ALL {
            let versions = key.versions();
            for version in versions.served_min..=versions.max {
                for client_id in [None, Some(""), Some("a client")] {
                    let header = header(key, version, client_id);
                    let bytes = header.encode(BytesMut::new());
                    assert_eq!(RequestHeader::decode(&bytes), Ok((header, bytes.len())));
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_served_is_named() {
        assert_eq!(
            RequestHeader::decode(b"\0\x47\0\0\0\0\0\x07\xff\xff"),
            Err(HeaderError::UnknownKey {
                key: 71,
                version: 0,
                correlation_id: 7
            })
        );
        assert_eq!(
            RequestHeader::decode(b"\0\x12\0\x63\0\0\0\x07\xff\xff"),
            Err(HeaderError::UnsupportedVersion {
                key: ApiKey::ApiVersions,
                version: 99,
                correlation_id: 7
            })
        );
        assert!(matches!(
            RequestHeader::decode(b"\0\x12\0"),
            Err(HeaderError::Malformed(DecodeError::Truncated { .. }))
        ));
    }

    #[test]
    fn response_headers_of_api_versions_stay_in_the_first_form() {
        assert!(!ApiKey::ApiVersions.response_header_is_flexible(4));
        assert!(ApiKey::Metadata.response_header_is_flexible(9));
        assert_eq!(
            decode_response_header(ApiKey::ApiVersions, 4, b"\0\0\0\x07\0\0"),
            Ok((7, 4))
        );
        assert_eq!(
            decode_response_header(ApiKey::Metadata, 9, b"\0\0\0\x07\0\0"),
            Ok((7, 5))
        );
    }
}
