//! Where the console's slower work is done: the history, the tables, ClickHouse. Threads of its own, of a lower priority
//! than the stream's.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use crate::batch::history::History;
use crate::config::Server;

/// Threads for queries and the history.
pub const THREADS: usize = 2;

#[derive(Clone)]
pub struct Desk {
    handle: Handle,
    server: Arc<Server>,
    history: Arc<Mutex<Option<History>>>,
}

impl Desk {
    pub fn new(handle: Handle, server: Arc<Server>) -> Self {
        Self { handle, server, history: Arc::default() }
    }

    /// Does work on the desk's threads; whoever no longer waits for it ends it.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = anyhow::Result<T>> + Send + 'static,
    ) -> anyhow::Result<T> {
        let mut task = AbortOnDrop(self.handle.spawn(work));
        match (&mut task.0).await {
            Ok(done) => done,
            Err(error) => Err(anyhow!("the console's work ended early ({error}); the daemon's log says why")),
        }
    }

    /// Does work that is finished even if whoever waits for it is gone.
    pub async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = anyhow::Result<T>> + Send + 'static,
    ) -> anyhow::Result<T> {
        match self.handle.spawn(work).await {
            Ok(done) => done,
            Err(error) => Err(anyhow!("the console's work ended early ({error}); the daemon's log says why")),
        }
    }

    /// Begins work that goes on whoever waits, until it is done or ended by the handle.
    pub fn begin(&self, work: impl Future<Output = ()> + Send + 'static) -> tokio::task::AbortHandle {
        self.handle.spawn(work).abort_handle()
    }

    /// Does work that needs the history.
    pub async fn history<T, F>(&self, work: impl FnOnce(History) -> F + Send + 'static) -> anyhow::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = anyhow::Result<T>> + Send + 'static,
    {
        let (kept, server) = (self.history.clone(), self.server.clone());
        self.run(async move {
            let mut kept = kept.lock().await;
            kept.take_if(|history| !history.is_in_place());
            let history = match &*kept {
                Some(history) => history.clone(),
                None => kept.insert(History::open(&server).await.context("the batch history is away")?).clone(),
            };
            drop(kept);
            work(history).await
        })
        .await
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
