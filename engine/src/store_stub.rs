//! Stands in for `highwater_log::Store` until that has landed: in memory, for the simulation.
#![allow(missing_docs, dead_code, clippy::all, unused)]
use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater_log::*;
use highwater_record::Offset;

#[derive(Clone, Default)]
pub struct Durable {
    pub hard: HardState,
    pub entries: VecDeque<Entry>,
    pub start: Position,
    pub log_start: Offset,
    pub epochs: Vec<Epoch>,
    pub state: highwater_record::Buffer,
}
#[derive(Clone, Default)]
pub struct Disk(pub Arc<Mutex<BTreeMap<GroupId, Durable>>>);

enum St {
    Hard(WriteId, HardState),
    Append(WriteId, Vec<Entry>),
    Cut(WriteId, LogIndex),
    Base(WriteId, Base),
}
struct Mem {
    now: Durable,
    staged: Vec<St>,
    inflight: Option<(Duration, Vec<St>)>,
    commit: LogIndex,
}
pub struct Store<S> {
    disk: Disk,
    groups: BTreeMap<GroupId, Mem>,
    rng: fastrand::Rng,
    _s: PhantomData<S>,
}
pub struct Start {
    pub position: Position,
    pub log_start_offset: Offset,
    pub epochs: Vec<Epoch>,
}
pub struct RecoveredGroup {
    pub group: GroupId,
    pub hard_state: HardState,
    pub start: Position,
    pub log_start_offset: Offset,
    pub last: EntryId,
    pub end_offset: Offset,
    pub epochs: Vec<Epoch>,
    pub snapshot: Option<Snapshot>,
    pub replay: Vec<Entry>,
}
impl Durable {
    fn last(&self) -> (EntryId, Offset) {
        match self.entries.back() {
            Some(e) => (e.id, e.end_offset()),
            None => (self.start.before, self.start.offset),
        }
    }
    fn epochs(&self) -> Vec<Epoch> {
        let mut out = self.epochs.clone();
        for e in &self.entries {
            if out.last().is_none_or(|l| l.term < e.id.term) {
                out.push(Epoch {
                    term: e.id.term,
                    first_index: e.id.index,
                    first_offset: e.base_offset,
                });
            }
        }
        out
    }
    fn apply(&mut self, st: &St) {
        match st {
            St::Hard(_, h) => self.hard = *h,
            St::Append(_, es) => self.entries.extend(es.iter().cloned()),
            St::Cut(_, first) => {
                while self.entries.back().is_some_and(|e| e.id.index >= *first) {
                    self.entries.pop_back();
                }
            }
            St::Base(_, b) => {
                self.entries.clear();
                self.start = b.start;
                self.log_start = b.log_start_offset;
                self.epochs = b.epochs.clone();
                self.state = b.state.clone();
            }
        }
    }
}
impl<S> Store<S> {
    pub fn open(disk: Disk, seed: u64) -> (Self, Vec<RecoveredGroup>) {
        let d = disk.0.lock().expect("stand-in").clone();
        let rec = d
            .iter()
            .map(|(g, d)| RecoveredGroup {
                group: *g,
                hard_state: d.hard,
                start: d.start,
                log_start_offset: d.log_start,
                last: d.last().0,
                end_offset: d.last().1,
                epochs: d.epochs(),
                snapshot: (!d.state.is_empty()).then(|| Snapshot {
                    at: d.start.before.index,
                    state: d.state.clone(),
                }),
                replay: d.entries.iter().cloned().collect(),
            })
            .collect();
        let groups = d
            .into_iter()
            .map(|(g, d)| {
                (
                    g,
                    Mem {
                        now: d,
                        staged: vec![],
                        inflight: None,
                        commit: LogIndex(0),
                    },
                )
            })
            .collect();
        (
            Store {
                disk,
                groups,
                rng: fastrand::Rng::with_seed(seed),
                _s: PhantomData,
            },
            rec,
        )
    }
    fn g(&mut self, g: GroupId) -> &mut Mem {
        self.groups.get_mut(&g).expect("stand-in")
    }
    pub fn create_group(&mut self, g: GroupId, c: GroupConfig) -> Result<(), GroupError> {
        self.disk.0.lock().expect("stand-in").entry(g).or_default();
        self.groups.insert(
            g,
            Mem {
                now: Durable::default(),
                staged: vec![],
                inflight: None,
                commit: LogIndex(0),
            },
        );
        Ok(())
    }
    pub fn configure_group(&mut self, g: GroupId, c: GroupConfig) -> Result<(), GroupError> {
        Ok(())
    }
    pub fn drop_group(&mut self, g: GroupId) -> Result<(), GroupError> {
        self.groups.remove(&g);
        self.disk.0.lock().expect("stand-in").remove(&g);
        Ok(())
    }
    pub fn set_hard_state(
        &mut self,
        g: GroupId,
        w: WriteId,
        h: HardState,
    ) -> Result<(), HardStateError> {
        let m = self.g(g);
        let s = St::Hard(w, h);
        m.now.apply(&s);
        m.staged.push(s);
        Ok(())
    }
    pub fn append(&mut self, g: GroupId, w: WriteId, es: &[NewEntry]) -> Result<(), AppendError> {
        let m = self.g(g);
        let mut out = vec![];
        for e in es {
            let prev = out
                .last()
                .map(|e: &Entry| e.chain)
                .unwrap_or(m.now.entries.back().map_or(m.now.start.chain, |e| e.chain));
            let chain = Chain(
                prev.0
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(
                        u64::from(e.body_crc) ^ (u64::from(e.id.term.0) << 32) ^ e.id.index.0,
                    )
                    .rotate_left(17),
            );
            if let Some(expected) = e.chain {
                if expected != chain {
                    return Err(AppendError::Diverged {
                        index: e.id.index,
                        expected,
                        found: chain,
                    });
                }
            }
            out.push(Entry {
                id: e.id,
                kind: e.kind,
                base_offset: e.base_offset,
                offset_span: e.offset_span,
                append_time: e.append_time,
                chain,
                body_crc: e.body_crc,
                body: e.body.clone(),
            });
        }
        let s = St::Append(w, out);
        m.now.apply(&s);
        m.staged.push(s);
        Ok(())
    }
    pub fn cut(&mut self, g: GroupId, w: WriteId, first: LogIndex) -> Result<(), CutError> {
        let m = self.g(g);
        let s = St::Cut(w, first);
        m.now.apply(&s);
        m.staged.push(s);
        Ok(())
    }
    pub fn base(&mut self, g: GroupId, w: WriteId, b: Base) -> Result<(), CutError> {
        let m = self.g(g);
        let s = St::Base(w, b);
        m.now.apply(&s);
        m.staged.push(s);
        Ok(())
    }
    pub fn commit(&mut self, g: GroupId, i: LogIndex) {
        self.g(g).commit = i;
    }
    pub fn set_log_start(&mut self, g: GroupId, off: Offset) -> Result<LogIndex, GroupError> {
        let m = self.g(g);
        m.now.log_start = off;
        // keep it simple: drop whole entries below
        while m.now.entries.len() > 1
            && m.now.entries[0].id.index < m.commit
            && m.now.entries[0].end_offset() <= off
        {
            let e = m.now.entries.pop_front().expect("stand-in");
            if m.now.epochs.last().is_none_or(|l| l.term < e.id.term) {
                m.now.epochs.push(Epoch {
                    term: e.id.term,
                    first_index: e.id.index,
                    first_offset: e.base_offset,
                });
            }
            m.now.start = Position {
                before: e.id,
                chain: e.chain,
                offset: e.end_offset(),
            };
        }
        Ok(m.now.start.first())
    }
    pub fn seal(&mut self, _g: GroupId, _s: Sequence, _snap: Snapshot) -> Result<(), GroupError> {
        Ok(())
    }
    pub fn end_quarantine(&mut self, _g: GroupId) -> Result<(), GroupError> {
        Ok(())
    }
    pub fn reserve(&mut self, _g: GroupId, _b: usize) -> Result<(), ReserveError> {
        Ok(())
    }
    pub fn read(
        &mut self,
        g: GroupId,
        from: LogIndex,
        max: usize,
        _t: Ticket,
    ) -> Result<Read, ReadError> {
        let m = self.g(g);
        if from <= m.now.start.before.index {
            return Err(ReadError::BelowStart {
                start: m.now.start.first(),
                offset: m.now.start.offset,
            });
        }
        let skip = (from.0 - m.now.start.first().0) as usize;
        let mut bytes = 0;
        let mut out = vec![];
        for e in m.now.entries.iter().skip(skip) {
            if !out.is_empty() && bytes + e.body.len() > max {
                break;
            }
            bytes += e.body.len();
            out.push(e.clone());
        }
        if out.is_empty() {
            let (l, o) = m.now.last();
            return Err(ReadError::BeyondEnd {
                last: l.index,
                offset: o,
            });
        }
        Ok(Read::Ready(out))
    }
    pub fn index_of_offset(&self, g: GroupId, off: Offset) -> Result<LogIndex, ReadError> {
        let m = &self.groups[&g];
        m.now
            .entries
            .iter()
            .find(|e| e.end_offset() > off)
            .map(|e| e.id.index)
            .ok_or(ReadError::Cut)
    }
    pub fn epoch_end(&self, g: GroupId, t: Term) -> Result<Option<(Term, Offset)>, ReadError> {
        let m = &self.groups[&g];
        let ep = m.now.epochs();
        let Some(i) = ep.iter().rposition(|e| e.term <= t) else {
            return Ok(None);
        };
        let end = ep.get(i + 1).map_or(m.now.last().1, |e| e.first_offset);
        Ok(Some((ep[i].term, end)))
    }
    pub fn max_timestamp(&self, g: GroupId) -> Result<Option<TimestampOffset>, ReadError> {
        Ok(None)
    }
    pub fn offset_for_timestamp(
        &mut self,
        g: GroupId,
        ts: i64,
        t: Ticket,
    ) -> Result<Lookup<Option<TimestampOffset>>, ReadError> {
        Ok(Lookup::Ready(None))
    }
    pub fn retention_start(&self, g: GroupId, r: &Retention, now: i64) -> Option<Offset> {
        None
    }
    pub fn start(&self, g: GroupId) -> Result<Start, GroupError> {
        let m = &self.groups[&g];
        Ok(Start {
            position: m.now.start,
            log_start_offset: m.now.log_start,
            epochs: m.now.epochs.clone(),
        })
    }
    pub fn flush(&mut self, now: Duration) {
        for m in self.groups.values_mut() {
            if m.inflight.is_none() && !m.staged.is_empty() {
                let at = now + Duration::from_micros(self.rng.u64(100..5000));
                m.inflight = Some((at, std::mem::take(&mut m.staged)));
            }
        }
    }
    pub fn poll(&mut self, now: Duration, out: &mut Vec<Event>) {
        let mut d = self.disk.0.lock().expect("stand-in");
        for (g, m) in &mut self.groups {
            if m.inflight.as_ref().is_some_and(|(at, _)| *at <= now) {
                let (_, sts) = m.inflight.take().expect("stand-in");
                let dd = d.entry(*g).or_default();
                let mut w = WriteId(0);
                for s in &sts {
                    dd.apply(s);
                    w = match s {
                        St::Hard(w, _) | St::Append(w, _) | St::Cut(w, _) | St::Base(w, _) => *w,
                    };
                }
                // log start is lazily durable
                out.push(Event::Persisted {
                    group: *g,
                    write: w,
                });
            }
        }
    }
    pub fn next_deadline(&self) -> Option<Duration> {
        self.groups
            .values()
            .filter_map(|m| m.inflight.as_ref().map(|(at, _)| *at))
            .min()
    }
}
