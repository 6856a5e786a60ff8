//! Full batches that a daemon is asked for, one after the other, while something else is measured.

use std::fs;
use std::io::ErrorKind;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::site::Site;

/// Has the daemon run batches from nothing, one after the other, until the measurement ends; how many were completed.
pub(super) async fn full_batches(site: &Site, begin: Instant, duration: Duration) -> anyhow::Result<u64> {
    let mut completed = 0;
    while begin.elapsed() < duration {
        // Without silver everything is made again.
        for layer in ["silver", "gold"] {
            match fs::remove_dir_all(site.folder().join("lakehouse").join(layer)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).context(format!("cannot remove {layer}"));
                }
                _ => {}
            }
        }
        let mut command = tokio::process::Command::from(site.command(&["batch", "run", "--wait"])?);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = child.spawn().context("cannot run `boathouse batch run`")?;
        match tokio::time::timeout(duration.saturating_sub(begin.elapsed()), child.wait()).await {
            // The daemon stops the run when it ends.
            Err(_) => break,
            Ok(status) => match status.context("cannot wait for `boathouse batch run`")?.success() {
                true => completed += 1,
                false => bail!("a batch beside the stream failed; see `boathouse batch history`"),
            },
        }
    }
    Ok(completed)
}
