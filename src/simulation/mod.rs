//! Both sinks in one world, on the real rooms. The same records of a partition go through the verdict into the real
//! [`crate::bronze::Ledger`] over a simulated log, and into the real window states, whose flushes and recovery run
//! against a simulated ClickHouse. Daemons (several, zombies included) take partitions up and lose them, drained or
//! not; anything may stop between any two steps, and during recovery; PUTs and inserts land late, twice, or half; their
//! answers are lost. In the end one daemon reads everything to its end. Then Bronze must hold every record once, in
//! order, with the verdict of a plain pass, and every view must show what a recount of Bronze gives.
//!
//! `BOATHOUSE_SEEDS` sets the number of worlds (default 1,000), `BOATHOUSE_SEED` the first. A world that goes wrong tells
//! its seed and its last steps.

mod care;
mod check;
mod clickhouse;
mod daemon;
mod delta;
mod held;
mod life;
mod topic;
mod world;

use world::{Counts, World};

/// A rule of the protocol that is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// A version that is taken is looked at for a rival's position before the commit goes above it.
    Fence,
    /// A partition is taken up by reading every entry between the known version and the newest.
    ReadBetween,
    /// A lost answer is no failure: the same bytes at the same version.
    SameBytes,
    /// What is known of the log grows too old.
    Age,
    /// Verdicts go on from Bronze's mark.
    Mark,
    /// A file holds a partition's batches only where they go on from each other.
    Contiguous,
    /// Who goes on behind a gap takes a fresh epoch.
    GapEpoch,
    /// The loaded cells are compared with their position.
    CellCheck,
    /// Records that the loaded cells hold are not counted again.
    CountOnce,
    /// The sure way counts windows that Bronze's own mark calls open.
    EarlierHorizon,
    /// Nothing is written below the position that ClickHouse has.
    Floor,
    /// A closed window is forgotten only once it is written.
    ForgetLate,
    /// Positions come after partials.
    PositionsLast,
    /// Other settings, other definitions.
    Definition,
    /// A position vouches for the table that it was written with alone.
    SameTable,
    /// A view changes over once every partition has reached Bronze's position.
    ViewWaits,
    /// A daemon that goes on after an operator's choice counts its windows under the fresh epoch.
    EpochAnew,
}

const RULES: &[Rule] = &[
    Rule::Fence,
    Rule::ReadBetween,
    Rule::SameBytes,
    Rule::Age,
    Rule::Mark,
    Rule::Contiguous,
    Rule::GapEpoch,
    Rule::CellCheck,
    Rule::CountOnce,
    Rule::EarlierHorizon,
    Rule::Floor,
    Rule::ForgetLate,
    Rule::PositionsLast,
    Rule::Definition,
    Rule::SameTable,
    Rule::ViewWaits,
    Rule::EpochAnew,
];

#[allow(clippy::disallowed_methods, reason = "settings of the test")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|v| v.parse().ok())
}

/// The worlds asked for, shared out to the machine's cores: what `each` answers, by seed.
fn worlds<T: Send>(seeds: std::ops::Range<u64>, each: impl Fn(u64) -> T + Sync) -> Vec<(u64, T)> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let each = &each;
    let mut all: Vec<(u64, T)> = std::thread::scope(|scope| {
        let run = |first: u64| {
            let mine = (seeds.start + first..seeds.end).step_by(threads as usize);
            scope.spawn(move || mine.map(|seed| (seed, each(seed))).collect::<Vec<_>>())
        };
        let running: Vec<_> = (0..threads).map(run).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    all.sort_by_key(|(seed, _)| *seed);
    all
}

/// What is wrong in the end, and what happened on the way.
fn run(seed: u64, broken: Option<Rule>) -> (Vec<String>, Counts) {
    life::live(World::new(seed, broken, false))
}

/// The last steps of a world, as it tells them when it is lived again.
fn story(seed: u64, broken: Option<Rule>) -> String {
    let (errors, counts) = life::live(World::new(seed, broken, true));
    let steps = &counts.trace;
    let told = &steps[steps.len().saturating_sub(STEPS_TOLD)..];
    format!(
        "seed {seed} goes wrong: {errors:#?}\nits last {} of {} steps (again: BOATHOUSE_SEED={seed} BOATHOUSE_SEEDS=1):\n{}",
        told.len(),
        steps.len(),
        told.join("\n")
    )
}

const STEPS_TOLD: usize = 400;

#[test]
fn both_sinks_are_exact_in_every_world() {
    let first = number("BOATHOUSE_SEED").unwrap_or(0);
    let seeds = first..first + number("BOATHOUSE_SEEDS").unwrap_or(1000);
    let asked = seeds.end - seeds.start;
    let mut all = Counts::default();
    let mut wrong = Vec::new();
    for (seed, (errors, counts)) in worlds(seeds, |seed| run(seed, None)) {
        all.add(&counts);
        if !errors.is_empty() {
            println!("seed {seed}: {}", errors[0].chars().take(400).collect::<String>());
            wrong.push(seed);
        }
    }
    println!("{asked} worlds: {all:?}");
    if let Some(seed) = wrong.first() {
        panic!("{} of {asked} worlds go wrong: {wrong:?}\n{}", wrong.len(), story(*seed, None));
    }
    // The worlds are worth nothing if nothing happens in them.
    if asked >= 1000 {
        all.assert_lively(asked);
    }
}

/// The test above is worth something only if it notices each rule that is missing.
#[test]
fn every_rule_is_needed() {
    let seeds = 0..number("BOATHOUSE_SEEDS").unwrap_or(1000).max(1000);
    let unnoticed: Vec<Rule> = RULES
        .iter()
        .copied()
        .filter(|rule| {
            let first = seeds.clone().find(|seed| {
                // A rule that is missing may also be noticed by an assertion.
                let outcome = std::panic::catch_unwind(|| run(*seed, Some(*rule)).0);
                outcome.map_or(true, |errors| !errors.is_empty())
            });
            println!("without the rule {rule:?}: seed {first:?} goes wrong");
            first.is_none()
        })
        .collect();
    assert!(unnoticed.is_empty(), "nothing goes wrong without {unnoticed:?}");
}
