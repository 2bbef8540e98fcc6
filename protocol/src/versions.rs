//! Which requests are spoken, in which versions: one table for server and client.

use std::fmt;

use crate::ErrorCode;
use crate::messages::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse, StrBytes};

macro_rules! api_keys {
    ($($variant:ident = $key:literal;)*) => {
        /// A request that this crate knows, by Kafka's number.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ApiKey {
            $(#[doc = concat!("Key ", stringify!($key), ".")] $variant,)*
        }

        impl ApiKey {
            /// Every key, in order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The request of a number, if it is known here.
            #[must_use]
            pub const fn from_code(code: i16) -> Option<Self> {
                match code {
                    $($key => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Kafka's number.
            #[must_use]
            pub const fn code(self) -> i16 {
                match self {
                    $(Self::$variant => $key,)*
                }
            }

            /// Kafka's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant),)*
                }
            }
        }
    };
}

api_keys! {
    Produce = 0;
    Fetch = 1;
    ListOffsets = 2;
    Metadata = 3;
    FindCoordinator = 10;
    ApiVersions = 18;
    CreateTopics = 19;
    DeleteTopics = 20;
    InitProducerId = 22;
    OffsetForLeaderEpoch = 23;
    DescribeConfigs = 32;
    IncrementalAlterConfigs = 44;
    DescribeQuorum = 55;
    DescribeCluster = 60;
}

impl fmt::Display for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The versions of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// Lowest version that ApiVersions lists.
    pub advertised_min: i16,
    /// Lowest version that is really decoded; below it a request is refused.
    pub served_min: i16,
    /// Highest version, listed and decoded.
    pub max: i16,
    /// First version with compact lengths, tagged fields and the newer headers.
    pub flexible_min: i16,
}

impl Versions {
    /// Whether requests of `version` are decoded and answered.
    #[must_use]
    pub const fn serves(self, version: i16) -> bool {
        self.served_min <= version && version <= self.max
    }

    /// The highest version that both this table and a peer's range hold, if there is one.
    #[must_use]
    pub fn agree(self, peer_min: i16, peer_max: i16) -> Option<i16> {
        let version = self.max.min(peer_max);
        (version >= self.served_min.max(peer_min)).then_some(version)
    }
}

const fn versions(served_min: i16, max: i16, flexible_min: i16) -> Versions {
    Versions {
        advertised_min: served_min,
        served_min,
        max,
        flexible_min,
    }
}

impl ApiKey {
    /// The versions of this request.
    ///
    /// - Produce is listed from 0 though served from 3: librdkafka up to 2.11.0 takes an overlap
    ///   with version 0 as the sign that gzip, snappy and lz4 may be used.
    /// - Fetch ends at 12 and Produce at 9, before topic ids and before KIP-951 and KIP-890.
    /// - FindCoordinator is listed, and answered COORDINATOR_NOT_AVAILABLE until groups exist,
    ///   because librdkafka 2.0 takes it as the sign that the broker knows LZ4.
    /// - DescribeQuorum ends at 1, before the directory ids of KIP-853.
    #[must_use]
    pub const fn versions(self) -> Versions {
        match self {
            Self::Produce => Versions {
                advertised_min: 0,
                ..versions(3, 9, 9)
            },
            Self::Fetch => versions(4, 12, 12),
            Self::ListOffsets => versions(1, 7, 6),
            Self::Metadata => versions(0, 12, 9),
            Self::FindCoordinator => versions(0, 4, 3),
            Self::ApiVersions => versions(0, 4, 3),
            Self::CreateTopics => versions(2, 7, 5),
            Self::DeleteTopics => versions(1, 6, 4),
            Self::InitProducerId => versions(0, 4, 2),
            Self::OffsetForLeaderEpoch => versions(2, 4, 4),
            Self::DescribeConfigs => versions(1, 4, 4),
            Self::IncrementalAlterConfigs => versions(0, 1, 1),
            Self::DescribeQuorum => versions(0, 1, 0),
            Self::DescribeCluster => versions(0, 1, 0),
        }
    }

    /// Whether `version` uses compact lengths and tagged fields.
    #[must_use]
    pub const fn is_flexible(self, version: i16) -> bool {
        version >= self.versions().flexible_min
    }

    /// Whether the header of the response carries tagged fields. That of ApiVersions never does:
    /// a client must be able to read it before it knows what the broker speaks.
    #[must_use]
    pub const fn response_header_is_flexible(self, version: i16) -> bool {
        !matches!(self, Self::ApiVersions) && self.is_flexible(version)
    }
}

/// The answer to an ApiVersions request: every key with the range to advertise, no features.
///
/// A client that sent a version beyond the range is told so by
/// [`crate::encode_unsupported_api_versions`] instead.
#[must_use]
pub fn api_versions_response() -> ApiVersionsResponse {
    let keys = ApiKey::ALL
        .iter()
        .map(|key| {
            let versions = key.versions();
            ApiVersion::default()
                .with_api_key(key.code())
                .with_min_version(versions.advertised_min)
                .with_max_version(versions.max)
        })
        .collect();
    ApiVersionsResponse::default()
        .with_error_code(ErrorCode::None.code())
        .with_api_keys(keys)
}

/// An ApiVersions request that names this software, as KIP-511 wants it from version 3 on.
#[must_use]
pub fn api_versions_request() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("highwater"))
        .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_both_ways_and_are_in_order() {
        for key in ApiKey::ALL {
            assert_eq!(ApiKey::from_code(key.code()), Some(*key));
        }
        assert!(ApiKey::ALL.is_sorted_by_key(|key| key.code()));
        assert_eq!(ApiKey::from_code(71), None);
    }

    #[test]
    fn old_librdkafka_sees_overlap_with_produce_zero() {
        let produce = ApiKey::Produce.versions();
        assert_eq!(produce.advertised_min, 0);
        assert!(!produce.serves(2));
        assert!(produce.serves(3));
    }

    #[test]
    fn versions_agree_on_the_highest_common_one() {
        let fetch = ApiKey::Fetch.versions();
        assert_eq!(fetch.agree(4, 17), Some(12));
        assert_eq!(fetch.agree(0, 11), Some(11));
        assert_eq!(fetch.agree(13, 17), None);
        assert_eq!(fetch.agree(0, 3), None);
    }

    #[test]
    fn the_table_lies_within_what_the_generated_crate_speaks() {
        for key in ApiKey::ALL {
            let versions = key.versions();
            let generated = crate::messages::generated_versions(*key);
            assert!(versions.served_min >= generated.0, "{key}");
            assert!(versions.max <= generated.1, "{key}");
        }
    }
}
