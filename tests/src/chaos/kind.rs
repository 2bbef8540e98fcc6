//! The faults, by name.

use serde::{Deserialize, Serialize};

/// A kind of fault, as scenarios name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A process is killed, and started again.
    Kill,
    /// All are, at once.
    KillAll,
    /// A process is told to end, hands over what it leads, and is started again.
    Stop,
    /// Each is, one after the other.
    RollingRestart,
    /// A process is killed again and again while it starts.
    RestartStorm,
    /// A process is stopped for a while and notices nothing of it.
    Pause,
    /// A process gets a few percent of a core.
    Starve,
    /// A process may open no more files and connections.
    Descriptors,
    /// A wall clock jumps, and back.
    Clock,
    /// A node's power is cut.
    PowerCut,
    /// That of all is, at once.
    PowerCutAll,
    /// A disk has no room.
    FullDisk,
    /// A file system becomes read-only.
    ReadOnly,
    /// A sync fails once.
    FailedSync,
    /// A node reaches nobody.
    Isolate,
    /// Two nodes do not reach each other, and both reach the others.
    Cut,
    /// A node does not hear another that hears it.
    OneWay,
    /// A node hears nobody, and is heard.
    Deaf,
    /// A node is isolated again and again, for moments.
    Flap,
    /// A node's links are slow.
    Slow,
    /// A node's links lose packets.
    Loss,
    /// They carry packets twice.
    Duplication,
    /// They let packets overtake each other.
    Reordering,
    /// They flip bits.
    Corruption,
    /// They swallow large packets.
    SmallPackets,
    /// They are narrow.
    Narrow,
    /// They hold everything back for a while.
    Hold,
    /// The clients do not reach a node.
    ClientsCut,
}

impl Kind {
    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: [Kind; 28] = [
        Kind::Kill,
        Kind::KillAll,
        Kind::Stop,
        Kind::RollingRestart,
        Kind::RestartStorm,
        Kind::Pause,
        Kind::Starve,
        Kind::Descriptors,
        Kind::Clock,
        Kind::PowerCut,
        Kind::PowerCutAll,
        Kind::FullDisk,
        Kind::ReadOnly,
        Kind::FailedSync,
        Kind::Isolate,
        Kind::Cut,
        Kind::OneWay,
        Kind::Deaf,
        Kind::Flap,
        Kind::Slow,
        Kind::Loss,
        Kind::Duplication,
        Kind::Reordering,
        Kind::Corruption,
        Kind::SmallPackets,
        Kind::Narrow,
        Kind::Hold,
        Kind::ClientsCut,
    ];

    /// Its name in scenarios and summaries.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::KillAll => "kill-all",
            Kind::Stop => "stop",
            Kind::RollingRestart => "rolling-restart",
            Kind::RestartStorm => "restart-storm",
            Kind::Pause => "pause",
            Kind::Starve => "starve",
            Kind::Descriptors => "descriptors",
            Kind::Clock => "clock",
            Kind::PowerCut => "power-cut",
            Kind::PowerCutAll => "power-cut-all",
            Kind::FullDisk => "full-disk",
            Kind::ReadOnly => "read-only",
            Kind::FailedSync => "failed-sync",
            Kind::Isolate => "isolate",
            Kind::Cut => "cut",
            Kind::OneWay => "one-way",
            Kind::Deaf => "deaf",
            Kind::Flap => "flap",
            Kind::Slow => "slow",
            Kind::Loss => "loss",
            Kind::Duplication => "duplication",
            Kind::Reordering => "reordering",
            Kind::Corruption => "corruption",
            Kind::SmallPackets => "small-packets",
            Kind::Narrow => "narrow",
            Kind::Hold => "hold",
            Kind::ClientsCut => "clients-cut",
        }
    }

    /// What it takes.
    pub(crate) const fn needs(self) -> Need {
        match self {
            Kind::Kill
            | Kind::KillAll
            | Kind::Stop
            | Kind::RollingRestart
            | Kind::RestartStorm
            | Kind::Pause => Need::Nothing,
            Kind::Starve => Need::Cgroup,
            Kind::Descriptors => Need::Nothing,
            Kind::Clock => Need::Faketime,
            Kind::PowerCut | Kind::PowerCutAll | Kind::FullDisk => Need::Image,
            Kind::ReadOnly => Need::Ext4,
            Kind::FailedSync => Need::Strace,
            _ => Need::Network,
        }
    }

    /// How much of a node it takes away.
    pub(crate) const fn takes(self) -> Takes {
        match self {
            Kind::KillAll | Kind::PowerCutAll | Kind::RollingRestart => Takes::All,
            Kind::Kill
            | Kind::Stop
            | Kind::RestartStorm
            | Kind::Pause
            | Kind::Starve
            | Kind::Descriptors
            | Kind::PowerCut
            | Kind::FullDisk
            | Kind::ReadOnly
            | Kind::FailedSync
            | Kind::Isolate
            | Kind::Deaf
            | Kind::Hold
            | Kind::Flap => Takes::Node,
            _ => Takes::Nothing,
        }
    }
}

/// What a kind of fault takes to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// A process.
    Nothing,
    /// Namespaces with our router between them.
    Network,
    /// A control group for processor time.
    Cgroup,
    /// libfaketime.
    Faketime,
    /// A file system of the node's own.
    Image,
    /// One whose errors make it read-only.
    Ext4,
    /// strace, and nodes that write with system calls it sees.
    Strace,
}

/// What a kind of fault takes from the cluster while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// All nodes work, perhaps slowly.
    Nothing,
    /// A node.
    Node,
    /// Every node for a moment.
    All,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_scenarios() {
        for kind in Kind::ALL {
            let text = serde_json::to_string(&kind).unwrap();
            assert_eq!(text, format!("\"{}\"", kind.name()));
        }
    }
}
