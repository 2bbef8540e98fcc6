//! Names in the data directory (docs/format.md, The data directory).

use crate::ids::{GroupId, Sequence};

/// The directory's identity.
pub(crate) const IDENTITY: &str = "identity";
/// Its successor in the making.
pub(crate) const IDENTITY_NEXT: &str = "prepare/identity";
/// Locked while the directory is open, by whoever opens it.
pub(crate) const LOCK: &str = "lock";
/// Where journals lie.
pub(crate) const JOURNAL: &str = "journal";
/// Where files are made.
pub(crate) const PREPARE: &str = "prepare";
/// What time it was; its owner's, see docs/format.md.
pub(crate) const WALL_CLOCK: &str = "wall-clock";
/// What was set aside.
pub(crate) const QUARANTINE: &str = "quarantine";
/// Where groups lie.
pub(crate) const GROUPS: &str = "groups";

/// A group's directory.
pub(crate) fn group_dir(group: GroupId) -> String {
    format!("{GROUPS}/{group}")
}

/// A group's file.
pub(crate) fn segment(group: GroupId, sequence: Sequence) -> String {
    format!("{GROUPS}/{group}/{:010}.log", sequence.0)
}

/// A group's file while it is made.
pub(crate) fn prepared(group: GroupId, sequence: Sequence) -> String {
    format!("{PREPARE}/{group}-{:010}.log", sequence.0)
}

/// The copy that is to take the place of a group's file, while it is made.
pub(crate) fn repair(group: GroupId, sequence: Sequence) -> String {
    format!("{PREPARE}/{group}-{:010}.repair", sequence.0)
}

/// A group's file that nobody needs any more, until it becomes another.
pub(crate) fn spare(group: GroupId, sequence: Sequence) -> String {
    format!("{PREPARE}/{group}-{:010}.spare", sequence.0)
}

/// A copy of a journal: 0 is `a`, 1 is `b`.
pub(crate) fn journal(shard: u32, copy: usize) -> String {
    let letter = if copy == 0 { 'a' } else { 'b' };
    format!("{JOURNAL}/{shard:04}-{letter}")
}

/// Which file a name in a group's directory is, if Highwater made it.
pub(crate) fn parse_segment(name: &str) -> Option<Sequence> {
    let number = name.strip_suffix(".log")?;
    let sequence = Sequence(parse_digits(number)?);
    (sequence.0 > 0 && format!("{:010}", sequence.0) == number).then_some(sequence)
}

/// Which group a name in `groups/` is.
pub(crate) fn parse_group(name: &str) -> Option<GroupId> {
    let group = GroupId(parse_digits(name)?);
    (group.to_string() == name).then_some(group)
}

/// Which journal copy a name in `journal/` is.
pub(crate) fn parse_journal(name: &str) -> Option<(u32, usize)> {
    let (shard, letter) = name.split_once('-')?;
    let shard = u32::try_from(parse_digits(shard)?).ok()?;
    let copy = match letter {
        "a" => 0,
        "b" => 1,
        _ => return None,
    };
    (journal(shard, copy).strip_prefix("journal/") == Some(name)).then_some((shard, copy))
}

/// Whether a name in `prepare/` is one that Highwater makes.
pub(crate) fn is_prepared(name: &str) -> bool {
    if name == IDENTITY {
        return true;
    }
    let stem = name
        .strip_suffix(".log")
        .or_else(|| name.strip_suffix(".repair"))
        .or_else(|| name.strip_suffix(".spare"));
    stem.and_then(|stem| stem.split_once('-'))
        .is_some_and(|(group, sequence)| {
            parse_digits(group).is_some() && parse_digits(sequence).is_some()
        })
}

fn parse_digits(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let path = segment(GroupId(7), Sequence(12));
        assert_eq!(path, "groups/7/0000000012.log");
        assert_eq!(parse_segment("0000000012.log"), Some(Sequence(12)));
        assert_eq!(parse_group("7"), Some(GroupId(7)));
        assert_eq!(journal(3, 1), "journal/0003-b");
        assert_eq!(parse_journal("0003-b"), Some((3, 1)));
    }

    #[test]
    fn other_names_are_not_ours() {
        for name in [
            "12.log",
            "0000000000.log",
            "0000000012",
            "+000000012.log",
            "",
        ] {
            assert_eq!(parse_segment(name), None, "{name}");
        }
        for name in ["", "07", "-1", "x", "99999999999999999999999"] {
            assert_eq!(parse_group(name), None, "{name}");
        }
        for name in ["3-a", "0003-c", "0003", "0003-a~"] {
            assert_eq!(parse_journal(name), None, "{name}");
        }
        assert!(is_prepared("7-0000000012.log"));
        assert!(is_prepared("7-0000000012.repair"));
        assert!(is_prepared("7-0000000012.spare"));
        assert!(is_prepared("identity"));
        assert!(!is_prepared("notes.txt"));
        assert!(!is_prepared("a-b.log"));
    }
}
