//! The commit state machine: Acquire → Commit → (Committed | Unknown | Fenced). All I/O goes through [`CommitLog`].
//!
//! *Architecture invariant*: the known version moves only by reading each entry in between against everything held, or
//! from nothing by loading the table. Whoever knows the log up to `v` and puts `v + 1` if absent has compared and set.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::BronzeError;
use super::entry::{AddFile, EntryEffects, EntryWriter, read_entry};
use super::log::{CommitLog, PutOutcome, TableState};
use super::settings::key;
use crate::kafka::Source;
use crate::remedy;

/// Older knowledge of the log is dropped: log cleanup may have freed the version after it.
pub const KNOWN_AGE_MAX: Duration = Duration::from_secs(3600);

/// Puts without an answer before somebody is told: some seconds of them.
const WARN_EVERY: u32 = 10;

/// Newest protocol that straight commits may write to: no features, nothing to check.
const WRITER_MAX: i32 = 2;
const READER_MAX: i32 = 1;

/// Where a partition stands in Bronze.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Every record below it is in Bronze.
    pub next_offset: i64,
    /// Greatest accepted event time below `next_offset`, microseconds since the epoch; none before the first.
    pub mark: Option<i64>,
}

/// A partition's move in one commit: from where it stands to where it will.
#[derive(Debug, Clone)]
pub struct Advance {
    pub source: Arc<Source>,
    /// Must be the partition's position before the commit.
    pub from: i64,
    pub next_offset: i64,
    pub mark: Option<i64>,
}

/// What [`Ledger::acquire`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct Acquired {
    pub version: u64,
    /// One entry per source, in the order asked; none where Bronze does not know the partition: resolve its start and
    /// call [`Ledger::genesis`].
    pub positions: Vec<Option<Position>>,
}

/// A commit that is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    pub version: u64,
    /// Puts that it took; 1 where all went well.
    pub attempts: u32,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    version: u64,
    /// When this version was last seen to be there.
    at: Duration,
}

/// One instance's knowledge of the table: one known version for all its partitions.
#[derive(Debug)]
pub struct Ledger<L> {
    log: L,
    pipeline: String,
    epoch: String,
    /// Hash of the settings that the epoch was begun with.
    settings: String,
    known: Option<Known>,
    held: BTreeMap<Arc<Source>, Option<Position>>,
}

impl<L: CommitLog> Ledger<L> {
    /// A ledger that holds nothing. `epoch` is the one that this instance's settings were committed under, `settings`
    /// their hash.
    pub fn new(log: L, pipeline: impl Into<String>, epoch: impl Into<String>, settings: impl Into<String>) -> Self {
        let (pipeline, epoch, settings) = (pipeline.into(), epoch.into(), settings.into());
        Self { log, pipeline, epoch, settings, known: None, held: BTreeMap::new() }
    }

    /// The known version; none while nothing is held.
    pub fn version(&self) -> Option<u64> {
        self.known.map(|k| k.version)
    }

    /// Where a held partition stands.
    pub fn position(&self, source: &Source) -> Option<Position> {
        self.held.get(source).copied().flatten()
    }

    pub fn held(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.held.keys()
    }

    /// Takes partitions on: reads where they stand in Bronze.
    pub async fn acquire(&mut self, sources: &[Arc<Source>]) -> Result<Acquired, BronzeError> {
        let result = self.try_acquire(sources).await;
        self.forget_on_error(result)
    }

    async fn try_acquire(&mut self, sources: &[Arc<Source>]) -> Result<Acquired, BronzeError> {
        let ids: Vec<String> = sources.iter().flat_map(|s| [s.txn_id(), s.mark_id()]).collect();
        let at = self.log.now();
        let state = self.load(&ids).await?;
        self.follow_to(&state, at).await?;
        let positions: Vec<_> = sources.iter().map(|s| position(&state, s)).collect();
        self.held.extend(sources.iter().cloned().zip(positions.iter().copied()));
        Ok(Acquired { version: state.version, positions })
    }

    /// Catches up with the log without taking anything on: call it now and then while nothing is committed, so that
    /// what is known does not grow too old. Tells early of a rival or of changed settings.
    pub async fn follow(&mut self) -> Result<(), BronzeError> {
        if self.known.is_none() {
            return Ok(());
        }
        let result = async {
            let at = self.log.now();
            let state = self.load(&[]).await?;
            self.follow_to(&state, at).await
        }
        .await;
        self.forget_on_error(result)
    }

    /// Reads what others have committed behind the known version, if anything: one question where nobody has. Tells of a
    /// rival, of changed settings or of an operator's choice while nothing is committed. What is known grows older all
    /// the same: that nothing lies behind it says nothing about the version itself.
    pub async fn glance(&mut self) -> Result<(), BronzeError> {
        let result = async {
            while let Some(known) = self.known {
                let (at, version) = (self.log.now(), known.version + 1);
                let Some(entry) = self.log.read(version).await? else { break };
                self.fresh_enough(at)?;
                self.inspect(version, &entry)?;
                self.known = Some(Known { version, at });
            }
            Ok(())
        }
        .await;
        self.forget_on_error(result)
    }

    /// Gives a partition up. What was buffered of it must never be committed afterwards, and cannot be.
    pub fn release(&mut self, source: &Source) {
        self.held.remove(source);
        if self.held.is_empty() {
            self.known = None;
        }
    }

    /// Gives everything up.
    pub fn release_all(&mut self) {
        self.held.clear();
        self.known = None;
    }

    /// Commits where partitions begin that Bronze does not know yet: a commit without rows.
    pub async fn genesis(&mut self, starts: &[(Arc<Source>, i64)]) -> Result<Committed, BronzeError> {
        for (source, _) in starts {
            match self.held.get(source) {
                Some(None) => {}
                Some(Some(_)) => return Err(BronzeError::misuse("genesis of a partition that has a position", source)),
                None => {
                    let what = format!("{source} was given up before its first position was committed");
                    return Err(BronzeError::Expired { what });
                }
            }
        }
        let advances: Vec<Advance> = starts
            .iter()
            .map(|(source, start)| Advance { source: source.clone(), from: *start, next_offset: *start, mark: None })
            .collect();
        let result = self.put(&[], &advances).await;
        self.forget_on_error(result)
    }

    /// Commits files and the positions that they bring their partitions to, together.
    ///
    /// On `Fenced`, `Expired`, `Renewed`, `Accepted` and `Stopped` everything is given up. `Io` is only returned while nothing was put.
    pub async fn commit(&mut self, adds: &[AddFile], advances: &[Advance]) -> Result<Committed, BronzeError> {
        self.check(advances)?;
        let result = self.put(adds, advances).await;
        self.forget_on_error(result)
    }

    /// Whether advances go on where Bronze stands. They do not where a partition left undrained: its rows are in the
    /// file still, and it is not held any more, or held anew from another position.
    fn check(&self, advances: &[Advance]) -> Result<(), BronzeError> {
        for a in advances {
            let at = match self.held.get(&a.source) {
                Some(Some(position)) => position,
                Some(None) => return Err(BronzeError::misuse("commit of a partition without genesis", &a.source)),
                None => {
                    let what = format!("a file holds rows of {}, which left undrained", a.source);
                    return Err(BronzeError::Expired { what });
                }
            };
            if a.from != at.next_offset {
                let what =
                    format!("a file begins at offset {} of {}, Bronze is at {}", a.from, a.source, at.next_offset);
                return Err(BronzeError::Expired { what });
            }
            if a.next_offset < a.from {
                return Err(BronzeError::misuse("commit would take the position back", &a.source));
            }
            if a.mark < at.mark {
                return Err(BronzeError::misuse("commit would take the mark back", &a.source));
            }
        }
        Ok(())
    }

    /// Steps 3 and 4: put the entry at the version after the known one; where that is taken or unknown, read it.
    async fn put(&mut self, adds: &[AddFile], advances: &[Advance]) -> Result<Committed, BronzeError> {
        let begun = self.log.now();
        let entry = self.entry(adds, advances);
        let mut attempts = 0;
        loop {
            let known = self.fresh_enough(begun)?;
            let at = known.version + 1;
            attempts += 1;
            match self.log.put(at, entry.clone()).await {
                PutOutcome::Landed => return self.landed(at, advances, attempts, begun).await,
                PutOutcome::Taken => {}
                PutOutcome::Unknown(cause) => {
                    tracing::debug!(table = self.log.name(), version = at, cause, "a commit's answer is unknown");
                    if attempts % WARN_EVERY == 0 {
                        let what = BronzeError::io("a commit does not get through; it is tried again", cause);
                        tracing::warn!(table = self.log.name(), version = at, attempts, "{what}");
                    }
                }
            }
            let asked = self.log.now();
            match self.read_for_sure(at, begun).await? {
                // Not there (yet): the same bytes again, so that a late copy of them can do no harm.
                None => self.log.pause(attempts).await,
                Some(found) if found == entry => return self.landed(at, advances, attempts, begun).await,
                Some(found) => {
                    self.inspect(at, &found)?;
                    self.known = Some(Known { version: at, at: asked });
                }
            }
        }
    }

    /// The known version, if neither it nor the batch is older than an hour.
    fn fresh_enough(&self, begun: Duration) -> Result<Known, BronzeError> {
        let now = self.log.now();
        let Some(known) = self.known else {
            return Err(BronzeError::Expired { what: "no table version is known".into() });
        };
        if now.saturating_sub(known.at) > KNOWN_AGE_MAX {
            let minutes = now.saturating_sub(known.at).as_secs() / 60;
            return Err(BronzeError::Expired {
                what: format!("table version {} was last seen {minutes} minutes ago", known.version),
            });
        }
        if now.saturating_sub(begun) > KNOWN_AGE_MAX {
            return Err(BronzeError::Expired { what: "a commit has been tried for an hour".into() });
        }
        Ok(known)
    }

    /// Reads an entry, as often as it takes.
    async fn read_for_sure(&self, version: u64, begun: Duration) -> Result<Option<Bytes>, BronzeError> {
        let mut attempt = 0;
        loop {
            match self.log.read(version).await {
                Ok(found) => return Ok(found),
                Err(BronzeError::Io { what, cause }) => {
                    tracing::debug!(table = self.log.name(), version, what, cause, "the log cannot be read, again");
                    self.fresh_enough(begun)?;
                    attempt += 1;
                    self.log.pause(attempt).await;
                }
                Err(other) => return Err(other),
            }
        }
    }

    async fn landed(
        &mut self,
        version: u64,
        advances: &[Advance],
        attempts: u32,
        begun: Duration,
    ) -> Result<Committed, BronzeError> {
        // An answer that took too long (a suspended machine) proves nothing: cleanup may have freed this very version
        // before our entry came to lie there.
        self.fresh_enough(begun)?;
        let at = self.log.now();
        self.log.sync(version).await.map_err(|e| {
            BronzeError::stopped(
                format!("table version {version} is committed but cannot be made durable ({e})"),
                self.log.name(),
                "check the disk, then start again",
            )
        })?;
        self.known = Some(Known { version, at });
        for a in advances {
            self.held.insert(a.source.clone(), Some(Position { next_offset: a.next_offset, mark: a.mark }));
        }
        Ok(Committed { version, attempts })
    }

    fn entry(&self, adds: &[AddFile], advances: &[Advance]) -> Bytes {
        let now_ms = chrono::Utc::now().timestamp_millis();
        let mut entry = EntryWriter::new("WRITE", json!({"mode": "Append"}), true, &self.log.fresh_id(), now_ms);
        for a in advances {
            entry.txn(&a.source.txn_id(), a.next_offset);
            if let Some(mark) = a.mark {
                entry.txn(&a.source.mark_id(), mark);
            }
        }
        adds.iter().for_each(|add| entry.add(add));
        entry.finish()
    }

    async fn load(&self, ids: &[String]) -> Result<TableState, BronzeError> {
        let state = self.log.load(ids).await?.ok_or_else(|| {
            let remedy = "restore the table, or start again to make a new one from the topic's beginning";
            BronzeError::stopped("the table is gone", self.log.name(), remedy)
        })?;
        self.check_protocol(state.protocol, state.version)?;
        self.check_epoch(&state.configuration, state.version)?;
        Ok(state)
    }

    /// Moves the known version to the loaded one by reading each entry in between against everything held. What is known
    /// is as old as the moment `at` before it was loaded, however long the reading takes.
    async fn follow_to(&mut self, state: &TableState, at: Duration) -> Result<(), BronzeError> {
        let from = match self.known {
            Some(known) if !self.held.is_empty() => known.version,
            _ => {
                self.look_back(state.version).await?;
                state.version
            }
        };
        if state.version < from {
            // The table went back under us (a lost commit, a restored copy): what we hold may be on another history.
            return Err(BronzeError::Expired {
                what: format!("the table went back from version {from} to {}", state.version),
            });
        }
        for version in from + 1..=state.version {
            let entry = self.log.read(version).await?.ok_or_else(|| BronzeError::Expired {
                what: format!("log entry {version} is no longer there to be read"),
            })?;
            self.inspect(version, &entry)?;
        }
        self.known = Some(Known { version: state.version, at });
        Ok(())
    }

    /// Reads the entries that no commit of this pipeline's stands on yet, from the newest down: what others did there
    /// while nobody held anything must not be passed over because of a restart.
    async fn look_back(&self, newest: u64) -> Result<(), BronzeError> {
        for version in (0..=newest).rev() {
            // Whoever commits has read everything below against the same rules. Log cleanup takes entries of weeks ago.
            let Some(entry) = self.log.read(version).await? else { break };
            let effects = self.effects(version, &entry)?;
            if effects.is_of_stream(&self.pipeline) {
                break;
            }
            self.check_rows(version, &effects)?;
        }
        Ok(())
    }

    fn effects(&self, version: u64, entry: &[u8]) -> Result<EntryEffects, BronzeError> {
        read_entry(entry).map_err(|damage| {
            let what = format!("log entry {version} {damage}");
            BronzeError::stopped(what, self.log.name(), remedy::repair_log(&self.pipeline))
        })
    }

    /// What others did to the rows: removed ones are a loud stop; added ones have no place in Kafka and are told.
    fn check_rows(&self, version: u64, effects: &EntryEffects) -> Result<(), BronzeError> {
        if effects.is_of(&self.pipeline) {
            return Ok(());
        }
        if effects.removes_rows {
            return Err(BronzeError::stopped(
                format!("table version {version} removed rows (a RESTORE or a DELETE by hand)"),
                self.log.name(),
                remedy::accept_removal(&self.pipeline),
            ));
        }
        if effects.adds_rows {
            tracing::warn!(
                table = self.log.name(),
                version,
                "another writer added rows to Bronze; `boathouse reconcile` shows what they are. Bronze belongs to Boathouse \
                 alone: take the writer away, delete its rows and accept that"
            );
        }
        Ok(())
    }

    /// Reads another's entry against everything held.
    fn inspect(&self, version: u64, entry: &[u8]) -> Result<(), BronzeError> {
        let effects = self.effects(version, entry)?;
        if let Some(protocol) = effects.protocol {
            self.check_protocol(protocol, version)?;
        }
        if let Some(configuration) = &effects.configuration {
            self.check_epoch(configuration, version)?;
            if effects.accepts_bad_records(&self.pipeline) {
                return Err(BronzeError::Accepted { version });
            }
            // The same settings, and perhaps other columns: the table is opened again, which puts them right.
            return Err(BronzeError::Expired { what: format!("table version {version} changed the table's metadata") });
        }
        self.check_rows(version, &effects)?;
        for (id, _) in &effects.txns {
            if self.held.keys().any(|s| *id == s.txn_id() || *id == s.mark_id()) {
                return Err(BronzeError::Fenced { version, id: id.clone() });
            }
        }
        Ok(())
    }

    fn check_protocol(&self, (reader, writer): (i32, i32), version: u64) -> Result<(), BronzeError> {
        if reader <= READER_MAX && writer <= WRITER_MAX {
            return Ok(());
        }
        Err(BronzeError::stopped(
            format!(
                "table version {version} asks for Delta reader {reader} and writer {writer}; Bronze is written with {READER_MAX} and {WRITER_MAX}"
            ),
            self.log.name(),
            "take the table feature away again, or restore the table as it was before",
        ))
    }

    fn check_epoch(
        &self,
        configuration: &std::collections::HashMap<String, String>,
        version: u64,
    ) -> Result<(), BronzeError> {
        let epoch = configuration.get(key::EPOCH).map(String::as_str).unwrap_or("none");
        if epoch == self.epoch {
            return Ok(());
        }
        if configuration.get(key::SETTINGS_HASH) == Some(&self.settings) {
            // A choice of an operator's, made elsewhere. What it has moved is read anew; other settings are no choice.
            return Err(BronzeError::Renewed { version, epoch: epoch.into() });
        }
        Err(BronzeError::stopped(
            format!("the pipeline's settings were changed by another instance (epoch {epoch}, ours is {})", self.epoch),
            format!("{} at version {version}", self.log.name()),
            "start this instance again with the same configuration as the other's",
        ))
    }

    /// After any error but a passing one nothing is held, so that nothing stale can be committed.
    fn forget_on_error<T>(&mut self, result: Result<T, BronzeError>) -> Result<T, BronzeError> {
        if result.as_ref().is_err_and(|e| e.reacquire() || matches!(e, BronzeError::Stopped { .. })) {
            self.release_all();
        }
        result
    }
}

fn position(state: &TableState, source: &Source) -> Option<Position> {
    let next_offset = *state.txns.get(&source.txn_id())?;
    Some(Position { next_offset, mark: state.txns.get(&source.mark_id()).copied() })
}
