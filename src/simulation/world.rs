//! The world that daemons live in: topic, object store, ClickHouse, dice.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use rand::prelude::*;
use rand_chacha::ChaCha8Rng;

use super::Rule;
use super::clickhouse::ClickHouse;
use super::delta::Delta;
use super::topic::{Log, PARTITIONS};
use crate::config::Pipeline;
use crate::kafka::Source;
use crate::window::tests::pipeline;

/// What kinds of trouble a world has. Not all at once, so that each is seen to its end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Trouble {
    /// Daemons come with other settings.
    pub settings: bool,
    /// Daemons come with another definition of an aggregate.
    pub definitions: bool,
    /// ClickHouse's disk is lost, and Bronze's newest commit.
    pub losses: bool,
    /// Kafka's retention overtakes Bronze.
    pub retention: bool,
    /// Somebody puts settings in force anew.
    pub choices: bool,
}

/// What happened, to be sure that things do.
#[derive(Debug, Default, Clone)]
pub(super) struct Counts {
    pub commits: usize,
    pub ends: usize,
    pub kills: usize,
    pub fast: usize,
    pub sure: usize,
    pub joined: usize,
    pub late_puts: usize,
    pub late_inserts: usize,
    pub undrained: usize,
    pub drained: usize,
    pub gaps: usize,
    pub choices: usize,
    pub renewed: usize,
    pub survivors: usize,
    pub views: usize,
    pub stopped: usize,
    pub trace: Vec<String>,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        for (all, one) in self.numbers().into_iter().zip(other.clone().numbers()) {
            *all.1 += *one.1;
        }
    }

    fn numbers(&mut self) -> [(&'static str, &mut usize); 16] {
        [
            ("commits", &mut self.commits),
            ("daemons that gave up", &mut self.ends),
            ("kills", &mut self.kills),
            ("states back the fast way", &mut self.fast),
            ("states back the sure way", &mut self.sure),
            ("states that joined a running consumer", &mut self.joined),
            ("late PUTs", &mut self.late_puts),
            ("late inserts", &mut self.late_inserts),
            ("partitions that left undrained", &mut self.undrained),
            ("partitions that left drained", &mut self.drained),
            ("gaps that were accepted", &mut self.gaps),
            ("settings put in force anew", &mut self.choices),
            ("rounds that a choice ended", &mut self.renewed),
            ("last daemons that have lived through it", &mut self.survivors),
            ("views that changed over", &mut self.views),
            ("partitions that stopped loudly", &mut self.stopped),
        ]
    }

    /// Everything must have happened, on the average of many worlds.
    pub fn assert_lively(&self, worlds: u64) {
        let rare: Vec<_> =
            self.clone().numbers().into_iter().filter(|n| (*n.1 as u64) < worlds / 50).map(|n| n.0).collect();
        assert!(rare.is_empty(), "too seldom in {worlds} worlds: {rare:?}");
    }
}

pub(super) struct World {
    pub rng: ChaCha8Rng,
    pub broken: Option<Rule>,
    pub trouble: Trouble,
    /// Nothing goes wrong any more.
    pub calm: bool,
    pub topic: Vec<Log>,
    pub delta: Delta,
    pub clickhouse: ClickHouse,
    /// The clock of commits.
    pub now: Duration,
    pub ids: u64,
    pub counts: Counts,
    /// Bronze's positions when a definition was last found to be whole.
    pub reaches: BTreeMap<String, Vec<(i32, i64)>>,
    /// What was seen to be wrong on the way.
    pub errors: Vec<String>,
    told: bool,
}

pub(super) type Shared = Arc<Mutex<World>>;

impl World {
    pub fn new(seed: u64, broken: Option<Rule>, told: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let trouble = Trouble {
            settings: rng.random_bool(0.25),
            definitions: rng.random_bool(0.25),
            losses: rng.random_bool(0.25),
            retention: rng.random_bool(0.25),
            choices: rng.random_bool(0.25),
        };
        let topic = (0..PARTITIONS).map(|_| Log::new(&mut rng)).collect();
        Self {
            rng,
            broken,
            trouble,
            calm: false,
            topic,
            delta: Delta::default(),
            clickhouse: ClickHouse::default(),
            now: Duration::ZERO,
            ids: 0,
            counts: Counts::default(),
            reaches: BTreeMap::new(),
            errors: Vec::new(),
            told,
        }
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    /// Trouble, where there may be any.
    pub fn trouble(&mut self, percent: u32) -> bool {
        let dice = self.chance(percent);
        dice && !self.calm
    }

    pub fn fresh_id(&mut self) -> String {
        self.ids += 1;
        format!("id-{}", self.ids)
    }

    pub fn tell(&mut self, step: impl FnOnce() -> String) {
        if self.told {
            self.counts.trace.push(step());
        }
    }
}

pub(super) fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Lets the others run: a place to stop, or for a rival to come in.
pub(super) async fn step() {
    let mut passed = false;
    std::future::poll_fn(|_| match std::mem::replace(&mut passed, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await
}

pub(super) fn source(partition: i32) -> Arc<Source> {
    Arc::new(Source { pipeline: "p".into(), topic: "t".into(), generation: 0, partition })
}

/// The configurations that daemons come with: (settings, definitions). Small times, so that every case happens.
pub(super) fn configuration(settings: usize, definitions: usize) -> &'static Arc<Pipeline> {
    static ALL: LazyLock<Vec<Arc<Pipeline>>> = LazyLock::new(|| {
        let one = |lateness: u32, kind: &str| {
            Arc::new(pipeline(&format!(
                "[time]\nwindow = \"10s\"\nbound = \"3s\"\nfuture_guard = \"20s\"\nallowed_lateness = \"{lateness}s\"\n\
                 [realtime]\nmax_combinations = 2\n\
                 [[aggregate]]\nname = \"some\"\nmeasure = \"n\"\nfilter = {{ kind = [\"{kind}\"] }}\n\
                 [[aggregate]]\nname = \"by_kind\"\nmeasure = \"n\"\nwindow = \"20s\"\ndimensions = [\"kind\"]\n"
            )))
        };
        vec![one(6, "a"), one(2, "a"), one(6, "b"), one(2, "b")]
    });
    &ALL[settings + 2 * definitions]
}
