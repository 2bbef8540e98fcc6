//! A crowd of strangers on the Kafka port: malformed and half requests, lengths that lie, idle
//! connections. The node answers or closes, takes little memory, and a good client beside them
//! goes on producing.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod cluster;
mod malformed;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use cluster::{
    Acknowledged, Cluster, Load, PATIENCE, anonymous_kib, check_records, describe, say, wait_for,
    watch_memory,
};
use malformed::{Attack, Attacks, Then};

const ATTACKS: usize = 10_000;
const ATTACKERS: u64 = 4;
const IDLE_CONNECTIONS: usize = 1_000;
const PARTITIONS: u32 = 3;

/// How many connections an attacker holds on which it says nothing more.
const SILENT_MAX: usize = 100;

/// How much memory of its own a node may take in for all of them, in KiB.
const GROWTH_KIB_MAX: u64 = 64 << 10;

/// How many connections one attacker opens a second, at most. A node takes a thousand a second
/// from one address; those beyond would be closed before anybody read what they say.
const RATE_MAX: usize = 200;

#[test]
fn strangers_cost_little_and_stop_nobody() {
    // What the good client's records take in memory is not to be counted.
    let options = ["node.shards=2", "limits.tail_cache_bytes=4194304"];
    let mut cluster = Cluster::start(&options);
    let topic = cluster.create_topic("load", PARTITIONS, &[]);
    cluster.create_topic("strangers", 1, &[]);
    let client = cluster.client();
    let load = Load::start(cluster.tcp(), &topic, PARTITIONS);
    wait_for("the load to begin", || (load.count() > 3_000).then_some(()));
    let leader = describe(&client, &topic).unwrap().partitions[&0].leader;
    let node = cluster.node(usize::try_from(leader.unwrap()).unwrap());
    let (address, pid) = (node.kafka(), node.pid());

    let before = (load.count(), anonymous_kib(pid));
    let idle = connect_idle(address);
    let most = attack(address, pid);
    assert!(node.is_running(), "the node did not stay up");
    let during = load.acknowledged_since(before.0);
    drop(idle);
    let at_the_end = load.count();
    wait_for("the load to go on", || {
        (load.count() > at_the_end + 1_000).then_some(())
    });

    let growth = most.saturating_sub(before.1);
    let pause = longest_pause(&during);
    say(&format!(
        "{ATTACKS} malformed requests beside {IDLE_CONNECTIONS} idle connections: RssAnon grew by \
         {growth} KiB from {} KiB, {} good records meanwhile, never {:.2} s without one",
        before.1,
        during.len(),
        pause.as_secs_f64()
    ));
    assert!(growth <= GROWTH_KIB_MAX, "RssAnon grew by {growth} KiB");
    let acknowledged = load.finish();
    check_records(&client, &topic, &acknowledged);
    cluster.verify_stopped();
}

fn longest_pause(acknowledged: &[Acknowledged]) -> Duration {
    let mut times: Vec<Instant> = acknowledged.iter().map(|it| it.acknowledged_at).collect();
    times.sort();
    let pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
    pauses.max().unwrap()
}

fn connect_idle(address: SocketAddr) -> Vec<TcpStream> {
    let mut pace = Pace::default();
    let connections = std::iter::repeat_with(|| {
        pace.keep();
        TcpStream::connect(address).unwrap()
    });
    connections.take(IDLE_CONNECTIONS).collect()
}

/// All attacks; gives the most memory that the node was seen to have meanwhile.
fn attack(address: SocketAddr, pid: u32) -> u64 {
    let attackers = || {
        std::thread::scope(|scope| {
            let attackers: Vec<_> = (0..ATTACKERS)
                .map(|seed| scope.spawn(move || attack_by_seed(address, seed)))
                .collect();
            let results: Vec<_> = attackers.into_iter().map(|it| it.join()).collect();
            results.into_iter().for_each(|result| result.unwrap());
        });
    };
    let ((), most) = watch_memory(&[pid], attackers);
    most[0]
}

fn attack_by_seed(address: SocketAddr, seed: u64) {
    let mut attacks = Attacks::new("strangers", seed);
    let mut pace = Pace::default();
    let mut silent = VecDeque::new();
    for number in 0..ATTACKS / usize::try_from(ATTACKERS).unwrap() {
        pace.keep();
        let attack = attacks.next_attack();
        let mut stream = TcpStream::connect(address).unwrap();
        // A node that has seen enough closes before it has read everything.
        let _ = stream.write_all(&attack.bytes);
        match attack.then {
            Then::Listen => {
                let answered = listen(&mut stream);
                assert!(answered, "seed {seed}, attack {number}: {}", hex(&attack));
            }
            Then::Silence => silent.push_back(stream),
            Then::Close => {}
        }
        if silent.len() > SILENT_MAX {
            silent.pop_front();
        }
    }
}

/// Whether the node answers what there is to be answered, and closes.
fn listen(stream: &mut TcpStream) -> bool {
    let _ = stream.shutdown(Shutdown::Write);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn hex(attack: &Attack) -> String {
    attack
        .bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// No more than [`RATE_MAX`] connections a second.
#[derive(Default)]
struct Pace {
    since: Option<Instant>,
    opened: usize,
}

impl Pace {
    fn keep(&mut self) {
        let since = *self.since.get_or_insert_with(Instant::now);
        self.opened += 1;
        if self.opened > RATE_MAX {
            std::thread::sleep(Duration::from_secs(1).saturating_sub(since.elapsed()));
            (self.since, self.opened) = (Some(Instant::now()), 1);
        }
    }
}
