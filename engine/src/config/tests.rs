use super::*;

fn set(name: &str, value: &str) -> Result<TopicConfigs, ConfigError> {
    let mut configs = TopicConfigs::default();
    configs.change(name, ConfigChange::Set(value), 3)?;
    Ok(configs)
}

#[test]
fn every_default_is_a_legal_value_in_the_form_it_is_kept_in() {
    for replicas in [1, 3] {
        for key in TOPIC_CONFIGS {
            let default = key.default_for(replicas);
            assert_eq!(
                key.check(&default, replicas).as_ref(),
                Ok(&default),
                "{}",
                key.name
            );
        }
    }
    assert!(TOPIC_CONFIGS.is_sorted_by_key(|key| key.name));
    // What is not set means the same to handlers and to partitions.
    assert_eq!(
        TopicConfigs::default().group_config(),
        GroupConfig::default()
    );
}

#[test]
fn numbers_are_legal_between_their_ends() {
    let edges: [(&str, &[&str], &[&str]); 5] = [
        (
            "max.message.bytes",
            &["0", "8388608", " 7 "],
            &["-1", "8388609", "", "x", "1.5"],
        ),
        (
            "retention.ms",
            &["-1", "9223372036854775807"],
            &["-2", "9223372036854775808"],
        ),
        (
            "segment.bytes",
            &["65536", "2147483647"],
            &["65535", "2147483648"],
        ),
        ("segment.ms", &["1"], &["0"]),
        ("min.insync.replicas", &["1", "2"], &["0", "3"]),
    ];
    for (name, legal, illegal) in edges {
        for value in legal {
            let configs = set(name, value).unwrap();
            let own: Vec<_> = configs.own().collect();
            assert_eq!(own, [(name, value.trim())]);
        }
        for value in illegal {
            assert!(
                matches!(set(name, value), Err(ConfigError::Value { .. })),
                "{name}={value}"
            );
        }
    }
}

#[test]
fn a_single_replica_has_a_majority_of_one() {
    let mut configs = TopicConfigs::default();
    assert!(
        configs
            .change("min.insync.replicas", ConfigChange::Set("2"), 1)
            .is_err()
    );
    assert!(
        configs
            .change("min.insync.replicas", ConfigChange::Set("1"), 1)
            .is_ok()
    );
    let key = ConfigKey::find("min.insync.replicas").unwrap();
    assert_eq!(key.default_for(1), "1");
    assert_eq!(key.default_for(3), "2");
}

#[test]
fn what_cannot_be_varied_can_only_be_set_to_what_it_is() {
    assert!(set("cleanup.policy", "delete").is_ok());
    assert!(set("cleanup.policy", "compact").is_err());
    assert!(set("compression.type", "producer").is_ok());
    assert!(set("compression.type", "zstd").is_err());
    assert!(set("unclean.leader.election.enable", "true").is_err());
    assert!(matches!(
        set("no.such.config", "1"),
        Err(ConfigError::Unknown { .. })
    ));
}

#[test]
fn changes_set_unset_and_edit_lists() {
    let mut configs = set("retention.ms", "5").unwrap();
    assert_eq!(configs.group_config().retention_ms, Some(5));
    configs
        .change("retention.ms", ConfigChange::Set("-1"), 3)
        .unwrap();
    assert_eq!(configs.group_config().retention_ms, None);
    configs
        .change("retention.ms", ConfigChange::Unset, 3)
        .unwrap();
    assert_eq!(configs, TopicConfigs::default());
    let mut edit = |change| configs.change("cleanup.policy", change, 3);
    edit(ConfigChange::Append("delete")).unwrap();
    assert!(edit(ConfigChange::Append("compact")).is_err());
    assert!(edit(ConfigChange::Subtract("delete")).is_err());
    edit(ConfigChange::Subtract("compact")).unwrap();
    assert_eq!(
        configs.change("retention.ms", ConfigChange::Append("1"), 3),
        Err(ConfigError::NotAList {
            name: "retention.ms"
        })
    );
}

#[test]
fn long_values_are_neither_kept_nor_repeated_whole() {
    let long = "1".repeat(CONFIG_VALUE_BYTES_MAX + 1);
    let Err(ConfigError::Value { value, .. }) = set("retention.ms", &long) else {
        panic!("accepted");
    };
    assert_eq!(value.len(), 64);
    let Err(ConfigError::Unknown { name }) = set(&long, "1") else {
        panic!("accepted");
    };
    assert_eq!(name.len(), 64);
}

#[test]
fn timestamps_are_held_against_the_leaders_clock() {
    let configs = TopicConfigs::default();
    let now = 1_700_000_000_000;
    let hour = 3_600_000;
    assert!(configs.timestamp_is_near(now + hour, now));
    assert!(!configs.timestamp_is_near(now + hour + 1, now));
    assert!(configs.timestamp_is_near(0, now));
    assert!(configs.timestamp_is_near(-1, now));
    assert!(!configs.timestamp_is_near(i64::MAX, now));
    let configs = set("message.timestamp.before.max.ms", "10").unwrap();
    assert!(configs.timestamp_is_near(now - 10, now));
    assert!(!configs.timestamp_is_near(now - 11, now));
    assert!(!configs.timestamp_is_near(i64::MIN, now));
    assert!(configs.timestamp_is_near(-1, now));
}
