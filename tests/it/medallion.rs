//! The whole batch on the producer's events, judged by programs and counts that share nothing with it.

mod kills;
mod readers;
mod recount;
mod sequence;

use std::path::Path;
use std::time::Duration;

use boathouse::batch::{TaskContext, publish_gold, run_gold, run_silver};
use boathouse::bench::{Account, FIGURES};
use boathouse::config;
use boathouse::producer::clock::EventClock;
use boathouse::producer::fault::{Mix, Shares};
use boathouse::producer::generator::Generator;
use boathouse::serving::Client;

use crate::bronze::{Record, Writer};
use crate::gold::lakehouse::Lakehouse;
use crate::support::engine::Engine;

/// 2 % duplicates, 2 % late, 1 % malformed, 1 % with a wrong clock.
const SHARES: Shares = Shares { duplicate: 0.02, late: 0.02, malformed: 0.01, future: 0.01 };
/// Records of one commit of Bronze.
const COMMIT: u64 = 20_000;

/// Three days ago at midnight, seconds since 1970.
fn begin() -> i64 {
    let now = chrono::Utc::now().timestamp();
    now - now.rem_euclid(86_400) - 3 * 86_400
}

/// The producer's events in a Bronze table of the real writer, and what they amount to.
struct Filler {
    writer: Writer,
    generator: Generator,
    account: Account,
}

impl Filler {
    async fn new(lakehouse: &Path, seed: u64) -> Self {
        let pipeline = crate::gold::lakehouse::seed();
        let writer = Writer::open(lakehouse, &pipeline, &[0, 1, 2]).await.expect("Bronze");
        let generator = Generator::new(seed, 500, Mix::new(SHARES).expect("shares"));
        Self { writer, generator, account: Account::default() }
    }

    /// Commits `count` records made from `start_s` on, over `span`.
    async fn fill(&mut self, count: u64, start_s: i64, span: Duration) {
        let made_at = EventClock::spanning(start_s, span, count);
        let mut value = Vec::new();
        let mut records: [Vec<Record>; 3] = Default::default();
        for number in 0..count {
            let at = made_at.at(number, start_s);
            let written = self.generator.next(at, &mut value);
            self.account.take(&written, &value, at);
            records[written.user_id as usize % 3].push(Record {
                key: Some(written.user_id.to_string().into_bytes()),
                value: (!written.tombstone).then(|| value.clone()),
                timestamp: at * 1000,
                headers: Vec::new(),
            });
            if (number + 1) % COMMIT == 0 || number + 1 == count {
                let mut batches = Vec::new();
                for (partition, records) in (0..).zip(&mut records) {
                    let feed = self.writer.feeds.get_mut(&partition).expect("a partition");
                    batches.push(feed.batch(&std::mem::take(records)));
                }
                self.writer.commit(&batches).await.expect("a commit");
            }
        }
    }
}

fn client(engine: &Engine) -> Client {
    Client::new(&config::ClickHouse { url: engine.url.clone(), ..config::ClickHouse::default() }).expect("a client")
}

/// Bronze to silver to gold to ClickHouse, in this process.
async fn run(lakehouse: &Lakehouse, engine: &Engine, run_id: &str) {
    let task = TaskContext::detached();
    let (silver, _) = run_silver(&lakehouse.lake, &lakehouse.pipeline, &task).await.expect("silver");
    assert_eq!(silver.rows_in, silver.kept + silver.refused + silver.duplicates);
    run_gold(&lakehouse.lake, &lakehouse.pipeline, &task).await.expect("gold");
    publish_gold(&lakehouse.lake, &lakehouse.pipeline, &client(engine), run_id, &task).await.expect("served");
}

/// The daily figures that the engine serves, in the order of [`Account::figures`].
fn served(engine: &Engine) -> [String; 4] {
    FIGURES.map(|(_, query)| engine.sql(query))
}
