//! Names and positions that Kafka's users see, a type for each.

use std::fmt;
use std::sync::Arc;

/// A record's place in its partition, dense from 0. Log indexes are another number space,
/// kept by other types.
///
/// Kafka writes offsets as `i64`, so those in use are at most [`Offset::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// The first offset of a partition.
    pub const ZERO: Offset = Offset(0);

    /// The largest offset that Kafka's protocol can say, 2^63 - 1.
    pub const MAX: Offset = Offset(i64::MAX.unsigned_abs());

    /// The offset after this one.
    ///
    /// # Panics
    ///
    /// As [`advance`](Offset::advance).
    #[must_use]
    pub fn next(self) -> Offset {
        self.advance(1)
    }

    /// The offset `span` records later.
    ///
    /// # Panics
    ///
    /// If that is beyond `u64`; offsets that came from outside go through
    /// [`checked_advance`](Offset::checked_advance).
    #[must_use]
    pub fn advance(self, span: u64) -> Offset {
        Offset(
            self.0
                .checked_add(span)
                .expect("a partition's offsets stay below 2^64"),
        )
    }

    /// The offset `span` records later, if it is at most [`Offset::MAX`].
    #[must_use]
    pub fn checked_advance(self, span: u64) -> Option<Offset> {
        let sum = self.0.checked_add(span)?;
        (sum <= Offset::MAX.0).then_some(Offset(sum))
    }

    /// How many records lie from this offset up to, not including, `later`; nothing if `later`
    /// is the smaller one.
    #[must_use]
    pub fn distance_to(self, later: Offset) -> Option<u64> {
        later.0.checked_sub(self.0)
    }

    /// As Kafka writes it; what is above [`Offset::MAX`] is written as that.
    #[must_use]
    pub fn to_wire(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// From Kafka's `i64`; nothing if it is negative (those are markers: latest, earliest).
    #[must_use]
    pub fn from_wire(offset: i64) -> Option<Offset> {
        u64::try_from(offset).ok().map(Offset)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the leaders of a partition; Kafka's `leaderEpoch`, which is Raft's term. At most
/// `i32::MAX`, since Kafka writes it as `i32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaderEpoch(u32);

impl LeaderEpoch {
    /// Before any leader.
    pub const ZERO: LeaderEpoch = LeaderEpoch(0);

    /// The last epoch there can be.
    pub const MAX: LeaderEpoch = LeaderEpoch(i32::MAX.unsigned_abs());

    /// An epoch; nothing if it is above [`LeaderEpoch::MAX`].
    #[must_use]
    pub const fn new(epoch: u32) -> Option<LeaderEpoch> {
        if epoch <= LeaderEpoch::MAX.0 {
            Some(LeaderEpoch(epoch))
        } else {
            None
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The epoch after this one; nothing after the last.
    #[must_use]
    pub fn next(self) -> Option<LeaderEpoch> {
        LeaderEpoch::new(self.0 + 1)
    }

    /// As Kafka writes it.
    #[must_use]
    pub fn to_wire(self) -> i32 {
        i32::try_from(self.0).expect("an epoch is at most i32::MAX")
    }

    /// From Kafka's `i32`; nothing if it is negative (-1 says: unknown).
    #[must_use]
    pub fn from_wire(epoch: i32) -> Option<LeaderEpoch> {
        u32::try_from(epoch).ok().map(LeaderEpoch)
    }
}

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The longest topic name, in bytes: Kafka's limit, so that `name-partition` fits a file name.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// A valid topic name: 1 to 249 of `a-z A-Z 0-9 . _ -`, and neither `.` nor `..`. Cheap to
/// clone.
///
/// ```
/// use highwater_record::TopicName;
///
/// assert_eq!(TopicName::new("flights.2013")?.as_str(), "flights.2013");
/// assert!(TopicName::new("../etc/passwd").is_err());
/// # Ok::<(), highwater_record::InvalidTopicName>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// Why a string is no topic name. The client's fault; Kafka answers INVALID_TOPIC_EXCEPTION.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopicName {
    /// It has no characters.
    #[error("a topic name must not be empty")]
    Empty,
    /// It is longer than [`TOPIC_NAME_BYTES_MAX`].
    #[error("topic name of {bytes} bytes; at most 249 are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It is `.` or `..`.
    #[error("a topic must not be named `.` or `..`")]
    Dots,
    /// A character is not among the allowed ones.
    #[error("topic name with {found:?}; allowed are letters, digits, `.`, `_` and `-`")]
    Character {
        /// The first such character.
        found: char,
    },
}

impl TopicName {
    /// Checks `name` and copies it.
    ///
    /// # Errors
    ///
    /// [`InvalidTopicName`] says which rule it breaks.
    pub fn new(name: &str) -> Result<TopicName, InvalidTopicName> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() {
            Err(InvalidTopicName::Empty)
        } else if name.len() > TOPIC_NAME_BYTES_MAX {
            Err(InvalidTopicName::TooLong { bytes: name.len() })
        } else if name == "." || name == ".." {
            Err(InvalidTopicName::Dots)
        } else if let Some(found) = name.chars().find(|&c| !allowed(c)) {
            Err(InvalidTopicName::Character { found })
        } else {
            Ok(TopicName(Arc::from(name)))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for TopicName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Maps keyed by topic can be searched by `&str`.
impl std::borrow::Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for TopicName {
    type Err = InvalidTopicName;

    fn from_str(name: &str) -> Result<TopicName, InvalidTopicName> {
        TopicName::new(name)
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One log among those of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition's number, from 0.
    pub partition: u32,
}

impl TopicPartition {
    /// A partition of the topic with this name.
    ///
    /// # Errors
    ///
    /// [`InvalidTopicName`] says which rule the name breaks.
    pub fn new(topic: &str, partition: u32) -> Result<TopicPartition, InvalidTopicName> {
        let topic = TopicName::new(topic)?;
        Ok(TopicPartition { topic, partition })
    }
}

impl fmt::Display for TopicPartition {
    /// As Kafka's tools print it: `topic-partition`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_kafkas_rules() {
        let check = |name: &str, expected: Result<(), InvalidTopicName>| {
            assert_eq!(TopicName::new(name).map(|_| ()), expected, "{name:?}");
        };
        check("a", Ok(()));
        check("__consumer_offsets", Ok(()));
        check("...", Ok(()));
        check(&"x".repeat(249), Ok(()));
        check(
            &"x".repeat(250),
            Err(InvalidTopicName::TooLong { bytes: 250 }),
        );
        check("", Err(InvalidTopicName::Empty));
        check(".", Err(InvalidTopicName::Dots));
        check("..", Err(InvalidTopicName::Dots));
        check("a/b", Err(InvalidTopicName::Character { found: '/' }));
        check("é", Err(InvalidTopicName::Character { found: 'é' }));
        check("a\0", Err(InvalidTopicName::Character { found: '\0' }));
    }

    #[test]
    fn positions_end_where_kafkas_numbers_do() {
        assert_eq!(Offset::from_wire(-1), None);
        assert_eq!(Offset::from_wire(i64::MAX), Some(Offset::MAX));
        assert_eq!(Offset::MAX.checked_advance(1), None);
        assert_eq!(Offset(3).distance_to(Offset(5)), Some(2));
        assert_eq!(Offset(5).distance_to(Offset(3)), None);
        assert_eq!(LeaderEpoch::new(1 << 31), None);
        assert_eq!(LeaderEpoch::MAX.next(), None);
        assert_eq!(LeaderEpoch::MAX.to_wire(), i32::MAX);
        assert_eq!(LeaderEpoch::from_wire(-1), None);
    }
}
