//! The live tap: each viewer has a thread of low priority that reads the topic by itself and a queue that is bounded. Too
//! many records are left out and counted; no viewer slows the stream, and a slow one misses pictures, not the connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use bytes::Bytes;
use maud::Markup;
use tokio::sync::{mpsc, oneshot};

use super::events::{self, Source};
use super::problem::Problem;
use super::shared::Shared;
use super::view::View;
use crate::config::{Kafka, Pipeline};
use crate::priority;
use crate::tap::{Begin, Marks, Seen, Tap, Wanted};

/// Viewers at the same time: each has a connection to Kafka of its own.
const VIEWERS_MAX: usize = 8;
/// Records that are kept for the picture, and with which it begins.
pub const KEPT: usize = 100;
const BEGIN: Begin = Begin::Last(KEPT as i64);
/// Records that a viewer's thread looks at in a second; of more, those in between are left out.
const LOOKED_PER_SECOND: u64 = 5_000;
/// Pictures are sent no more often.
const EVERY: Duration = Duration::from_millis(500);
/// Longest wait for a record, and so for the end of a viewer's thread.
const WAIT: Duration = Duration::from_millis(100);

/// What a viewer wants to see.
#[derive(Clone)]
pub struct Asked {
    pub pipeline: Arc<Pipeline>,
    pub partition: Option<i32>,
    pub wanted: Wanted,
}

/// What has been seen.
#[derive(Debug, Default)]
pub struct Picture {
    /// Newest first.
    pub newest: VecDeque<Seen>,
    pub looked: u64,
    pub dropped: u64,
    pub error: Option<String>,
}

/// All taps of the console.
#[derive(Debug, Clone, Default)]
pub struct Taps {
    closed: Arc<AtomicBool>,
    viewers: Arc<AtomicUsize>,
}

impl Taps {
    /// Ends all of them, for good.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    fn join(&self) -> Option<Viewer> {
        let before = self.viewers.fetch_add(1, Ordering::Relaxed);
        let viewer = Viewer(self.viewers.clone());
        (before < VIEWERS_MAX && !self.closed.load(Ordering::Relaxed)).then_some(viewer)
    }
}

struct Viewer(Arc<AtomicUsize>);

impl Drop for Viewer {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The greatest event times of a pipeline's partitions, as the board has them.
fn marks(shared: &Shared, pipeline: &str) -> Marks {
    let known = crate::telemetry::Status::of(&shared.board, shared.limits).partitions.into_iter();
    known.filter(|p| p.pipeline == pipeline).filter_map(|p| Some((p.partition, p.mark_us?))).collect()
}

/// The newest records that fit, among the last of each partition. Blocks.
fn last(kafka: &Kafka, asked: &Asked, marks: &Marks, limit: Duration) -> anyhow::Result<Picture> {
    let (partition, wanted) = (asked.partition, asked.wanted.clone());
    // More than are shown: a filter leaves some of them.
    let begin = Begin::Last(10 * KEPT as i64);
    let mut tap = Tap::open(kafka, &asked.pipeline, partition, begin, wanted, marks)?;
    let (mut picture, begun) = (Picture::default(), Instant::now());
    while !tap.is_through() && begun.elapsed() < limit {
        picture.add(tap.read(WAIT)?);
    }
    picture.newest.make_contiguous().sort_by_key(|seen| std::cmp::Reverse((seen.timestamp_ms, seen.offset)));
    picture.newest.truncate(KEPT);
    (picture.looked, picture.dropped) = (tap.seen, tap.dropped);
    Ok(picture)
}

impl Picture {
    fn add(&mut self, found: Vec<Seen>) {
        for seen in found {
            self.newest.push_front(seen);
        }
    }
}

/// The newest records that fit, once.
pub async fn newest(shared: &Shared, asked: Asked) -> Result<Picture, Problem> {
    const LIMIT: Duration = Duration::from_secs(5);
    let (kafka, marks) = (shared.server.kafka.clone(), marks(shared, &asked.pipeline.name));
    let viewer = shared.taps.join().ok_or_else(too_many)?;
    let (tell, told) = oneshot::channel();
    // A thread of its own: a Kafka that is away must not hold up the end of the console.
    let spawned = std::thread::Builder::new().name("console-tap".into()).spawn(move || {
        priority::lower();
        let _viewer = viewer;
        // Whoever asked may be gone.
        let _ = tell.send(last(&kafka, &asked, &marks, LIMIT));
    });
    spawned.map_err(no_thread)?;
    match tokio::time::timeout(2 * LIMIT, told).await {
        Ok(Ok(read)) => Ok(read?),
        Ok(Err(_)) | Err(_) => Err(anyhow::anyhow!(
            "Kafka at {} does not answer; is it running, and is kafka.brokers right?",
            shared.server.kafka.brokers
        )
        .into()),
    }
}

fn no_thread(error: std::io::Error) -> Problem {
    anyhow::anyhow!("a tap's thread cannot be started: {error}").into()
}

fn too_many() -> Problem {
    let text = format!("{VIEWERS_MAX} taps are open, which is as many as there may be; close one");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
}

/// Sends a picture whenever it has changed; `draw` makes the part of the page.
pub fn follow(
    view: &View,
    shared: &Shared,
    asked: Asked,
    draw: impl Fn(&Asked, &Picture) -> Markup + Send + 'static,
) -> Result<HttpResponse, Problem> {
    let viewer = shared.taps.join().ok_or_else(too_many)?;
    let (kafka, marks) = (shared.server.kafka.clone(), marks(shared, &asked.pipeline.name));
    let (sender, receiver) = mpsc::channel(2);
    let taps = shared.taps.clone();
    let spawned = std::thread::Builder::new().name("console-tap".into()).spawn(move || {
        priority::lower();
        let _viewer = viewer;
        look(&taps, &kafka, &asked, &marks, &sender, &draw);
    });
    spawned.map_err(no_thread)?;
    Ok(events::answer(view, shared, Pictures(receiver)))
}

struct Pictures(mpsc::Receiver<Bytes>);

impl Source for Pictures {
    async fn next(&mut self) -> Option<Bytes> {
        self.0.recv().await
    }
}

/// A viewer's thread: until the viewer, the console or Kafka ends it.
fn look(
    taps: &Taps,
    kafka: &Kafka,
    asked: &Asked,
    marks: &Marks,
    sender: &mpsc::Sender<Bytes>,
    draw: &dyn Fn(&Asked, &Picture) -> Markup,
) {
    let mut picture = Picture::default();
    let done = |picture: &Picture| events::part("tap", &draw(asked, picture).into_string());
    let opened = Tap::open(kafka, &asked.pipeline, asked.partition, BEGIN, asked.wanted.clone(), marks);
    let mut tap = match opened {
        Ok(tap) => tap,
        Err(error) => {
            picture.error = Some(format!("{error:#}"));
            let _ = sender.try_send(done(&picture));
            return;
        }
    };
    let (mut changed, mut sent): (bool, Option<Instant>) = (true, None);
    let (mut second, mut looked) = (Instant::now(), 0);
    while !taps.closed.load(Ordering::Relaxed) && !sender.is_closed() {
        let outcome = if second.elapsed() < Duration::from_secs(1) && tap.seen - looked > LOOKED_PER_SECOND {
            std::thread::park_timeout(WAIT);
            Ok(Vec::new())
        } else {
            let skip = tap.seen - looked > LOOKED_PER_SECOND;
            if second.elapsed() >= Duration::from_secs(1) {
                (second, looked) = (Instant::now(), tap.seen);
            }
            if skip { tap.skip_to_end().map(|()| Vec::new()) } else { tap.read(WAIT) }
        };
        match outcome {
            Ok(found) => {
                changed |= tap.seen != picture.looked || tap.dropped != picture.dropped;
                picture.add(found);
                picture.newest.truncate(KEPT);
                (picture.looked, picture.dropped) = (tap.seen, tap.dropped);
            }
            Err(error) => {
                picture.error = Some(format!("{error:#}"));
                let _ = sender.try_send(done(&picture));
                return;
            }
        }
        // Where the queue is full the viewer is slow: the next picture holds what this one would have.
        if changed && sent.is_none_or(|sent| sent.elapsed() >= EVERY) && sender.try_send(done(&picture)).is_ok() {
            (changed, sent) = (false, Some(Instant::now()));
        }
    }
}
