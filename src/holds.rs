//! Partitions that an operator holds: nothing is read from them until they are let go, or until a time has passed.
//!
//! They are kept in `data_dir/holds.json`, which is the truth: the console and the command both change it, the daemon
//! looks twice a second whether it is another file. So a hold survives the restart of an actor and of the daemon, and a
//! daemon that is down starts held. It is of one instance: another instance of the group, with a data folder of its own,
//! does not know it, and reads a partition that comes to it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::owned_file::{self, Stamp};

const FILE: &str = "holds.json";
const LOCK: &str = "holds.lock";
/// How often the daemon looks whether a command has changed the file, and whether a hold's time has passed.
const LOOK: Duration = Duration::from_millis(500);
/// Characters of a reason that are kept.
const REASON_MAX: usize = 500;

/// One hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    pub pipeline: String,
    /// None for every partition of the pipeline.
    pub partition: Option<i32>,
    /// Who holds it.
    pub by: String,
    #[schemars(with = "String")]
    pub since: DateTime<Utc>,
    /// When it ends by itself.
    #[schemars(with = "Option<String>")]
    pub until: Option<DateTime<Utc>>,
    pub reason: String,
}

impl Hold {
    /// Whether it keeps a partition from being read.
    pub fn covers(&self, pipeline: &str, partition: i32, now: DateTime<Utc>) -> bool {
        self.pipeline == pipeline && self.partition.is_none_or(|own| own == partition) && !self.is_over(now)
    }

    fn is_over(&self, now: DateTime<Utc>) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// What is held, in words.
    pub fn what(&self) -> String {
        match self.partition {
            Some(partition) => format!("partition {partition} of {}", self.pipeline),
            None => format!("all of {}", self.pipeline),
        }
    }
}

/// What a file holds.
#[derive(Debug, Default, Clone)]
struct Known {
    holds: Arc<[Hold]>,
    stamp: Option<Stamp>,
}

/// The holds of a data folder. Clones share one state.
#[derive(Debug, Clone)]
pub struct Holds {
    folder: PathBuf,
    known: Arc<RwLock<Known>>,
    /// One change at a time in this process; the lock's file keeps other processes out.
    changing: Arc<Mutex<()>>,
}

impl Holds {
    /// Reads what a data folder holds.
    pub fn open(data_dir: &Path) -> anyhow::Result<Self> {
        let holds = Self { folder: data_dir.to_owned(), known: Arc::default(), changing: Arc::default() };
        holds.read()?;
        Ok(holds)
    }

    /// The hold that keeps a partition from being read.
    pub fn of(&self, pipeline: &str, partition: i32, now: DateTime<Utc>) -> Option<Hold> {
        self.list().iter().find(|hold| hold.covers(pipeline, partition, now)).cloned()
    }

    /// All holds that are in force.
    pub fn all(&self, now: DateTime<Utc>) -> Vec<Hold> {
        self.list().iter().filter(|hold| !hold.is_over(now)).cloned().collect()
    }

    /// Whether nothing is held: what a reader asks before each batch.
    pub fn is_empty(&self) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).holds.is_empty()
    }

    fn list(&self) -> Arc<[Hold]> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).holds.clone()
    }

    /// Holds a partition, or a pipeline. One that is held already is held for the new reason.
    pub fn hold(&self, mut hold: Hold) -> anyhow::Result<()> {
        if hold.reason.chars().count() > REASON_MAX {
            hold.reason = hold.reason.chars().take(REASON_MAX).collect();
        }
        self.change(|holds| {
            holds.retain(|known| (&known.pipeline, known.partition) != (&hold.pipeline, hold.partition));
            holds.push(hold);
            Ok(())
        })
    }

    /// Lets a partition go, or all that is held of a pipeline; what was let go.
    pub fn release(&self, pipeline: &str, partition: Option<i32>) -> anyhow::Result<Vec<Hold>> {
        self.change(|holds| {
            let is_meant =
                |hold: &Hold| hold.pipeline == pipeline && (partition.is_none() || hold.partition == partition);
            let meant: Vec<Hold> = holds.iter().filter(|hold| is_meant(hold)).cloned().collect();
            if meant.is_empty() {
                let whole = holds.iter().any(|hold| hold.pipeline == pipeline && hold.partition.is_none());
                if whole {
                    bail!("all of {pipeline} is paused, not one partition of it: resume the whole pipeline");
                }
                bail!("nothing of {pipeline} is paused so");
            }
            holds.retain(|hold| !is_meant(hold));
            Ok(meant)
        })
    }

    fn change<T>(&self, work: impl FnOnce(&mut Vec<Hold>) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let _here = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = self.folder.join(LOCK);
        let _alone = owned_file::lock(&lock).with_context(|| {
            format!("{} cannot be locked; is data_dir the daemon's, and may this user write there?", lock.display())
        })?;
        self.read()?;
        let now = Utc::now();
        let mut holds = self.all(now);
        let done = work(&mut holds)?;
        let path = self.path();
        let text = serde_json::to_string_pretty(&holds).context("holds as JSON")?;
        owned_file::write(&path, &text).with_context(|| format!("{} cannot be written", path.display()))?;
        self.read()?;
        Ok(done)
    }

    fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// Reads the file where it is another one than before. One that cannot be read leaves things as they were.
    fn read(&self) -> anyhow::Result<()> {
        let path = self.path();
        let stamp = Stamp::of(&path);
        if self.known.read().unwrap_or_else(PoisonError::into_inner).stamp == stamp {
            return Ok(());
        }
        let read = || -> anyhow::Result<Vec<Hold>> {
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok(serde_json::from_str(&text)?),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
                Err(e) => Err(e.into()),
            }
        };
        let found = read().with_context(|| format!("{} cannot be read; take it away to hold nothing", path.display()));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // Not read again and again.
        known.stamp = stamp;
        known.holds = found?.into();
        Ok(())
    }

    /// Looks after the file until the runtime ends.
    pub fn watch(&self, io: &tokio::runtime::Handle) {
        let holds = self.clone();
        io.spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let (looking, now) = (holds.clone(), Utc::now());
                let look = move || {
                    looking.read()?;
                    let over = looking.list().iter().any(|hold| hold.is_over(now));
                    // A change writes those that are in force.
                    if over { looking.change(|_| Ok(())) } else { Ok(()) }
                };
                if let Ok(Err(error)) = tokio::task::spawn_blocking(look).await {
                    let error: anyhow::Error = error;
                    tracing::error!(error = format!("{error:#}"), "what is paused stays as it was");
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(partition: Option<i32>, reason: &str) -> Hold {
        Hold {
            pipeline: "p".into(),
            partition,
            by: "ada".into(),
            since: Utc::now(),
            until: None,
            reason: reason.into(),
        }
    }

    #[test]
    fn holds_are_kept_and_seen_by_another_process() {
        let folder = tempfile::tempdir().unwrap();
        let (daemon, command) = (Holds::open(folder.path()).unwrap(), Holds::open(folder.path()).unwrap());
        assert!(daemon.is_empty());
        command.hold(hold(Some(1), "a reason")).unwrap();
        command.hold(hold(Some(1), "a better one")).unwrap();
        daemon.read().unwrap();
        let now = Utc::now();
        assert_eq!(daemon.of("p", 1, now).unwrap().reason, "a better one");
        assert!(daemon.of("p", 2, now).is_none() && daemon.of("q", 1, now).is_none());
        daemon.hold(hold(None, "all")).unwrap();
        assert!(daemon.of("p", 2, now).is_some());
        assert!(command.release("p", Some(2)).unwrap_err().to_string().contains("the whole pipeline"));
        assert_eq!(command.release("p", None).unwrap().len(), 2);
        assert!(command.release("p", None).is_err());
        assert!(Holds::open(folder.path()).unwrap().is_empty());
    }

    #[test]
    fn a_hold_ends_when_its_time_has_passed() {
        let folder = tempfile::tempdir().unwrap();
        let holds = Holds::open(folder.path()).unwrap();
        let until = Utc::now() + chrono::TimeDelta::minutes(15);
        holds.hold(Hold { until: Some(until), ..hold(None, "") }).unwrap();
        assert!(holds.of("p", 0, until - chrono::TimeDelta::seconds(1)).is_some());
        assert!(holds.of("p", 0, until).is_none() && holds.all(until).is_empty());
    }

    #[test]
    fn a_file_that_was_broken_by_hand_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "oops").unwrap();
        assert!(Holds::open(folder.path()).unwrap_err().to_string().contains("take it away"));
    }
}
