//! The first password, shown once: to whoever started the daemon at a terminal, or in a file that waits for its reader. It is
//! never in the log.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;

use super::users::{FIRST_USER, Users};

/// The process of a container that was started first: what it writes, even to a terminal, is kept as the container's log.
const FIRST_PROCESS: u32 = 1;

/// Shows the first password where a person looks, and takes its file away; elsewhere says where the file waits.
pub fn show(users: &Users, password: &str, console: SocketAddr) {
    let file = users.first_password_file();
    if a_person_looks() && print(password, console).is_ok() {
        if let Err(error) = std::fs::remove_file(&file) {
            tracing::warn!(%error, file = %file.display(), "the first password could not be taken away; delete the file");
        }
        tracing::info!(user = FIRST_USER, "the console's first password was shown on the terminal");
    } else {
        tracing::info!(file = %file.display(), user = FIRST_USER, "the console's first password is in this file until it is used");
    }
}

/// Both ends are a terminal, and it is no container's. What goes to a pipe or a file may be kept, and read by others.
fn a_person_looks() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal() && std::process::id() != FIRST_PROCESS
}

fn print(password: &str, console: SocketAddr) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\n  The console is on {console}. Sign in as {FIRST_USER} with the password\n\n      {password}\n")?;
    writeln!(out, "  It is shown this once. Set another under your name at the top; if it is lost:")?;
    writeln!(out, "  boathouse console set-password {FIRST_USER}\n")?;
    out.flush()
}
