//! Ctrl-C and SIGTERM for the programs: the first one asks to stop, the second one ends the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, process, thread};

use tokio::signal::unix::{SignalKind, signal};

/// The exit code of a program that the second signal ended.
const INTERRUPTED: i32 = 130;

/// Whether the user or the system has asked this program to stop.
#[derive(Debug, Clone, Default)]
pub struct StopSignal(Arc<AtomicBool>);

impl StopSignal {
    /// Listens from now on, on a thread of its own.
    pub fn listen() -> io::Result<Self> {
        let stop = Self::default();
        let asked = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (mut interrupt, mut terminate) = {
            let _guard = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if asked.0.swap(true, Ordering::SeqCst) {
                        #[allow(clippy::disallowed_methods, reason = "the second signal asks for just that")]
                        process::exit(INTERRUPTED);
                    }
                }
            });
        })?;
        Ok(stop)
    }

    /// Whether a signal has come.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
