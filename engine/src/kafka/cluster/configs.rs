//! DescribeConfigs: every config with its value and where it comes from.

use highwater_protocol::ErrorCode;
use highwater_protocol::messages::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
    DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym, StrBytes,
};

use super::view::View;
use crate::config::{ConfigKey, ConfigType, TOPIC_CONFIGS};
use crate::controller::Topic;

/// Kafka's numbers of resources (`ConfigResource.Type`).
pub(super) const TOPIC_RESOURCE: i8 = 2;
const BROKER_RESOURCE: i8 = 4;

/// Kafka's numbers of sources (`DescribeConfigsResponse.ConfigSource`).
pub(super) const SOURCE_TOPIC: i8 = 1;
const SOURCE_STATIC_BROKER: i8 = 4;
pub(super) const SOURCE_DEFAULT: i8 = 5;

/// How many resources are described at once: each takes a few bytes to ask for, and thousands to
/// answer.
const RESOURCES_MAX: usize = 1_000;

/// The answer.
pub(super) fn describe(request: &DescribeConfigsRequest, view: &View) -> DescribeConfigsResponse {
    let resources = (0..).zip(&request.resources);
    let results = resources.map(|(number, resource)| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let configs = match number {
            0..RESOURCES_MAX => configs_of(resource, request, view),
            _ => Err((ErrorCode::PolicyViolation, "too many resources at once")),
        };
        match configs {
            Ok(configs) => result.with_configs(configs),
            Err((code, message)) => result
                .with_error_code(code.code())
                .with_error_message(Some(StrBytes::from_static_str(message))),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn configs_of(
    resource: &DescribeConfigsResource,
    request: &DescribeConfigsRequest,
    view: &View,
) -> Result<Vec<DescribeConfigsResourceResult>, (ErrorCode, &'static str)> {
    let wanted = |name: &str| match &resource.configuration_keys {
        Some(keys) => keys.iter().any(|key| &**key == name),
        None => true,
    };
    match resource.resource_type {
        TOPIC_RESOURCE => {
            let topic = view
                .topic(&resource.resource_name)
                .map_err(|code| (code, "no such topic is known here"))?;
            let keys = TOPIC_CONFIGS.iter().filter(|key| wanted(key.name));
            Ok(keys.map(|key| topic_config(key, topic, request)).collect())
        }
        BROKER_RESOURCE => {
            // The empty name means what holds for all brokers, of which there is nothing.
            if resource.resource_name.is_empty() {
                return Ok(Vec::new());
            }
            let own = view.config.registration.node.0.to_string();
            if *resource.resource_name != *own {
                return Err((ErrorCode::InvalidRequest, "ask the broker itself"));
            }
            let configs = broker_configs(view).into_iter();
            let configs = configs.filter(|config| wanted(config.name));
            Ok(configs.map(|config| config.describe(request)).collect())
        }
        _ => Err((
            ErrorCode::InvalidRequest,
            "only topics and brokers have configs",
        )),
    }
}

fn topic_config(
    key: &ConfigKey,
    topic: &Topic,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResourceResult {
    let synonym = |value: String, source| {
        DescribeConfigsSynonym::default()
            .with_name(StrBytes::from_static_str(key.name))
            .with_value(Some(StrBytes::from_string(value)))
            .with_source(source)
    };
    let own = topic.configs().own_value(key);
    let default = key.default_for(topic.replication());
    let mut synonyms = Vec::new();
    if request.include_synonyms {
        synonyms.extend(own.map(|own| synonym(own.to_owned(), SOURCE_TOPIC)));
        synonyms.push(synonym(default, SOURCE_DEFAULT));
    }
    let source = own.map_or(SOURCE_DEFAULT, |_| SOURCE_TOPIC);
    let value = topic.configs().get(key, topic.replication());
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(key.name))
        .with_value(Some(StrBytes::from_string(value)))
        .with_read_only(key.is_read_only())
        .with_config_source(source)
        .with_synonyms(synonyms)
        .with_config_type(key.kind.code())
        .with_documentation(
            request
                .include_documentation
                .then(|| StrBytes::from_static_str(key.doc)),
        )
}

/// A setting of the node under the name that Kafka's tools know. All are read-only here.
struct BrokerConfig {
    name: &'static str,
    value: String,
    kind: ConfigType,
    doc: &'static str,
}

fn broker_configs(view: &View) -> Vec<BrokerConfig> {
    let config = &view.config;
    let advertised = config.registration.listeners.iter();
    let advertised: Vec<String> = advertised
        .map(|listener| plaintext(&format!("{}:{}", listener.host, listener.port)))
        .collect();
    vec![
        BrokerConfig {
            name: "advertised.listeners",
            value: advertised.join(","),
            kind: ConfigType::List,
            doc: "Where clients are told to turn to.",
        },
        BrokerConfig {
            name: "auto.create.topics.enable",
            value: config.auto_create.to_string(),
            kind: ConfigType::Boolean,
            doc: "Whether a client that asks for a topic's metadata creates it.",
        },
        BrokerConfig {
            name: "broker.id",
            value: config.registration.node.0.to_string(),
            kind: ConfigType::Int,
            doc: "The node's number.",
        },
        BrokerConfig {
            name: "default.replication.factor",
            value: config.defaults.replication.to_string(),
            kind: ConfigType::Int,
            doc: "Replicas of a topic's partitions unless its creator says otherwise; as many as \
                  there are nodes, if they are fewer.",
        },
        BrokerConfig {
            name: "listeners",
            value: plaintext(&config.listener),
            kind: ConfigType::List,
            doc: "What the node listens on for clients, over TCP; over QUIC on the same port of \
                  UDP.",
        },
        BrokerConfig {
            name: "metrics.listener",
            value: config.metrics_listener.clone(),
            kind: ConfigType::String,
            doc: "Address and port of the node's metrics in Prometheus' text format, over HTTP; \
                  reachable on the node's own machine only. No config of Kafka's.",
        },
        BrokerConfig {
            name: "node.id",
            value: config.registration.node.0.to_string(),
            kind: ConfigType::Int,
            doc: "The node's number.",
        },
        BrokerConfig {
            name: "num.partitions",
            value: config.defaults.partitions.to_string(),
            kind: ConfigType::Int,
            doc: "Partitions of a topic unless its creator says otherwise.",
        },
    ]
}

/// A listener as Kafka's configs write it.
fn plaintext(address: &str) -> String {
    format!("PLAINTEXT://{address}")
}

impl BrokerConfig {
    fn describe(self, request: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
        let value = StrBytes::from_string(self.value);
        let mut synonyms = Vec::new();
        if request.include_synonyms {
            synonyms.push(
                DescribeConfigsSynonym::default()
                    .with_name(StrBytes::from_static_str(self.name))
                    .with_value(Some(value.clone()))
                    .with_source(SOURCE_STATIC_BROKER),
            );
        }
        DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str(self.name))
            .with_value(Some(value))
            .with_read_only(true)
            .with_config_source(SOURCE_STATIC_BROKER)
            .with_synonyms(synonyms)
            .with_config_type(self.kind.code())
            .with_documentation(
                request
                    .include_documentation
                    .then(|| StrBytes::from_static_str(self.doc)),
            )
    }
}
