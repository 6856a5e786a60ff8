//! People who look at the console while the daemon drains: live pages, held open and read.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::site::Site;
use crate::priority;

/// The page that shows most, and changes every second.
const PAGE: &str = "/live/overview";
/// Between two tries while the daemon starts.
const AGAIN: Duration = Duration::from_millis(20);

/// Live pages; closed when dropped.
pub(super) struct Viewers {
    thread: Option<JoinHandle<()>>,
    /// The thread ends when this is gone.
    stay: Option<oneshot::Sender<()>>,
    open: Arc<AtomicUsize>,
    bytes: Arc<AtomicU64>,
}

impl Viewers {
    /// Opens so many, as soon as the daemon answers: its first password signs them in. People's browsers are on machines of
    /// their own; here they run on a thread that stands back, so that what is measured is what they cost the daemon.
    pub fn open(site: &Site, count: usize) -> anyhow::Result<Self> {
        let (open, bytes) = (Arc::<AtomicUsize>::default(), Arc::<AtomicU64>::default());
        let (all, taken) = (open.clone(), bytes.clone());
        let address = format!("http://{}", site.config.server.console.listen);
        let password = site.config.server.data_dir.join("console/first-password");
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
        let (stay, gone) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("viewers".into()).spawn(move || {
            priority::lower();
            runtime.block_on(async {
                tokio::select! {
                    () = look(address, password, count, all, taken) => {}
                    _ = gone => {}
                }
            });
        });
        Ok(Self { thread: Some(thread.context("cannot start a thread")?), stay: Some(stay), open, bytes })
    }

    /// Closes them; how many were live, and the bytes that they took.
    pub fn close(mut self) -> (usize, u64) {
        self.end();
        (self.open.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    fn end(&mut self) {
        self.stay.take();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; what was counted until then stands.
            let _ = thread.join();
        }
    }
}

impl Drop for Viewers {
    fn drop(&mut self) {
        self.end();
    }
}

async fn look(address: String, password: PathBuf, count: usize, open: Arc<AtomicUsize>, bytes: Arc<AtomicU64>) {
    let Ok(client) = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build() else {
        return;
    };
    let cookie = loop {
        if let Ok(password) = std::fs::read_to_string(&password)
            && let Some(cookie) = sign_in(&client, &address, password.trim()).await
        {
            break cookie;
        }
        tokio::time::sleep(AGAIN).await;
    };
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
        });
    }
    while pages.join_next().await.is_some() {}
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
