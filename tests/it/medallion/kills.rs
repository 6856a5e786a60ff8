//! The batch killed: at every boundary of a task and of a commit, and by SIGKILL at any moment. The next run completes,
//! what is served is exact, and a reader beside it sees one state after the other, each of them whole.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use boathouse::bench::FIGURES;
use boathouse::failpoint;
use rand::prelude::*;
use rand_chacha::ChaCha8Rng;

use super::recount::assert_recounted;
use super::{Filler, begin, served};
use crate::support::daemon::Site;
use crate::support::engine::Engine;
use crate::support::folder_in_memory;
use crate::support::soak::say;

/// Where a run is stopped; the number is which time.
const POINTS: [&str; 23] = [
    "publish.after_rows",
    "silver.before_commit",
    "gold.after_commit:6",
    "batch.task_begun:4",
    "batch.task_begun:1",
    "batch.task_begun:2",
    "batch.task_begun:3",
    "batch.task_begun:5",
    "batch.task_begun:6",
    "batch.task_ended:1",
    "batch.task_ended:2",
    "batch.task_ended:3",
    "batch.task_ended:4",
    "batch.task_ended:5",
    "batch.task_ended:6",
    "batch.before_end",
    "silver.after_refused",
    "silver.after_commit",
    "gold.before_commit",
    "gold.before_commit:12",
    "gold.after_commit",
    "gold.after_commit:12",
    "publish.after_published",
];
/// How long a run of some hundred events may take on a machine that others use.
const RUN: Duration = Duration::from_secs(180);

/// A state of all figures, in the order of [`FIGURES`].
type Figures = [String; 4];

/// Asks for the figures all the time: every answer must be a state that was expected, and never an earlier one than the
/// answer before. A missing or half-written date would be none.
struct Reader {
    states: Arc<Mutex<Vec<Figures>>>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Reader {
    fn start(engine: &Engine, first: Figures) -> Self {
        let states = Arc::new(Mutex::new(vec![first]));
        let stop = Arc::new(AtomicBool::new(false));
        let (url, known, stopped) = (engine.url.clone(), states.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let http = reqwest::Client::new();
            let (mut answers, mut at) = (0, [0; 4]);
            while !stopped.load(Ordering::Relaxed) {
                for (figure, (name, query)) in FIGURES.iter().enumerate() {
                    let answer = runtime.block_on(async {
                        let answer = http.post(&url).body(*query).send().await.expect("an answer");
                        answer.text().await.expect("a body")
                    });
                    let known = known.lock().unwrap_or_else(PoisonError::into_inner);
                    let found = (at[figure]..known.len()).find(|n| known[*n][figure] == answer);
                    let was = &known[at[figure]][figure];
                    at[figure] = found.unwrap_or_else(|| panic!("{name} was\n{was}\nand is no state:\n{answer}"));
                    answers += 1;
                }
            }
            answers
        });
        Self { states, stop, thread }
    }

    /// From now on this state may be seen, too.
    fn expect(&self, state: Figures) {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).push(state);
    }

    /// The number of answers; panics where one was wrong.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("every answer is a whole state")
    }
}

/// A site without a broker, with the shipped models.
fn site(engine: &Engine) -> Site {
    let site = Site::within(folder_in_memory(), "127.0.0.1:1", &engine.url, "batch-alone");
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config/pipelines/user_events/gold");
    let models = site.pipeline_file().with_file_name("gold");
    std::fs::create_dir_all(&models).expect("a folder for the models");
    for model in std::fs::read_dir(shipped).expect("the shipped models").flatten() {
        std::fs::copy(model.path(), models.join(model.file_name())).expect("a copy of the model");
    }
    site
}

/// `boathouse batch run` without a daemon, to its end.
fn complete(site: &Site) {
    let output = site.run(&["batch", "run"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Starts a run and stops it; true where it had not ended by itself.
fn stop(mut command: Command, how: &How) -> bool {
    match how {
        How::At(point) => {
            let output = command.env(failpoint::VARIABLE, point).output().expect("a run");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(failpoint::EXIT_CODE), "{point}: {said}");
            true
        }
        How::After(delay) => {
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a run");
            let begun = Instant::now();
            while begun.elapsed() < *delay && child.try_wait().expect("its state").is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let ended = child.try_wait().expect("its state").is_some();
            let _ = child.kill();
            let _ = child.wait();
            !ended
        }
    }
}

#[derive(Debug)]
enum How {
    /// At a fail point.
    At(&'static str),
    /// By SIGKILL.
    After(Duration),
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_killed_anywhere_is_completed_by_the_next_and_no_reader_notices() {
    let kills: usize = std::env::var("BOATHOUSE_SOAK_BATCH_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let engine = Engine::start_within(folder_in_memory(), &[]);
    let mut site = site(&engine);
    let mut filler = Filler::new(&site.lakehouse(), 77).await;
    let mut random = ChaCha8Rng::seed_from_u64(7);
    filler.fill(2_000, begin(), Duration::from_secs(2 * 86_400)).await;
    let begun = Instant::now();
    complete(&site);
    let whole_run = begun.elapsed();
    // The ratio is left out on both sides: the account has the two numbers that it is made of.
    assert_eq!(served(&engine), filler.account.figures());
    let reader = Reader::start(&engine, filler.account.figures());
    let mut by_signal = 0;
    for number in 0..kills {
        // Half of them at fail points, as long as there are any that were not tried.
        let point =
            (number % 2 == 0 || number < 4).then(|| POINTS.get(if number < 4 { number } else { number / 2 + 2 }));
        let how = match point.flatten() {
            Some(point) => How::At(point),
            None => How::After(whole_run.mul_f64(random.random_range(0.0..1.0))),
        };
        let start = begin() + random.random_range(0..2 * 86_400);
        filler.fill(random.random_range(50..400), start, Duration::from_secs(3_600)).await;
        reader.expect(filler.account.figures());
        let stopped = stop(site.command(&["batch", "run"]), &how);
        by_signal += usize::from(stopped && matches!(how, How::After(_)));
        // Mostly the history is lost with it, and the next run need not wait until the lease of the killed one ends.
        if number % 5 != 4 {
            site.environment.retain(|(name, _)| name != "BOATHOUSE__DATA_DIR");
            let data = site.folder.join(format!("data-{number}"));
            site.environment.push(("BOATHOUSE__DATA_DIR".into(), data.display().to_string()));
        }
        let begun = Instant::now();
        complete(&site);
        assert!(begun.elapsed() < RUN, "{how:?}: the next run took {:?}", begun.elapsed());
        assert_eq!(served(&engine), filler.account.figures(), "after {how:?} and another run");
    }
    let answers = reader.stop();
    assert!(answers > kills as u64, "{answers} answers");
    assert_recounted(&site.lakehouse(), &engine);
    if kills > 20 {
        say(&format!(
            "{kills} kills of the batch, {by_signal} of them by SIGKILL in the middle; {answers} answers, all whole"
        ));
    }
}
