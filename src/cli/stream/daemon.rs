//! The same, done by the daemon.

use serde_json::{Map, Value, json};

use super::{Action, Which, seen};
use crate::cli::remote::Remote;
use crate::config::Config;
use crate::holds::Hold;

/// Lets the daemon do it, and waits until it has; what is paused then.
pub(super) async fn act(daemon: &Remote, config: &Config, action: &Action) -> anyhow::Result<Vec<Hold>> {
    match action {
        Action::Pause { which, for_time, reason } => {
            let mut body = body(which, config)?;
            if let Some(time) = for_time {
                body.insert("for".to_owned(), json!(humantime::format_duration(*time).to_string()));
            }
            body.insert("reason".to_owned(), json!(reason));
            daemon.post::<Hold>(&["stream", "pause"], &body).await?;
        }
        Action::Resume { which } => drop(daemon.post::<Vec<Hold>>(&["stream", "resume"], &body(which, config)?).await?),
        // Looked at in the file itself: nobody asks for it here.
        Action::Pauses => {}
    }
    let paused: Vec<Hold> = daemon.get(&["stream", "pauses"], &[]).await?;
    seen(config, &paused).await?;
    Ok(paused)
}

fn body(which: &Which, config: &Config) -> anyhow::Result<Map<String, Value>> {
    let mut body = Map::new();
    body.insert("pipeline".to_owned(), json!(which.pipeline(config)?));
    if let Some(partition) = which.partition {
        body.insert("partition".to_owned(), json!(partition));
    }
    Ok(body)
}
