//! People who look at the console while the daemon drains: live pages, held open and read, that come and go turn by turn.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::site::Site;
use crate::bench::Turn;
use crate::priority;

/// The page that shows most, and changes every second.
const PAGE: &str = "/live/overview";
/// Between two tries while the daemon starts.
const AGAIN: Duration = Duration::from_millis(20);
/// How long a turn is measured.
const TURN: Duration = Duration::from_secs(1);
/// Before it is, and until all pages are live: opening and closing them is no part of it.
const SETTLE: Duration = Duration::from_millis(300);
/// How long opening them may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Live pages; closed when dropped.
struct Viewers {
    thread: Option<JoinHandle<()>>,
    /// Whether pages are to be live; the thread ends when this is gone.
    wanted: Option<watch::Sender<bool>>,
    open: Arc<AtomicUsize>,
    bytes: Arc<AtomicU64>,
}

impl Viewers {
    /// Signs in with the daemon's first password as soon as it answers. People's browsers are on machines of their own; here
    /// they run on a thread that stands back, so that what is measured is what they cost the daemon.
    fn start(site: &Site, count: usize, live: bool) -> anyhow::Result<Self> {
        let (open, bytes) = (Arc::<AtomicUsize>::default(), Arc::<AtomicU64>::default());
        let (all, taken) = (open.clone(), bytes.clone());
        let address = format!("http://{}", site.config.server.console.listen);
        let password = site.config.server.data_dir.join("console/first-password");
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
        let (wanted, asked) = watch::channel(live);
        let thread = std::thread::Builder::new().name("viewers".into()).spawn(move || {
            priority::lower();
            runtime.block_on(look(address, password, count, asked, all, taken));
        });
        Ok(Self { thread: Some(thread.context("cannot start a thread")?), wanted: Some(wanted), open, bytes })
    }

    fn live(&self, live: bool) {
        if let Some(wanted) = &self.wanted {
            wanted.send_replace(live);
        }
    }
}

impl Drop for Viewers {
    fn drop(&mut self) {
        self.wanted.take();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; what was counted until then stands.
            let _ = thread.join();
        }
    }
}

async fn look(
    address: String,
    password: PathBuf,
    count: usize,
    mut wanted: watch::Receiver<bool>,
    open: Arc<AtomicUsize>,
    bytes: Arc<AtomicU64>,
) {
    let Ok(client) = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build() else {
        return;
    };
    let mut over = wanted.clone();
    let cookie = tokio::select! {
        cookie = signed_in(&client, &address, &password) => cookie,
        _ = over.wait_for(|_| false) => return,
    };
    while wanted.wait_for(|live| *live).await.is_ok() {
        let mut pages = JoinSet::new();
        for _ in 0..count {
            let (client, cookie, open, bytes) = (client.clone(), cookie.clone(), open.clone(), bytes.clone());
            let url = format!("{address}{PAGE}");
            pages.spawn(async move {
                let Ok(answer) = client.get(url).header("cookie", cookie).send().await else { return };
                if !answer.status().is_success() {
                    return;
                }
                open.fetch_add(1, Ordering::Relaxed);
                let mut chunks = answer.bytes_stream();
                while let Some(Ok(chunk)) = chunks.next().await {
                    bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                }
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
        let ended = wanted.wait_for(|live| !*live).await.is_err();
        pages.shutdown().await;
        open.store(0, Ordering::Relaxed);
        if ended {
            return;
        }
    }
}

async fn signed_in(client: &reqwest::Client, address: &str, password: &PathBuf) -> String {
    loop {
        if let Ok(password) = std::fs::read_to_string(password)
            && let Some(cookie) = sign_in(client, address, password.trim()).await
        {
            return cookie;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn sign_in(client: &reqwest::Client, address: &str, password: &str) -> Option<String> {
    let form = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("name", crate::console::FIRST_USER), ("password", password)])
        .finish();
    let request = client.post(format!("{address}/login")).header("content-type", "application/x-www-form-urlencoded");
    let answer = request.body(form).send().await.ok()?;
    let cookie = answer.headers().get("set-cookie")?.to_str().ok()?;
    cookie.split(';').next().map(str::to_owned)
}

/// The turns of one drain, one after the other: live pages, none, live pages, …
pub(super) struct Turns {
    viewers: Viewers,
    count: usize,
    live: bool,
    /// When this turn began to settle.
    since: Option<Instant>,
    /// Where its measurement began: the records and CPU seconds until then.
    begun: Option<(Instant, u64, f64)>,
    done: Vec<Turn>,
}

impl Turns {
    /// - `live`: whether the first turn is one of live pages.
    pub fn new(site: &Site, count: usize, live: bool) -> anyhow::Result<Self> {
        let viewers = Viewers::start(site, count, live)?;
        Ok(Self { viewers, count, live, since: None, begun: None, done: Vec::new() })
    }

    /// Takes in how far the drain is, again and again while there is something to read.
    pub fn look(&mut self, now: Instant, records: u64, cpu_seconds: f64) -> anyhow::Result<()> {
        let since = *self.since.get_or_insert(now);
        let open = self.viewers.open.load(Ordering::Relaxed);
        let Some((at, before, cpu_before)) = self.begun else {
            if now - since >= SETTLE && (!self.live || open == self.count) {
                self.begun = Some((now, records, cpu_seconds));
            } else if now - since > PATIENCE {
                bail!("{open} of {} pages of the console are live after {PATIENCE:?}", self.count);
            }
            return Ok(());
        };
        if now - at < TURN {
            return Ok(());
        }
        if self.live && open != self.count {
            bail!("{open} of {} pages of the console stayed live; the daemon's log may say why", self.count);
        }
        let (seconds, events) = ((now - at).as_secs_f64(), records.saturating_sub(before).max(1) as f64);
        self.done.push(Turn {
            live: self.live,
            events_per_second: events / seconds,
            cpu_seconds_per_million: (cpu_seconds - cpu_before) / events * 1e6,
        });
        self.live = !self.live;
        self.viewers.live(self.live);
        (self.since, self.begun) = (Some(now), None);
        Ok(())
    }

    /// The turns that were measured whole, and the bytes that the pages took.
    pub fn end(self) -> (Vec<Turn>, u64) {
        let bytes = self.viewers.bytes.clone();
        drop(self.viewers);
        (self.done, bytes.load(Ordering::Relaxed))
    }
}
