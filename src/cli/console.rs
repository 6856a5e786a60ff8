//! `boathouse console`: what somebody on the machine may do to the console's users, without being one of them.

use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use chrono::Utc;
use clap::Subcommand;
use serde_json::json;

use super::output::{self, Grid};
use super::{Context, Outcome, password};
use crate::console::access::{Role, Users, secret};
use crate::console::audit::{Audit, Entry};

/// The console's users, from the machine that the daemon runs on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Works on data_dir, whether the daemon runs or not: whoever may write there may do this, so run it as the daemon's user or as
root. A running daemon takes the change in at once.

Examples:
  boathouse console users
  boathouse console set-password admin                    asks for it twice
  pwgen 24 1 | boathouse console set-password ada --role operator")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Who may sign in, and as what.
    Users,
    /// Set a lost password anew; what the user has open ends.
    SetPassword {
        /// The user.
        name: String,
        /// Their role; with it a user who is not there yet is made.
        #[arg(long, value_name = "ROLE")]
        role: Option<Role>,
    },
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let data_dir = &config.server.data_dir;
        match self.action {
            Action::Users => Users::edit(data_dir, |users| list(users, context.json))?,
            Action::SetPassword { name, role } => {
                // Before anybody types: a name that is wrong.
                Users::edit(data_dir, |users| users.may_set_password(&name, role))?;
                let password = password::ask(&format!("New password of {name}"), secret::PASSWORD_BYTES_MAX)?;
                Users::edit(data_dir, |users| users.set_password(&name, role, &password))?;
                let with_role = role.map_or_else(String::new, |role| format!(" role={role}"));
                note(data_dir, "set-password", format!("name={name}{with_role}"));
                eprintln!("{name} signs in with the new password from now on; what they had open has ended.");
            }
        }
        Ok(Outcome::Right)
    }
}

fn list(users: &Users, json: bool) -> anyhow::Result<()> {
    if json {
        let all = users.users.iter().map(|u| json!({"name": u.name, "role": u.role, "since": u.since.to_rfc3339()}));
        return output::json(&all.collect::<Vec<_>>());
    }
    let mut out = output::stdout();
    let mut grid = Grid::new(&["user", "role", "since"]);
    for user in &users.users {
        grid.row([user.name.clone(), user.role.to_string(), user.since.format("%Y-%m-%d %H:%M").to_string()]);
    }
    grid.write(&mut out)?;
    out.flush().context("the list cannot be written")
}

/// Notes in the console's audit log what a command has done.
pub(super) fn note(data_dir: &Path, action: &str, detail: String) {
    let folder = Users::folder(data_dir);
    // Where no console has run there is nobody who would read it.
    if folder.is_dir() {
        let (who, action) = (operator(), action.to_owned());
        Audit::open(&folder).add(&Entry { at: Utc::now(), who, from: String::new(), action, detail, status: 200 });
    }
}

/// Who sits at the machine, as the system knows them.
pub(super) fn operator() -> String {
    // SAFETY: getuid takes nothing and cannot fail.
    let uid = unsafe { libc::getuid() };
    format!("command line, uid {uid}")
}
