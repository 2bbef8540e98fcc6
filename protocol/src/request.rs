//! Requests and responses as a server sees them: one enum each, decoded whole and encoded whole;
//! and as a client sees them: a [`Call`] with the type of its answer.

use bytes::{Bytes, BytesMut};

use crate::frame::FrameBuilder;
use crate::header::{decode_response_header, encode_response_header};
use crate::messages::*;
use crate::schema::{check_request, check_response};
use crate::{
    ApiKey, DecodeError, EncodeError, ErrorCode, FetchRequest, FetchResponse, Frame,
    ProduceRequest, ProduceResponse, RequestHeader, api_versions_response,
};

/// A request that a client sends and knows the answer's type of.
pub trait Call {
    /// The type of the answer.
    type Answer;

    /// Which request this is.
    const KEY: ApiKey;

    /// The whole frame, length prefix first, as chunks to be written in order.
    ///
    /// # Errors
    /// [`EncodeError`] if the message cannot be written in the header's version.
    ///
    /// # Panics
    /// If the header's key is not [`Call::KEY`].
    fn encode(&self, header: &RequestHeader) -> Result<Vec<Bytes>, EncodeError>;

    /// Reads a response `frame` (without its length prefix) to a request of this kind and
    /// `version`, whose correlation id the caller has matched already.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes do not hold the format.
    fn decode_answer(version: i16, frame: &Bytes) -> Result<Self::Answer, DecodeError>;
}

/// Starts a request's frame with its header.
fn begin_request(key: ApiKey, header: &RequestHeader) -> (FrameBuilder, BytesMut) {
    assert_eq!(header.key, key, "the header belongs to another request");
    let (builder, bytes) = FrameBuilder::begin();
    let bytes = header.encode(bytes);
    (builder, bytes)
}

/// The version of an answer, which is the request's, but for ApiVersions: a broker that does not
/// know the request's version says so, error 35, in the form of version 0.
fn answer_version(key: ApiKey, version: i16, frame: &[u8]) -> i16 {
    const ERROR_CODE: std::ops::Range<usize> = 4..6;
    let unsupported = ErrorCode::UnsupportedVersion.code().to_be_bytes();
    if key == ApiKey::ApiVersions && frame.get(ERROR_CODE) == Some(&unsupported) {
        return 0;
    }
    version
}

macro_rules! generated_messages {
    ($($variant:ident($request:ident, $response:ident);)*) => {
        /// A request, decoded. `F` is the kind of bytes that records were cut from.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Request<F> {
            /// Key 0.
            Produce(ProduceRequest<F>),
            /// Key 1.
            Fetch(FetchRequest),
            $(#[doc = concat!("[`ApiKey::", stringify!($variant), "`].")] $variant($request),)*
        }

        impl<F: Frame> Request<F> {
            /// Decodes the body behind a header that [`RequestHeader::decode`] has read: `at` is
            /// where it said the body begins.
            ///
            /// Produce's records share the frame's memory. All other requests are decoded from a
            /// copy of their body, so that nothing kept from them keeps a pooled frame alive.
            /// Tagged fields are passed over: no request that we know has any of its own.
            ///
            /// # Errors
            /// [`DecodeError`] if the bytes do not hold the format of the header's version. What
            /// is allocated is bounded by the frame's length and
            /// [`crate::REQUEST_ELEMENTS_MAX`].
            pub fn decode(
                header: &RequestHeader,
                frame: &F,
                at: usize,
            ) -> Result<Self, DecodeError> {
                let (key, version) = (header.key, header.version);
                match key {
                    ApiKey::Produce => {
                        ProduceRequest::decode(version, frame, at).map(Self::Produce)
                    }
                    ApiKey::Fetch => FetchRequest::decode(version, frame, at).map(Self::Fetch),
                    $(ApiKey::$variant => {
                        let body = check_request(key, version, frame, at)?;
                        decode(key, version, body).map(Self::$variant)
                    })*
                }
            }
        }

        impl<F> Request<F> {
            /// Which request this is.
            #[must_use]
            pub const fn key(&self) -> ApiKey {
                match self {
                    Self::Produce(_) => ApiKey::Produce,
                    Self::Fetch(_) => ApiKey::Fetch,
                    $(Self::$variant(_) => ApiKey::$variant,)*
                }
            }
        }

        /// A response, to be encoded.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Response {
            /// Key 0.
            Produce(ProduceResponse),
            /// Key 1.
            Fetch(FetchResponse<Vec<Bytes>>),
            $(#[doc = concat!("[`ApiKey::", stringify!($variant), "`].")] $variant($response),)*
        }

        impl Response {
            /// Which request this answers.
            #[must_use]
            pub const fn key(&self) -> ApiKey {
                match self {
                    Self::Produce(_) => ApiKey::Produce,
                    Self::Fetch(_) => ApiKey::Fetch,
                    $(Self::$variant(_) => ApiKey::$variant,)*
                }
            }

            /// The whole frame, length prefix first, as chunks to be written in order: one, but
            /// for Fetch, whose records are spliced in without copying.
            ///
            /// # Errors
            /// [`EncodeError`] if the message cannot be written in `version`.
            pub fn encode(
                &self,
                version: i16,
                correlation_id: i32,
            ) -> Result<Vec<Bytes>, EncodeError> {
                let key = self.key();
                if !key.versions().serves(version) {
                    return Err(EncodeError::UnsupportedVersion { key, version });
                }
                let (mut frame, mut bytes) = FrameBuilder::begin();
                encode_response_header(key, version, correlation_id, &mut bytes);
                let bytes = match self {
                    Self::Produce(response) => response.encode(version, bytes)?,
                    Self::Fetch(response) => response.encode(version, &mut frame, bytes)?,
                    $(Self::$variant(response) => {
                        encode(key, version, response, &mut bytes)?;
                        bytes
                    })*
                };
                frame.finish(key, bytes)
            }
        }

        $(
            impl From<$response> for Response {
                fn from(response: $response) -> Self {
                    Self::$variant(response)
                }
            }

            impl Call for $request {
                type Answer = $response;

                const KEY: ApiKey = ApiKey::$variant;

                fn encode(&self, header: &RequestHeader) -> Result<Vec<Bytes>, EncodeError> {
                    let (frame, mut bytes) = begin_request(Self::KEY, header);
                    encode(Self::KEY, header.version, self, &mut bytes)?;
                    frame.finish(Self::KEY, bytes)
                }

                fn decode_answer(
                    version: i16,
                    frame: &Bytes,
                ) -> Result<Self::Answer, DecodeError> {
                    let version = answer_version(Self::KEY, version, frame);
                    let (_, at) = decode_response_header(Self::KEY, version, frame)?;
                    check_response(Self::KEY, version, frame, at)?;
                    decode(Self::KEY, version, frame.slice(at..))
                }
            }
        )*
    };
}

generated_messages! {
    ListOffsets(ListOffsetsRequest, ListOffsetsResponse);
    Metadata(MetadataRequest, MetadataResponse);
    FindCoordinator(FindCoordinatorRequest, FindCoordinatorResponse);
    ApiVersions(ApiVersionsRequest, ApiVersionsResponse);
    CreateTopics(CreateTopicsRequest, CreateTopicsResponse);
    DeleteTopics(DeleteTopicsRequest, DeleteTopicsResponse);
    InitProducerId(InitProducerIdRequest, InitProducerIdResponse);
    OffsetForLeaderEpoch(OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse);
    DescribeConfigs(DescribeConfigsRequest, DescribeConfigsResponse);
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse);
    DescribeQuorum(DescribeQuorumRequest, DescribeQuorumResponse);
    DescribeCluster(DescribeClusterRequest, DescribeClusterResponse);
}

impl From<ProduceResponse> for Response {
    fn from(response: ProduceResponse) -> Self {
        Self::Produce(response)
    }
}

impl From<FetchResponse<Vec<Bytes>>> for Response {
    fn from(response: FetchResponse<Vec<Bytes>>) -> Self {
        Self::Fetch(response)
    }
}

impl Call for ProduceRequest<Bytes> {
    type Answer = ProduceResponse;

    const KEY: ApiKey = ApiKey::Produce;

    fn encode(&self, header: &RequestHeader) -> Result<Vec<Bytes>, EncodeError> {
        let (mut frame, bytes) = begin_request(Self::KEY, header);
        let bytes = ProduceRequest::encode(self, header.version, &mut frame, bytes)?;
        frame.finish(Self::KEY, bytes)
    }

    fn decode_answer(version: i16, frame: &Bytes) -> Result<Self::Answer, DecodeError> {
        let (_, at) = decode_response_header(Self::KEY, version, frame)?;
        ProduceResponse::decode(version, frame, at)
    }
}

impl Call for FetchRequest {
    type Answer = FetchResponse<Option<Bytes>>;

    const KEY: ApiKey = ApiKey::Fetch;

    fn encode(&self, header: &RequestHeader) -> Result<Vec<Bytes>, EncodeError> {
        let (frame, bytes) = begin_request(Self::KEY, header);
        let bytes = FetchRequest::encode(self, header.version, bytes)?;
        frame.finish(Self::KEY, bytes)
    }

    fn decode_answer(version: i16, frame: &Bytes) -> Result<Self::Answer, DecodeError> {
        let (_, at) = decode_response_header(Self::KEY, version, frame)?;
        FetchResponse::decode(version, frame, at)
    }
}

/// The answer to an ApiVersions request of a version that is not served: error 35 in the form of
/// version 0, with the ranges that are, so that the client can ask again.
#[must_use]
pub fn encode_unsupported_api_versions(correlation_id: i32) -> Bytes {
    let response = api_versions_response().with_error_code(ErrorCode::UnsupportedVersion.code());
    let chunks = Response::ApiVersions(response)
        .encode(0, correlation_id)
        .expect("version 0 can carry every key and range");
    chunks
        .into_iter()
        .next()
        .expect("a response without records is one chunk")
}
