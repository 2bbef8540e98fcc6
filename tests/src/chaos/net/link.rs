//! What a directed link does to packets.

use std::time::Duration;

/// What a link does to packets. By default it carries them at once.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Link {
    /// Nothing passes.
    pub(crate) cut: bool,
    /// Nothing passes for now; it is kept, and passes once this ends.
    pub(crate) hold: bool,
    /// How long a packet is on its way.
    pub(crate) delay: Duration,
    /// Up to how much longer; packets stay in order.
    pub(crate) jitter: Duration,
    /// How many of a packet are lost, 0 to 1.
    pub(crate) loss: f64,
    /// How many come twice.
    pub(crate) duplication: f64,
    /// How many are overtaken by those behind them.
    pub(crate) reordering: f64,
    /// How many have a bit flipped.
    pub(crate) corruption: f64,
    /// Larger packets vanish, without a word. In bytes.
    pub(crate) packet_bytes_max: Option<usize>,
    /// What passes in a second, in bytes.
    pub(crate) bytes_per_second: Option<u32>,
}

impl Link {
    /// Both at once.
    pub(super) fn and(&self, other: &Link) -> Link {
        let either = |a: f64, b: f64| 1.0 - (1.0 - a) * (1.0 - b);
        Link {
            cut: self.cut || other.cut,
            hold: self.hold || other.hold,
            delay: self.delay + other.delay,
            jitter: self.jitter + other.jitter,
            loss: either(self.loss, other.loss),
            duplication: either(self.duplication, other.duplication),
            reordering: either(self.reordering, other.reordering),
            corruption: either(self.corruption, other.corruption),
            packet_bytes_max: smaller(self.packet_bytes_max, other.packet_bytes_max),
            bytes_per_second: smaller(self.bytes_per_second, other.bytes_per_second),
        }
    }
}

fn smaller<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_a_link_add_up() {
        let one = Link {
            loss: 0.5,
            packet_bytes_max: Some(1_300),
            ..Link::default()
        };
        let other = Link {
            cut: true,
            loss: 0.5,
            packet_bytes_max: Some(1_200),
            bytes_per_second: Some(7),
            ..Link::default()
        };
        let both = one.and(&other);
        assert!(both.cut && !both.hold);
        assert!((both.loss - 0.75).abs() < 1e-9);
        assert_eq!(both.packet_bytes_max, Some(1_200));
        assert_eq!(both.bytes_per_second, Some(7));
    }
}
