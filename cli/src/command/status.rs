//! `highwater status`: the cluster's nodes, its partitions, and what each node has done.

mod gather;
mod numbers;
mod table;

use highwater_client::{Client, TopicName};
use serde_json::{Value, json};

use self::gather::{Lag, Node, Partition, nodes_of, partitions_of};
use self::table::Table;
use crate::cluster::{ClusterArguments, topic_name};
use crate::exit::Failure;
use crate::interrupt::{self, Interrupt};
use crate::print::Printer;

/// Show nodes, leaders, how far replicas are behind, and what each node has done.
///
/// How far they are behind is what leaders know (Kafka's DescribeQuorum); brokers that are not
/// Highwater's do not tell it. What nodes have done comes from their metrics, which are read on
/// a node's own machine only.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  highwater status
  highwater status --topic flights
  highwater --json status | jq 'select(.kind == \"node\") | {node, mapped: .counters.mapped_bytes}'")]
pub(crate) struct Arguments {
    /// Show the partitions of this topic only.
    #[arg(long, short, value_name = "TOPIC", value_parser = topic_name)]
    topic: Option<TopicName>,
    #[command(flatten)]
    cluster: ClusterArguments,
}

impl Arguments {
    /// Shows it.
    ///
    /// # Errors
    /// When no node answers, or there is no such topic. A node that is down is no error: it is
    /// shown as such.
    pub(crate) fn run(self, printer: &Printer) -> Result<(), Failure> {
        let printer = *printer;
        interrupt::run(|interrupt| self.until(interrupt, printer))
    }

    async fn until(self, interrupt: Interrupt, printer: Printer) -> Result<(), Failure> {
        tokio::select! {
            result = self.show(printer) => result,
            () = interrupt.wait() => Err(Failure::interrupted("interrupted")),
        }
    }

    async fn show(self, printer: Printer) -> Result<(), Failure> {
        let client: Client = self.cluster.connect(false).await?;
        let admin = client.admin();
        let all = admin.list_topics().await?;
        let shown = match &self.topic {
            Some(topic) => vec![admin.describe_topic(topic).await?],
            None => all.clone(),
        };
        let cluster = admin.describe_cluster().await?;
        let nodes = nodes_of(&admin, &cluster, &all).await;
        let partitions = partitions_of(&admin, &shown).await;
        if printer.is_json() {
            return print_json(printer, &nodes, &partitions);
        }
        print_nodes(printer, &nodes)?;
        print_partitions(printer, &partitions)?;
        print_numbers(printer, &nodes)
    }
}

fn print_json(printer: Printer, nodes: &[Node], partitions: &[Partition]) -> Result<(), Failure> {
    let objects = nodes.iter().map(node_json);
    let objects = objects.chain(partitions.iter().map(partition_json));
    for object in objects {
        printer.line(String::new, || object)?;
    }
    Ok(())
}

fn node_json(node: &Node) -> Value {
    json!({
        "kind": "node",
        "node": node.id,
        "address": node.address,
        "alive": node.is_alive(),
        "controller": node.is_controller,
        "counters": node.counters.as_ref().ok().map(numbers::json),
        "counters_missing": node.counters.as_ref().err(),
    })
}

fn partition_json(partition: &Partition) -> Value {
    let lag = match &partition.lag {
        Lag::Known(lag) => Some(lag.iter().map(|(node, lag)| (node.to_string(), json!(lag)))),
        Lag::NotTold | Lag::NoLeader | Lag::NeverUsed => None,
    };
    json!({
        "kind": "partition",
        "topic": partition.topic.as_str(),
        "partition": partition.number,
        "leader": partition.leader,
        "leader_epoch": partition.leader_epoch,
        "replicas": partition.replicas,
        "high_watermark": partition.high_watermark.map(|offset| offset.0),
        "lag": lag.map(Iterator::collect::<serde_json::Map<String, Value>>),
    })
}

fn print_nodes(printer: Printer, nodes: &[Node]) -> Result<(), Failure> {
    let mut table = Table::new(&["node", "address", "state"]);
    for node in nodes {
        let address = node.address.clone().unwrap_or_else(|| "-".to_owned());
        let role = if node.is_controller {
            ", controller"
        } else {
            ""
        };
        let state = if node.is_alive() {
            "alive"
        } else {
            "not reached"
        };
        table.row(vec![node.id.to_string(), address, format!("{state}{role}")]);
    }
    print(printer, &table)
}

fn print_partitions(printer: Printer, partitions: &[Partition]) -> Result<(), Failure> {
    if partitions.is_empty() {
        return say(printer, "\nno topics");
    }
    let mut table = Table::new(&["partition", "leader", "epoch", "high watermark", "lag"]);
    for partition in partitions {
        table.row(vec![
            format!("{}-{}", partition.topic, partition.number),
            or_dash(partition.leader),
            partition.leader_epoch.to_string(),
            or_dash(partition.high_watermark),
            lag_text(partition),
        ]);
    }
    say(printer, "")?;
    print(printer, &table)?;
    if partitions
        .iter()
        .any(|partition| partition.lag.is_partial())
    {
        say(printer, "?: the leader has not heard from that replica")?;
    }
    if partitions
        .iter()
        .any(|partition| partition.lag == Lag::NotTold)
    {
        let why = "lag is not known: it was not told of topics (Kafka's DescribeQuorum)";
        say(printer, why)?;
    }
    Ok(())
}

/// By replica, the records that it is behind the leader.
fn lag_text(partition: &Partition) -> String {
    let replicas: Vec<String> = match &partition.lag {
        Lag::Known(lag) => (lag.iter())
            .map(|(node, lag)| match lag {
                Some(lag) => format!("{node}:{lag}"),
                None => format!("{node}:?"),
            })
            .collect(),
        _ => (partition.replicas.iter())
            .map(|node| format!("{node}:-"))
            .collect(),
    };
    let why = match partition.lag {
        Lag::NoLeader => "  no leader",
        Lag::NeverUsed => "  never used",
        Lag::Known(_) | Lag::NotTold => "",
    };
    format!("{}{why}", replicas.join(" "))
}

fn print_numbers(printer: Printer, nodes: &[Node]) -> Result<(), Failure> {
    let told: Vec<_> = (nodes.iter())
        .filter_map(|node| Some((node.id, node.counters.as_ref().ok()?)))
        .collect();
    if !told.is_empty() {
        say(printer, "")?;
        print(printer, &numbers::table(&told))?;
    }
    for node in nodes.iter().filter(|node| node.is_alive()) {
        if let Err(reason) = &node.counters {
            say(
                printer,
                &format!("no numbers of node {}: {reason}", node.id),
            )?;
        }
    }
    Ok(())
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn print(printer: Printer, table: &Table) -> Result<(), Failure> {
    table.lines().try_for_each(|line| say(printer, &line))
}

fn say(printer: Printer, line: &str) -> Result<(), Failure> {
    printer.line(|| line.to_owned(), || Value::Null)
}
