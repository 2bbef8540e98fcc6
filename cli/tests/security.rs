//! Nobody gets in who should not, and what anybody says does no harm: the rules X of
//! docs/testing.md that need a whole node.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod cluster;
mod datagrams;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use bytes::Bytes;
use cluster::{
    Cluster, Load, Node, PATIENCE, anonymous_kib, check_records, describe, free_base_port, wait_for,
};
use highwater_protocol::messages::{
    CreatableTopic, CreateTopicsRequest, MetadataRequest, MetadataRequestTopic, StrBytes, TopicName,
};
use highwater_protocol::{
    ApiKey, Call, ErrorCode, FetchPartition, FetchRequest, FetchTopic, LENGTH_BYTES, RequestHeader,
};

const NOT_SET_UP: i32 = 3;

/// A client that is somebody else's idea of one: it says bytes.
fn say(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A node that has seen enough closes before it has read everything.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        let reset = error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(reset, "{error}");
    }
    answer
}

fn frame<C: Call>(request: &C, version: i16, client_id: &str) -> Vec<u8> {
    let header = RequestHeader {
        key: C::KEY,
        version,
        correlation_id: 7,
        client_id: Some(text(client_id)),
    };
    request.encode(&header).unwrap().concat()
}

fn ask<C: Call>(address: SocketAddr, request: &C, version: i16) -> C::Answer {
    let answer = say(address, &frame(request, version, "somebody"));
    assert!(answer.len() > LENGTH_BYTES, "the connection was closed");
    C::decode_answer(version, &Bytes::from(answer).slice(LENGTH_BYTES..)).unwrap()
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn one_node(options: &[&str]) -> Cluster {
    let mut cluster = Cluster::init(1, options);
    cluster.start_all();
    cluster
}

// X01 and X02: where a node listens.

/// The addresses at which a process is reached, from proc(5), as `tcp 127.0.0.1:9092`.
fn listening(pid: u32) -> BTreeSet<String> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = links.filter_map(|link| std::fs::read_link(link.unwrap().path()).ok());
    let own: BTreeSet<String> = links
        .filter_map(|link| {
            let name = link.to_str()?.strip_prefix("socket:[")?;
            Some(name.strip_suffix(']')?.to_owned())
        })
        .collect();
    let mut found = BTreeSet::new();
    for protocol in ["tcp", "tcp6", "udp", "udp6"] {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/{protocol}")).unwrap();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (address, state, inode) = (fields[1], fields[3], fields[9]);
            // LISTEN, or a UDP socket, which has no such state.
            let listens = state == "0A" || protocol.starts_with("udp");
            if listens && own.contains(inode) {
                found.insert(format!("{protocol} {}", readable(address)));
            }
        }
    }
    found
}

/// An address as proc(5) has it: `0100007F:2384`, in the machine's order of bytes.
fn readable(address: &str) -> String {
    let (ip, port) = address.split_once(':').unwrap();
    let port = u16::from_str_radix(port, 16).unwrap();
    match u32::from_str_radix(ip, 16) {
        Ok(ip) => SocketAddr::from((ip.to_ne_bytes(), port)).to_string(),
        Err(_) => format!("[{ip}]:{port}"),
    }
}

#[test]
fn x01_a_node_listens_on_loopback_at_four_addresses_and_nowhere_else() {
    let cluster = one_node(&["node.shards=2"]);
    let node = &cluster.nodes()[0];
    let expected = [
        format!("tcp {}", node.kafka()),
        format!("udp {}", node.kafka()),
        format!("udp {}", node.peer()),
        format!("tcp {}", node.metrics()),
    ];
    assert_eq!(listening(node.pid()), BTreeSet::from(expected));
}

fn started(node: &Node, arguments: &[&str]) -> Output {
    node.command().args(arguments).output().unwrap()
}

#[test]
fn x02_no_other_address_is_served_unless_that_is_said() {
    let cluster = Cluster::init(1, &[]);
    let node = &cluster.nodes()[0];
    for host in ["0.0.0.0", "[::]", "192.0.2.1"] {
        let listen = format!("listen.kafka={host}:{}", node.kafka().port());
        let refused = started(node, &["--set", &listen]);
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(NOT_SET_UP), "{stderr}");
        assert!(stderr.contains("--insecure-no-auth"), "{stderr}");
        // What the metrics tell is for this machine, whatever is said.
        let listen = format!("listen.metrics={host}:{}", node.metrics().port());
        let refused = started(node, &["--insecure-no-auth", "--set", &listen]);
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(NOT_SET_UP), "{stderr}");
        assert!(stderr.contains("loopback"), "{stderr}");
    }
}

#[test]
fn x02_a_cluster_for_other_machines_is_not_made_insecure_by_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(["init", "--nodes", "1", "--host", "192.0.2.1"])
        .arg(folder.path().join("cluster"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let refused = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(["start", "--config"])
        .arg(folder.path().join("cluster/node-0/highwater.toml"))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(NOT_SET_UP), "{stderr}");
    assert!(stderr.contains("--insecure-no-auth"), "{stderr}");
}

#[test]
fn x02_who_gives_up_security_is_told_in_log_and_metrics() {
    for (option, value) in [("false", 0), ("true", 1)] {
        let cluster = one_node(&[&format!("insecure_no_auth={option}")]);
        let node = &cluster.nodes()[0];
        let is_told = node
            .log_text()
            .contains("neither encrypted nor authenticated");
        assert_eq!(is_told, value == 1, "{}", node.log_text());
        assert_eq!(node.metric("insecure_no_auth"), value);
    }
}

// X06 and X07: what is said on the clients' port.

/// Keys that no client may use: those between brokers, Raft's among them, and whatever is unknown.
fn keys_not_served() -> impl Iterator<Item = i16> {
    (-1..=100)
        .chain([i16::MIN, i16::MAX])
        .filter(|&key| ApiKey::from_code(key).is_none())
}

#[test]
fn x06_who_poses_as_a_broker_is_refused_and_changes_nothing() {
    let cluster = one_node(&[]);
    let topic = cluster.create_topic("kept", 2, &[]);
    let before = describe(&cluster.client(), &topic).unwrap();
    let address = cluster.nodes()[0].kafka();
    for key in keys_not_served() {
        for version in [0_i16, 7] {
            let mut bytes = vec![0, 0, 0, 40];
            bytes.extend(key.to_be_bytes());
            bytes.extend(version.to_be_bytes());
            bytes.extend([0; 36]);
            assert_eq!(say(address, &bytes), [0; 0], "key {key}, version {version}");
        }
    }
    for replica_id in 0..=5 {
        let answer = ask(address, &fetch_as(replica_id), 12);
        assert_eq!(answer.error, ErrorCode::InvalidRequest, "{replica_id}");
    }
    assert_eq!(describe(&cluster.client(), &topic).unwrap(), before);
}

fn fetch_as(replica_id: i32) -> FetchRequest {
    FetchRequest {
        replica_id,
        topics: vec![FetchTopic {
            name: text("kept"),
            partitions: vec![FetchPartition {
                index: 0,
                current_leader_epoch: -1,
                fetch_offset: 0,
                last_fetched_epoch: -1,
                log_start_offset: -1,
                max_bytes: 1 << 20,
            }],
        }],
        ..FetchRequest::default()
    }
}

#[test]
fn x07_lengths_that_lie_end_the_connection_at_once() {
    let cluster = one_node(&[]);
    let address = cluster.nodes()[0].kafka();
    // The sender does not close: the node does, before it has waited for what is announced.
    for length in [-1, i32::MIN, i32::MAX, (16 << 20) + 1, 0] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&length.to_be_bytes()).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "length {length}");
    }
    cluster.create_topic("still-there", 1, &[]);
}

// X23 and X24: what names may do.

/// Names that are paths, or no names at all.
fn bad_names() -> Vec<String> {
    let names = [
        "",
        ".",
        "..",
        "../../identity",
        "a/b",
        "/etc/passwd",
        "a\0b",
        "a b",
        "ä",
    ];
    let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
    names.push("x".repeat(250));
    names.push("red\u{1b}[31m\r\nINFO forged".to_owned());
    names
}

#[test]
fn x24_no_path_is_made_of_a_name() {
    let cluster = one_node(&["topics.auto_create=true"]);
    cluster.create_topic("good", 1, &[]);
    let node = &cluster.nodes()[0];
    let before = all_paths(cluster.folder());
    for name in bad_names() {
        let topic = || TopicName(text(&name));
        let made = CreatableTopic::default().with_name(topic());
        let made = made.with_num_partitions(1).with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![made]);
        let answer = ask(node.kafka(), &request.with_timeout_ms(10_000), 7);
        let invalid = ErrorCode::InvalidTopicException.code();
        assert_eq!(answer.topics[0].error_code, invalid, "{name:?}");
        let asked = MetadataRequestTopic::default().with_name(Some(topic()));
        let request = MetadataRequest::default().with_topics(Some(vec![asked]));
        let answer = ask(
            node.kafka(),
            &request.with_allow_auto_topic_creation(true),
            9,
        );
        assert_eq!(answer.topics[0].error_code, invalid, "{name:?}");
    }
    assert_eq!(all_paths(cluster.folder()), before);
}

/// All below a folder but the log's own files, whose names are numbers: they are made ahead, and take
/// their places meanwhile.
fn all_paths(folder: &Path) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            paths.extend(all_paths(&path));
        }
        let path = path.to_str().unwrap().to_owned();
        let numbered = path
            .rsplit('/')
            .next()
            .and_then(|name| name.strip_suffix(".log"));
        let is_numbered = |name: &str| name.bytes().all(|it| it.is_ascii_digit() || it == b'-');
        if !numbered.is_some_and(is_numbered) {
            paths.insert(path);
        }
    }
    paths
}

#[test]
fn x23_what_clients_say_does_not_write_lines_into_the_log() {
    let mut cluster = Cluster::init(1, &[]);
    cluster.nodes_mut()[0].run_under(&["env", "HIGHWATER_LOG=trace,quinn=off,quinn_proto=off"]);
    cluster.start_all();
    let node = &cluster.nodes()[0];
    for name in bad_names() {
        let topic = CreatableTopic::default().with_name(TopicName(text(&name)));
        let topic = topic.with_num_partitions(1).with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]);
        say(node.kafka(), &frame(&request, 7, &name));
        let asked = MetadataRequestTopic::default().with_name(Some(TopicName(text(&name))));
        let request = MetadataRequest::default().with_topics(Some(vec![asked]));
        say(node.kafka(), &frame(&request, 9, &name));
        // And what is no request at all.
        say(node.kafka(), format!("\0\0\0\u{10}{name}").as_bytes());
    }
    cluster.create_topic("at-the-end", 1, &[]);
    let log = cluster.nodes()[0].log_text();
    assert!(
        log.contains("client connected"),
        "the log says little:\n{log}"
    );
    let raw =
        |line: &&str| line.starts_with("INFO forged") || line.contains(['\u{1b}', '\r', '\0']);
    assert_eq!(log.lines().find(raw), None);
}

// X21: what lies on the disk, and what is told of it.

#[test]
fn x21_whatever_the_umask_files_and_keys_are_the_owners() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cluster");
    let port = free_base_port(1).to_string();
    let made = Command::new("sh")
        .args(["-c", "umask 000; exec \"$0\" \"$@\""])
        .args([env!("CARGO_BIN_EXE_highwater"), "init", "--nodes", "1"])
        .args(["--base-port", &port])
        .arg(&root)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for path in all_paths(&root) {
        let path = Path::new(&path);
        let is_certificate = path.extension().is_some_and(|extension| extension == "pem");
        let allowed = match path {
            _ if is_certificate => 0o644,
            _ if path.is_dir() => 0o700,
            _ => 0o600,
        };
        let more = mode(path) & !allowed;
        assert_eq!(more, 0, "{}: {:o}", path.display(), mode(path));
    }
    assert_eq!(mode(&root), 0o755, "its certificate is for everybody");
}

#[test]
fn x21_keys_that_others_may_read_are_refused() {
    let cluster = Cluster::init(1, &[]);
    let node = &cluster.nodes()[0];
    let folder = node.config().parent().unwrap().to_owned();
    for key in ["node.key", "client.key"] {
        let key = folder.join(key);
        let open = |mode| std::fs::set_permissions(&key, PermissionsExt::from_mode(mode)).unwrap();
        open(0o640);
        let refused = started(node, &[]);
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(NOT_SET_UP), "{stderr}");
        assert!(stderr.contains(key.to_str().unwrap()), "{stderr}");
        open(0o600);
    }
}

#[test]
fn x21_no_key_is_in_logs_arguments_or_environment() {
    let mut cluster = Cluster::init(1, &[]);
    cluster.nodes_mut()[0].run_under(&["env", "HIGHWATER_LOG=trace"]);
    cluster.start_all();
    cluster.create_topic("something", 1, &[]);
    let node = &cluster.nodes()[0];
    let told = |name: &str| std::fs::read(format!("/proc/{}/{name}", node.pid())).unwrap();
    let told = [
        node.log_text(),
        String::from_utf8(told("cmdline")).unwrap(),
        String::from_utf8(told("environ")).unwrap(),
    ];
    let folder = node.config().parent().unwrap().to_owned();
    for key in ["node.key", "client.key", "../ca.key"] {
        let pem = std::fs::read_to_string(folder.join(key)).unwrap();
        let secret = pem.lines().find(|line| !line.starts_with("-----")).unwrap();
        assert!(secret.len() > 32, "{key} is no key");
        assert!(told.iter().all(|text| !text.contains(secret)), "{key}");
    }
}

// X18 and X19: what anybody may send to a QUIC port.

/// How many datagrams that are none are sent to each port.
const SPOILT: usize = 20_000;

/// How much memory of its own a node may take in for them, in KiB.
const GROWTH_KIB_MAX: u64 = 64 << 10;

#[test]
fn x18_spoilt_datagrams_disturb_nobody() {
    let cluster = one_node(&[]);
    let topic = cluster.create_topic("good", 1, &[]);
    let node = &cluster.nodes()[0];
    let good = datagrams::first_words(&cluster.ca());
    let load = Load::start(cluster.quic(), &topic, 1);
    wait_for("the load to begin", || (load.count() > 100).then_some(()));
    let before = anonymous_kib(node.pid());
    for (seed, port) in (0..).zip([node.kafka(), node.peer()]) {
        let socket = datagrams::socket();
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..SPOILT {
            // A full socket drops some; that is no matter here.
            let _ = socket.send_to(&datagrams::spoilt(&good, &mut rng), port);
        }
    }
    let at_the_end = load.count();
    wait_for("the load to go on", || {
        (load.count() > at_the_end + 100).then_some(())
    });
    let growth = anonymous_kib(node.pid()).saturating_sub(before);
    assert!(growth <= GROWTH_KIB_MAX, "RssAnon grew by {growth} KiB");
    let acknowledged = load.finish();
    check_records(&cluster.client(), &topic, &acknowledged);
}

/// The last datagram that still begins within three times what has come is sent whole by quinn,
/// so that a handshake does not hang (its issue 1082); RFC 9000, 8.1 would cut it.
const DATAGRAM_BYTES: usize = 1_200;

#[test]
fn x19_who_has_not_shown_an_address_gets_little_more_than_three_times_what_it_sent() {
    let cluster = one_node(&[]);
    let node = &cluster.nodes()[0];
    let first = datagrams::first_words(&cluster.ca()).swap_remove(0);
    let bound = 3 * first.len() + DATAGRAM_BYTES;
    let back = datagrams::bytes_back(node.kafka(), &first);
    assert!(back > 0, "a good first word is answered");
    assert!(back < bound, "{back} bytes for {}", first.len());
    let back = datagrams::bytes_back(node.peer(), &first);
    assert!(back < bound, "{back} bytes for {}", first.len());
    let mut unknown = first.clone();
    unknown[1..5].copy_from_slice(&[0x1a, 0x2a, 0x3a, 0x4a]);
    let back = datagrams::bytes_back(node.kafka(), &unknown);
    assert!(back <= first.len(), "{back} bytes of version negotiation");
}
