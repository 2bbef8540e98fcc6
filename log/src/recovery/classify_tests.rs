//! The recovery rule, case by case.

use highwater_record::Offset;

use super::classify::{Fault, FaultKind, FileVerdict, Holes, Rule, Verdict, classify};
use super::view::{BeginView, Content, FileView, Found, Frames, GroupView, IdentityView, Mark};
use crate::format::begin::Reason;
use crate::format::journal::SyncedPosition;
use crate::ids::{Chain, LogIndex, Sequence, Term};

/// A file in the making. Entries' chains are their indexes, so histories agree unless said
/// otherwise.
#[derive(Clone)]
struct File(FileView);

impl File {
    fn of(sequence: u64, begin: Option<(Reason, u64)>) -> File {
        let begin = begin.map(|(reason, first)| BeginView {
            reason,
            first: LogIndex(first),
            chain: Chain(first - 1),
        });
        File(FileView {
            sequence: Sequence(sequence),
            identity: IdentityView::Good,
            content: Content::Frames(Frames {
                begin,
                ..Frames::default()
            }),
        })
    }

    fn base(sequence: u64, first: u64) -> File {
        File::of(sequence, Some((Reason::Base, first)))
    }

    fn cut(sequence: u64, first: u64) -> File {
        File::of(sequence, Some((Reason::Cut, first)))
    }

    fn roll(sequence: u64, first: u64) -> File {
        File::of(sequence, Some((Reason::Roll, first)))
    }

    fn bad_begin(sequence: u64) -> File {
        File::of(sequence, None)
    }

    fn bad_identity(sequence: u64, any_header: bool) -> File {
        let mut file = File::bad_begin(sequence);
        file.0.identity = IdentityView::Bad { any_header };
        file
    }

    fn frames(&mut self) -> &mut Frames {
        match &mut self.0.content {
            Content::Frames(frames) => frames,
            Content::Sealed { .. } => panic!("the tests make no sealed files this way"),
        }
    }

    /// Good entries through `last`.
    fn through(mut self, last: u64) -> File {
        let frames = self.frames();
        let first = frames.begin.map_or(1, |begin| begin.first.0);
        frames.run = (first..=last)
            .map(|index| Mark {
                term: Term(1),
                chain: Chain(index),
                end: Offset(index),
            })
            .collect();
        self
    }

    /// A watermark among the good entries.
    fn claiming(mut self, index: u64) -> File {
        self.frames().run_claim = Some(LogIndex(index));
        self
    }

    /// Frames behind a bad one: index, and whether the body holds.
    fn beyond(mut self, found: &[(u64, bool)]) -> File {
        let frames = self.frames();
        frames.residue = true;
        let mut previous = 0;
        for &(index, good) in found {
            frames.beyond.push(Found {
                index: LogIndex(index),
                term: Term(1),
                chain: Chain(index),
                end: Offset(index),
                good,
                follows: index == previous + 1,
            });
            previous = index;
        }
        self
    }

    /// A watermark behind the bad one.
    fn claiming_beyond(mut self, index: u64) -> File {
        self.frames().beyond_claim = Some(LogIndex(index));
        self
    }

    fn sealed(sequence: u64, reason: Reason, first: u64, last: u64) -> File {
        let mut file = File::of(sequence, Some((reason, first)));
        let begin = file.frames().begin.expect("just given");
        file.0.content = Content::Sealed {
            begin,
            last: LogIndex(last),
            chain: Chain(last),
        };
        file
    }
}

fn judge(position: Option<(u64, u64)>, files: &[File]) -> Verdict {
    let view = GroupView {
        position: position.map(|(sequence, index)| SyncedPosition {
            sequence: Sequence(sequence),
            index: LogIndex(index),
        }),
        files: files.iter().map(|file| file.0.clone()).collect(),
    };
    classify(&view, &Rule::default())
}

fn visible(first: u64, last: u64) -> FileVerdict {
    FileVerdict::Visible {
        first: LogIndex(first),
        last: LogIndex(last),
    }
}

/// The first hole, all holes, and whether they reach the end.
type HolesSeen = Option<(u64, Vec<(u64, u64)>, bool)>;

fn holes(verdict: &Verdict) -> HolesSeen {
    let holes = verdict.quarantine.as_ref()?;
    let ranges = holes.ranges.iter().map(|(a, b)| (a.0, b.0)).collect();
    Some((holes.first.0, ranges, holes.reaches_end))
}

#[test]
fn an_empty_group_is_empty() {
    let verdict = judge(None, &[]);
    assert_eq!(verdict.last, LogIndex(0));
    assert_eq!(verdict.quarantine, None);
}

#[test]
fn a_clean_log_is_taken_whole() {
    let verdict = judge(
        Some((2, 5)),
        &[File::base(1, 1).through(3), File::roll(2, 4).through(5)],
    );
    assert_eq!(verdict.last, LogIndex(5));
    assert_eq!(verdict.before_first, LogIndex(0));
    assert_eq!(verdict.durable, LogIndex(5));
    assert_eq!(verdict.torn, None);
    assert_eq!(verdict.files, [visible(1, 3), visible(4, 5)]);
}

#[test]
fn a_bad_frame_above_d_in_the_last_file_is_a_torn_tail() {
    let file = File::base(1, 1)
        .through(2)
        .claiming(1)
        .beyond(&[(4, true), (5, true)]);
    let verdict = judge(None, &[file]);
    assert_eq!(verdict.last, LogIndex(2));
    assert_eq!(verdict.quarantine, None);
    let torn = verdict.torn.expect("the evidence is reported");
    assert_eq!((torn.index, torn.found_beyond), (LogIndex(3), 2));
}

#[test]
fn watermarks_behind_the_bad_frame_count() {
    let file = File::base(1, 1)
        .through(2)
        .beyond(&[(4, true)])
        .claiming_beyond(3);
    let verdict = judge(None, &[file]);
    assert_eq!(holes(&verdict), Some((3, vec![(3, 3)], false)));
    assert_eq!(verdict.last, LogIndex(4));
}

#[test]
fn a_bad_frame_at_the_journals_position_is_never_cut() {
    let file = File::base(1, 1).through(2).beyond(&[]);
    let verdict = judge(Some((1, 3)), &[file]);
    assert_eq!(holes(&verdict), Some((3, vec![(3, 3)], true)));
    assert_eq!(verdict.last, LogIndex(2));
}

#[test]
fn a_hole_above_d_leaves_no_verified_tail() {
    let file = File::base(1, 1)
        .through(1)
        .beyond(&[(3, true), (5, true)])
        .claiming_beyond(2);
    let verdict = judge(None, &[file]);
    assert_eq!(holes(&verdict), Some((2, vec![(2, 2), (4, 4)], true)));
    assert_eq!(verdict.last, LogIndex(1));
}

#[test]
fn a_frame_with_a_bad_body_at_the_end_leaves_no_verified_tail() {
    let file = File::base(1, 1)
        .through(1)
        .beyond(&[(3, true), (4, false)])
        .claiming_beyond(3);
    assert_eq!(
        holes(&judge(None, &[file])),
        Some((2, vec![(2, 2), (4, 4)], true))
    );
}

#[test]
fn a_bad_frame_in_a_lower_file_is_corruption_whatever_d_is() {
    let lower = File::base(1, 1).through(1).beyond(&[(3, true)]);
    let verdict = judge(None, &[lower, File::roll(2, 4).through(5)]);
    assert_eq!(holes(&verdict), Some((2, vec![(2, 2)], false)));
    assert_eq!(verdict.last, LogIndex(5));
}

#[test]
fn a_missing_end_of_a_lower_file_is_corruption() {
    let verdict = judge(
        None,
        &[File::base(1, 1).through(1), File::roll(2, 4).through(5)],
    );
    assert_eq!(holes(&verdict), Some((2, vec![(2, 3)], false)));
}

#[test]
fn a_cut_hides_and_caps() {
    // Entry 4 was durable once (the position says so), and then cut.
    let lower = File::base(1, 1).through(2).beyond(&[(4, true)]);
    let verdict = judge(Some((1, 4)), &[lower, File::cut(2, 3)]);
    assert_eq!(verdict.last, LogIndex(2));
    assert_eq!(verdict.durable, LogIndex(2));
    assert_eq!(verdict.quarantine, None);
    assert_eq!(verdict.files, [visible(1, 2), visible(3, 2)]);
}

#[test]
fn a_file_that_a_cut_hides_whole_is_unlinked_and_asked_nothing() {
    let middle = File::roll(2, 4).through(4).beyond(&[(6, true)]);
    let verdict = judge(
        Some((2, 5)),
        &[
            File::base(1, 1).through(3),
            middle,
            File::cut(3, 4).through(4),
        ],
    );
    assert_eq!(verdict.quarantine, None);
    assert_eq!(verdict.last, LogIndex(4));
    assert_eq!(
        verdict.files,
        [visible(1, 3), FileVerdict::Hidden, visible(4, 4)]
    );
}

#[test]
fn a_base_voids_everything_below() {
    let verdict = judge(
        Some((1, 9)),
        &[
            File::bad_begin(1).claiming_beyond(8),
            File::bad_identity(2, true),
            File::base(3, 5).through(6),
        ],
    );
    assert_eq!(verdict.quarantine, None);
    assert_eq!(verdict.faults, []);
    assert_eq!(verdict.before_first, LogIndex(4));
    assert_eq!(verdict.last, LogIndex(6));
    assert_eq!(
        verdict.files,
        [FileVerdict::Hidden, FileVerdict::Hidden, visible(5, 6)]
    );
}

#[test]
fn a_position_below_the_lowest_file_is_void() {
    let verdict = judge(Some((1, 9)), &[File::roll(2, 4).through(5)]);
    assert_eq!(verdict.quarantine, None);
    assert_eq!(verdict.last, LogIndex(5));
}

#[test]
fn a_position_above_the_highest_file_is_a_lost_file() {
    let verdict = judge(Some((2, 9)), &[File::base(1, 1).through(5)]);
    assert_eq!(holes(&verdict), Some((6, vec![(6, 9)], true)));
    let nothing = judge(Some((1, 4)), &[]);
    assert_eq!(holes(&nothing), Some((1, vec![], true)));
}

#[test]
fn a_torn_begin_means_that_it_did_not_happen() {
    let torn = File::bad_begin(2).beyond(&[(3, true), (4, true)]);
    let verdict = judge(None, &[File::base(1, 1).through(5), torn]);
    assert_eq!(verdict.quarantine, None);
    assert_eq!(verdict.last, LogIndex(5));
    assert_eq!(verdict.files[1], FileVerdict::Unused);
}

#[test]
fn a_bad_begin_is_corrupt_if_a_frame_claims_a_watermark() {
    let bad = File::bad_begin(2).beyond(&[(4, true)]).claiming_beyond(3);
    let verdict = judge(None, &[File::base(1, 1).through(2), bad]);
    assert_eq!(holes(&verdict), Some((1, vec![], true)));
    assert_eq!(
        verdict.faults,
        [Fault {
            sequence: Sequence(2),
            kind: FaultKind::Begin
        }]
    );
    assert_eq!(verdict.files[1], FileVerdict::Corrupt);
}

#[test]
fn a_bad_begin_is_corrupt_if_the_position_lies_in_its_file() {
    let files = [File::base(1, 1).through(2), File::bad_begin(2)];
    assert_eq!(holes(&judge(Some((2, 2)), &files)), Some((1, vec![], true)));
    assert_eq!(holes(&judge(Some((1, 2)), &files)), None);
}

#[test]
fn a_bad_begin_is_corrupt_if_its_floor_was_taken() {
    assert_eq!(
        holes(&judge(None, &[File::bad_begin(2)])),
        Some((1, vec![], true))
    );
    // The first file has no floor, and a good begin above explains the gap.
    assert_eq!(holes(&judge(None, &[File::bad_begin(1)])), None);
    let explained = [
        File::base(1, 1).through(2),
        File::bad_begin(3),
        File::cut(4, 3),
    ];
    assert_eq!(holes(&judge(None, &explained)), None);
}

#[test]
fn an_alarm_above_a_bad_begin_takes_the_whole_group() {
    let files = [
        File::base(1, 1).through(3),
        File::bad_begin(2),
        File::cut(3, 4)
            .through(4)
            .beyond(&[(6, true)])
            .claiming_beyond(5),
    ];
    assert_eq!(holes(&judge(None, &files)), Some((1, vec![], true)));
}

#[test]
fn an_alarm_below_an_unused_file_stays_where_it_is() {
    let files = [
        File::base(1, 1)
            .through(1)
            .beyond(&[(3, true)])
            .claiming_beyond(2),
        File::bad_begin(2),
    ];
    assert_eq!(holes(&judge(None, &files)), Some((2, vec![(2, 2)], false)));
}

#[test]
fn a_bad_identity_is_corrupt_if_the_file_was_in_use() {
    let first = File::base(1, 1).through(2);
    let unused = judge(None, &[first.clone(), File::bad_identity(2, false)]);
    assert_eq!(unused.quarantine, None);
    let used = judge(None, &[first.clone(), File::bad_identity(2, true)]);
    assert_eq!(used.faults[0].kind, FaultKind::Identity);
    assert_eq!(holes(&used), Some((1, vec![], true)));
    let positioned = judge(Some((2, 2)), &[first, File::bad_identity(2, false)]);
    assert_eq!(holes(&positioned), Some((1, vec![], true)));
}

#[test]
fn another_history_above_takes_the_whole_group() {
    let mut upper = File::cut(2, 3);
    if let Some(begin) = &mut upper.frames().begin {
        begin.chain = Chain(99);
    }
    let verdict = judge(None, &[File::base(1, 1).through(4), upper]);
    assert_eq!(verdict.faults[0].kind, FaultKind::Diverged(LogIndex(2)));
    assert_eq!(holes(&verdict), Some((1, vec![], true)));
}

#[test]
fn a_log_without_its_floor_is_another_history() {
    let verdict = judge(None, &[File::bad_begin(1), File::roll(2, 4).through(5)]);
    assert_eq!(verdict.before_first, LogIndex(0));
    assert_eq!(holes(&verdict), Some((1, vec![], true)));
}

#[test]
fn sealed_files_stand_for_their_frames() {
    let files = [
        File::sealed(1, Reason::Base, 1, 3),
        File::sealed(2, Reason::Roll, 4, 6),
        File::roll(3, 7).through(8),
    ];
    let verdict = judge(None, &files);
    assert_eq!(verdict.last, LogIndex(8));
    assert_eq!(verdict.durable, LogIndex(6));
    assert_eq!(verdict.quarantine, None);
    let gap = judge(None, &[files[0].clone(), files[2].clone()]);
    assert_eq!(holes(&gap), Some((4, vec![(4, 6)], false)));
}

#[test]
fn a_quarantine_to_the_end_keeps_what_is_hidden() {
    let files = [
        File::base(1, 1).through(3),
        File::roll(2, 4).through(4),
        File::cut(3, 4).through(4).claiming(4).beyond(&[]),
    ];
    let verdict = judge(Some((3, 6)), &files);
    assert_eq!(
        verdict.quarantine,
        Some(Holes {
            first: LogIndex(5),
            ranges: vec![(LogIndex(5), LogIndex(6))],
            reaches_end: true
        })
    );
    assert_eq!(verdict.files[1], FileVerdict::Unused);
}
