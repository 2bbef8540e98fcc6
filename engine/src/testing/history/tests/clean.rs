//! Clean histories: a log that keeps its promises, asked by several clients at once.

use fastrand::Rng;

use super::super::*;

/// How many replicas are read at the end.
pub(super) const NODES: u32 = 3;

/// A log that keeps its promises, and clients that ask it, step by step.
struct Model {
    rng: Rng,
    history: History,
    logs: Vec<Vec<u64>>,
    next_value: u64,
    /// What is under way, by process: the beginning, and what will come of it.
    open: Vec<(Invocation, Action, Phase)>,
    positions: Vec<i64>,
}

fn partition(index: usize) -> Partition {
    Partition::new("clean", i32::try_from(index).unwrap())
}

impl Model {
    /// A batch is sent; its fate is decided at once, and told later.
    fn send(&mut self) {
        let index = self.rng.usize(..self.logs.len());
        let values: Vec<u64> = (0..self.rng.u64(1..4))
            .map(|it| self.next_value + it)
            .collect();
        self.next_value += 10;
        // A producer with several batches under way keeps their order: each is its own here.
        let question = Action::send(&partition(index), &values);
        let open = self
            .history
            .invoke(1_000 + self.next_value, question.clone());
        let log = &mut self.logs[index];
        let base = i64::try_from(log.len()).unwrap();
        match self.rng.u8(..10) {
            0 => self.open.push((open, question, Phase::Fail)),
            1 => self.open.push((open, question, Phase::Info)),
            2 => {
                log.extend(&values);
                self.open.push((open, question, Phase::Info));
            }
            _ => {
                log.extend(&values);
                let answer = Action::sent(&partition(index), &values, base);
                self.open.push((open, answer, Phase::Ok));
            }
        }
    }

    fn tell(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let at = self.rng.usize(..self.open.len());
        let (open, answer, phase) = self.open.remove(at);
        match phase {
            Phase::Ok => self.history.ok(open, answer),
            Phase::Fail => self.history.fail(open, answer),
            _ => self.history.info(open, answer),
        }
    }

    fn poll(&mut self, max: usize) {
        let at = self.rng.usize(..self.positions.len());
        let (index, from) = (at % self.logs.len(), self.positions[at]);
        let process = u64::try_from(at).unwrap();
        let records = read(&self.logs[index], from, max);
        let partition = partition(index);
        let open = self.history.invoke(process, Action::poll(&partition, from));
        let answer = Action::polled(&partition, from, &records);
        self.history.ok(open, answer);
        self.positions[at] += i64::try_from(records.len()).unwrap();
    }

    fn list(&mut self) {
        let index = self.rng.usize(..self.logs.len());
        let of = |latest| Action::ListOffsets {
            partition: partition(index),
            latest,
        };
        let open = self.history.invoke(500, of(None));
        let end = i64::try_from(self.logs[index].len()).unwrap();
        self.history.ok(open, of(Some(end)));
    }

    fn finish(&mut self) {
        while !self.open.is_empty() {
            self.tell();
        }
        for _ in 0..100 {
            self.poll(usize::MAX);
        }
        for (index, log) in self.logs.iter().enumerate() {
            for node in 1..=NODES {
                let partition = partition(index);
                let open = self
                    .history
                    .invoke(900, Action::final_read(&partition, node));
                let records = read(log, 0, usize::MAX);
                let answer = Action::final_answer(&partition, node, 0, &records);
                self.history.ok(open, answer);
            }
        }
    }
}

fn read(log: &[u64], from: i64, max: usize) -> Vec<(i64, u64)> {
    let all = (0..).zip(log.iter().copied());
    all.filter(|(offset, _)| *offset >= from)
        .take(max)
        .collect()
}

/// A clean history.
pub(super) fn history(seed: u64) -> History {
    let mut rng = Rng::with_seed(seed);
    let partitions = rng.usize(1..4);
    let mut model = Model {
        history: History::default(),
        logs: vec![Vec::new(); partitions],
        next_value: 0,
        open: Vec::new(),
        positions: vec![0; partitions * 2],
        rng,
    };
    for step in 0..200 {
        model
            .history
            .set_now(std::time::Duration::from_millis(step));
        match model.rng.u8(..10) {
            0..=2 => model.send(),
            3..=5 => model.tell(),
            6 => model.list(),
            _ => {
                let max = model.rng.usize(1..5);
                model.poll(max);
            }
        }
    }
    model.history.set_now(std::time::Duration::from_millis(200));
    model.finish();
    model.history
}

#[test]
fn clean_histories_are_clean() {
    for seed in 0..200 {
        let verdict = check(&history(seed), Rules::default());
        assert!(verdict.is_clean(), "seed {seed}: {:#?}", verdict.anomalies);
        assert!(verdict.acked > 20 && verdict.read_finally > 60);
    }
}
