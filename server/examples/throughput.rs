//! How fast a service can append to the node inside it: one node, no network, every append on disk
//! before it is acknowledged.
//!
//! ```text
//! cargo run --release -p highwater --example throughput -- FOLDER [VALUE_BYTES [PARTITIONS]]
//! ```
//!
//! 64 tasks append one record after the other, of 16 KiB if nothing is said, to one partition, for
//! five seconds after two that do not count; what they append meanwhile goes to the disk in one
//! write. FOLDER is made, and must not be there. `highwater bench limits disk --dir FOLDER` says what
//! the disk alone takes in synced writes of 1 MiB.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use highwater::config::Config;
use highwater::setup::{CONFIG_FILE, ClusterPlan, make_cluster};
use highwater::{NewRecord, Node, TopicPartition};
use tokio::task::LocalSet;

type Error = Box<dyn std::error::Error>;

const TASKS: u32 = 64;
const WARM_UP: Duration = Duration::from_secs(2);
const COUNTED: Duration = Duration::from_secs(5);
const CONFIGS: &[(&str, &str)] = &[("segment.bytes", "134217728")];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: throughput FOLDER [VALUE_BYTES [PARTITIONS]]";
    let folder = arguments.next().ok_or(usage)?;
    let bytes: usize = arguments.next().map_or(Ok(16 << 10), |it| it.parse())?;
    let partitions: u32 = arguments.next().map_or(Ok(1), |it| it.parse())?;
    let folder = Path::new(&folder);
    let plan = ClusterPlan {
        nodes: 1,
        ..ClusterPlan::default()
    };
    make_cluster(folder, &plan)?;
    let mut config = Config::read(&folder.join("node-0").join(CONFIG_FILE))?;
    config.listen.kafka.set_port(0);
    config.listen.metrics.set_port(0);
    let node = Rc::new(Node::start(config)?);
    node.ensure_topic("throughput", partitions, CONFIGS).await?;

    let appended = Rc::new(Cell::new(0_u64));
    let tasks = LocalSet::new();
    let mut appending = Vec::new();
    for task in 0..TASKS {
        let partition = TopicPartition::new("throughput", task % partitions)?;
        let (node, appended) = (Rc::clone(&node), Rc::clone(&appended));
        let records = [NewRecord {
            key: None,
            value: Some(vec![0xA5; bytes]),
        }];
        appending.push(tasks.spawn_local(async move {
            loop {
                match node.append(&partition, &records).await {
                    Ok(_) => appended.set(appended.get() + 1),
                    Err(error) => return error,
                }
            }
        }));
    }
    let counted = tasks.run_until(async {
        tokio::time::sleep(WARM_UP).await;
        let (before, since) = (appended.get(), Instant::now());
        tokio::time::sleep(COUNTED).await;
        (appended.get() - before) as f64 / since.elapsed().as_secs_f64()
    });
    let per_second = counted.await;
    for task in appending {
        if task.is_finished() {
            return Err(task.await?.into());
        }
    }
    let megabytes = per_second * bytes as f64 / 1e6;
    println!("durability: on disk (synced) before the acknowledgement; one node, files fresh");
    println!("{per_second:.0} appends/s of {bytes} bytes by {TASKS} tasks, {megabytes:.0} MB/s");
    node.stop()?;
    Ok(())
}
