//! A terminal: what a person sees and types there, and the end that a program is given.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::daemon::PATIENCE;

/// How often it is looked again.
const LOOK: Duration = Duration::from_millis(20);

pub struct Terminal {
    screen: File,
    end: OwnedFd,
    /// All that was written to it.
    pub seen: String,
    /// What of it has been waited for.
    known: usize,
}

impl Terminal {
    pub fn open() -> Self {
        let (mut screen, mut end) = (-1, -1);
        let none = std::ptr::null_mut();
        // SAFETY: both places are ours; no name, no settings and no size are asked for.
        assert_eq!(unsafe { libc::openpty(&mut screen, &mut end, none, none.cast(), none.cast()) }, 0, "a terminal");
        // SAFETY: the call has given two descriptors, which nobody else has.
        let (screen, end) = unsafe { (File::from_raw_fd(screen), OwnedFd::from_raw_fd(end)) };
        // SAFETY: the descriptor is open; what nobody has written is not waited for.
        assert_eq!(unsafe { libc::fcntl(screen.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }, 0);
        Self { screen, end, seen: String::new(), known: 0 }
    }

    /// The program's end of it.
    pub fn end(&self) -> Stdio {
        Stdio::from(self.end.try_clone().expect("another descriptor"))
    }

    /// Starts a program that has it alone, as a shell would: Ctrl-C reaches the program and all that it starts.
    pub fn run(&self, command: &mut Command) -> Sitting {
        command.stdin(self.end()).stdout(self.end()).stderr(self.end()).env("TERM", "xterm");
        let own = || {
            // SAFETY: setsid has no preconditions; the descriptor is the new process's standard input, a terminal.
            if unsafe { libc::setsid() } < 0 || unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        };
        // SAFETY: between fork and exec only the two system calls are made, and no memory is allocated.
        let child = unsafe { command.pre_exec(own) }.spawn().expect("the program starts");
        Sitting(child)
    }

    /// Types keys: `\r` is Enter, `\x03` Ctrl-C, `\x04` Ctrl-D.
    pub fn press(&mut self, keys: &str) {
        self.screen.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Everything that was written to it so far.
    pub fn look(&mut self) -> &str {
        let mut bytes = [0; 4096];
        loop {
            match self.screen.read(&mut bytes) {
                Ok(n) => self.seen.push_str(&String::from_utf8_lossy(&bytes[..n])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return &self.seen,
                Err(error) => panic!("the terminal: {error}"),
            }
        }
    }

    /// Waits until all that was written satisfies `ready`.
    pub fn wait_until(&mut self, what: &str, ready: impl Fn(&str) -> bool) {
        let begin = Instant::now();
        while !ready(self.look()) {
            assert!(begin.elapsed() < PATIENCE, "waited for {what}:\n{}", self.seen);
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until these have been written, in this order, after what was waited for before.
    pub fn wait_for(&mut self, parts: &[&str]) {
        let begin = Instant::now();
        loop {
            self.look();
            let mut at = Some(self.known);
            for part in parts {
                at = at.and_then(|at| Some(at + self.seen[at..].find(part)? + part.len()));
            }
            if let Some(at) = at {
                self.known = at;
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{parts:?} is not shown after\n{}", &self.seen[self.known..]);
            std::thread::sleep(LOOK);
        }
    }
}

/// A program at a terminal; killed when dropped.
pub struct Sitting(Child);

impl Sitting {
    /// Waits for it to end by itself. What it writes meanwhile is read, so that it never waits for a reader.
    pub fn ends(&mut self, terminal: &mut Terminal) -> ExitStatus {
        let begin = Instant::now();
        loop {
            terminal.look();
            if let Some(status) = self.0.try_wait().expect("it is our child") {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "it has not ended:\n{}", terminal.seen);
            std::thread::sleep(LOOK);
        }
    }

    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("it is our child")
    }
}

impl Drop for Sitting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
