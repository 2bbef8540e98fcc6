//! The options, documented once.

use std::fmt::Write as _;

use super::Config;

/// What is said about one option.
#[derive(Debug, Clone, Copy)]
pub struct OptionDoc {
    /// Its key, with dots: `node.shards`.
    pub key: &'static str,
    /// What it means, its unit and its bounds.
    pub text: &'static str,
}

/// All options, in the order in which they are listed.
pub const OPTIONS: &[OptionDoc] = &[
    OptionDoc {
        key: "insecure_no_auth",
        text: "Accept clients on an address other than loopback, although they are neither \
               encrypted nor authenticated yet. Also a flag, `--insecure-no-auth`.",
    },
    OptionDoc {
        key: "peer_transport",
        text: "What carries the links between nodes: `quic`, over UDP, or `tcp`, with TLS 1.3 in \
               it. TCP is meant for networks with small packets (an MTU of 1,500), where QUIC \
               pays for each. Must be the same on all nodes: one whose peers have the other ends \
               soon after its start.",
    },
    OptionDoc {
        key: "node.id",
        text: "The node's id in its cluster. Must agree with the formatted data directory.",
    },
    OptionDoc {
        key: "node.data_dir",
        text: "The data directory that `highwater init` formatted. A relative path starts at \
               the configuration file.",
    },
    OptionDoc {
        key: "node.shards",
        text: "Threads that each own a part of the partitions and their sockets. 0: one up to \
               two cores, then one per core but one. At most 256.",
    },
    OptionDoc {
        key: "node.storage",
        text: "How the disk is written: `auto` takes io_uring where the kernel and the file \
               system allow it and says so where not, `uring` insists, `portable` uses plain \
               system calls on threads.",
    },
    OptionDoc {
        key: "node.map_sealed",
        text: "Read sealed files through read-only mappings; else with `pread`.",
    },
    OptionDoc {
        key: "node.recycle_bytes",
        text: "Bytes of log files that retention has let go of which are kept, all shards \
               together, to become new ones: writing into them is cheaper than into new blocks. \
               Given up while the disk is nearly full, and at each start. A hard link to a \
               node's file does not keep its bytes then. 0: none are kept.",
    },
    OptionDoc {
        key: "node.scrub_bytes_per_second",
        text: "Bytes of sealed files that the scrubber reads again in a second, all shards \
               together, to find rot while other replicas can mend it. 0: there is no scrubber.",
    },
    OptionDoc {
        key: "node.scrub_interval_s",
        text: "Seconds that a pass of the scrubber over all sealed files takes at least.",
    },
    OptionDoc {
        key: "listen.kafka",
        text: "Address and port of Kafka's protocol over TCP, and over QUIC on the same port \
               number of UDP.",
    },
    OptionDoc {
        key: "listen.peer",
        text: "Address and port for the other nodes of the cluster, of UDP or TCP as \
               `peer_transport` says: mutual TLS.",
    },
    OptionDoc {
        key: "listen.metrics",
        text: "Address and port of the metrics in Prometheus' text format, over HTTP. Loopback \
               only.",
    },
    OptionDoc {
        key: "listen.advertised_host",
        text: "The host that clients are told in metadata; empty: the address of \
               `listen.kafka`.",
    },
    OptionDoc {
        key: "tls.ca",
        text: "The cluster's CA certificate, PEM. A relative path starts at the configuration \
               file, as for the next four.",
    },
    OptionDoc {
        key: "tls.certificate",
        text: "This node's certificate, PEM. Carries cluster id, node id and incarnation.",
    },
    OptionDoc {
        key: "tls.key",
        text: "This node's key, PEM, readable by its owner alone (else it is refused).",
    },
    OptionDoc {
        key: "tls.client_certificate",
        text: "The certificate that clients see over QUIC, PEM.",
    },
    OptionDoc {
        key: "tls.client_key",
        text: "Its key, PEM, readable by its owner alone.",
    },
    OptionDoc {
        key: "quic.datagram_bytes",
        text: "The largest UDP payload that QUIC tries towards other machines, in bytes, 1,200 to \
               65,000; what the network does not carry is found out and not used. 6,500 where \
               the MTU is 9,000: up to there a system call takes ten of them, which is worth \
               more than the rest.",
    },
    OptionDoc {
        key: "quic.loopback_datagram_bytes",
        text: "The same towards this machine's own addresses. 1,452 shows what Ethernet would \
               cost.",
    },
    OptionDoc {
        key: "topics.auto_create",
        text: "Make a topic when a client first asks for its metadata. On in `highwater dev`.",
    },
    OptionDoc {
        key: "topics.default_partitions",
        text: "Partitions of a topic whose creator does not say. At least 1.",
    },
    OptionDoc {
        key: "topics.default_replication_factor",
        text: "Replicas of a partition whose creator does not say; no more than there are \
               `cluster.nodes`. A topic is not made before so many have joined.",
    },
    OptionDoc {
        key: "topics.segment_bytes",
        text: "Bytes that a log file holds before the next begins, where the topic's \
               `segment.bytes` does not say.",
    },
    OptionDoc {
        key: "limits.memory_bytes",
        text: "Bytes of all buffers of the node together: requests, unsynced records, the tail \
               cache. Beyond it the node stops reading from its clients.",
    },
    OptionDoc {
        key: "limits.tail_cache_bytes",
        text: "Bytes of synced records kept in memory for readers at the tail, all shards \
               together; no more than half of `limits.memory_bytes`.",
    },
    OptionDoc {
        key: "limits.connections",
        text: "Client connections at once; further ones are closed at once.",
    },
    OptionDoc {
        key: "limits.connections_per_ip",
        text: "Client connections at once from one address.",
    },
    OptionDoc {
        key: "limits.request_bytes",
        text: "Bytes of the largest request that is read; the connection of a larger one is \
               closed.",
    },
    OptionDoc {
        key: "limits.idle_ms",
        text: "Milliseconds after which a client connection without requests is closed.",
    },
    OptionDoc {
        key: "cluster.nodes",
        text: "All nodes: tables of `id`, `incarnation` and `peer` (address and port). Written \
               by `highwater init`; only in the file.",
    },
];

/// The page `docs/config.md`.
#[must_use]
pub fn reference_page() -> String {
    let defaults = toml::Value::try_from(Config::default()).expect("defaults have a TOML form");
    let mut page = String::from(
        "# Configuration\n\n\
         Generated from `server/src/config/options.rs` by `highwater config --reference`.\n\n\
         Later layers win: the defaults below, the TOML file (`--config`), environment variables \
         (`HIGHWATER_` and the key in capitals, each dot as `__`: `HIGHWATER_NODE__SHARDS=2`), \
         flags (`--set node.shards=2`). `highwater config` prints the effective configuration \
         and where each value comes from.\n\n\
         | option | default | meaning |\n|---|---|---|\n",
    );
    for option in OPTIONS {
        let default = lookup(&defaults, option.key).map_or_else(String::new, ToString::to_string);
        writeln!(page, "| `{}` | `{default}` | {} |", option.key, option.text)
            .expect("a String takes everything");
    }
    page
}

/// The value at a dotted key.
pub(super) fn lookup<'a>(root: &'a toml::Value, key: &str) -> Option<&'a toml::Value> {
    key.split('.').try_fold(root, |value, part| value.get(part))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn keys(value: &toml::Value, prefix: &str, into: &mut BTreeSet<String>) {
        match value {
            toml::Value::Table(table) => {
                for (name, inner) in table {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    keys(inner, &format!("{prefix}{dot}{name}"), into);
                }
            }
            _ => assert!(into.insert(prefix.to_owned())),
        }
    }

    #[test]
    fn every_option_is_documented_and_no_other() {
        let mut present = BTreeSet::new();
        keys(
            &toml::Value::try_from(Config::default()).unwrap(),
            "",
            &mut present,
        );
        let documented = OPTIONS.iter().map(|o| o.key.to_owned()).collect();
        assert_eq!(present, documented);
    }

    #[test]
    fn the_page_in_docs_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == reference_page(),
            "docs/config.md is stale: write it anew with \
             `cargo run -- config --reference > docs/config.md`"
        );
    }
}
