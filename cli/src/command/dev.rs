//! `highwater dev`: a whole cluster in this process, for trying things.

use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater::Node;
use highwater::config::Config;
use highwater::setup::{CA_FILE, CONFIG_FILE, ClusterPlan, make_cluster};
use highwater_client::{Admin, Client, StartAt, TopicPartition};
use indicatif::{DecimalBytes, HumanCount};
use serde_json::json;

use super::key_value;
use crate::exit::Failure;
use crate::local::{self, Addresses};
use crate::print::Printer;
use crate::{interrupt, nodes};

/// How long the end waits for the totals.
const TOTALS_MAX: Duration = Duration::from_millis(1_500);

/// Run a cluster in this process: three nodes on loopback, topics made when they are asked for.
///
/// The folder is made by the first run and used again by the next. Everything is as in a real
/// cluster: every acknowledged record is on disk on two of the three.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  highwater dev                            Kafka on 9092 to 9094, data in ./highwater-dev
  highwater dev --nodes 1 --port 0         one node, on a free port
  highwater dev --set node.shards=2")]
pub(crate) struct Arguments {
    /// Where the cluster lives.
    #[arg(long, default_value = "highwater-dev")]
    dir: PathBuf,
    /// How many nodes, when the folder is made.
    #[arg(long, default_value_t = 3)]
    nodes: u32,
    /// Kafka's port of node 0, the others follow; 0 takes free ones.
    #[arg(long, default_value_t = 9092)]
    port: u16,
    /// Set one option of all nodes, as in --set node.shards=2; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

impl Arguments {
    /// Runs the cluster until it is told to end.
    ///
    /// # Errors
    /// When it cannot start, or a disk fails.
    pub(crate) fn run(self, printer: &Printer) -> Result<(), Failure> {
        nodes::log_to_stderr("warn");
        let folders = self.folders()?;
        let configs = self.configs(&folders)?;
        let ca = self.dir.join(CA_FILE);
        interrupt::run(|interrupt| async move {
            let started: Vec<_> = configs
                .into_iter()
                .map(nodes::start)
                .collect::<Result<_, _>>()?;
            let addresses = started.iter().map(|node| node.kafka_address().to_string());
            let bootstrap = addresses.collect::<Vec<_>>().join(",");
            let metrics: Vec<_> = started.iter().map(Node::metrics_address).collect();
            printer.line(
                || greeting(&bootstrap, &ca),
                || json!({ "event": "ready", "bootstrap": bootstrap, "ca": ca, "metrics": metrics }),
            )?;
            let failure = nodes::run(&started, &interrupt).await;
            // A broken cluster may not answer, and the user wants an end.
            let told = tell(&started, &bootstrap, printer);
            let told = tokio::time::timeout(TOTALS_MAX, told).await;
            nodes::stop(started, failure).await?;
            told.unwrap_or(Ok(()))
        })
    }

    /// The nodes' folders, made if there are none.
    fn folders(&self) -> Result<Vec<PathBuf>, Failure> {
        let first = self.dir.join("node-0").join(CONFIG_FILE);
        if !first.exists() {
            let plan = ClusterPlan {
                nodes: self.nodes,
                ..ClusterPlan::default()
            };
            return Ok(make_cluster(&self.dir, &plan)?);
        }
        let folders = (0..).map(|id| self.dir.join(format!("node-{id}")));
        Ok(folders.take_while(|folder| folder.is_dir()).collect())
    }

    /// The nodes' configurations, with the addresses of this run.
    fn configs(&self, folders: &[PathBuf]) -> Result<Vec<Config>, Failure> {
        let addresses = Addresses::of_nodes(folders.len(), self.port)?;
        let set = self.set.iter().map(|(key, value)| (&**key, &**value));
        let options: Vec<_> = [("topics.auto_create", "true")]
            .into_iter()
            .chain(set)
            .collect();
        local::configs(folders, &addresses, &options)
    }
}

/// Says how far each partition is acknowledged, and what was written and read in this run. What
/// the cluster does not tell any more is left out.
async fn tell(nodes: &[Node], bootstrap: &str, printer: &Printer) -> Result<(), Failure> {
    if let Ok(client) = Client::builder().bootstrap(bootstrap).tcp().connect().await {
        tell_ends(&client.admin(), printer).await?;
    }
    let (mut written, mut bytes, mut read) = (0, 0, 0);
    for node in nodes {
        if let Ok(counters) = node.counters().await {
            written += counters.produced_records;
            bytes += counters.produced_bytes;
            read += counters.fetched_records;
        }
    }
    printer.line(
        || {
            format!(
                "{} records, {} written; {} records read",
                HumanCount(written),
                DecimalBytes(bytes),
                HumanCount(read)
            )
        },
        || json!({ "event": "ended", "produced": written, "bytes": bytes, "consumed": read }),
    )
}

async fn tell_ends(admin: &Admin, printer: &Printer) -> Result<(), Failure> {
    for topic in admin.list_topics().await.unwrap_or_default() {
        for &partition in topic.partitions.keys() {
            let of = TopicPartition {
                topic: topic.name.clone(),
                partition,
            };
            let Ok(end) = admin.offset(&of, StartAt::Latest).await else {
                continue;
            };
            // A partition without records has no last one.
            if let Some(last) = end.0.checked_sub(1) {
                printer.line(
                    || format!("{of}: last offset {last}"),
                    || {
                        json!({
                            "topic": of.topic.as_str(),
                            "partition": partition,
                            "last_offset": last,
                        })
                    },
                )?;
            }
        }
    }
    Ok(())
}

fn greeting(bootstrap: &str, ca: &Path) -> String {
    let first = bootstrap.split(',').next().unwrap_or(bootstrap);
    format!(
        "Highwater runs: Kafka on {bootstrap}\n\
         Paste into another terminal:\n  \
         export HIGHWATER_BOOTSTRAP={bootstrap} HIGHWATER_CA={}\n  \
         echo hello | kcat -P -b {first} -t greetings\n  \
         kcat -C -b {first} -t greetings -e\n\
         Ctrl-C ends it.",
        ca.display()
    )
}
