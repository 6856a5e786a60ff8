//! A server as a child process: its own process group, its output in a log file, gone when we are.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::ServerError;

/// A log file is set aside at the next start once it has this many bytes.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// How many of a log's last lines an error shows.
const LAST_LINES: usize = 20;
/// How long a dropped child may take to stop before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// A running child process. Dropping it stops it.
#[derive(Debug)]
pub struct Child {
    name: &'static str,
    process: process::Child,
    log: PathBuf,
}

impl Child {
    /// Starts `command` with its output appended to `log`.
    ///
    /// It gets its own process group, so that Ctrl-C in a terminal reaches us alone and we stop the
    /// servers in the right order, and the kernel kills it should we die without stopping it.
    pub fn spawn(name: &'static str, mut command: Command, log: &Path) -> Result<Self, ServerError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let output = open_log(log).map_err(ServerError::io(format!("open {}", log.display())))?;
        let errors = output.try_clone().map_err(ServerError::io(format!("open {}", log.display())))?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        die_with_parent(&mut command);
        let process = spawn_from_keeper(command).map_err(ServerError::io(format!("start {name} ({program})")))?;
        Ok(Self { name, process, log: log.to_owned() })
    }

    /// What this process is, for messages.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The file with everything the process printed.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How the process ended, or `None` while it runs.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        // An error here means that there is no such child, which a started, unreaped child is not.
        self.process.try_wait().ok().flatten()
    }

    /// An error with the log's last lines when the process has ended.
    pub fn check(&mut self) -> Result<(), ServerError> {
        match self.exited() {
            None => Ok(()),
            Some(status) => Err(ServerError::Died {
                server: self.name,
                status,
                log: self.log.clone(),
                last_lines: self.last_lines(),
            }),
        }
    }

    /// Waits until `ready` says so; fails when the process ends or `limit` passes first.
    pub fn wait_ready(&mut self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<(), ServerError> {
        let start = Instant::now();
        loop {
            self.check()?;
            if ready() {
                return Ok(());
            }
            if start.elapsed() > limit {
                return Err(ServerError::NotReady {
                    server: self.name,
                    waited: limit,
                    log: self.log.clone(),
                    last_lines: self.last_lines(),
                });
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal (`libc::SIGTERM`, `SIGSTOP`, …). Nothing happens when the process has ended.
    pub fn signal(&mut self, signal: i32) {
        if self.exited().is_none() {
            // A pid fits pid_t; the process is ours and not yet reaped, so the pid cannot be another's.
            let pid = self.process.id() as libc::pid_t;
            // SAFETY: kill takes two integers and touches no memory of ours.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// Kills it at once and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Asks it to stop, waits up to `grace`, then kills it. Returns how it ended; an exit by our own
    /// SIGKILL means that `grace` was not enough.
    pub fn stop(&mut self, grace: Duration) -> Option<ExitStatus> {
        self.signal(libc::SIGTERM);
        // A stopped process handles no signal until it goes on.
        self.signal(libc::SIGCONT);
        let start = Instant::now();
        while start.elapsed() < grace {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.kill();
        self.exited()
    }

    /// The last lines of the log.
    pub fn last_lines(&self) -> String {
        last_lines(&self.log, LAST_LINES)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.exited().is_none() {
            self.stop(GRACE);
        }
    }
}

/// The last `count` lines of a file, read from its end; what cannot be read is said in the text.
pub fn last_lines(path: &Path, count: usize) -> String {
    const TAIL_BYTES: u64 = 32 << 10;
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut tail)?;
        Ok(tail)
    };
    match read() {
        Ok(tail) => {
            let text = String::from_utf8_lossy(&tail);
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(count)..].join("\n")
        }
        Err(error) => format!("(cannot read it: {error})"),
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    if fs::metadata(path).is_ok_and(|m| m.len() > LOG_BYTES_MAX) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// Has the kernel kill the child when the thread that starts it ends (see [`spawn_from_keeper`]).
fn die_with_parent(command: &mut Command) {
    let parent = process::id();
    let set = move || {
        // SAFETY: prctl and getppid are async-signal-safe system calls on integers.
        let (set, now) = unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), libc::getppid()) };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have died before the call above, which then never fires.
        if now as u32 != parent {
            return Err(io::Error::other("the parent process is gone"));
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes async-signal-safe system calls only.
    unsafe { command.pre_exec(set) };
}

type Request = (Command, mpsc::Sender<io::Result<process::Child>>);

/// Starts the process from one thread that lives as long as this process: the kernel's "parent death" is
/// the death of the *thread* that forked, and a test's or a runtime's thread ends early.
fn spawn_from_keeper(command: Command) -> io::Result<process::Child> {
    static KEEPER: OnceLock<Option<mpsc::Sender<Request>>> = OnceLock::new();
    let gone = || io::Error::other("the thread that starts child processes is gone");
    let keeper = KEEPER.get_or_init(|| {
        let (requests, inbox) = mpsc::channel::<Request>();
        thread::Builder::new()
            .name("child-keeper".into())
            .spawn(move || {
                for (mut command, reply) in inbox {
                    let _ = reply.send(command.spawn());
                }
            })
            .ok()
            .map(|_| requests)
    });
    let (reply, answer) = mpsc::channel();
    keeper.as_ref().ok_or_else(gone)?.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, log: &Path) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Child::spawn("the shell", command, log).unwrap()
    }

    #[test]
    fn a_child_that_dies_is_reported_with_its_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("logs/shell.log");
        let mut child = shell("echo one; echo two >&2; exit 3", &log);
        let error = child.wait_ready(Duration::from_secs(10), || false).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("the shell") && text.contains("exit status: 3"), "{text}");
        assert!(text.ends_with("one\ntwo"), "{text}");
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it_and_stops_even_when_paused() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("shell.log");
        let mut child = thread::spawn(move || shell("echo up; exec sleep 60", &log)).join().unwrap();
        let log = child.log().to_owned();
        child
            .wait_ready(Duration::from_secs(10), || fs::read_to_string(&log).is_ok_and(|text| text == "up\n"))
            .unwrap();
        assert!(child.exited().is_none());
        child.signal(libc::SIGSTOP);
        let status = child.stop(Duration::from_secs(10)).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGTERM));
    }

    #[test]
    fn a_child_that_ignores_the_request_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("shell.log");
        let mut child = shell("trap '' TERM; echo up; while :; do sleep 0.05; done", &log);
        child
            .wait_ready(Duration::from_secs(10), || fs::read_to_string(&log).is_ok_and(|text| text == "up\n"))
            .unwrap();
        let status = child.stop(Duration::from_millis(200)).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
    }
}
