//! More than a node takes: clients that never read, or never finish, more records than the disk is
//! fit for, a follower that hangs (FAULTS F75, F80, F90, F93). Memory stays within its budget, a
//! good client goes on, and afterwards everything is as it was.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod cluster;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cluster::{
    Cluster, Load, Node, PATIENCE, anonymous_kib, check_records, describe, open_files, say,
    wait_for, watch_memory,
};
use highwater_client::{TopicName, blocking};
use highwater_protocol::messages::StrBytes;
use highwater_protocol::{
    Acks, Call, ErrorCode, FetchPartition, FetchRequest, FetchTopic, LENGTH_BYTES,
    ProducePartition, ProduceRequest, ProduceTopic, RequestHeader,
};
use highwater_record::{Compression, RecordBatchBuilder};
use rustix::process::Signal;

/// Small, so that little is much.
const OPTIONS: [&str; 4] = [
    "node.shards=2",
    "limits.memory_bytes=67108864",
    "limits.request_bytes=4194304",
    "limits.tail_cache_bytes=8388608",
];

/// What a node may take in: its budget, which holds what the pools keep idle, too, and then some
/// for what is not counted, such as QUIC's windows; in KiB.
const GROWTH_KIB_MAX: u64 = (64 + 32) << 10;

/// How far from where it was the memory in use may stay: what happens to be cached.
const REST_BYTES: u64 = 12 << 20;

const PARTITIONS: u32 = 2;

/// How many good records must come through while it is too much, in the end.
const GOES_ON: usize = 500;

/// One at a time: each wants the machine.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cluster with a good client, whose records are counted.
struct Scene {
    cluster: Cluster,
    client: blocking::Client,
    good: TopicName,
    load: Load,
    /// The node that leads partition 0 of the other topic, to which everything is done.
    victim: usize,
    memory_used: u64,
    _alone: MutexGuard<'static, ()>,
}

impl Scene {
    /// Another topic has so many megabytes of records.
    fn set(megabytes: usize) -> Self {
        let alone = alone();
        let mut cluster = Cluster::start(&OPTIONS);
        let big = cluster.create_topic("big", 1, &[]);
        let good = cluster.create_topic("good", PARTITIONS, &[]);
        let client = cluster.client();
        fill(&cluster, &big, megabytes);
        let leader = describe(&client, &big).unwrap().partitions[&0].leader;
        let victim = usize::try_from(leader.unwrap()).unwrap();
        let load = Load::start(cluster.tcp(), &good, PARTITIONS);
        wait_for("the load to begin", || {
            (load.count() > GOES_ON).then_some(())
        });
        let memory_used = cluster.node(victim).metric("memory_used_bytes");
        Self {
            cluster,
            client,
            good,
            load,
            victim,
            memory_used,
            _alone: alone,
        }
    }

    fn victim(&self) -> &Node {
        &self.cluster.nodes()[self.victim]
    }

    fn good_client_goes_on(&self) {
        let before = self.load.count();
        wait_for("the good client to go on", || {
            (self.load.count() > before + GOES_ON).then_some(())
        });
    }

    /// A request of a megabyte finds room: what is held by others leaves some.
    fn large_request_is_taken(&self) {
        let mut stream = connect(self.victim().kafka());
        let noise = batch(Compression::None, &noise(1_000_000));
        stream.write_all(&frame(&produce("big", noise))).unwrap();
        let answer = read_answer::<ProduceRequest<Bytes>>(&mut stream);
        assert_eq!(answer.topics[0].partitions[0].error, ErrorCode::None);
    }

    /// Does something to the cluster; no node takes in too much meanwhile.
    fn suffers<T>(&self, what: &str, does: impl FnOnce() -> T) -> T {
        let pids: Vec<u32> = self.cluster.nodes().iter().map(Node::pid).collect();
        let before: Vec<u64> = pids.iter().map(|pid| anonymous_kib(*pid)).collect();
        let (done, most) = watch_memory(&pids, does);
        let growth: Vec<u64> = most
            .iter()
            .zip(&before)
            .map(|(most, before)| most.saturating_sub(*before))
            .collect();
        say(&format!(
            "{what}: RssAnon of the nodes grew by {growth:?} KiB from {before:?}"
        ));
        assert!(
            growth.iter().all(|&growth| growth <= GROWTH_KIB_MAX),
            "{growth:?} KiB"
        );
        done
    }

    /// What was taken is given back, and no record is lost.
    fn must_be_as_before(mut self) {
        wait_for("the memory to be given back", || {
            let used = self.victim().metric("memory_used_bytes");
            (used <= self.memory_used + REST_BYTES).then_some(())
        });
        let acknowledged = self.load.finish();
        check_records(&self.client, &self.good, &acknowledged);
        self.cluster.verify_stopped();
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A request's frame, and how its answer is read.
fn frame<C: Call>(request: &C) -> Vec<u8> {
    let header = RequestHeader {
        key: C::KEY,
        version: C::KEY.versions().max,
        correlation_id: 7,
        client_id: None,
    };
    request.encode(&header).unwrap().concat()
}

fn read_answer<C: Call>(stream: &mut TcpStream) -> C::Answer {
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length).unwrap();
    let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
    stream.read_exact(&mut frame).unwrap();
    C::decode_answer(C::KEY.versions().max, &Bytes::from(frame)).unwrap()
}

/// A batch with a value of so many bytes.
fn batch(codec: Compression, value: &[u8]) -> Bytes {
    let mut builder = RecordBatchBuilder::new(codec, 1 << 30);
    builder.append(1_000, None, Some(value), &[]).unwrap();
    builder.seal().unwrap().into()
}

fn produce(topic: &str, records: Bytes) -> ProduceRequest<Bytes> {
    ProduceRequest {
        transactional_id: None,
        acks: Acks::All,
        timeout_ms: 30_000,
        topics: vec![ProduceTopic {
            name: text(topic),
            partitions: vec![ProducePartition {
                index: 0,
                records: Some(records),
            }],
        }],
    }
}

/// Bytes that no codec makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(1);
    std::iter::repeat_with(|| rng.u8(..)).take(length).collect()
}

fn fill(cluster: &Cluster, topic: &TopicName, megabytes: usize) {
    let leader = describe(&cluster.client(), topic).unwrap().partitions[&0].leader;
    let leader = usize::try_from(leader.unwrap()).unwrap();
    let mut stream = connect(cluster.nodes()[leader].kafka());
    let request = frame(&produce(
        topic.as_str(),
        batch(Compression::None, &noise(1_000_000)),
    ));
    for _ in 0..megabytes {
        stream.write_all(&request).unwrap();
        let answer = read_answer::<ProduceRequest<Bytes>>(&mut stream);
        assert_eq!(answer.topics[0].partitions[0].error, ErrorCode::None);
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Consumers that never read, and how often each asks.
const DEAF: usize = 20;
const QUESTIONS: u64 = 40;

/// Asks for much, at places all over the topic.
fn ask_for_much(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address);
    for offset in 0..QUESTIONS {
        let request = FetchRequest {
            max_wait_ms: 60_000,
            min_bytes: 1,
            max_bytes: 50 << 20,
            topics: vec![FetchTopic {
                name: text("big"),
                partitions: vec![FetchPartition {
                    index: 0,
                    current_leader_epoch: -1,
                    fetch_offset: i64::try_from(offset).unwrap(),
                    last_fetched_epoch: -1,
                    log_start_offset: -1,
                    max_bytes: 50 << 20,
                }],
            }],
            ..FetchRequest::default()
        };
        stream.write_all(&frame(&request)).unwrap();
    }
    stream
}

#[test]
fn f75_consumers_that_never_read_stop_nobody() {
    let scene = Scene::set(80);
    let address = scene.victim().kafka();
    let deaf = scene.suffers("consumers that never read", || {
        let deaf: Vec<_> = (0..DEAF).map(|_| ask_for_much(address)).collect();
        wait_for("them to hold what they may", || {
            let used = scene.victim().metric("memory_used_bytes");
            (used > scene.memory_used + (24 << 20)).then_some(())
        });
        scene.good_client_goes_on();
        scene.large_request_is_taken();
        deaf
    });
    drop(deaf);
    scene.must_be_as_before();
}

/// As many as would have taken the whole budget, had each been given 64 KiB on its word.
const SLOW: usize = 1_000;

/// Connections that come and go, at less than a node takes from one address in a second.
const PASSERS_BY: usize = 2_000;

#[test]
fn f80_slow_senders_and_passers_by_stop_nobody() {
    let scene = Scene::set(1);
    let address = scene.victim().kafka();
    let files = open_files(scene.victim().pid());
    let slow = scene.suffers("slow senders and passers-by", || {
        let mut begun = (4_i32 << 20).to_be_bytes().to_vec();
        begun.extend([0, 0, 0, 9]);
        let slow: Vec<_> = (0..SLOW)
            .map(|number| {
                let mut stream = connect(address);
                stream.write_all(&begun).unwrap();
                pause_each(number, 400);
                stream
            })
            .collect();
        for number in 0..PASSERS_BY {
            drop(connect(address));
            pause_each(number, 400);
        }
        scene.good_client_goes_on();
        scene.large_request_is_taken();
        slow
    });
    assert!(
        scene.victim().metric("connections") >= 900,
        "they are waited for"
    );
    drop(slow);
    wait_for("the files to be closed", || {
        (open_files(scene.victim().pid()) <= files + 20).then_some(())
    });
    scene.must_be_as_before();
}

/// After each so many connections a second passes: a node takes a thousand in that.
fn pause_each(number: usize, count: usize) {
    if number % count == count - 1 {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

/// Producers, and how many batches of a megabyte each sends before it reads an answer: several
/// times what a node has memory for, and more than its disk takes meanwhile.
const PRODUCERS: usize = 8;
const BATCHES: usize = 30;

#[test]
fn f93_more_than_the_disk_takes_is_throttled_and_passes() {
    let scene = Scene::set(1);
    let address = scene.victim().kafka();
    let request = frame(&produce("big", batch(Compression::None, &noise(1_000_000))));
    let answers = scene.suffers("a flood of records", || {
        let flood = |_| {
            let mut sender = connect(address);
            let mut receiver = sender.try_clone().unwrap();
            let answers = std::thread::spawn(move || {
                let answer = |_| read_answer::<ProduceRequest<Bytes>>(&mut receiver);
                let answers: Vec<_> = (0..BATCHES).map(answer).collect();
                answers
            });
            let request = &request;
            (0..BATCHES).for_each(|_| sender.write_all(request).unwrap());
            answers.join().unwrap()
        };
        std::thread::scope(|scope| {
            let producers: Vec<_> = (0..PRODUCERS)
                .map(|n| scope.spawn(move || flood(n)))
                .collect();
            scene.good_client_goes_on();
            let answers = producers.into_iter().flat_map(|it| it.join().unwrap());
            answers.collect::<Vec<_>>()
        })
    });
    let codes = answers.iter().map(|it| it.topics[0].partitions[0].error);
    let refused: Vec<ErrorCode> = codes.filter(|code| *code != ErrorCode::None).collect();
    say(&format!(
        "{} of {} batches were refused",
        refused.len(),
        answers.len()
    ));
    assert!(
        refused.iter().all(|code| code.is_retriable()),
        "{refused:?}"
    );
    scene.must_be_as_before();
}

#[test]
fn f81_what_would_be_gigabytes_is_not_opened() {
    let scene = Scene::set(1);
    let mut stream = connect(scene.victim().kafka());
    let codecs = [
        (Compression::Gzip, 100 << 20),
        (Compression::Snappy, 8 << 20),
        (Compression::Lz4, 100 << 20),
        (Compression::Zstd, 400 << 20),
    ];
    let bombs: Vec<Vec<u8>> = codecs
        .iter()
        .map(|&(codec, length)| frame(&produce("big", batch(codec, &vec![0; length]))))
        .collect();
    scene.suffers("bombs", || {
        for bomb in bombs.iter().cycle().take(80) {
            stream.write_all(bomb).unwrap();
            let answer = read_answer::<ProduceRequest<Bytes>>(&mut stream);
            assert_eq!(answer.topics[0].partitions[0].error, ErrorCode::None);
        }
        scene.good_client_goes_on();
    });
    scene.must_be_as_before();
}

#[test]
fn f90_a_follower_that_hangs_takes_no_memory_of_others() {
    let scene = Scene::set(1);
    let hung = (scene.victim + 1) % 3;
    let mut stream = connect(scene.victim().kafka());
    let request = frame(&produce("big", batch(Compression::None, &noise(1_000_000))));
    scene.suffers("a follower that hangs", || {
        scene.cluster.nodes()[hung].signal(Signal::STOP);
        // Twice what the leader has memory for.
        for _ in 0..128 {
            stream.write_all(&request).unwrap();
            let answer = read_answer::<ProduceRequest<Bytes>>(&mut stream);
            let code = answer.topics[0].partitions[0].error;
            assert!(code == ErrorCode::None || code.is_retriable(), "{code}");
        }
        scene.good_client_goes_on();
        scene.cluster.nodes()[hung].signal(Signal::CONT);
        scene.cluster.wait_until_whole(&scene.client, &scene.good);
    });
    scene.must_be_as_before();
}
