//! A node's numbers, read from its metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a node may take to tell its numbers.
const TIME_MAX: Duration = Duration::from_secs(3);

/// More bytes than any node's numbers take.
const BYTES_MAX: usize = 1 << 20;

/// What begins the names that a node gives its metrics, and what ends those of counters.
const PREFIX: &str = "highwater_";
const COUNTER_SUFFIX: &str = "_total";

/// What a node has counted, by the names that `highwater::NodeCounters` has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// A number; 0 if an older node has none of that name.
    pub(crate) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// How many of `what` there are to each of `of`, rounded for people; nothing if there is none
    /// of those.
    pub(crate) fn mean(&self, what: &str, of: &str) -> Option<f64> {
        let (sum, count) = (self.get(what), self.get(of));
        (count > 0).then(|| sum as f64 / count as f64)
    }

    /// All of them, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// Reads Prometheus' text format, as far as a node writes it.
    fn parse(text: &str, node: i32) -> Result<Self, String> {
        let label = format!("{{node=\"{node}\"}}");
        let mut counters = BTreeMap::new();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        for (name, value) in samples.filter_map(|line| line.rsplit_once(' ')) {
            let Some(name) = name.strip_prefix(PREFIX) else {
                continue;
            };
            let Some(name) = name.strip_suffix(&label) else {
                return Err("another node is there".to_owned());
            };
            let name = name.strip_suffix(COUNTER_SUFFIX).unwrap_or(name);
            if let Ok(value) = value.parse() {
                counters.insert(name.to_owned(), value);
            }
        }
        match counters.is_empty() {
            true => Err("no Highwater node is there".to_owned()),
            false => Ok(Self(counters)),
        }
    }
}

/// Asks for a node's numbers.
///
/// # Errors
/// In words, if it does not tell them.
pub(crate) async fn scrape(address: SocketAddr, node: i32) -> Result<Counters, String> {
    let text = match timeout(TIME_MAX, get(address)).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no answer within {TIME_MAX:?}")),
    };
    Counters::parse(&text, node)
}

async fn get(address: SocketAddr) -> anyhow::Result<String> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::get("/metrics")
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    if answer.status() != StatusCode::OK {
        anyhow::bail!("it answers {}", answer.status());
    }
    let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await;
    driver.abort();
    let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
    Ok(String::from_utf8(body.to_vec())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP highwater_produces_total Produces.\n\
                        # TYPE highwater_produces_total counter\n\
                        highwater_produces_total{node=\"3\"} 12\n\
                        highwater_appends_in_flight_max{node=\"3\"} 4\n";

    #[test]
    fn numbers_have_the_names_that_the_node_has() {
        let counters = Counters::parse(TEXT, 3).unwrap();
        let all: Vec<_> = counters.iter().collect();
        assert_eq!(all, [("appends_in_flight_max", 4), ("produces", 12)]);
        assert_eq!(counters.get("nonsense"), 0);
        assert_eq!(
            counters.mean("produces", "appends_in_flight_max"),
            Some(3.0)
        );
        assert_eq!(counters.mean("produces", "nonsense"), None);
    }

    #[test]
    fn what_another_tells_is_not_taken() {
        assert!(Counters::parse(TEXT, 2).unwrap_err().contains("another"));
        let other = "process_cpu_seconds_total 3.5\n";
        assert!(
            Counters::parse(other, 3)
                .unwrap_err()
                .contains("no Highwater")
        );
    }
}
