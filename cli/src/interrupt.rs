//! The runtime that commands run on, and Ctrl-C: the first asks a command to end, the second
//! ends it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exit::Failure;

/// How long a command may go on after it was asked to end.
pub(crate) const GRACE: Duration = Duration::from_secs(4);

/// What the shell reports for a program that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// How often it is tried to remove a folder in which others still make files.
const REMOVALS_MAX: usize = 20;

/// What a second signal removes before it ends the command.
static SCRATCH: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Lets a second signal remove a temporary folder, since nothing else does then.
pub(crate) fn remove_if_killed(folder: &Path) {
    let mut scratch = SCRATCH.lock().unwrap_or_else(PoisonError::into_inner);
    *scratch = Some(folder.to_owned());
}

fn remove_scratch() {
    let mut scratch = SCRATCH.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(folder) = scratch.take() else {
        return;
    };
    for _ in 0..REMOVALS_MAX {
        if std::fs::remove_dir_all(&folder).is_ok() || !folder.exists() {
            return;
        }
    }
}

/// Whether the user wants the command to end.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    asked: watch::Receiver<bool>,
}

impl Interrupt {
    /// Waits until the command was asked to end.
    pub(crate) async fn wait(&self) {
        let mut asked = self.asked.clone();
        if asked.wait_for(|asked| *asked).await.is_err() {
            // Nobody is left who could ask.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the command was asked to end and has had its [`GRACE`].
    pub(crate) async fn overdue(&self) {
        self.wait().await;
        tokio::time::sleep(GRACE).await;
    }

    /// Whether the command was asked to end.
    pub(crate) fn is_asked(&self) -> bool {
        *self.asked.borrow()
    }
}

/// Runs a command that wants to be asked before it ends.
///
/// # Errors
/// What the command fails with, or when the system gives no thread.
pub(crate) fn run<F>(command: impl FnOnce(Interrupt) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (ask, asked) = watch::channel(false);
    // On a thread of its own, so that a second signal ends a command that does not listen.
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || listen(&ask))?;
    let result = runtime.block_on(command(Interrupt { asked }));
    // A thread that reads a terminal would be waited for otherwise.
    runtime.shutdown_background();
    result
}

fn listen(ask: &watch::Sender<bool>) {
    let Ok(runtime) = Builder::new_current_thread().enable_io().build() else {
        return;
    };
    runtime.block_on(async {
        // Where signals cannot be listened to, they do what the system lets them do.
        let Ok(mut interrupt) = signal(SignalKind::interrupt()) else {
            return;
        };
        let Ok(mut terminate) = signal(SignalKind::terminate()) else {
            return;
        };
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if ask.send_replace(true) {
                remove_scratch();
                std::process::exit(INTERRUPTED);
            }
        }
    });
}
