//! Clusters of processes of which one has a disk that breaks: a sync fails, the file system
//! becomes read-only, or is full.
//!
//! Where rights, mkfs or strace lack, the tests say so and do nothing.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use highwater_client::{TopicName, blocking};
use highwater_tests::disk_image::{FileSystem, isolate_mounts, why_unavailable};
use highwater_tests::power::cluster::{Cluster, Load, Settings, read_back, wait_for};
use tempfile::TempDir;

/// `highwater start` ends with this code if its disk has failed.
const DISK_FAILED: i32 = 9;

/// Small, and still more than the 64 MiB that a node keeps free.
const DISK_BYTES: u64 = 192 << 20;

/// So many records are acknowledged before something breaks, and while it is broken.
const RECORDS: usize = 200;

/// A cluster of three under load, with one partition.
struct World {
    cluster: Cluster,
    topic: TopicName,
    load: Load,
    _folder: TempDir,
}

impl World {
    /// Nothing if there can be none here.
    fn start(storage: &'static str) -> Option<World> {
        if let Some(why) = why_unavailable(FileSystem::Ext4) {
            // Past the capture of a passing test's output.
            let _ = writeln!(std::io::stderr(), "broken disks not tested: {why}");
            return None;
        }
        isolate_mounts().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            nodes: 3,
            file_system: FileSystem::Ext4,
            disk_bytes: DISK_BYTES,
            storage,
        };
        let cluster = Cluster::start(&settings, folder.path()).unwrap();
        let topic = cluster.create_topic("load", 1).unwrap();
        let load = Load::start(cluster.client(), &topic, 1);
        load.wait_for_more(RECORDS).unwrap();
        Some(World {
            cluster,
            topic,
            load,
            _folder: folder,
        })
    }

    /// The node that leads the partition, and one that follows.
    fn leader_and_follower(&self) -> (usize, usize) {
        let client = blocking::Client::connect(self.cluster.client()).unwrap();
        let leader = wait_for("a leader", || {
            let described = client.wait(client.admin().describe_topic(&self.topic));
            Ok(described.ok().and_then(|it| it.partitions[&0].leader))
        });
        let leader = usize::try_from(leader.unwrap()).unwrap();
        (leader, (leader + 1) % 3)
    }

    /// A node has noticed that its disk is broken and has ended; the others go on.
    #[track_caller]
    fn ends_and_is_not_missed(&mut self, node: usize) {
        let status = self.cluster.nodes()[node].wait_for_end().unwrap();
        let log = self.cluster.nodes()[node].log().unwrap();
        assert_eq!(status.code(), Some(DISK_FAILED), "{log}");
        self.load.wait_for_more(RECORDS).unwrap();
    }

    /// All is mended: the nodes start, and everything that was acknowledged is on each.
    #[track_caller]
    fn comes_back_whole(mut self) {
        self.cluster.start_all().unwrap();
        self.load.wait_for_more(RECORDS).unwrap();
        let acknowledged = self.load.finish().unwrap();
        let client = blocking::Client::connect(self.cluster.client()).unwrap();
        read_back(&client, &self.topic, &acknowledged).unwrap();
        self.cluster.wait_until_caught_up(&self.topic).unwrap();
        self.cluster.verify().unwrap();
    }
}

#[test]
fn a_sync_that_fails_once_ends_the_leader_and_costs_nothing() {
    a_sync_fails(|(leader, _)| leader);
}

#[test]
fn a_sync_that_fails_once_ends_a_follower_and_costs_nothing() {
    a_sync_fails(|(_, follower)| follower);
}

/// The page that a failed sync did not write is clean for the kernel: who asked again would be told
/// that all is well (P26).
fn a_sync_fails(choose: impl Fn((usize, usize)) -> usize) {
    if Command::new("strace").arg("--version").output().is_err() {
        let _ = writeln!(
            std::io::stderr(),
            "failing syncs not tested: no strace here"
        );
        return;
    }
    let Some(mut world) = World::start("portable") else {
        return;
    };
    let node = choose(world.leader_and_follower());
    let pid = world.cluster.nodes()[node].pid().unwrap();
    let mut tracer = fail_next_sync(pid).unwrap();
    world.ends_and_is_not_missed(node);
    tracer.wait().unwrap();
    world.comes_back_whole();
}

/// Each thread's next fdatasync fails.
fn fail_next_sync(pid: u32) -> anyhow::Result<Child> {
    let mut command = Command::new("strace");
    command.args(["-f", "-q", "-e", "trace=fdatasync"]);
    command.args(["-e", "inject=fdatasync:error=EIO:when=1"]);
    command.args(["-o", "/dev/null", "-p", &pid.to_string()]);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command.spawn().context("strace")
}

#[test]
fn a_file_system_that_becomes_read_only_ends_the_node_and_costs_nothing() {
    let Some(mut world) = World::start("uring") else {
        return;
    };
    let (leader, _) = world.leader_and_follower();
    world.cluster.nodes()[leader]
        .disk_mut()
        .make_read_only()
        .unwrap();
    world.ends_and_is_not_missed(leader);
    world.cluster.nodes()[leader]
        .disk_mut()
        .restore_power()
        .unwrap();
    world.comes_back_whole();
}

#[test]
fn a_follower_with_a_full_disk_is_not_missed_and_catches_up() {
    let Some(mut world) = World::start("uring") else {
        return;
    };
    let (_, follower) = world.leader_and_follower();
    let node = &mut world.cluster.nodes()[follower];
    let ballast = node.disk().path().join("ballast");
    fill(&ballast);
    let is_said = wait_for("the node to say that it is full", || {
        let node = &mut world.cluster.nodes()[follower];
        let is_said = node.log()?.contains("the disk is full");
        Ok(is_said.then_some(()))
    });
    is_said.unwrap();
    world.load.wait_for_more(RECORDS).unwrap();
    assert_eq!(world.cluster.nodes()[follower].has_ended().unwrap(), None);
    fs::remove_file(&ballast).unwrap();
    world.cluster.wait_until_whole(&world.topic).unwrap();
    world.comes_back_whole();
}

/// Takes all room that there is.
fn fill(path: &Path) {
    let file = File::create(path).unwrap();
    let zeros = vec![0; 1 << 20];
    let mut end = 0;
    for bytes in [1 << 20, 4096] {
        loop {
            match file.write_at(&zeros[..bytes], end) {
                Ok(written) => end += written as u64,
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    file.sync_all().unwrap();
}
