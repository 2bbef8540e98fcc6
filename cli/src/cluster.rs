//! The way to a cluster: the flags that name it, the connection, and what to tell a person when
//! there is none.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use highwater_client::{
    AdminError, CallError, Client, ClientBuilder, ConnectError, ConsumeError, Datagrams, ErrorCode,
    MetadataError, ProduceError, TopicName,
};
use tokio::time::Instant;

use crate::exit::{Failure, Kind};

/// Which cluster, and how to reach it.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArguments {
    /// Nodes to start from; one that answers is enough.
    #[arg(
        long,
        short,
        value_name = "HOST:PORT,..",
        env = "HIGHWATER_BOOTSTRAP",
        default_value = "127.0.0.1:9092"
    )]
    bootstrap: String,
    /// How to talk [default: quic where an authority to trust is given, else tcp].
    #[arg(long, value_enum)]
    transport: Option<TransportName>,
    /// The authority that signed the nodes' certificates, for QUIC: the cluster's ca.pem.
    #[arg(long, value_name = "FILE", env = "HIGHWATER_CA")]
    ca: Option<PathBuf>,
    /// The largest UDP payload to try with QUIC, in bytes: 6500 where the network's MTU is 9,000
    /// [default: 1452, and 65000 to this machine].
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(DATAGRAM_BYTES))]
    datagram_bytes: Option<u16>,
}

/// UDP payloads that QUIC can be told to try: from what each network must carry on.
pub(crate) const DATAGRAM_BYTES: std::ops::RangeInclusive<i64> = 1_200..=65_000;

/// How to talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum TransportName {
    /// Encrypted, and the node proves that it is of the cluster.
    Quic,
    /// Not encrypted; what every Kafka broker speaks.
    Tcp,
}

impl ClusterArguments {
    /// Connects. The topics that are asked for later are created by that only if `auto_create`
    /// says so and the cluster lets it.
    ///
    /// # Errors
    /// When no node answers.
    pub(crate) async fn connect(&self, auto_create: bool) -> Result<Client, Failure> {
        self.builder(auto_create)?
            .connect()
            .await
            .map_err(|error| self.explain(error))
    }

    /// Whether clients talk QUIC, and not TCP.
    pub(crate) fn is_quic(&self) -> bool {
        self.ca.is_some() && self.transport != Some(TransportName::Tcp)
    }

    fn builder(&self, auto_create: bool) -> Result<ClientBuilder, Failure> {
        let builder = Client::builder()
            .bootstrap(&self.bootstrap)
            .datagrams(
                self.datagram_bytes
                    .map_or_else(Datagrams::default, Datagrams::of),
            )
            .allow_auto_topic_creation(auto_create);
        match (self.transport, &self.ca) {
            (Some(TransportName::Quic) | None, Some(ca)) => Ok(builder.quic(ca)),
            (Some(TransportName::Tcp), _) | (None, None) => Ok(builder.tcp()),
            (Some(TransportName::Quic), None) => Err(Failure::new(
                Kind::Setup,
                "QUIC needs an authority to trust: name the cluster's ca.pem by --ca or HIGHWATER_CA",
            )),
        }
    }

    fn explain(&self, error: CallError) -> Failure {
        let failure = Failure::from(error.clone());
        if !matches!(error, CallError::Connect(_)) || !failure.is(Kind::Absent) {
            return failure;
        }
        let advice = "start one by `highwater dev`, or name another by --bootstrap";
        Failure::new(Kind::Absent, format!("{error}; {advice}"))
    }
}

/// A topic's name, as clap reads it.
///
/// # Errors
/// When no topic can have it.
pub(crate) fn topic_name(text: &str) -> Result<TopicName, String> {
    TopicName::new(text).map_err(|error| error.to_string())
}

/// How long a question is asked again while its answer is that somebody else must be asked, or
/// nobody yet: elections take a moment.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long to wait between two such questions.
const PAUSE: Duration = Duration::from_millis(200);

/// Asks until there is an answer, or an error that asking again does not change.
///
/// # Errors
/// The last one.
pub(crate) async fn insist<T, F>(mut ask: impl FnMut() -> F) -> Result<T, AdminError>
where
    F: Future<Output = Result<T, AdminError>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Err(error) if is_passing(&error) && Instant::now() < deadline => {
                tokio::time::sleep(PAUSE).await;
            }
            result => return result,
        }
    }
}

fn is_passing(error: &AdminError) -> bool {
    match error {
        AdminError::Call(CallError::Connect(_)) => false,
        AdminError::Call(error) => error.is_retriable(),
        AdminError::Refused { error, .. } => error.is_retriable(),
        AdminError::Metadata(_) | AdminError::Missing { .. } => false,
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let kind = match &error {
            CallError::Connect(
                ConnectError::NoTrust
                | ConnectError::Trust { .. }
                | ConnectError::NoBootstrap
                | ConnectError::Address { .. },
            ) => Kind::Setup,
            CallError::Connect(_)
            | CallError::ConnectionLost { .. }
            | CallError::Timeout { .. } => Kind::Absent,
            CallError::Refused { error, .. } => kind_of(*error),
            CallError::Unsupported { .. } | CallError::Decode { .. } | CallError::Encode { .. } => {
                Kind::Other
            }
        };
        Self::new(kind, error)
    }
}

impl From<MetadataError> for Failure {
    fn from(error: MetadataError) -> Self {
        let kind = match &error {
            MetadataError::Call(call) => return call.clone().into(),
            MetadataError::UnknownTopic { .. } => {
                let advice = "`highwater topic list` shows those that do, `topic create` adds one";
                return Self::new(Kind::NotFound, format!("{error}; {advice}"));
            }
            MetadataError::UnknownPartition { .. } => Kind::NotFound,
            MetadataError::Topic { error, .. } => kind_of(*error),
        };
        Self::new(kind, error)
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Call(error) => error.into(),
            AdminError::Metadata(error) => error.into(),
            AdminError::Refused { error: code, .. } => Self::new(kind_of(code), error),
            AdminError::Missing { .. } => Self::new(Kind::Other, error),
        }
    }
}

impl From<ProduceError> for Failure {
    fn from(error: ProduceError) -> Self {
        let kind = match &error {
            ProduceError::Metadata(error) => return error.clone().into(),
            ProduceError::NoProducerId { source } => return source.clone().into(),
            ProduceError::Refused { error, .. } => kind_of(*error),
            ProduceError::Expired { .. } | ProduceError::OutcomeUnknown { .. } => Kind::Absent,
            ProduceError::RecordTooLarge { .. } | ProduceError::Encode { .. } => Kind::Other,
        };
        Self::new(kind, error)
    }
}

impl From<ConsumeError> for Failure {
    fn from(error: ConsumeError) -> Self {
        let kind = match &error {
            ConsumeError::Metadata(error) => return error.clone().into(),
            ConsumeError::Call(error) => return error.clone().into(),
            ConsumeError::Refused { error, .. } => kind_of(*error),
            ConsumeError::OffsetOutOfRange { .. } => {
                let advice = "--from beginning reads what is there";
                return Self::new(Kind::NotFound, format!("{error}; {advice}"));
            }
            ConsumeError::CorruptBatch { .. } => Kind::Damage,
            ConsumeError::BatchTooLarge { .. }
            | ConsumeError::NotAssigned { .. }
            | ConsumeError::NothingAssigned => Kind::Other,
        };
        Self::new(kind, error)
    }
}

fn kind_of(error: ErrorCode) -> Kind {
    match error {
        ErrorCode::UnknownTopicOrPartition => Kind::NotFound,
        ErrorCode::KafkaStorageError => Kind::Disk,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart_as_scripts_need_it() {
        let unknown = MetadataError::UnknownTopic {
            topic: "flights".to_owned(),
        };
        assert!(Failure::from(AdminError::Metadata(unknown.clone())).is(Kind::NotFound));
        assert!(Failure::from(ProduceError::Metadata(unknown)).is(Kind::NotFound));
        let refused = AdminError::Refused {
            subject: "topic flights".to_owned(),
            error: ErrorCode::UnknownTopicOrPartition,
            message: None,
        };
        assert!(Failure::from(refused).is(Kind::NotFound));
        let lost = CallError::ConnectionLost {
            address: "localhost:9092".to_owned(),
            reason: "reset".to_owned(),
        };
        assert!(Failure::from(ConsumeError::Call(lost)).is(Kind::Absent));
    }

    #[test]
    fn names_that_no_topic_has_are_refused() {
        assert!(topic_name("flights").is_ok());
        assert!(topic_name("fl/ights").is_err());
        assert!(topic_name("").is_err());
    }
}
