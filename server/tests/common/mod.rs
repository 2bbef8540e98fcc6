//! What the tests of clusters share.

#![allow(dead_code, reason = "each test uses another part")]

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

use highwater::setup::ClusterPlan;

/// Below the ports that systems give to clients, so that none is taken while its node is dead.
const PORTS: std::ops::Range<u16> = 12_000..30_000;

/// A cluster's ports lie within this many.
const STEP: u16 = 300;

/// An example's program: cargo builds examples where it builds tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this program has a path");
    let target = test.ancestors().nth(2).expect("target/PROFILE/deps/NAME");
    let program = target.join("examples").join(name);
    assert!(
        program.exists(),
        "no {}: cargo build -p highwater --examples",
        program.display()
    );
    program
}

/// A cluster on loopback, on ports that are free.
pub(crate) fn plan(nodes: u32) -> ClusterPlan {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let slots = (PORTS.end - PORTS.start) / STEP;
    let start = u16::try_from(std::process::id() % u32::from(slots)).expect("below the slots");
    for _ in 0..slots {
        let slot = (start + TRIED.fetch_add(1, Ordering::Relaxed)) % slots;
        // Not aligned, since other tests step through ports as well.
        let base_port = PORTS.start + slot * STEP + start;
        let plan = ClusterPlan {
            nodes,
            base_port,
            ..ClusterPlan::default()
        };
        if is_free(&plan) {
            return plan;
        }
    }
    panic!("no {STEP} free ports in {PORTS:?}");
}

fn is_free(plan: &ClusterPlan) -> bool {
    let nodes = u16::try_from(plan.nodes).expect("a few nodes");
    (0..nodes).all(|node| {
        let port = plan.base_port + node;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
            && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
            && UdpSocket::bind((Ipv4Addr::LOCALHOST, port + 100)).is_ok()
            && TcpListener::bind((Ipv4Addr::LOCALHOST, port + 100)).is_ok()
            && TcpListener::bind((Ipv4Addr::LOCALHOST, port + 200)).is_ok()
    })
}
