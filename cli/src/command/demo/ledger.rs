//! What was sent, key by key, and whether what is read is that.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The values of every key, in order, as hashes: eight bytes a record.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    keys: BTreeMap<Vec<u8>, Values>,
    waiting: u64,
}

#[derive(Debug, Default)]
struct Values {
    hashes: Vec<u64>,
    /// How many were read.
    read: usize,
}

/// What is read is not what was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("record {number} of key {key:?} came twice")]
    Doubled { key: String, number: usize },
    #[error("record {number} of key {key:?} came where {expected} was due: lost or out of order")]
    Early {
        key: String,
        number: usize,
        expected: usize,
    },
    #[error("a record of key {key:?} was never sent")]
    Unknown { key: String },
}

impl Ledger {
    /// Notes a record that is sent.
    pub(super) fn sent(&mut self, key: &[u8], value: &[u8]) {
        self.waiting += 1;
        let hash = hash(value);
        match self.keys.get_mut(key) {
            Some(values) => values.hashes.push(hash),
            None => {
                let hashes = vec![hash];
                self.keys.insert(key.to_vec(), Values { hashes, read: 0 });
            }
        }
    }

    /// Whether records that were sent have not been read.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Strikes out a record that was read; it must be the next of its key.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn read(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let hash = hash(value);
        let name = || String::from_utf8_lossy(key).into_owned();
        let Some(values) = self.keys.get_mut(key) else {
            return Err(Fault::Unknown { key: name() });
        };
        if values.hashes.get(values.read) == Some(&hash) {
            values.read += 1;
            self.waiting -= 1;
            return Ok(());
        }
        Err(values.fault(hash, name()))
    }
}

impl Values {
    fn fault(&self, hash: u64, key: String) -> Fault {
        let found = self.hashes.iter().position(|known| *known == hash);
        match found {
            Some(number) if number < self.read => Fault::Doubled { key, number },
            Some(number) => Fault::Early {
                key,
                number,
                expected: self.read,
            },
            None => Fault::Unknown { key },
        }
    }
}

fn hash(value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for (key, value) in [("UA", "1"), ("DL", "1"), ("UA", "2"), ("UA", "3")] {
            ledger.sent(key.as_bytes(), value.as_bytes());
        }
        ledger
    }

    #[test]
    fn keys_may_come_in_any_order_and_their_records_in_one() {
        let mut ledger = ledger();
        for (key, value) in [("UA", "1"), ("UA", "2"), ("DL", "1")] {
            ledger.read(key.as_bytes(), value.as_bytes()).unwrap();
        }
        assert!(ledger.is_waiting());
        ledger.read(b"UA", b"3").unwrap();
        assert!(!ledger.is_waiting());
    }

    #[test]
    fn every_fault_is_told_by_its_name() {
        let key = || "UA".to_owned();
        let mut ledger = ledger();
        ledger.read(b"UA", b"1").unwrap();
        let doubled = Fault::Doubled {
            key: key(),
            number: 0,
        };
        assert_eq!(ledger.read(b"UA", b"1"), Err(doubled));
        let early = Fault::Early {
            key: key(),
            number: 2,
            expected: 1,
        };
        assert_eq!(ledger.read(b"UA", b"3"), Err(early));
        assert_eq!(ledger.read(b"UA", b"4"), Err(Fault::Unknown { key: key() }));
        let key = "AA".to_owned();
        assert_eq!(ledger.read(b"AA", b"1"), Err(Fault::Unknown { key }));
    }
}
