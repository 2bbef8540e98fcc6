//! `highwater topic`: what topics there are, and changing that.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Subcommand;
use highwater_client::{
    Admin, Client, ConfigEntry, NewTopic, Offset, StartAt, TopicDescription, TopicName,
    TopicPartition,
};
use serde_json::{Value, json};

use super::key_value;
use crate::cluster::{ClusterArguments, insist, topic_name};
use crate::exit::Failure;
use crate::interrupt::{self, Interrupt};
use crate::print::Printer;

/// Create, list, describe and delete topics.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a topic.
    #[command(after_help = "Examples:
  highwater topic create flights --partitions 6
  highwater topic create flights --partitions 6 --config segment.bytes=65536 --config retention.ms=-1")]
    Create(Create),
    /// List all topics.
    #[command(after_help = "Examples:
  highwater topic list
  highwater --json topic list | jq -r .topic")]
    List {
        #[command(flatten)]
        cluster: ClusterArguments,
    },
    /// Show a topic's partitions: who leads them, who holds them, from where to where they reach.
    #[command(after_help = "Examples:
  highwater topic describe flights
  highwater topic describe flights --configs")]
    Describe {
        /// Which topic.
        #[arg(value_parser = topic_name)]
        topic: TopicName,
        /// Show its configurations too.
        #[arg(long)]
        configs: bool,
        #[command(flatten)]
        cluster: ClusterArguments,
    },
    /// Delete a topic and all its records.
    #[command(after_help = "Examples:
  highwater topic delete flights")]
    Delete {
        /// Which topic.
        #[arg(value_parser = topic_name)]
        topic: TopicName,
        #[command(flatten)]
        cluster: ClusterArguments,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Its name: letters, digits, `.`, `_` and `-`.
    #[arg(value_parser = topic_name)]
    topic: TopicName,
    /// How many partitions it has [default: as the cluster is configured].
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    partitions: Option<u32>,
    /// How many replicas each partition has [default: as the cluster is configured].
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    replication_factor: Option<u16>,
    /// A configuration by Kafka's name, as in --config retention.ms=-1; may be repeated.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = key_value)]
    configs: Vec<(String, String)>,
    #[command(flatten)]
    cluster: ClusterArguments,
}

impl Arguments {
    /// Does it.
    ///
    /// # Errors
    /// When no node answers, or the cluster refuses.
    pub(crate) fn run(self, printer: &Printer) -> Result<(), Failure> {
        let printer = *printer;
        interrupt::run(|interrupt| self.until(interrupt, printer))
    }

    async fn until(self, interrupt: Interrupt, printer: Printer) -> Result<(), Failure> {
        tokio::select! {
            result = self.action.run(printer) => result,
            () = interrupt.wait() => Err(Failure::interrupted("interrupted")),
        }
    }
}

impl Action {
    async fn run(self, printer: Printer) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(printer).await,
            Self::List { cluster } => {
                let admin = cluster.connect(false).await?.admin();
                list(&admin, printer).await
            }
            Self::Describe {
                topic,
                configs,
                cluster,
            } => {
                let client = cluster.connect(false).await?;
                describe(&client, &topic, configs, printer).await
            }
            Self::Delete { topic, cluster } => {
                let admin = cluster.connect(false).await?.admin();
                admin.delete_topic(&topic).await?;
                printer.line(
                    || format!("deleted topic {topic}"),
                    || json!({ "topic": topic.as_str(), "deleted": true }),
                )
            }
        }
    }
}

impl Create {
    async fn run(self, printer: Printer) -> Result<(), Failure> {
        let admin = self.cluster.connect(false).await?.admin();
        let topic = self.topic;
        let mut new = NewTopic::new(&topic);
        if let Some(partitions) = self.partitions {
            new = new.partitions(partitions);
        }
        if let Some(replicas) = self.replication_factor {
            new = new.replication_factor(replicas);
        }
        for (key, value) in self.configs {
            new = new.config(key, value);
        }
        admin.create_topic(new).await?;
        printer.line(
            || format!("created topic {topic}"),
            || json!({ "topic": topic.as_str(), "created": true }),
        )
    }
}

async fn list(admin: &Admin, printer: Printer) -> Result<(), Failure> {
    let topics = admin.list_topics().await?;
    let widest = topics.iter().map(|topic| topic.name.as_str().len()).max();
    let width = widest.unwrap_or(0);
    for topic in topics {
        let (partitions, replicas) = (topic.partition_count(), replica_count(&topic));
        let name = topic.name.as_str();
        printer.line(
            || format!("{name:width$}  {partitions} partitions, {replicas} replicas each"),
            || {
                json!({
                    "topic": name,
                    "partitions": partitions,
                    "replicas": replicas,
                    "internal": topic.is_internal,
                })
            },
        )?;
    }
    Ok(())
}

fn replica_count(topic: &TopicDescription) -> usize {
    let counts = topic.partitions.values().map(|each| each.replicas.len());
    counts.max().unwrap_or(0)
}

async fn describe(
    client: &Client,
    topic: &TopicName,
    with_configs: bool,
    printer: Printer,
) -> Result<(), Failure> {
    let admin = client.admin();
    let description = admin.describe_topic(topic).await?;
    let (starts, ends) = (
        offsets(&admin, &description, StartAt::Earliest).await,
        offsets(&admin, &description, StartAt::Latest).await,
    );
    for (&number, partition) in &description.partitions {
        let (start, end) = (starts.get(&number), ends.get(&number));
        printer.line(
            || {
                format!(
                    "{topic}-{number}: leader {}, epoch {}, replicas {}, in sync {}, offsets {} to {}",
                    or_none(partition.leader),
                    partition.leader_epoch,
                    joined(&partition.replicas),
                    joined(&partition.in_sync_replicas),
                    or_none(start),
                    or_none(end),
                )
            },
            || {
                json!({
                    "topic": topic.as_str(),
                    "partition": number,
                    "leader": partition.leader,
                    "leader_epoch": partition.leader_epoch,
                    "replicas": partition.replicas,
                    "in_sync_replicas": partition.in_sync_replicas,
                    "start_offset": start.map(|offset| offset.0),
                    "end_offset": end.map(|offset| offset.0),
                })
            },
        )?;
    }
    if with_configs {
        for entry in admin.describe_configs(topic).await? {
            printer.line(|| config_text(&entry), || config_json(topic, &entry))?;
        }
    }
    Ok(())
}

/// The offsets of those partitions whose leaders say them. A partition without a leader is
/// described without, rather than not at all.
async fn offsets(
    admin: &Admin,
    topic: &Arc<TopicDescription>,
    at: StartAt,
) -> BTreeMap<u32, Offset> {
    let mut offsets = BTreeMap::new();
    let led = topic
        .partitions
        .iter()
        .filter(|(_, partition)| partition.leader.is_some());
    for (&partition, _) in led {
        let of = TopicPartition {
            topic: topic.name.clone(),
            partition,
        };
        if let Ok(offset) = insist(|| admin.offset(&of, at)).await {
            offsets.insert(partition, offset);
        }
    }
    offsets
}

fn config_text(entry: &ConfigEntry) -> String {
    let value = entry.value.as_deref().unwrap_or("(not told)");
    let origin = if entry.is_default { "default" } else { "topic" };
    format!("{} = {value}  # {origin}", entry.name)
}

fn config_json(topic: &TopicName, entry: &ConfigEntry) -> Value {
    json!({
        "topic": topic.as_str(),
        "config": entry.name,
        "value": entry.value,
        "default": entry.is_default,
        "read_only": entry.is_read_only,
    })
}

fn or_none(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

fn joined(ids: &[i32]) -> String {
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    format!("[{}]", ids.join(" "))
}
