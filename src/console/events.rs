//! A connection of server-sent events: it lasts as long as the session that opened it, and says now and then that it is
//! alive.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::http::header;
use bytes::Bytes;

use super::access::{Sessions, Via, secret};
use super::shared::Shared;
use super::view::View;

/// A word that keeps the connection known to be alive when nothing changes.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often it is looked whether whoever looks is still signed in.
const LOOK: Duration = Duration::from_secs(1);

/// What is sent.
pub trait Source {
    /// Waits for what to send next; none once there is nothing more. May be dropped while it waits, and asked again.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>>;
}

/// Sends what a source has until it, or the viewer's session, ends.
pub fn answer(view: &View, shared: &Shared, source: impl Source + 'static) -> HttpResponse {
    let session = match &view.caller.via {
        Via::Session { id, .. } => Some(secret::digest(id)),
        Via::Token => None,
    };
    let sessions = shared.access.sessions.clone();
    let events = Events { source, session, sessions, fresh: true, over: false, said: Instant::now() };
    let stream = futures::stream::unfold(events, |mut events| async move {
        let bytes = events.next().await?;
        Some((Ok::<_, Infallible>(bytes), events))
    });
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .streaming(stream)
}

struct Events<S> {
    source: S,
    session: Option<[u8; 32]>,
    sessions: Arc<Sessions>,
    fresh: bool,
    /// Its viewer has signed out.
    over: bool,
    said: Instant,
}

impl<S: Source> Events<S> {
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        if std::mem::take(&mut self.fresh) {
            return Some(Bytes::from_static(b"retry: 2000\n\n"));
        }
        loop {
            let waited = tokio::time::timeout(LOOK, self.source.next()).await;
            if self.session.is_some_and(|key| !self.sessions.holds(&key, Instant::now())) {
                self.over = true;
                return Some(Bytes::from_static(b"event: ended\ndata: {}\n\n"));
            }
            match waited {
                Ok(bytes) => {
                    self.said = Instant::now();
                    return bytes;
                }
                Err(_) if self.said.elapsed() >= KEEP_ALIVE => {
                    self.said = Instant::now();
                    return Some(Bytes::from_static(b": still here\n\n"));
                }
                Err(_) => {}
            }
        }
    }
}

/// A part of a page as it goes over the wire.
pub fn part(id: &str, html: &str) -> Bytes {
    // As JSON it is one line, as the protocol wants it.
    format!("event: part\ndata: {}\n\n", serde_json::json!({ "id": id, "html": html })).into()
}
