//! People who look at the console while the daemon drains: live pages, held open and read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use tokio::task::JoinSet;

use super::site::Site;

/// The page that shows most, and changes every second.
const PAGE: &str = "/live/overview";
/// Between two tries while the daemon starts.
const AGAIN: Duration = Duration::from_millis(20);

/// Live pages; closed when dropped.
pub(super) struct Viewers {
    tasks: JoinSet<()>,
    open: Arc<AtomicUsize>,
    bytes: Arc<AtomicU64>,
}

impl Viewers {
    /// Opens so many, as soon as the daemon answers: its first password signs them in.
    pub fn open(site: &Site, count: usize) -> Self {
        let (open, bytes) = (Arc::<AtomicUsize>::default(), Arc::<AtomicU64>::default());
        let (all, taken) = (open.clone(), bytes.clone());
        let address = format!("http://{}", site.config.server.console.listen);
        let password = site.config.server.data_dir.join("console/first-password");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let Ok(client) = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build()
            else {
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
                let (client, cookie, all, taken) = (client.clone(), cookie.clone(), all.clone(), taken.clone());
                let url = format!("{address}{PAGE}");
                pages.spawn(async move {
                    let Ok(answer) = client.get(url).header("cookie", cookie).send().await else { return };
                    if !answer.status().is_success() {
                        return;
                    }
                    all.fetch_add(1, Ordering::Relaxed);
                    let mut chunks = answer.bytes_stream();
                    while let Some(Ok(chunk)) = chunks.next().await {
                        taken.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                    }
                });
            }
            while pages.join_next().await.is_some() {}
        });
        Self { tasks, open, bytes }
    }

    /// Closes them; how many were live, and the bytes that they took.
    pub fn close(mut self) -> (usize, u64) {
        self.tasks.abort_all();
        (self.open.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
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
