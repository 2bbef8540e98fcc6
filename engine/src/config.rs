//! Topic configs: which there are, what they may be, and what they are for one topic.
//!
//! One table, [`TOPIC_CONFIGS`], is the source of what is accepted, of what is described to
//! clients and of what the engine does. A config that the engine cannot vary is listed with the
//! value it has, as read-only: setting it to that value is harmless and accepted, any other is
//! refused, so that nobody is promised what is not kept.

use std::collections::BTreeMap;

use highwater_log::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};

use crate::ops::GroupConfig;

#[cfg(test)]
mod tests;

/// The largest record batch that `max.message.bytes` may allow, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// The longest value of a config, in bytes.
pub const CONFIG_VALUE_BYTES_MAX: usize = 1_024;

/// What kind of value a config has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean,
    /// Any text.
    String,
    /// A 32-bit number.
    Int,
    /// A 64-bit number.
    Long,
    /// Texts with commas between them.
    List,
}

impl ConfigType {
    /// Kafka's number (KIP-226, `DescribeConfigsResponse`'s `ConfigType`).
    #[must_use]
    pub const fn code(self) -> i8 {
        match self {
            ConfigType::Boolean => 1,
            ConfigType::String => 2,
            ConfigType::Int => 3,
            ConfigType::Long => 5,
            ConfigType::List => 7,
        }
    }
}

/// Which values a config may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigRule {
    /// A whole number, both ends included.
    Between(i64, i64),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// Only the default: the engine knows no other way.
    Fixed,
    /// A whole number from 1 to the majority of the topic's replicas, and the majority if it is
    /// not set: an acknowledged record is on disk on a majority, whatever is asked for, so less
    /// is kept anyway and more could not be.
    UpToMajority,
}

/// A topic config.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigKey {
    /// Kafka's name.
    pub name: &'static str,
    /// What kind of value it has.
    pub kind: ConfigType,
    /// Its value unless a topic has its own.
    pub default: &'static str,
    /// Which values it may have.
    pub rule: ConfigRule,
    /// What it does, for people.
    pub doc: &'static str,
}

impl ConfigKey {
    /// The config of a name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static ConfigKey> {
        TOPIC_CONFIGS.iter().find(|key| key.name == name)
    }

    /// Whether it can only have its default.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.rule == ConfigRule::Fixed
    }

    /// Its value for topics of `replicas` replicas that have none of their own.
    #[must_use]
    pub fn default_for(&self, replicas: usize) -> String {
        match self.rule {
            ConfigRule::UpToMajority => majority(replicas).to_string(),
            _ => self.default.to_owned(),
        }
    }

    /// Checks a value and brings it into the form it is kept in.
    fn check(&self, value: &str, replicas: usize) -> Result<String, ConfigError> {
        let value = value.trim();
        let refused = |expected: String| ConfigError::Value {
            name: self.name,
            // What is too long to be kept is too long to be repeated.
            value: value.chars().take(64).collect(),
            expected,
        };
        let number_between = |min: i64, max: i64| match value.parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(number.to_string()),
            _ => Err(refused(format!("a whole number from {min} to {max}"))),
        };
        match self.rule {
            _ if value.len() > CONFIG_VALUE_BYTES_MAX => {
                Err(refused(format!("at most {CONFIG_VALUE_BYTES_MAX} bytes")))
            }
            ConfigRule::Between(min, max) => number_between(min, max),
            ConfigRule::UpToMajority => number_between(
                1,
                i64::try_from(majority(replicas)).expect("replicas are few"),
            ),
            ConfigRule::OneOf(values) if values.contains(&value) => Ok(value.to_owned()),
            ConfigRule::OneOf(values) => Err(refused(format!("one of {}", values.join(", ")))),
            ConfigRule::Fixed if value == self.default => Ok(value.to_owned()),
            ConfigRule::Fixed => Err(refused(format!("{}, nothing else", self.default))),
        }
    }
}

fn majority(replicas: usize) -> usize {
    replicas / 2 + 1
}

const CLEANUP_POLICY: &str = "cleanup.policy";
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
const TIMESTAMP_AFTER_MAX_MS: &str = "message.timestamp.after.max.ms";
const TIMESTAMP_BEFORE_MAX_MS: &str = "message.timestamp.before.max.ms";
const TIMESTAMP_TYPE: &str = "message.timestamp.type";
const RETENTION_BYTES: &str = "retention.bytes";
const RETENTION_MS: &str = "retention.ms";
const SEGMENT_BYTES: &str = "segment.bytes";
const SEGMENT_MS: &str = "segment.ms";
const LOG_APPEND_TIME: &str = "LogAppendTime";

/// Every topic config, by name. Defaults are Kafka's where there is a choice.
pub const TOPIC_CONFIGS: &[ConfigKey] = &[
    ConfigKey {
        name: CLEANUP_POLICY,
        kind: ConfigType::List,
        default: "delete",
        rule: ConfigRule::Fixed,
        doc: "What happens to old records: they are deleted. Compaction is not there yet.",
    },
    ConfigKey {
        name: "compression.type",
        kind: ConfigType::String,
        default: "producer",
        rule: ConfigRule::Fixed,
        doc: "How batches are compressed: as the producer did. They are never recompressed.",
    },
    ConfigKey {
        name: "flush.messages",
        kind: ConfigType::Long,
        default: "1",
        rule: ConfigRule::Fixed,
        doc: "After how many records the log is synced: before any is acknowledged.",
    },
    ConfigKey {
        name: MAX_MESSAGE_BYTES,
        kind: ConfigType::Int,
        default: "1048588",
        // As far as Int and the engine go; the smallest batch has a header.
        rule: ConfigRule::Between(0, MESSAGE_BYTES_MAX as i64),
        doc: "The largest record batch, in bytes, as it is sent, compressed or not.",
    },
    ConfigKey {
        name: TIMESTAMP_AFTER_MAX_MS,
        kind: ConfigType::Long,
        default: "3600000",
        rule: ConfigRule::Between(0, i64::MAX),
        doc: "How far ahead of the leader's clock a record's timestamp may be, in milliseconds. \
              Only where producers set the timestamps.",
    },
    ConfigKey {
        name: TIMESTAMP_BEFORE_MAX_MS,
        kind: ConfigType::Long,
        default: "9223372036854775807",
        rule: ConfigRule::Between(0, i64::MAX),
        doc: "How far behind the leader's clock a record's timestamp may be, in milliseconds. \
              Only where producers set the timestamps.",
    },
    ConfigKey {
        name: TIMESTAMP_TYPE,
        kind: ConfigType::String,
        default: "CreateTime",
        rule: ConfigRule::OneOf(&["CreateTime", LOG_APPEND_TIME]),
        doc: "Whose timestamps records have: the producer's, or the time of the leader's append.",
    },
    ConfigKey {
        name: "min.insync.replicas",
        kind: ConfigType::Int,
        default: "1",
        rule: ConfigRule::UpToMajority,
        doc: "On how many replicas' disks a record must be to be acknowledged: a majority of \
              them always, hence any smaller number is kept too.",
    },
    ConfigKey {
        name: RETENTION_BYTES,
        kind: ConfigType::Long,
        default: "-1",
        rule: ConfigRule::Between(-1, i64::MAX),
        doc: "Bytes of a partition above which its oldest files are deleted; -1 for no limit.",
    },
    ConfigKey {
        name: RETENTION_MS,
        kind: ConfigType::Long,
        default: "604800000",
        rule: ConfigRule::Between(-1, i64::MAX),
        doc: "Milliseconds after which a partition's files are deleted; -1 for no limit.",
    },
    ConfigKey {
        name: SEGMENT_BYTES,
        kind: ConfigType::Int,
        default: "1073741824",
        rule: ConfigRule::Between(SEGMENT_BYTES_MIN as i64, i32::MAX as i64),
        doc: "How large a file of a partition may become, in bytes. The first ones are smaller.",
    },
    ConfigKey {
        name: SEGMENT_MS,
        kind: ConfigType::Long,
        default: "604800000",
        rule: ConfigRule::Between(1, i64::MAX),
        doc: "How old a file may become before the next is begun, in milliseconds.",
    },
    ConfigKey {
        name: "unclean.leader.election.enable",
        kind: ConfigType::Boolean,
        default: "false",
        rule: ConfigRule::Fixed,
        doc: "Whether a replica without all acknowledged records may lead: never.",
    },
];

const _: () = assert!(SEGMENT_BYTES_MIN <= i32::MAX as u64);
const _: () = assert!(SEGMENT_BYTES_MAX >= i32::MAX as u64);
const _: () = assert!(MESSAGE_BYTES_MAX <= i32::MAX as usize);

/// Why a config was refused. The client's fault: INVALID_CONFIG.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no such config.
    #[error("unknown topic config: {name}")]
    Unknown {
        /// Its name as sent, the beginning of it.
        name: String,
    },
    /// It may not have this value.
    #[error("{name} = {value:?}: must be {expected}")]
    Value {
        /// Its name.
        name: &'static str,
        /// The value as sent, the beginning of it.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// Only a list has elements to be added or removed.
    #[error("{name} is not a list: nothing can be appended to it or subtracted from it")]
    NotAList {
        /// Its name.
        name: &'static str,
    },
}

/// A change of one config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigChange<'a> {
    /// It gets a value.
    Set(&'a str),
    /// It goes back to its default.
    Unset,
    /// A list gets more elements.
    Append(&'a str),
    /// A list loses elements.
    Subtract(&'a str),
}

/// The configs of one topic: what it has of its own, defaults for everything else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicConfigs {
    own: BTreeMap<&'static str, String>,
}

impl TopicConfigs {
    /// Applies a change for a topic with so many replicas.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if it is refused; nothing has changed then.
    pub fn change(
        &mut self,
        name: &str,
        change: ConfigChange<'_>,
        replicas: usize,
    ) -> Result<(), ConfigError> {
        let key = ConfigKey::find(name).ok_or_else(|| ConfigError::Unknown {
            name: name.chars().take(64).collect(),
        })?;
        let value = match change {
            ConfigChange::Set(value) => value.to_owned(),
            ConfigChange::Unset => {
                self.own.remove(key.name);
                return Ok(());
            }
            ConfigChange::Append(_) | ConfigChange::Subtract(_) if key.kind != ConfigType::List => {
                return Err(ConfigError::NotAList { name: key.name });
            }
            ConfigChange::Append(more) => appended(&self.get(key, replicas), more),
            ConfigChange::Subtract(less) => subtracted(&self.get(key, replicas), less),
        };
        let value = key.check(&value, replicas)?;
        self.own.insert(key.name, value);
        Ok(())
    }

    /// What the topic has of its own.
    pub fn own(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.own.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// The topic's own value, if it has one.
    #[must_use]
    pub fn own_value(&self, key: &ConfigKey) -> Option<&str> {
        self.own.get(key.name).map(String::as_str)
    }

    /// The value that holds for the topic.
    #[must_use]
    pub fn get(&self, key: &ConfigKey, replicas: usize) -> String {
        self.own_value(key)
            .map_or_else(|| key.default_for(replicas), str::to_owned)
    }

    /// How the log of the topic's partitions is kept.
    #[must_use]
    pub fn group_config(&self) -> GroupConfig {
        GroupConfig {
            retention_bytes: u64::try_from(self.number(RETENTION_BYTES)).ok(),
            retention_ms: u64::try_from(self.number(RETENTION_MS)).ok(),
            segment_bytes: self.number(SEGMENT_BYTES).unsigned_abs(),
            segment_ms: self.number(SEGMENT_MS).unsigned_abs(),
            max_message_bytes: self.max_message_bytes(),
            log_append_time: self.log_append_time(),
        }
    }

    /// The largest record batch, in bytes.
    #[must_use]
    pub fn max_message_bytes(&self) -> usize {
        usize::try_from(self.number(MAX_MESSAGE_BYTES)).expect("checked to be 0 to 8 MiB")
    }

    /// Whether the leader's clock replaces the producer's timestamps.
    #[must_use]
    pub fn log_append_time(&self) -> bool {
        self.text(TIMESTAMP_TYPE) == LOG_APPEND_TIME
    }

    /// Whether a producer's timestamp (milliseconds since the Unix epoch) is near enough to the
    /// leader's clock. -1, no timestamp, is.
    #[must_use]
    pub fn timestamp_is_near(&self, timestamp: i64, now_ms: i64) -> bool {
        let ahead = timestamp.saturating_sub(now_ms);
        let behind = now_ms.saturating_sub(timestamp);
        timestamp == -1
            || (ahead <= self.number(TIMESTAMP_AFTER_MAX_MS)
                && behind <= self.number(TIMESTAMP_BEFORE_MAX_MS))
    }

    fn text(&self, name: &'static str) -> &str {
        let own = self.own.get(name).map(String::as_str);
        own.unwrap_or_else(|| ConfigKey::find(name).expect("a name of the table").default)
    }

    fn number(&self, name: &'static str) -> i64 {
        let text = self.text(name);
        text.parse()
            .expect("numbers were checked, defaults by a test")
    }
}

fn appended(list: &str, more: &str) -> String {
    let mut elements: Vec<&str> = elements(list).collect();
    for element in self::elements(more) {
        if !elements.contains(&element) {
            elements.push(element);
        }
    }
    elements.join(",")
}

fn subtracted(list: &str, less: &str) -> String {
    let less: Vec<&str> = elements(less).collect();
    let left: Vec<&str> = elements(list)
        .filter(|element| !less.contains(element))
        .collect();
    left.join(",")
}

fn elements(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|element| !element.is_empty())
}
