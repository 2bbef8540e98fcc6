//! A storage that does wrong what disks do wrong, by a seed, on virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use highwater_record::Buffer;

use super::faults::{ControlState, FaultControl, FaultCounts, Faults};
use super::memory::{Begun, Left, Session, draw};
use super::{
    Completion, Counters, FileId, MemoryDisk, Op, Output, Storage, StorageError, Token, check,
};

/// A storage on a [`MemoryDisk`] that delays, reorders, fails and garbles operations as
/// [`Faults`] says. The same seed and the same operations at the same times give the same
/// faults.
///
/// An operation begins at its flush, can be seen by others from then on, and completes when
/// its delay is over; a crash in between may undo it.
#[derive(Debug)]
pub struct FaultyStorage {
    session: Session,
    control: FaultControl,
    rng: Rng,
    queued: VecDeque<(Token, Op)>,
    /// By the time they are due, then by the order they began in.
    begun: BTreeMap<(Duration, u64), InFlight>,
    sequence: u64,
    counters: Counters,
}

#[derive(Debug)]
struct InFlight {
    token: Token,
    written: u64,
    begun: Begun,
    fate: Fate,
}

/// What becomes of an operation that has begun.
#[derive(Debug)]
enum Fate {
    /// What it promises.
    Kept,
    /// It fails, and this is left of what it was to make durable.
    Failed(StorageError, Left),
    /// It gives what it read, with this bit flipped, counted from the start, modulo the length.
    ReadFlipped(u64),
    /// What it wrote is durable, with this bit of the file flipped.
    Rotten(u64),
}

impl FaultyStorage {
    /// A new life on this disk.
    ///
    /// # Panics
    ///
    /// If a rate of `faults` is no probability, or its delays are the wrong way round.
    #[must_use]
    pub fn new(disk: &MemoryDisk, faults: Faults, seed: u64) -> Self {
        Self {
            session: Session::new(disk.clone()),
            control: FaultControl::new(faults),
            rng: Rng::with_seed(seed),
            queued: VecDeque::new(),
            begun: BTreeMap::new(),
            sequence: 0,
            counters: Counters::default(),
        }
    }

    /// The handle on its clock and its faults.
    #[must_use]
    pub fn control(&self) -> &FaultControl {
        &self.control
    }

    /// The disk it runs on.
    #[must_use]
    pub fn disk(&self) -> &MemoryDisk {
        self.session.disk()
    }

    /// See [`FaultControl::set_now`].
    pub fn set_now(&mut self, now: Duration) {
        self.control.set_now(now);
    }

    /// See [`FaultControl::next_due`].
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.control.next_due()
    }

    /// Cuts the power of the disk. What is pending there, also of other storages on it,
    /// survives as [`Faults::crash_keeps`] and [`Faults::crash_tears`] say.
    pub fn power_cut(mut self) {
        let (keeps, tears) = self.crash_rates();
        let disk = self.disk().clone();
        disk.power_cut(|change| draw(&mut self.rng, change, keeps, tears));
    }

    /// Kills the process that uses the disk. What was in flight has happened or not, in the
    /// same way; it can be read by the next life and is not durable.
    pub fn kill(mut self) {
        let (keeps, tears) = self.crash_rates();
        let disk = self.disk().clone();
        disk.kill(|change| draw(&mut self.rng, change, keeps, tears));
    }

    fn crash_rates(&self) -> (f64, f64) {
        let faults = &self.control.state().faults;
        (faults.crash_keeps, faults.crash_tears)
    }

    fn start(&mut self, token: Token, op: Op) {
        let written = op.bytes_written();
        let (due, begun, fate) = {
            let control = self.control.clone();
            let mut state = control.state();
            let due = state.now + delay(&mut self.rng, &mut state);
            let (begun, fate) = self.begin(&mut state, op);
            (due, begun, fate)
        };
        let key = (due, self.sequence);
        self.sequence += 1;
        self.begun.insert(
            key,
            InFlight {
                token,
                written,
                begun,
                fate,
            },
        );
    }

    /// Begins the operation, or what becomes of it instead.
    fn begin(&mut self, state: &mut ControlState, op: Op) -> (Begun, Fate) {
        let ControlState { faults, counts, .. } = state;
        match &op {
            Op::Write { .. } => self.begin_write(faults, counts, op),
            Op::Read { .. } => self.begin_read(faults, counts, op),
            Op::Zero { .. } if self.hit(faults.write_error, &mut counts.write_errors) => {
                self.begin_to_fail(op, "pwrite")
            }
            Op::Zero { .. } if self.hit(faults.write_no_space, &mut counts.write_no_space) => {
                let path = self.session.path_of(&op);
                refused(StorageError::NoSpace { path })
            }
            Op::Truncate { .. } if self.hit(faults.write_error, &mut counts.write_errors) => {
                self.begin_to_fail(op, "ftruncate")
            }
            Op::Sync { .. } | Op::SyncDir { .. }
                if self.hit(faults.sync_error, &mut counts.sync_errors) =>
            {
                self.begin_to_fail(op, "fsync")
            }
            Op::Map { .. } | Op::Populate { .. }
                if self.hit(faults.map_error, &mut counts.map_errors) =>
            {
                refused(io_error(self.session.path_of(&op), "mmap"))
            }
            Op::Create { path, .. } if self.hit(faults.no_space, &mut counts.no_space) => {
                refused(StorageError::NoSpace { path: path.clone() })
            }
            Op::Open { path, .. } if self.hit(faults.no_resources, &mut counts.no_resources) => {
                refused(no_resources(path.clone()))
            }
            op if touches_entries(op) && self.hit(faults.entry_error, &mut counts.entry_errors) => {
                refused(io_error(self.session.path_of(op), "openat"))
            }
            _ => (self.session.begin(op), Fate::Kept),
        }
    }

    fn begin_write(&mut self, faults: &Faults, counts: &mut FaultCounts, op: Op) -> (Begun, Fate) {
        // A write that breaks the contract is refused, not garbled.
        let Some(place) = self.session.place_of_write(&op) else {
            return (self.session.begin(op), Fate::Kept);
        };
        let Op::Write { file, offset, data } = op else {
            unreachable!("only a write has a place");
        };
        let part = self.rng.usize(..=data.len() / place.alignment) * place.alignment;
        if self.hit(faults.write_error, &mut counts.write_errors) {
            let error = io_error(self.session.path_of_file(file), "pwrite");
            let left = self.any_left();
            return self.begin_part(file, offset, data.slice(..part), error, left);
        }
        if self.hit(faults.write_no_space, &mut counts.write_no_space) {
            let error = StorageError::NoSpace {
                path: self.session.path_of_file(file),
            };
            let left = Left::Unsynced;
            return self.begin_part(file, offset, data.slice(..part), error, left);
        }
        if self.hit(faults.lost_write, &mut counts.lost_writes) {
            return (Begun::done(), Fate::Kept);
        }
        let slots = (place.file_len - data.len() as u64) / place.alignment as u64 + 1;
        if slots > 1 && self.hit(faults.misdirected_write, &mut counts.misdirected_writes) {
            let here = offset / place.alignment as u64;
            let elsewhere = (here + self.rng.u64(1..slots)) % slots;
            let offset = elsewhere * place.alignment as u64;
            return (
                self.session.begin(Op::Write { file, offset, data }),
                Fate::Kept,
            );
        }
        let fate = match self.hit(faults.rest_flip, &mut counts.rest_flips) {
            true => Fate::Rotten(offset * 8 + self.rng.u64(..data.len() as u64 * 8)),
            false => Fate::Kept,
        };
        (self.session.begin(Op::Write { file, offset, data }), fate)
    }

    fn begin_read(&mut self, faults: &Faults, counts: &mut FaultCounts, op: Op) -> (Begun, Fate) {
        if self.hit(faults.read_error, &mut counts.read_errors) {
            return refused(io_error(self.session.path_of(&op), "pread"));
        }
        if self.hit(faults.no_resources, &mut counts.no_resources) {
            return refused(no_resources(self.session.path_of(&op)));
        }
        let fate = match self.hit(faults.read_flip, &mut counts.read_flips) {
            true => Fate::ReadFlipped(self.rng.u64(..)),
            false => Fate::Kept,
        };
        (self.session.begin(op), fate)
    }

    /// Begins a truncation or sync that will fail after others could see it.
    fn begin_to_fail(&mut self, op: Op, call: &'static str) -> (Begun, Fate) {
        let error = io_error(self.session.path_of(&op), call);
        let left = self.any_left();
        (self.session.begin(op), Fate::Failed(error, left))
    }

    /// Begins the part of a write that is left when it fails.
    fn begin_part(
        &mut self,
        file: FileId,
        offset: u64,
        data: Buffer,
        error: StorageError,
        left: Left,
    ) -> (Begun, Fate) {
        if data.is_empty() {
            return refused(error);
        }
        let begun = self.session.begin(Op::Write { file, offset, data });
        (begun, Fate::Failed(error, left))
    }

    /// What a failed write or sync leaves of what it was to make durable.
    fn any_left(&mut self) -> Left {
        if self.rng.bool() {
            Left::Nothing
        } else {
            Left::Unsynced
        }
    }

    fn finish(&mut self, begun: Begun, fate: Fate) -> Result<Output, StorageError> {
        match fate {
            // What broke the contract is refused as such, not as a fault.
            Fate::Failed(_, _) if begun.result.is_err() => begun.result,
            Fate::Failed(error, left) => {
                self.session.abandon(&begun, left);
                Err(error)
            }
            Fate::Kept => self.session.finish(begun),
            Fate::ReadFlipped(bit) => self.session.finish(begun).map(|output| flip(output, bit)),
            Fate::Rotten(bit) => self.session.finish_rotten(begun, bit),
        }
    }

    fn hit(&mut self, rate: f64, count: &mut u64) -> bool {
        let hit = rate > 0.0 && self.rng.f64() < rate;
        *count += u64::from(hit);
        hit
    }

    fn publish_next_due(&self) {
        let next = self.begun.first_key_value().map(|((due, _), _)| *due);
        self.control.state().next_due = next;
    }
}

impl Storage for FaultyStorage {
    fn alignment(&self) -> usize {
        self.session.alignment()
    }

    fn submit(&mut self, token: Token, op: Op) {
        self.counters.submitted += 1;
        match check::in_flight(self.in_flight()) {
            Ok(()) => self.queued.push_back((token, op)),
            Err(error) => {
                let (begun, fate) = refused(error);
                let key = (Duration::ZERO, self.sequence);
                self.sequence += 1;
                self.begun.insert(
                    key,
                    InFlight {
                        token,
                        written: 0,
                        begun,
                        fate,
                    },
                );
            }
        }
    }

    fn flush(&mut self) {
        while let Some((token, op)) = self.queued.pop_front() {
            self.start(token, op);
        }
        self.publish_next_due();
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        let now = self.control.state().now;
        while let Some(entry) = self.begun.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let InFlight {
                token,
                written,
                begun,
                fate,
            } = entry.remove();
            let result = self.finish(begun, fate);
            self.counters.count(&result, written);
            out.push(Completion { token, result });
        }
        self.publish_next_due();
    }

    /// Lets virtual time pass until something completes.
    fn wait(&mut self) {
        self.flush();
        let mut state = self.control.state();
        if let Some(due) = state.next_due {
            state.now = state.now.max(due);
        }
    }

    fn in_flight(&self) -> usize {
        self.queued.len() + self.begun.len()
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

impl Drop for FaultyStorage {
    fn drop(&mut self) {
        for in_flight in std::mem::take(&mut self.begun).into_values() {
            self.session.abandon(&in_flight.begun, Left::Unsynced);
        }
    }
}

fn delay(rng: &mut Rng, state: &mut ControlState) -> Duration {
    let ControlState { faults, counts, .. } = state;
    let spread = faults.delay_max - faults.delay_min;
    let nanos = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX);
    let mut delay = faults.delay_min;
    if nanos > 0 {
        delay += Duration::from_nanos(rng.u64(..=nanos));
    }
    if faults.stall_rate > 0.0 && rng.f64() < faults.stall_rate {
        counts.stalls += 1;
        delay += faults.stall;
    }
    delay
}

fn touches_entries(op: &Op) -> bool {
    matches!(
        op,
        Op::Create { .. }
            | Op::Open { .. }
            | Op::Protect { .. }
            | Op::Rename { .. }
            | Op::Unlink { .. }
            | Op::MakeDir { .. }
            | Op::RemoveDir { .. }
            | Op::List { .. }
    )
}

fn refused(error: StorageError) -> (Begun, Fate) {
    (Begun::failed(error), Fate::Kept)
}

fn io_error(path: String, call: &'static str) -> StorageError {
    StorageError::Io {
        path,
        call,
        reason: "injected".to_owned(),
    }
}

fn no_resources(path: String) -> StorageError {
    StorageError::Resources {
        path,
        reason: "injected".to_owned(),
    }
}

fn flip(output: Output, bit: u64) -> Output {
    match output {
        Output::Read(data) if !data.is_empty() => {
            let mut bytes = data.to_vec();
            let bit = bit % (bytes.len() as u64 * 8);
            let at = usize::try_from(bit / 8).expect("an index of the bytes");
            bytes[at] ^= 1 << (bit % 8);
            Output::Read(Buffer::from(bytes))
        }
        other => other,
    }
}
