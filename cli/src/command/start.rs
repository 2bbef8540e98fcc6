//! `highwater start`: one node of a cluster.

use std::path::Path;

use serde_json::json;

use super::config::Sources;
use crate::exit::{Failure, Kind};
use crate::print::Printer;
use crate::{interrupt, nodes};

/// Start one node, on what `highwater init` has made.
///
/// It runs until Ctrl-C or SIGTERM, hands its leadership over, and ends; a second signal ends it
/// at once. Logs go to stderr; HIGHWATER_LOG=debug says more.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  highwater start --config cluster/node-0/highwater.toml
  highwater start --config cluster/node-0/highwater.toml --set node.shards=2")]
pub(crate) struct Arguments {
    #[command(flatten)]
    sources: Sources,
}

impl Arguments {
    /// Runs the node until it is told to end.
    ///
    /// # Errors
    /// When it cannot start, or its disk fails.
    pub(crate) fn run(self, printer: &Printer) -> Result<(), Failure> {
        if self.sources.config.is_none() {
            let what = "start needs --config FILE; `highwater init DIR` makes one";
            return Err(Failure::new(Kind::Setup, what));
        }
        nodes::log_to_stderr("info");
        let config = self.sources.effective()?;
        must_be_there(&config.node.data_dir)?;
        interrupt::run(|interrupt| async move {
            let node = nodes::start(config)?;
            let (id, kafka, metrics) = (node.id(), node.kafka_address(), node.metrics_address());
            printer.line(
                || {
                    format!(
                        "node {id} serves Kafka on {kafka} (TCP and QUIC), metrics on {metrics}"
                    )
                },
                || json!({ "event": "ready", "node": id, "kafka": kafka, "metrics": metrics }),
            )?;
            let nodes = vec![node];
            let failure = nodes::run(&nodes, &interrupt).await;
            nodes::stop(nodes, failure).await
        })
    }
}

/// `start` never formats.
fn must_be_there(data_dir: &Path) -> Result<(), Failure> {
    if data_dir.is_dir() {
        return Ok(());
    }
    let path = data_dir.display();
    let what = format!("{path}: there is no data directory; `highwater init DIR` makes a cluster");
    Err(Failure::new(Kind::Setup, what))
}
