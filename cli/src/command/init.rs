//! `highwater init`: the files of a cluster.

use std::net::IpAddr;
use std::path::PathBuf;

use highwater::setup::{CONFIG_FILE, ClusterPlan, make_cluster};
use serde_json::json;

use crate::exit::Failure;
use crate::print::Printer;

/// Make a cluster: its authority, and for each node certificates, a configuration and a
/// formatted data directory.
///
/// Nothing is started. Each node's folder is all that its machine needs; keep ca.key apart.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  highwater init cluster                   three nodes on this machine, Kafka on 9092 to 9094
  highwater init one --nodes 1 --base-port 19092
  highwater init cluster --host 10.0.0.1,10.0.0.2,10.0.0.3")]
pub(crate) struct Arguments {
    /// The folder to make, or an empty one.
    dir: PathBuf,
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    nodes: u32,
    /// The address that the nodes listen on; or that of each, separated by commas. Elsewhere than
    /// on loopback they are to be started with --insecure-no-auth: clients are neither encrypted
    /// nor authenticated yet.
    #[arg(long, default_value = "127.0.0.1", value_delimiter = ',')]
    host: Vec<IpAddr>,
    /// Kafka's port of node 0. Others on its address follow; peers 100, metrics 200 above.
    #[arg(long, default_value_t = 9092)]
    base_port: u16,
}

impl Arguments {
    /// Makes it, and says how to start it.
    ///
    /// # Errors
    /// When the folder is not empty, or cannot be written.
    pub(crate) fn run(self, printer: &Printer) -> Result<(), Failure> {
        let plan = ClusterPlan {
            nodes: self.nodes,
            hosts: self.host,
            base_port: self.base_port,
        };
        let folders = make_cluster(&self.dir, &plan)?;
        for folder in folders {
            let config = folder.join(CONFIG_FILE);
            printer.line(
                || format!("highwater start --config {}", config.display()),
                || json!({ "config": config }),
            )?;
        }
        Ok(())
    }
}
