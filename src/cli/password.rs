//! A password from a person at a terminal, unseen and twice, or from standard input. Never from an argument: those are seen
//! by every user of the machine.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::mem::MaybeUninit;

use anyhow::{Context as _, bail};

/// Reads a password of at most so many bytes.
pub(crate) fn ask(prompt: &str, bytes_max: usize) -> anyhow::Result<String> {
    if !std::io::stdin().is_terminal() {
        return line(bytes_max);
    }
    let _unseen = Unseen::begin().context("the terminal cannot be told not to show what is typed")?;
    let first = typed(prompt, bytes_max)?;
    let again = typed(&format!("{prompt}, again"), bytes_max)?;
    if first != again {
        bail!("the two are not the same; nothing was changed");
    }
    Ok(first)
}

fn typed(prompt: &str, bytes_max: usize) -> anyhow::Result<String> {
    let mut out = std::io::stderr().lock();
    write!(out, "{prompt}: ")?;
    out.flush()?;
    let typed = line(bytes_max);
    writeln!(out)?;
    typed
}

/// The first line of standard input.
fn line(bytes_max: usize) -> anyhow::Result<String> {
    let mut text = String::new();
    // One more than is allowed, with its end: what is too long is told, not cut.
    let mut limited = std::io::stdin().lock().take(bytes_max as u64 + 3);
    limited.read_line(&mut text).context("the password cannot be read; is it UTF-8?")?;
    let password = text.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        bail!("no password came; type one, or send it as a line to standard input");
    }
    if password.len() > bytes_max {
        bail!("a password has at most {bytes_max} bytes");
    }
    Ok(password.to_owned())
}

/// The terminal shows nothing that is typed until this is dropped, and an interrupt waits for that.
struct Unseen {
    terminal: libc::termios,
    signals: libc::sigset_t,
}

impl Unseen {
    fn begin() -> std::io::Result<Self> {
        let mut terminal = MaybeUninit::uninit();
        // SAFETY: the call fills the struct, or says that it has not.
        let terminal = unsafe {
            if libc::tcgetattr(libc::STDIN_FILENO, terminal.as_mut_ptr()) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            terminal.assume_init()
        };
        let mut waiting = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: the first call fills the set that the others change and read; the last one fills `before`.
        let signals = unsafe {
            libc::sigemptyset(waiting.as_mut_ptr());
            libc::sigaddset(waiting.as_mut_ptr(), libc::SIGINT);
            libc::sigaddset(waiting.as_mut_ptr(), libc::SIGTERM);
            if libc::pthread_sigmask(libc::SIG_BLOCK, waiting.as_ptr(), before.as_mut_ptr()) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            before.assume_init()
        };
        let unseen = Self { terminal, signals };
        let mut quiet = terminal;
        quiet.c_lflag &= !libc::ECHO;
        // SAFETY: the struct is one that the system has given, with a flag less.
        match unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSAFLUSH, &quiet) } {
            0 => Ok(unseen),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        // SAFETY: both are what the system gave before; nothing can be done where it refuses them now.
        unsafe {
            libc::tcsetattr(libc::STDIN_FILENO, libc::TCSAFLUSH, &self.terminal);
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.signals, std::ptr::null_mut());
        }
    }
}
