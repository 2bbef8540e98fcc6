//! Kafka's error codes (<https://kafka.apache.org/protocol#protocol_error_codes>).

use std::fmt;

macro_rules! error_codes {
    ($($variant:ident = $code:literal, $name:literal, $retry:ident;)*) => {
        /// The result of an operation, in Kafka's numbers.
        ///
        /// Codes of Kafka releases that this list does not know stay readable as
        /// [`ErrorCode::Unknown`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $(#[doc = concat!("`", $name, "`, code ", stringify!($code), ".")] $variant,)*
            /// A code that is not in Kafka's list as of release 4.1.
            Unknown(i16),
        }

        impl ErrorCode {
            /// The meaning of a number.
            #[must_use]
            pub const fn from_code(code: i16) -> Self {
                match code {
                    $($code => Self::$variant,)*
                    unknown => Self::Unknown(unknown),
                }
            }

            /// Kafka's number.
            #[must_use]
            pub const fn code(self) -> i16 {
                match self {
                    $(Self::$variant => $code,)*
                    Self::Unknown(code) => code,
                }
            }

            /// Kafka's name, `UNKNOWN` for a code that is not in the list.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Unknown(_) => "UNKNOWN",
                }
            }

            /// Whether Kafka says that the same request may succeed later.
            #[must_use]
            pub const fn is_retriable(self) -> bool {
                match self {
                    $(Self::$variant => error_codes!(@$retry),)*
                    Self::Unknown(_) => false,
                }
            }

            #[cfg(test)]
            const LISTED: &'static [Self] = &[$(Self::$variant,)*];
        }
    };
    (@retriable) => { true };
    (@definite) => { false };
}

error_codes! {
    UnknownServerError = -1, "UNKNOWN_SERVER_ERROR", definite;
    None = 0, "NONE", definite;
    OffsetOutOfRange = 1, "OFFSET_OUT_OF_RANGE", definite;
    CorruptMessage = 2, "CORRUPT_MESSAGE", retriable;
    UnknownTopicOrPartition = 3, "UNKNOWN_TOPIC_OR_PARTITION", retriable;
    InvalidFetchSize = 4, "INVALID_FETCH_SIZE", definite;
    LeaderNotAvailable = 5, "LEADER_NOT_AVAILABLE", retriable;
    NotLeaderOrFollower = 6, "NOT_LEADER_OR_FOLLOWER", retriable;
    RequestTimedOut = 7, "REQUEST_TIMED_OUT", retriable;
    BrokerNotAvailable = 8, "BROKER_NOT_AVAILABLE", definite;
    ReplicaNotAvailable = 9, "REPLICA_NOT_AVAILABLE", retriable;
    MessageTooLarge = 10, "MESSAGE_TOO_LARGE", definite;
    StaleControllerEpoch = 11, "STALE_CONTROLLER_EPOCH", definite;
    OffsetMetadataTooLarge = 12, "OFFSET_METADATA_TOO_LARGE", definite;
    NetworkException = 13, "NETWORK_EXCEPTION", retriable;
    CoordinatorLoadInProgress = 14, "COORDINATOR_LOAD_IN_PROGRESS", retriable;
    CoordinatorNotAvailable = 15, "COORDINATOR_NOT_AVAILABLE", retriable;
    NotCoordinator = 16, "NOT_COORDINATOR", retriable;
    InvalidTopicException = 17, "INVALID_TOPIC_EXCEPTION", definite;
    RecordListTooLarge = 18, "RECORD_LIST_TOO_LARGE", definite;
    NotEnoughReplicas = 19, "NOT_ENOUGH_REPLICAS", retriable;
    NotEnoughReplicasAfterAppend = 20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", retriable;
    InvalidRequiredAcks = 21, "INVALID_REQUIRED_ACKS", definite;
    IllegalGeneration = 22, "ILLEGAL_GENERATION", definite;
    InconsistentGroupProtocol = 23, "INCONSISTENT_GROUP_PROTOCOL", definite;
    InvalidGroupId = 24, "INVALID_GROUP_ID", definite;
    UnknownMemberId = 25, "UNKNOWN_MEMBER_ID", definite;
    InvalidSessionTimeout = 26, "INVALID_SESSION_TIMEOUT", definite;
    RebalanceInProgress = 27, "REBALANCE_IN_PROGRESS", definite;
    InvalidCommitOffsetSize = 28, "INVALID_COMMIT_OFFSET_SIZE", definite;
    TopicAuthorizationFailed = 29, "TOPIC_AUTHORIZATION_FAILED", definite;
    GroupAuthorizationFailed = 30, "GROUP_AUTHORIZATION_FAILED", definite;
    ClusterAuthorizationFailed = 31, "CLUSTER_AUTHORIZATION_FAILED", definite;
    InvalidTimestamp = 32, "INVALID_TIMESTAMP", definite;
    UnsupportedSaslMechanism = 33, "UNSUPPORTED_SASL_MECHANISM", definite;
    IllegalSaslState = 34, "ILLEGAL_SASL_STATE", definite;
    UnsupportedVersion = 35, "UNSUPPORTED_VERSION", definite;
    TopicAlreadyExists = 36, "TOPIC_ALREADY_EXISTS", definite;
    InvalidPartitions = 37, "INVALID_PARTITIONS", definite;
    InvalidReplicationFactor = 38, "INVALID_REPLICATION_FACTOR", definite;
    InvalidReplicaAssignment = 39, "INVALID_REPLICA_ASSIGNMENT", definite;
    InvalidConfig = 40, "INVALID_CONFIG", definite;
    NotController = 41, "NOT_CONTROLLER", retriable;
    InvalidRequest = 42, "INVALID_REQUEST", definite;
    UnsupportedForMessageFormat = 43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", definite;
    PolicyViolation = 44, "POLICY_VIOLATION", definite;
    OutOfOrderSequenceNumber = 45, "OUT_OF_ORDER_SEQUENCE_NUMBER", definite;
    DuplicateSequenceNumber = 46, "DUPLICATE_SEQUENCE_NUMBER", definite;
    InvalidProducerEpoch = 47, "INVALID_PRODUCER_EPOCH", definite;
    InvalidTxnState = 48, "INVALID_TXN_STATE", definite;
    InvalidProducerIdMapping = 49, "INVALID_PRODUCER_ID_MAPPING", definite;
    InvalidTransactionTimeout = 50, "INVALID_TRANSACTION_TIMEOUT", definite;
    ConcurrentTransactions = 51, "CONCURRENT_TRANSACTIONS", definite;
    TransactionCoordinatorFenced = 52, "TRANSACTION_COORDINATOR_FENCED", definite;
    TransactionalIdAuthorizationFailed = 53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", definite;
    SecurityDisabled = 54, "SECURITY_DISABLED", definite;
    OperationNotAttempted = 55, "OPERATION_NOT_ATTEMPTED", definite;
    KafkaStorageError = 56, "KAFKA_STORAGE_ERROR", retriable;
    LogDirNotFound = 57, "LOG_DIR_NOT_FOUND", definite;
    SaslAuthenticationFailed = 58, "SASL_AUTHENTICATION_FAILED", definite;
    UnknownProducerId = 59, "UNKNOWN_PRODUCER_ID", definite;
    ReassignmentInProgress = 60, "REASSIGNMENT_IN_PROGRESS", definite;
    DelegationTokenAuthDisabled = 61, "DELEGATION_TOKEN_AUTH_DISABLED", definite;
    DelegationTokenNotFound = 62, "DELEGATION_TOKEN_NOT_FOUND", definite;
    DelegationTokenOwnerMismatch = 63, "DELEGATION_TOKEN_OWNER_MISMATCH", definite;
    DelegationTokenRequestNotAllowed = 64, "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", definite;
    DelegationTokenAuthorizationFailed = 65, "DELEGATION_TOKEN_AUTHORIZATION_FAILED", definite;
    DelegationTokenExpired = 66, "DELEGATION_TOKEN_EXPIRED", definite;
    InvalidPrincipalType = 67, "INVALID_PRINCIPAL_TYPE", definite;
    NonEmptyGroup = 68, "NON_EMPTY_GROUP", definite;
    GroupIdNotFound = 69, "GROUP_ID_NOT_FOUND", definite;
    FetchSessionIdNotFound = 70, "FETCH_SESSION_ID_NOT_FOUND", retriable;
    InvalidFetchSessionEpoch = 71, "INVALID_FETCH_SESSION_EPOCH", retriable;
    ListenerNotFound = 72, "LISTENER_NOT_FOUND", retriable;
    TopicDeletionDisabled = 73, "TOPIC_DELETION_DISABLED", definite;
    FencedLeaderEpoch = 74, "FENCED_LEADER_EPOCH", retriable;
    UnknownLeaderEpoch = 75, "UNKNOWN_LEADER_EPOCH", retriable;
    UnsupportedCompressionType = 76, "UNSUPPORTED_COMPRESSION_TYPE", definite;
    StaleBrokerEpoch = 77, "STALE_BROKER_EPOCH", definite;
    OffsetNotAvailable = 78, "OFFSET_NOT_AVAILABLE", retriable;
    MemberIdRequired = 79, "MEMBER_ID_REQUIRED", definite;
    PreferredLeaderNotAvailable = 80, "PREFERRED_LEADER_NOT_AVAILABLE", retriable;
    GroupMaxSizeReached = 81, "GROUP_MAX_SIZE_REACHED", definite;
    FencedInstanceId = 82, "FENCED_INSTANCE_ID", definite;
    EligibleLeadersNotAvailable = 83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", retriable;
    ElectionNotNeeded = 84, "ELECTION_NOT_NEEDED", retriable;
    NoReassignmentInProgress = 85, "NO_REASSIGNMENT_IN_PROGRESS", definite;
    GroupSubscribedToTopic = 86, "GROUP_SUBSCRIBED_TO_TOPIC", definite;
    InvalidRecord = 87, "INVALID_RECORD", definite;
    UnstableOffsetCommit = 88, "UNSTABLE_OFFSET_COMMIT", retriable;
    ThrottlingQuotaExceeded = 89, "THROTTLING_QUOTA_EXCEEDED", retriable;
    ProducerFenced = 90, "PRODUCER_FENCED", definite;
    ResourceNotFound = 91, "RESOURCE_NOT_FOUND", definite;
    DuplicateResource = 92, "DUPLICATE_RESOURCE", definite;
    UnacceptableCredential = 93, "UNACCEPTABLE_CREDENTIAL", definite;
    InconsistentVoterSet = 94, "INCONSISTENT_VOTER_SET", definite;
    InvalidUpdateVersion = 95, "INVALID_UPDATE_VERSION", definite;
    FeatureUpdateFailed = 96, "FEATURE_UPDATE_FAILED", definite;
    PrincipalDeserializationFailure = 97, "PRINCIPAL_DESERIALIZATION_FAILURE", definite;
    SnapshotNotFound = 98, "SNAPSHOT_NOT_FOUND", definite;
    PositionOutOfRange = 99, "POSITION_OUT_OF_RANGE", definite;
    UnknownTopicId = 100, "UNKNOWN_TOPIC_ID", retriable;
    DuplicateBrokerRegistration = 101, "DUPLICATE_BROKER_REGISTRATION", definite;
    BrokerIdNotRegistered = 102, "BROKER_ID_NOT_REGISTERED", definite;
    InconsistentTopicId = 103, "INCONSISTENT_TOPIC_ID", retriable;
    InconsistentClusterId = 104, "INCONSISTENT_CLUSTER_ID", definite;
    TransactionalIdNotFound = 105, "TRANSACTIONAL_ID_NOT_FOUND", definite;
    FetchSessionTopicIdError = 106, "FETCH_SESSION_TOPIC_ID_ERROR", retriable;
    IneligibleReplica = 107, "INELIGIBLE_REPLICA", definite;
    NewLeaderElected = 108, "NEW_LEADER_ELECTED", definite;
    OffsetMovedToTieredStorage = 109, "OFFSET_MOVED_TO_TIERED_STORAGE", definite;
    FencedMemberEpoch = 110, "FENCED_MEMBER_EPOCH", definite;
    UnreleasedInstanceId = 111, "UNRELEASED_INSTANCE_ID", definite;
    UnsupportedAssignor = 112, "UNSUPPORTED_ASSIGNOR", definite;
    StaleMemberEpoch = 113, "STALE_MEMBER_EPOCH", definite;
    MismatchedEndpointType = 114, "MISMATCHED_ENDPOINT_TYPE", definite;
    UnsupportedEndpointType = 115, "UNSUPPORTED_ENDPOINT_TYPE", definite;
    UnknownControllerId = 116, "UNKNOWN_CONTROLLER_ID", definite;
    UnknownSubscriptionId = 117, "UNKNOWN_SUBSCRIPTION_ID", definite;
    TelemetryTooLarge = 118, "TELEMETRY_TOO_LARGE", definite;
    InvalidRegistration = 119, "INVALID_REGISTRATION", definite;
    TransactionAbortable = 120, "TRANSACTION_ABORTABLE", definite;
    InvalidRecordState = 121, "INVALID_RECORD_STATE", definite;
    ShareSessionNotFound = 122, "SHARE_SESSION_NOT_FOUND", retriable;
    InvalidShareSessionEpoch = 123, "INVALID_SHARE_SESSION_EPOCH", retriable;
    FencedStateEpoch = 124, "FENCED_STATE_EPOCH", definite;
    InvalidVoterKey = 125, "INVALID_VOTER_KEY", definite;
    DuplicateVoter = 126, "DUPLICATE_VOTER", definite;
    VoterNotFound = 127, "VOTER_NOT_FOUND", definite;
    InvalidRegularExpression = 128, "INVALID_REGULAR_EXPRESSION", definite;
    RebootstrapRequired = 129, "REBOOTSTRAP_REQUIRED", definite;
    StreamsInvalidTopology = 130, "STREAMS_INVALID_TOPOLOGY", definite;
    StreamsInvalidTopologyEpoch = 131, "STREAMS_INVALID_TOPOLOGY_EPOCH", definite;
    StreamsTopologyFenced = 132, "STREAMS_TOPOLOGY_FENCED", definite;
    ShareSessionLimitReached = 133, "SHARE_SESSION_LIMIT_REACHED", retriable;
}

impl ErrorCode {
    /// Whether this says that nothing went wrong.
    #[must_use]
    pub const fn is_none(self) -> bool {
        matches!(self, Self::None)
    }

    /// `Ok` for `NONE`, the code as an error otherwise.
    ///
    /// # Errors
    /// The code itself, unless it is `NONE`.
    pub const fn into_result(self) -> Result<(), Self> {
        match self {
            Self::None => Ok(()),
            error => Err(error),
        }
    }
}

impl From<ErrorCode> for i16 {
    fn from(code: ErrorCode) -> Self {
        code.code()
    }
}

impl From<i16> for ErrorCode {
    fn from(code: i16) -> Self {
        Self::from_code(code)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.name(), self.code())
    }
}

impl std::error::Error for ErrorCode {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::known_error;

    #[test]
    fn numbers_go_both_ways() {
        for code in i16::MIN..=i16::MAX {
            assert_eq!(ErrorCode::from_code(code).code(), code);
        }
    }

    #[test]
    fn the_list_agrees_with_the_generated_crate() {
        assert_eq!(ErrorCode::LISTED.len(), 135);
        for code in -1..=200 {
            let ours = ErrorCode::from_code(code);
            match known_error(code) {
                Some((name, retriable)) => {
                    assert_eq!(ours.name().replace('_', ""), name.to_uppercase());
                    assert_eq!(ours.is_retriable(), retriable, "{ours}");
                }
                None => assert!(ours.is_none() || matches!(ours, ErrorCode::Unknown(_))),
            }
        }
    }

    #[test]
    fn a_code_reads_with_name_and_number() {
        assert_eq!(
            ErrorCode::NotLeaderOrFollower.to_string(),
            "NOT_LEADER_OR_FOLLOWER (6)"
        );
        assert_eq!(ErrorCode::from_code(999).to_string(), "UNKNOWN (999)");
    }
}
