//! Nodes in this process: their logs, and how they end.

use std::io::IsTerminal;
use std::time::Duration;

use highwater::config::Config;
use highwater::{Node, NodeError};

use crate::exit::{Failure, Kind};
use crate::interrupt::Interrupt;

/// How often it is looked whether a node has closed itself.
const FAILURE_POLL: Duration = Duration::from_millis(200);

/// Sends logs to stderr: `HIGHWATER_LOG` filters them, as in `HIGHWATER_LOG=debug`.
pub(crate) fn log_to_stderr(default: &str) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("HIGHWATER_LOG");
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(default));
    let built = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Colours are for people at a terminal, not for files and collectors.
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
    // Somebody else's subscriber in this process serves as well.
    drop(built);
}

/// Starts a node.
pub(crate) fn start(config: Config) -> Result<Node, Failure> {
    Ok(Node::start(config)?)
}

/// Waits until the user wants an end, or a node has closed itself: why it has.
pub(crate) async fn run(nodes: &[Node], interrupt: &Interrupt) -> Option<NodeError> {
    loop {
        let failure = nodes.iter().find_map(Node::failure);
        if failure.is_some() {
            return failure;
        }
        tokio::select! {
            () = interrupt.wait() => return None,
            () = tokio::time::sleep(FAILURE_POLL) => {}
        }
    }
}

/// Stops all nodes, one of which may have failed.
///
/// # Errors
/// When a node has failed: with [`Kind::Disk`], or [`Kind::Setup`] if its configuration is wrong.
pub(crate) async fn stop(
    nodes: impl IntoIterator<Item = Node>,
    failure: Option<NodeError>,
) -> Result<(), Failure> {
    // At the same time: each would wait for the others to take its leadership over.
    let stopping: Vec<_> = nodes
        .into_iter()
        .map(|node| tokio::task::spawn_blocking(move || node.stop()))
        .collect();
    let mut result = failure.map_or(Ok(()), |error| Err(failed(&error)));
    for stopped in stopping {
        if let Ok(Err(error)) = stopped.await {
            result = result.and(Err(failed(&error)));
        }
    }
    result
}

fn failed(error: &NodeError) -> Failure {
    let kind = match error {
        NodeError::Misconfigured(_) => Kind::Setup,
        _ => Kind::Disk,
    };
    Failure::new(kind, error)
}
