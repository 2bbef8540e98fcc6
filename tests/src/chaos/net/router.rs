//! The thread that carries packets from device to device, and does to them what the links say.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::link::Link;
use super::{end_of, packet};

/// More than a device's longest packet, which has 1,500 bytes.
const PACKET_BYTES_MAX: usize = 2_048;

/// How many packets a link holds back or has on its way; further ones are lost, as in a real
/// queue.
const QUEUE_PACKETS_MAX: usize = 4_096;

/// How long a packet may wait for a narrow link.
const QUEUE_DELAY_MAX: Duration = Duration::from_secs(2);

/// By how much a packet is late that others overtake.
const OVERTAKEN_BY: Duration = Duration::from_millis(20);

/// How many packets are taken from a device before the next has its turn.
const BURST: usize = 64;

/// How soon a change of the links is noticed when no packet comes.
const GLANCE: Duration = Duration::from_millis(20);

/// Which links a fault spoils, and how.
#[derive(Debug, Clone)]
pub(crate) struct Spoilt {
    /// From which end to which.
    pub(crate) links: Vec<(usize, usize)>,
    /// What they do while it lasts.
    pub(crate) how: Link,
}

/// What became of the packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Arrived.
    pub(crate) delivered: u64,
    /// Ended at a cut.
    pub(crate) cut: u64,
    /// Were lost by chance.
    pub(crate) lost: u64,
    /// Came twice.
    pub(crate) doubled: u64,
    /// Were overtaken.
    pub(crate) overtaken: u64,
    /// Had a bit flipped.
    pub(crate) garbled: u64,
    /// Were too large.
    pub(crate) too_large: u64,
    /// Found a queue full.
    pub(crate) crowded_out: u64,
    /// Were held back for a while.
    pub(crate) held: u64,
}

/// Carries packets until it is dropped.
#[derive(Debug)]
pub(crate) struct Router {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    /// Counts changes of the faults.
    changes: AtomicU64,
    faults: Mutex<BTreeMap<usize, Spoilt>>,
    carried: Mutex<Carried>,
}

impl Shared {
    /// Changes the faults.
    fn change(&self, how: impl FnOnce(&mut BTreeMap<usize, Spoilt>)) {
        let faults = self.faults.lock();
        how(&mut faults.unwrap_or_else(PoisonError::into_inner));
        // Afterwards: whoever sees the number finds the change.
        self.changes.fetch_add(1, Ordering::Release);
    }
}

impl Router {
    /// Begins to carry packets between these devices. What chance decides follows from the seed
    /// and the packets.
    pub(super) fn start(devices: Vec<File>, seed: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut carrier = Carrier::new(devices, seed, Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("chaos-router".to_owned())
            .spawn(move || carrier.run())?;
        let thread = Some(thread);
        Ok(Self { shared, thread })
    }

    /// A fault begins, under a number of its own.
    pub(crate) fn spoil(&self, fault: usize, spoilt: Spoilt) {
        self.shared
            .change(|faults| drop(faults.insert(fault, spoilt)));
    }

    /// It ends.
    pub(crate) fn mend(&self, fault: usize) {
        self.shared.change(|faults| drop(faults.remove(&fault)));
    }

    /// All faults end.
    pub(crate) fn mend_all(&self) {
        self.shared.change(BTreeMap::clear);
    }

    /// What became of the packets so far.
    pub(crate) fn carried(&self) -> Carried {
        let carried = self.shared.carried.lock();
        *carried.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}

/// A packet on its way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Instant,
    /// Packets of one time keep their order.
    number: u64,
    from: usize,
    to: usize,
    packet: Vec<u8>,
}

/// One direction between two ends.
#[derive(Debug)]
struct Lane {
    link: Link,
    random: fastrand::Rng,
    /// When the last packet arrives that is not to be overtaken.
    last_due: Instant,
    /// When a narrow link has carried all that it was given.
    free_at: Instant,
    on_the_way: usize,
    held: VecDeque<Vec<u8>>,
}

struct Carrier {
    devices: Vec<File>,
    shared: Arc<Shared>,
    lanes: Vec<Vec<Lane>>,
    due: BinaryHeap<Reverse<Due>>,
    number: u64,
    changes_seen: u64,
    carried: Carried,
}

impl Carrier {
    fn new(devices: Vec<File>, seed: u64, shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        let ends = devices.len();
        let mut seeds = fastrand::Rng::with_seed(seed);
        let mut lane = || Lane {
            link: Link::default(),
            random: seeds.fork(),
            last_due: now,
            free_at: now,
            on_the_way: 0,
            held: VecDeque::new(),
        };
        let lanes = (0..ends).map(|_| (0..ends).map(|_| lane()).collect());
        Self {
            lanes: lanes.collect(),
            devices,
            shared,
            due: BinaryHeap::new(),
            number: 0,
            changes_seen: 0,
            carried: Carried::default(),
        }
    }

    fn run(&mut self) {
        while !self.shared.is_over.load(Ordering::Relaxed) {
            self.wait();
            self.look_at_faults();
            for from in 0..self.devices.len() {
                self.take_from(from);
            }
            self.deliver();
            let carried = self.shared.carried.lock();
            *carried.unwrap_or_else(PoisonError::into_inner) = self.carried;
        }
    }

    /// Until a packet comes, or one is due.
    fn wait(&self) {
        let next = self.due.peek().map(|Reverse(due)| due.at);
        let wait = next.map_or(GLANCE, |at| at.saturating_duration_since(Instant::now()));
        let wait = Timespec::try_from(wait.min(GLANCE)).expect("a short time");
        let mut devices: Vec<PollFd<'_>> = self
            .devices
            .iter()
            .map(|device| PollFd::new(device, PollFlags::IN))
            .collect();
        // Interrupted or not: what is there is looked at.
        let _ = poll(&mut devices, Some(&wait));
    }

    fn look_at_faults(&mut self) {
        let changes = self.shared.changes.load(Ordering::Acquire);
        if changes == self.changes_seen {
            return;
        }
        self.changes_seen = changes;
        let faults = self.shared.faults.lock();
        let faults: Vec<Spoilt> = { faults.unwrap_or_else(PoisonError::into_inner) }
            .values()
            .cloned()
            .collect();
        for (from, lanes) in self.lanes.iter_mut().enumerate() {
            for (to, lane) in lanes.iter_mut().enumerate() {
                let here = faults.iter().filter(|it| it.links.contains(&(from, to)));
                lane.link = here.fold(Link::default(), |link, it| link.and(&it.how));
            }
        }
        self.release();
    }

    /// What was held back and is not any more goes on, in its order.
    fn release(&mut self) {
        for from in 0..self.lanes.len() {
            for to in 0..self.lanes.len() {
                let lane = &mut self.lanes[from][to];
                if lane.link.hold || lane.held.is_empty() {
                    continue;
                }
                for packet in std::mem::take(&mut lane.held) {
                    self.pass(from, to, packet);
                }
            }
        }
    }

    fn take_from(&mut self, from: usize) {
        let mut bytes = [0; PACKET_BYTES_MAX];
        for _ in 0..BURST {
            // Nothing there, or the device is down for a moment: the next turn sees.
            let Ok(len) = (&self.devices[from]).read(&mut bytes) else {
                return;
            };
            let packet = &bytes[..len];
            let to = packet::destination(packet).and_then(end_of);
            let to = to.filter(|to| *to < self.devices.len() && *to != from);
            if let Some(to) = to {
                self.meet(from, to, packet.to_vec());
            }
        }
    }

    /// A packet comes to a link.
    fn meet(&mut self, from: usize, to: usize, mut packet: Vec<u8>) {
        let (lane, carried) = (&mut self.lanes[from][to], &mut self.carried);
        let link = &lane.link;
        if link.cut {
            carried.cut += 1;
            return;
        }
        if link.packet_bytes_max.is_some_and(|max| packet.len() > max) {
            carried.too_large += 1;
            return;
        }
        if lane.random.f64() < link.loss {
            carried.lost += 1;
            return;
        }
        if lane.on_the_way + lane.held.len() >= QUEUE_PACKETS_MAX {
            carried.crowded_out += 1;
            return;
        }
        if lane.random.f64() < link.corruption {
            carried.garbled += 1;
            packet::flip_a_bit(&mut packet, &mut lane.random);
        }
        if lane.link.hold {
            carried.held += 1;
            return lane.held.push_back(packet);
        }
        if lane.random.f64() < lane.link.duplication {
            carried.doubled += 1;
            self.pass(from, to, packet.clone());
        }
        self.pass(from, to, packet);
    }

    /// A packet goes on its way.
    fn pass(&mut self, from: usize, to: usize, packet: Vec<u8>) {
        let now = Instant::now();
        let lane = &mut self.lanes[from][to];
        let Some(at) = lane.arrival(now, packet.len(), &mut self.carried) else {
            self.carried.crowded_out += 1;
            return;
        };
        lane.on_the_way += 1;
        self.number += 1;
        let number = self.number;
        self.due.push(Reverse(Due {
            at,
            number,
            from,
            to,
            packet,
        }));
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        while self.due.peek().is_some_and(|Reverse(due)| due.at <= now) {
            let Some(Reverse(due)) = self.due.pop() else {
                return;
            };
            self.lanes[due.from][due.to].on_the_way -= 1;
            // A device that cannot take it loses it, as a full queue does; so does a namespace
            // that takes a garbled packet for nonsense.
            if (&self.devices[due.to]).write(&due.packet).is_ok() {
                self.carried.delivered += 1;
            }
        }
    }
}

impl Lane {
    /// When a packet that sets out now arrives; never, if it would have to wait too long.
    fn arrival(&mut self, now: Instant, len: usize, carried: &mut Carried) -> Option<Instant> {
        let sent_at = match self.link.bytes_per_second {
            None => now,
            Some(rate) => {
                let begins = self.free_at.max(now);
                if begins > now + QUEUE_DELAY_MAX {
                    return None;
                }
                let len = u32::try_from(len).expect("packets are small");
                let seconds = f64::from(len) / f64::from(rate.max(1));
                self.free_at = begins + Duration::from_secs_f64(seconds);
                self.free_at
            }
        };
        let arrives = sent_at + self.link.delay + self.link.jitter.mul_f64(self.random.f64());
        if self.random.f64() < self.link.reordering {
            carried.overtaken += 1;
            return Some(arrives + OVERTAKEN_BY.mul_f64(self.random.f64()));
        }
        self.last_due = self.last_due.max(arrives);
        Some(self.last_due)
    }
}
