//! Server-sent events: the parts of a page that change, rendered once a second for everybody who looks at that page.
//! A page that nobody looks at is not rendered. Where many look, each is sent what has changed less often, so that those who
//! look cost the stream little.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use chrono::Utc;
use maud::Markup;
use tokio::sync::watch;

use super::access::secret;
use super::events::{self, Source};
use super::pages;
use super::problem::Problem;
use super::range::{self, Range};
use super::shared::Shared;
use super::view::View;
use crate::batch::history::Filter;
use crate::telemetry::Status;

/// Pages are rendered anew this often.
const EVERY: Duration = Duration::from_secs(1);
/// How long a page may take to be rendered: the meter is looked at in between.
const RENDER: Duration = Duration::from_secs(5);
/// So many readers are sent what has changed with every rendering; twice as many with every other, and so on.
const READERS_AT_ONCE: usize = 50;
/// With every so many renderings at least.
const STRIDE_MAX: usize = 5;
/// Readers at the same time.
const READERS_MAX: usize = 1_000;
/// Pages that are looked at at the same time: each run is one of its own.
const TOPICS_MAX: usize = 200;

/// A page whose parts change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    Overview(Range),
    Stream(Range),
    Batch {
        filter: Filter,
        /// Whether who looks may do something to a run.
        ticks: bool,
    },
    Actors,
    Reconcile,
    Backfill,
    Run(String),
    /// A user's search for an event.
    Trace {
        user: String,
        asked: String,
    },
}

impl Topic {
    /// The live parts of a page, which has the same query in its address.
    fn parse(page: &str, query: &str, view: &View) -> Result<Self, Problem> {
        let range = |default| asked::<range::Asked>(query)?.or(default);
        if let Some(asked) = page.strip_prefix("trace/") {
            return Ok(Topic::Trace { user: view.caller.name.clone(), asked: asked.to_owned() });
        }
        Ok(match page {
            "overview" => Topic::Overview(range(Range::Hour)?),
            "stream" => Topic::Stream(range(Range::Week)?),
            "batch" => {
                let filter = asked::<pages::batch::Asked>(query)?.filter()?;
                Topic::Batch { filter, ticks: view.operator() }
            }
            "actors" => Topic::Actors,
            "reconcile" => Topic::Reconcile,
            "backfill" => Topic::Backfill,
            other => {
                let run = other.strip_prefix("run/").and_then(pages::run_id);
                Topic::Run(run.ok_or_else(|| Problem::missing("there is no such live page"))?.to_owned())
            }
        })
    }

    async fn render(&self, shared: &Shared) -> anyhow::Result<Parts> {
        Ok(match self {
            Topic::Overview(range) => pages::overview::parts(shared, *range),
            Topic::Stream(range) => pages::stream::parts(shared, *range),
            Topic::Batch { filter, ticks } => pages::batch::parts(shared, filter, *ticks).await?,
            Topic::Actors => pages::actors::parts(&shared.look()),
            Topic::Reconcile => pages::reconcile::parts(&shared.reconcile.standing()),
            Topic::Backfill => pages::backfill::parts(shared).await?,
            Topic::Run(id) => pages::run::parts(shared, id).await?,
            Topic::Trace { user, asked } => pages::trace::parts(shared, user, asked),
        })
    }
}

/// What a query in an address asks for.
fn asked<T: serde::de::DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let wrong = |error| Problem::refused(format!("the address holds something that this page does not take: {error}"));
    web::Query::<T>::from_query(query).map(web::Query::into_inner).map_err(wrong)
}

/// The changing parts of a page: id and content.
pub type Parts = Vec<(&'static str, Markup)>;

/// One rendered part, as it goes over the wire.
#[derive(Debug, Clone, PartialEq)]
struct Sent {
    id: &'static str,
    digest: [u8; 32],
    event: Bytes,
}

type Frame = Arc<[Sent]>;

/// Who looks at what.
#[derive(Debug, Clone, Default)]
pub struct Hub {
    topics: Arc<Mutex<HashMap<Topic, watch::Sender<Frame>>>>,
    readers: Arc<AtomicUsize>,
}

impl Hub {
    fn topics<T>(&self, work: impl FnOnce(&mut HashMap<Topic, watch::Sender<Frame>>) -> T) -> T {
        work(&mut self.topics.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn join(&self, topic: Topic) -> Option<(watch::Receiver<Frame>, Reader)> {
        let readers = self.readers.fetch_add(1, Ordering::Relaxed);
        let reader = Reader { all: self.readers.clone(), place: readers };
        let receiver = self.topics(|topics| {
            if readers >= READERS_MAX || (topics.len() >= TOPICS_MAX && !topics.contains_key(&topic)) {
                return None;
            }
            Some(topics.entry(topic).or_insert_with(|| watch::channel(Arc::from([])).0).subscribe())
        })?;
        Some((receiver, reader))
    }

    /// Ends every connection, so that the server can end.
    pub fn close(&self) {
        self.topics(HashMap::clear);
    }

    /// Lets the meter look at the board and renders what is looked at, until the server ends.
    pub async fn keep(self, shared: Shared) {
        let pipelines = shared.pipeline_names();
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Whose password was set anew by the command sees nothing more, even if nobody asks for a page.
            shared.access.users(|_| ());
            shared.tables.forget_unused();
            let status = Status::of(&shared.board, shared.limits);
            shared.meter(|meter| meter.look(&status, &pipelines, Instant::now(), Utc::now()));
            shared.rates.keep(&shared.desk, Instant::now());
            let wanted = self.topics(|topics| {
                topics.retain(|_, sender| sender.receiver_count() > 0);
                topics.keys().cloned().collect::<Vec<_>>()
            });
            // All at once: a history that is away holds up every page that asks it no longer than one.
            let rendered = wanted.into_iter().map(async |topic| {
                let rendered = tokio::time::timeout(RENDER, topic.render(&shared)).await;
                Some((topic, rendered.ok()?.ok()?))
            });
            for (topic, parts) in futures::future::join_all(rendered).await.into_iter().flatten() {
                let frame: Frame = parts.into_iter().map(|(id, content)| encode(id, content)).collect();
                self.topics(|topics| {
                    if let Some(sender) = topics.get(&topic) {
                        sender.send_if_modified(|old| {
                            let changed = *old != frame;
                            *old = frame;
                            changed
                        });
                    }
                });
            }
        }
    }
}

/// Renderings from one that a reader is sent to the next. Those who came at once take turns from the `first` on.
fn renderings(readers: usize, place: usize, first: bool) -> u32 {
    let stride = readers.div_ceil(READERS_AT_ONCE).clamp(1, STRIDE_MAX);
    // STRIDE_MAX at most.
    (if first { 1 + place % stride } else { stride }) as u32
}

struct Reader {
    all: Arc<AtomicUsize>,
    /// How many there were when it came.
    place: usize,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

fn encode(id: &'static str, content: Markup) -> Sent {
    let html = content.into_string();
    Sent { id, digest: secret::digest(&html), event: events::part(id, &html) }
}

/// `/live/PAGE`: the parts of a page, now and whenever they change.
pub async fn live(
    request: HttpRequest,
    page: web::Path<String>,
    view: View,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Problem> {
    let topic = Topic::parse(&page, request.query_string(), &view)?;
    let (receiver, reader) = shared.hub.join(topic).ok_or_else(|| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many pages are open; close some, or reload by hand")
    })?;
    Ok(events::answer(&view, &shared, LookedAt::new(receiver, reader)))
}

/// A page of one reader.
struct LookedAt {
    receiver: watch::Receiver<Frame>,
    /// What the reader has of each part.
    sent: HashMap<&'static str, [u8; 32]>,
    /// When something may be sent again.
    due: Instant,
    reader: Reader,
}

impl LookedAt {
    /// The page as the browser has it may be a second old: it gets all parts at once.
    fn new(mut receiver: watch::Receiver<Frame>, reader: Reader) -> Self {
        receiver.mark_changed();
        Self { receiver, sent: HashMap::new(), due: Instant::now(), reader }
    }

    /// Waits until something has changed and may be sent; none once the page is closed. May be dropped and asked again.
    async fn turn(&mut self) -> Option<()> {
        let mut closed = self.receiver.clone();
        tokio::select! {
            () = tokio::time::sleep_until(self.due.into()) => self.receiver.changed().await.ok(),
            _ = closed.wait_for(|_| false) => None,
        }
    }
}

impl Source for LookedAt {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.turn().await?;
            let frame = self.receiver.borrow_and_update().clone();
            let first = self.sent.is_empty();
            let mut out = Vec::new();
            for part in frame.iter() {
                if self.sent.insert(part.id, part.digest) != Some(part.digest) {
                    out.extend_from_slice(&part.event);
                }
            }
            if !out.is_empty() {
                let renderings = renderings(self.reader.all.load(Ordering::Relaxed), self.reader.place, first);
                // Half a rendering early, so that the one that is meant is not missed.
                self.due = Instant::now() + EVERY * renderings - EVERY / 2;
                return Some(out.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_readers_cost_what_few_do() {
        for readers in [1, 49, 50, 51, 200, 250, 900] {
            let every = renderings(readers, 0, false);
            // Over twenty renderings at the pace that they have once they have been sent something.
            let sent = (1..=20).map(|rendering| {
                let first = |place| renderings(readers, place, true);
                (0..readers)
                    .filter(|place| rendering >= first(*place) && (rendering - first(*place)) % every == 0)
                    .count()
            });
            let most = sent.max().unwrap();
            assert!(most <= 50.max(readers.div_ceil(STRIDE_MAX)), "{readers} readers: {most} at once");
            assert!(every <= 5, "{readers} readers wait {every} renderings");
        }
        assert_eq!((renderings(50, 7, true), renderings(50, 7, false)), (1, 1), "few wait for nothing");
    }

    #[tokio::test]
    async fn what_changed_before_a_readers_turn_comes_with_it() {
        let hub = Hub::default();
        let mut readers: Vec<_> = (0..51)
            .map(|_| {
                let (receiver, reader) = hub.join(Topic::Actors).unwrap();
                LookedAt::new(receiver, reader)
            })
            .collect();
        let show = |text: &str| {
            let frame = Arc::from([encode("actors", maud::html! { (text) })]);
            hub.topics(|topics| topics[&Topic::Actors].send_replace(frame));
        };
        let text = |sent: Option<Bytes>| String::from_utf8(sent.unwrap().into()).unwrap();
        show("one");
        for reader in &mut readers {
            assert!(text(reader.next().await).contains("one"));
        }
        let reader = &mut readers[50];
        show("two");
        // It is not its turn yet; whoever waited is dropped, as by a look at the session.
        assert!(futures::poll!(Box::pin(reader.next())).is_pending());
        show("three");
        assert!(text(reader.next().await).contains("three"));
        show("four");
        hub.close();
        assert!(reader.next().await.is_none(), "a page that is closed waits for no turn");
    }
}
