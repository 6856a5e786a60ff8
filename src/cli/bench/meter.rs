//! What a running process costs, read from /proc.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use crate::bench::{ProcessStat, peak_rss_bytes, process_stat, stage};

/// Looks at one process again and again.
pub(super) struct Meter {
    pid: u32,
    ticks_per_second: f64,
    /// CPU ticks of each thread seen, ended ones included, with its stage.
    threads: HashMap<u64, (String, u64)>,
    peak_rss_bytes: u64,
    cpu_ticks: u64,
}

impl Meter {
    pub fn new(pid: u32) -> Self {
        // SAFETY: sysconf takes a number and touches no memory of ours.
        let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        Self {
            pid,
            ticks_per_second: if ticks > 0 { ticks as f64 } else { 100.0 },
            threads: HashMap::new(),
            peak_rss_bytes: 0,
            cpu_ticks: 0,
        }
    }

    /// A cheap look: the process as a whole. None when it is gone, which an unreaped child is not.
    pub fn look(&mut self) -> Option<ProcessStat> {
        let stat = process_stat(&fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?)?;
        self.cpu_ticks = stat.cpu_ticks;
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        // An ended process has no memory any more; the last look stands.
        self.peak_rss_bytes = self.peak_rss_bytes.max(peak_rss_bytes(&status).unwrap_or_default());
        Some(stat)
    }

    /// A look at every thread.
    pub fn look_at_threads(&mut self) {
        let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", self.pid)) else { return };
        for task in tasks.flatten() {
            let Some(thread) = task.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let read = |file| fs::read_to_string(task.path().join(file)).ok();
            if let (Some(name), Some(stat)) = (read("comm"), read("stat").as_deref().and_then(process_stat)) {
                let name = if thread == u64::from(self.pid) { "boathouse" } else { name.trim_end() };
                self.threads.insert(thread, (stage(name), stat.cpu_ticks));
            }
        }
    }

    /// CPU seconds of the process up to the last look.
    pub fn cpu_seconds(&self) -> f64 {
        self.cpu_ticks as f64 / self.ticks_per_second
    }

    /// The greatest resident size up to the last look.
    pub fn peak_rss_bytes(&self) -> u64 {
        self.peak_rss_bytes
    }

    /// CPU seconds by stage; what no thread accounts for stands under `unattributed`.
    pub fn cpu_seconds_by_stage(&self) -> BTreeMap<String, f64> {
        let mut stages: BTreeMap<String, f64> = BTreeMap::new();
        let mut attributed = 0;
        for (stage, ticks) in self.threads.values() {
            *stages.entry(stage.clone()).or_default() += *ticks as f64 / self.ticks_per_second;
            attributed += ticks;
        }
        let rest = self.cpu_ticks.saturating_sub(attributed);
        stages.insert("unattributed".into(), rest as f64 / self.ticks_per_second);
        stages
    }
}
