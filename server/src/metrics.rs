//! A node's numbers in Prometheus' text format, and the listener that serves them over HTTP.
//!
//! Each node serves its own: several nodes in one process are told apart as processes would be,
//! by address and by the label `node`. There is nothing per partition, whose number has no bound:
//! Kafka's DescribeQuorum tells of those.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::counters::{METRICS, NodeCounters};
use crate::start::Common;

/// How many scrapes are answered at once; further ones wait in the socket's queue.
const SCRAPES_MAX: usize = 8;

/// How long a scrape may take from its connection to its end.
const SCRAPE_TIME_MAX: Duration = Duration::from_secs(5);

/// How long to wait after accept(2) has failed, for instance for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What a response in this format calls itself.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text: each metric with its help and its kind, and one sample, of this node.
pub(crate) fn exposition(node: u32, counters: &NodeCounters) -> String {
    let mut text = String::new();
    for metric in METRICS {
        let (name, kind, help) = (metric.name, metric.kind, metric.help.trim());
        let value = (metric.value)(counters);
        write!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{{node=\"{node}\"}} {value}\n"
        )
        .expect("a String takes everything");
    }
    text
}

/// Serves scrapes for ever, a connection each. Runs on shard 0's own task set: a scrape is a few
/// kilobytes every some seconds, and a node whose first shard has ended has nothing to tell.
pub(crate) async fn serve(listener: TcpListener, common: Arc<Common>) {
    let places = Arc::new(Semaphore::new(SCRAPES_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let common = common.clone();
                tokio::task::spawn_local(async move {
                    answer(stream, common).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a scrape");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, common: Arc<Common>) {
    let service = service_fn(move |request| respond(request, common.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(SCRAPE_TIME_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a scrape failed"),
        Err(_) => tracing::debug!("a scrape took too long"),
    }
}

async fn respond(
    request: Request<Incoming>,
    common: Arc<Common>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != "/metrics" {
        return Ok(say(StatusCode::NOT_FOUND, "metrics are at /metrics\n"));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(say(
            StatusCode::METHOD_NOT_ALLOWED,
            "metrics are only read\n",
        ));
    }
    Ok(match NodeCounters::gather(&common).await {
        Ok(counters) => say(StatusCode::OK, exposition(common.config.node.id, &counters)),
        Err(_) => say(StatusCode::SERVICE_UNAVAILABLE, "the node has stopped\n"),
    })
}

fn say(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, TEXT_FORMAT)
        .body(Full::new(text.into()))
        .expect("a constant header is one")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters() -> NodeCounters {
        NodeCounters {
            produced_records: 7,
            appends_in_flight_max: 3,
            ..NodeCounters::default()
        }
    }

    #[test]
    fn a_counter_is_told_with_its_help_its_kind_and_its_node() {
        let text = exposition(2, &counters());
        let expected = "# HELP highwater_produced_records_total Records in admitted produces, as \
                        their batches' headers say.\n\
                        # TYPE highwater_produced_records_total counter\n\
                        highwater_produced_records_total{node=\"2\"} 7\n";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("# TYPE highwater_appends_in_flight_max gauge\n"));
        assert!(text.contains("\nhighwater_appends_in_flight_max{node=\"2\"} 3\n"));
    }

    #[test]
    fn names_are_each_told_once_and_as_prometheus_wants_them() {
        let mut names: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
        for metric in METRICS {
            let is_counter = metric.kind == "counter";
            assert_eq!(
                metric.name.ends_with("_total"),
                is_counter,
                "{}",
                metric.name
            );
            assert!(!metric.help.contains(['\n', '\\']), "{}", metric.name);
        }
        let told = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), told);
    }
}
