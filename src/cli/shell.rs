//! `boathouse completions` and `boathouse man`: what shells and `man` want to know of the commands, made from them.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Outcome, output};

/// Print a shell's completions.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  boathouse completions bash > /etc/bash_completion.d/boathouse
  boathouse completions zsh > ~/.zfunc/_boathouse
  boathouse completions fish > ~/.config/fish/completions/boathouse.fish")]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> anyhow::Result<Outcome> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "boathouse", &mut script);
        let mut out = output::stdout();
        out.write_all(&script)?;
        out.flush()?;
        Ok(Outcome::Right)
    }
}

/// Write man pages: one of boathouse and one of each command.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  boathouse man --out /usr/local/share/man/man1
  boathouse man --out /tmp/man && man /tmp/man/boathouse-batch-run.1")]
pub(crate) struct Man {
    /// The folder, made when missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Man {
    pub fn run(self) -> anyhow::Result<Outcome> {
        let folder = &self.out;
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut command = Cli::command();
        command.build();
        let pages = pages(&command, "boathouse", folder)?;
        println!("{pages} pages in {}", folder.display());
        Ok(Outcome::Right)
    }
}

/// Writes the page of a command and of all below it; how many.
fn pages(command: &clap::Command, name: &str, folder: &Path) -> anyhow::Result<usize> {
    let mut page = Vec::new();
    // clap wants names that live for ever; a command that ends soon may give them.
    let named = command.clone().name(&*name.to_owned().leak()).display_name(name);
    clap_mangen::Man::new(named).render(&mut page)?;
    let path = folder.join(format!("{name}.1"));
    std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    let mut written = 1;
    for below in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        written += pages(below, &format!("{name}-{}", below.get_name()), folder)?;
    }
    Ok(written)
}
