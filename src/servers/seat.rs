//! Where a server's process sits: it may be stopped there, killed, and started again.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use super::{Child, ServerError};

/// How long a server may take to stop before it is killed: on a busy machine Kafka takes its time.
const STOP_GRACE: Duration = Duration::from_secs(45);

/// One server's process over its starts; empty before the first.
#[derive(Debug)]
pub(super) struct Seat {
    name: &'static str,
    log: PathBuf,
    ready_limit: Duration,
    child: Option<Child>,
}

impl Seat {
    /// An empty seat: `name` for messages, `log` for what the process prints, and how long it may take to be ready.
    pub fn new(name: &'static str, log: PathBuf, ready_limit: Duration) -> Self {
        Self { name, log, ready_limit, child: None }
    }

    /// Stops what still runs here, starts `command` and waits until `ready` says so.
    pub fn start(&mut self, command: Command, ready: impl FnMut() -> bool) -> Result<(), ServerError> {
        self.stop();
        let child = Child::spawn(self.name, command, &self.log)?;
        self.child.insert(child).wait_ready(self.ready_limit, ready)
    }

    /// The process, once there was one.
    pub fn child(&mut self) -> Option<&mut Child> {
        self.child.as_mut()
    }

    /// Stops the process; how it ended, if there was one.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.stop(STOP_GRACE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_ends_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut seat = Seat::new("the shell", folder.path().join("shell.log"), Duration::from_secs(10));
        assert!(seat.stop().is_none());
        let sleep = || {
            let mut command = Command::new("sleep");
            command.arg("60");
            command
        };
        seat.start(sleep(), || true).unwrap();
        let first = seat.child().unwrap().pid();
        seat.start(sleep(), || true).unwrap();
        assert!(!std::path::Path::new(&format!("/proc/{first}")).exists());
        assert!(seat.child().unwrap().exited().is_none());
    }
}
