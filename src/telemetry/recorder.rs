//! The one process-wide recorder behind the metrics that actors record.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::names::{self, Kind, Origin};

/// The recorder's reading end. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    handle: PrometheusHandle,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorder")
    }
}

impl Recorder {
    /// The recorder of this process, set up at the first call: descriptions, and the buckets of every histogram.
    pub fn global() -> Result<Self, BuildError> {
        // The only global of the program: the `metrics` crate has one recorder per process.
        static GLOBAL: OnceLock<Recorder> = OnceLock::new();
        if let Some(recorder) = GLOBAL.get() {
            return Ok(recorder.clone());
        }
        let built = builder()?.build_recorder();
        let handle = built.handle();
        Ok(GLOBAL
            .get_or_init(|| {
                names::describe(&built);
                if metrics::set_global_recorder(built).is_err() {
                    tracing::warn!("another metrics recorder is already installed; recorded metrics go there");
                }
                Recorder { handle }
            })
            .clone())
    }

    /// The recorded metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds waiting histogram samples into buckets; without it they pile up until the next scrape. Every few seconds.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    names::ALL
        .iter()
        .filter(|m| m.origin == Origin::Recorder && m.kind == Kind::Histogram)
        .try_fold(PrometheusBuilder::new(), |b, m| {
            b.set_buckets_for_metric(Matcher::Full(m.name.to_owned()), m.buckets)
        })
}
