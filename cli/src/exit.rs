//! What scripts can rely on: exit codes, and one line on stderr that says what and what to do.

use std::fmt;
use std::process::ExitCode;

use highwater::StartError;
use highwater::setup::SetupError;

/// Shown below `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  failed otherwise
  2  wrong usage
  3  wrong configuration or data directory (not formatted, locked, another node's)
  4  no node of the cluster answers
  5  no such topic or partition
  6  an address is in use
  7  no space left on the disk
  8  `log verify` found damage
  9  the disk failed; the node stopped itself
  130  interrupted";

/// Why a command failed, as scripts tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Anything that has no code of its own.
    Other,
    /// Wrong configuration or data directory.
    Setup,
    /// No node answers.
    Absent,
    /// No such topic or partition.
    NotFound,
    /// An address is in use.
    Busy,
    /// No space left.
    Full,
    /// Damage found.
    Damage,
    /// The disk failed.
    Disk,
    /// Interrupted by a signal.
    Interrupted,
    /// Whoever reads the output has left: as good as done.
    ReaderGone,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Other => 1,
            Self::Setup => 3,
            Self::Absent => 4,
            Self::NotFound => 5,
            Self::Busy => 6,
            Self::Full => 7,
            Self::Damage => 8,
            Self::Disk => 9,
            Self::Interrupted => 130,
            Self::ReaderGone => 0,
        }
    }
}

/// A failure of a command: its kind, and one line for a person.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
}

impl Failure {
    /// A failure with its line.
    pub(crate) fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Self {
            kind,
            message: message.to_string().replace('\n', " "),
        }
    }

    /// The user asked the command to end before it was done.
    pub(crate) fn interrupted(message: impl fmt::Display) -> Self {
        Self::new(Kind::Interrupted, message)
    }

    /// Another process has an address that was wanted.
    pub(crate) fn busy(message: impl fmt::Display) -> Self {
        let advice = "end what listens there, or set another address";
        Self::new(Kind::Busy, format!("{message}; {advice}"))
    }

    /// Whether it is of this kind.
    pub(crate) fn is(&self, kind: Kind) -> bool {
        self.kind == kind
    }

    /// The same, with more to say in front.
    pub(crate) fn context(self, words: impl fmt::Display) -> Self {
        Self {
            message: format!("{words}: {}", self.message),
            ..self
        }
    }

    /// The same, as a closure for `map_err`.
    pub(crate) fn of<E: fmt::Display>(kind: Kind) -> impl Fn(E) -> Self {
        move |error| Self::new(kind, error)
    }
}

impl From<highwater::config::ConfigError> for Failure {
    fn from(error: highwater::config::ConfigError) -> Self {
        Self::new(Kind::Setup, error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull => Kind::Full,
            std::io::ErrorKind::AddrInUse => Kind::Busy,
            _ => Kind::Other,
        };
        Self::new(kind, error)
    }
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Self {
        match error.is_disk_full() {
            true => Self::new(
                Kind::Full,
                format!("{error}; make room, remove what was made so far, and try again"),
            ),
            false => Self::new(Kind::Setup, error),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let kind = kind_of_start(&error);
        match kind {
            Kind::Full => Self::new(kind, format!("{error}; make room and start again")),
            Kind::Busy => Self::busy(error),
            _ => Self::new(kind, error),
        }
    }
}

fn kind_of_start(error: &StartError) -> Kind {
    use std::io::ErrorKind;
    match error {
        StartError::Listen { source, .. } if source.kind() == ErrorKind::AddrInUse => Kind::Busy,
        StartError::Peers(_) => Kind::Busy,
        error if error.is_disk_full() => Kind::Full,
        StartError::Config(_)
        | StartError::Directory(_)
        | StartError::Open { .. }
        | StartError::Membership(_)
        | StartError::Pem(_)
        | StartError::Tls(_)
        | StartError::Storage(_) => Kind::Setup,
        _ => Kind::Other,
    }
}

/// Prints the line, unless there is none, and gives the code.
pub(crate) fn report(failure: &Failure) -> ExitCode {
    if !failure.message.is_empty() {
        eprintln!("highwater: {}", failure.message);
    }
    ExitCode::from(failure.kind.code())
}
