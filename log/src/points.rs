//! The sparse index of a file: where some of its entries lie.

use highwater_record::Offset;

use crate::entry::EntryKind;
use crate::event::TimestampOffset;
use crate::format::footer::{Point, SPARSE_POINTS_MAX};
use crate::format::frame::FrameHeader;
use crate::ids::LogIndex;

/// The closest that two points lie, in bytes.
const INTERVAL_MIN: u64 = 4 << 10;

/// Points of a file, ascending, and its largest timestamps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Points {
    interval: u64,
    points: Vec<Point>,
    largest_timestamp: i64,
    largest_append_time: u32,
    /// The first data entry with the largest timestamp, if it is known.
    largest: Option<TimestampOffset>,
}

impl Points {
    /// For a file of `size` bytes.
    pub(crate) fn new(size: u64) -> Points {
        let max = u64::try_from(SPARSE_POINTS_MAX).expect("a small constant");
        Points {
            interval: (size / max).max(INTERVAL_MIN),
            points: Vec::new(),
            largest_timestamp: -1,
            largest_append_time: 0,
            largest: None,
        }
    }

    /// As a footer has them.
    pub(crate) fn restored(points: Vec<Point>, timestamp: i64, append_time: u32) -> Points {
        Points {
            interval: u64::MAX,
            points,
            largest_timestamp: timestamp,
            largest_append_time: append_time,
            largest: None,
        }
    }

    /// Notes the next entry, whose frame starts at `position`.
    pub(crate) fn push(&mut self, header: &FrameHeader, position: u64, timestamp: i64) {
        let is_data = header.kind.entry() == Some(EntryKind::Data);
        if is_data
            && self
                .largest
                .is_none_or(|largest| largest.timestamp < timestamp)
        {
            self.largest = Some(TimestampOffset {
                index: header.index,
                offset: header.base_offset,
                timestamp,
            });
        }
        self.largest_timestamp = self.largest_timestamp.max(timestamp);
        self.largest_append_time = self.largest_append_time.max(header.append_time);
        let due = self.points.last().is_none_or(|last| {
            position.saturating_sub(last.position) >= self.interval && last.index < header.index
        });
        if due && self.points.len() < SPARSE_POINTS_MAX {
            self.points.push(Point {
                index: header.index,
                offset: header.base_offset,
                position,
                timestamp: self.largest_timestamp,
            });
        }
    }

    /// The first batch with the largest timestamp. Of a file that an earlier life sealed only
    /// the nearest point is known.
    pub(crate) fn largest(&self) -> Option<TimestampOffset> {
        self.largest.or_else(|| {
            let largest = self.largest_timestamp;
            let at = self
                .points
                .partition_point(|point| point.timestamp < largest);
            let point = self.points.get(at).or(self.points.last())?;
            Some(TimestampOffset {
                index: point.index,
                offset: point.offset,
                timestamp: largest,
            })
        })
    }

    /// Forgets entries from `index` on. The largest timestamps stay: they may say too much,
    /// never too little.
    pub(crate) fn cut(&mut self, index: LogIndex) {
        while self.points.last().is_some_and(|last| last.index >= index) {
            self.points.pop();
        }
        self.largest = self.largest.filter(|largest| largest.index < index);
    }

    /// The points, ascending.
    pub(crate) fn as_slice(&self) -> &[Point] {
        &self.points
    }

    /// The largest timestamp, in milliseconds; -1 if there is no entry.
    pub(crate) const fn largest_timestamp(&self) -> i64 {
        self.largest_timestamp
    }

    /// The largest append time, in seconds.
    pub(crate) const fn largest_append_time(&self) -> u32 {
        self.largest_append_time
    }

    /// Where to start reading for an index.
    pub(crate) fn for_index(&self, index: LogIndex) -> Option<&Point> {
        self.last_where(|point| point.index <= index)
    }

    /// Where to start reading for the entry that holds an offset.
    pub(crate) fn for_offset(&self, offset: Offset) -> Option<&Point> {
        self.last_where(|point| point.offset <= offset)
    }

    /// Where to start reading for the first entry whose timestamp is at least `timestamp`.
    pub(crate) fn for_timestamp(&self, timestamp: i64) -> Option<&Point> {
        self.last_where(|point| point.timestamp < timestamp)
            .or(self.points.first())
    }

    fn last_where(&self, holds: impl Fn(&Point) -> bool) -> Option<&Point> {
        let count = self.points.partition_point(holds);
        self.points[..count].last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::frame::FrameKind;
    use crate::ids::{Chain, Term};

    fn header(index: u64) -> FrameHeader {
        FrameHeader {
            body_crc: 0,
            body_len: 0,
            kind: FrameKind::Data,
            salt: 0,
            index: LogIndex(index),
            term: Term(1),
            offset_span: 10,
            base_offset: Offset(index * 10),
            chain: Chain(0),
            watermark_lag: 1,
            append_time: 3,
        }
    }

    fn sample() -> Points {
        let mut points = Points::new(1 << 20);
        for index in 1..=10 {
            let timestamp = i64::try_from(index * 100).unwrap();
            points.push(&header(index), index * 2_048, timestamp);
        }
        points
    }

    #[test]
    fn points_keep_their_distance() {
        let indexes: Vec<u64> = sample().as_slice().iter().map(|at| at.index.0).collect();
        assert_eq!(indexes, [1, 3, 5, 7, 9]);
        assert_eq!(sample().largest_timestamp(), 1_000);
        assert_eq!(sample().largest_append_time(), 3);
    }

    #[test]
    fn lookups_start_at_or_before() {
        let points = sample();
        let index = |point: Option<&Point>| point.map(|point| point.index.0);
        assert_eq!(index(points.for_index(LogIndex(4))), Some(3));
        assert_eq!(index(points.for_index(LogIndex(5))), Some(5));
        assert_eq!(index(points.for_index(LogIndex(0))), None);
        assert_eq!(index(points.for_offset(Offset(49))), Some(3));
        assert_eq!(index(points.for_offset(Offset(50))), Some(5));
        assert_eq!(index(points.for_timestamp(500)), Some(3));
        assert_eq!(index(points.for_timestamp(501)), Some(5));
        assert_eq!(index(points.for_timestamp(i64::MIN)), Some(1));
    }

    #[test]
    fn a_cut_forgets_what_it_hides() {
        let mut points = sample();
        points.cut(LogIndex(5));
        assert_eq!(points.as_slice().last().map(|at| at.index.0), Some(3));
    }

    #[test]
    fn the_number_of_points_is_bounded() {
        let mut points = Points::new(0);
        for index in 1..=20_000 {
            points.push(&header(index), index * 4_096, 0);
        }
        assert_eq!(points.as_slice().len(), SPARSE_POINTS_MAX);
    }
}
