//! A log inside this process: make its files, start a node, append, read.

use std::path::Path;

use highwater::config::Config;
use highwater::setup::{CONFIG_FILE, ClusterPlan, make_cluster};
use highwater::{NewRecord, Node, TopicPartition};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: embed FOLDER")?;
    let folder = Path::new(&folder);
    if !folder.exists() {
        // Once, for all nodes; then each machine gets its own folder.
        let nodes = 1; // three survive the loss of one
        let plan = ClusterPlan {
            nodes,
            ..ClusterPlan::default()
        };
        make_cluster(folder, &plan)?;
    }
    let node = Node::start(Config::read(&folder.join("node-0").join(CONFIG_FILE))?)?;
    node.ensure_topic("events", 1, &[]).await?;
    let events = TopicPartition::new("events", 0)?;

    // Returns once the record is on disk on a majority of the partition's replicas.
    let record = NewRecord::new("door", "opened");
    let offset = node.append(&events, &[record]).await?;
    // Everything that was acknowledged before this call lies before `end`.
    let end = node.barrier(&events).await?;
    for record in node.read(&events, offset, 1 << 20).await? {
        println!("{} of {end}: {:?}", record.offset, record.value);
    }
    node.stop()?;
    Ok(())
}
