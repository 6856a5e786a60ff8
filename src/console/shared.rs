//! What every request is given.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};

use super::access::Access;
use super::audit::Audit;
use super::completion::Completion;
use super::days::Days;
use super::desk::Desk;
use super::live::Hub;
use super::logs::Logs;
use super::meter::{Meter, Point};
use super::notices::{Notice, notices};
use super::pages::ticked::Outcomes;
use super::query::{Answer, On, Queries};
use super::rates::Rates;
use super::tables::Tables;
use super::tap::Taps;
use super::traces::Traces;
use crate::config::{Config, Pipeline, Server, Setting};
use crate::holds::Holds;
use crate::reconcile::job::Job;
use crate::standstill::Standstills;
use crate::telemetry::{Board, Limits, Status};

/// Clones share one state.
#[derive(Clone)]
pub struct Shared {
    pub board: Board,
    pub limits: Limits,
    pub server: Arc<Server>,
    pub pipelines: Arc<[Arc<Pipeline>]>,
    /// The values in force and where each comes from.
    pub settings: Arc<[Setting]>,
    pub access: Access,
    pub audit: Audit,
    pub desk: Desk,
    pub hub: Hub,
    pub meter: Arc<Mutex<Meter>>,
    /// Keeps the meter's points over a restart.
    pub rates: Rates,
    pub queries: Queries,
    /// What operators hold.
    pub holds: Holds,
    pub standstills: Standstills,
    pub taps: Taps,
    pub tables: Tables,
    pub completion: Completion,
    pub logs: Logs,
    pub days: Days,
    pub traces: Traces,
    pub outcomes: Outcomes,
    pub reconcile: Job,
}

/// One look at everything that costs nothing to know.
pub struct Look {
    pub now: DateTime<Utc>,
    pub status: Status,
    pub notices: Vec<Notice>,
    /// Per pipeline, in their order: name and figures now.
    pub points: Vec<(String, Point)>,
    /// Records a second, by place in `status.partitions`.
    pub partition_rates: Vec<f64>,
}

impl Shared {
    pub fn look(&self) -> Look {
        let now = Utc::now();
        let status = Status::of(&self.board, self.limits);
        let (points, lately, partition_rates) = self.meter(|meter| {
            let point = |p: &Arc<Pipeline>| (p.name.clone(), meter.point(&status, &p.name, now));
            let points = self.pipelines.iter().map(point).collect();
            let lately: Vec<_> = self.pipelines.iter().map(|p| meter.lately(&p.name, now)).collect();
            (points, lately, status.partitions.iter().map(|p| meter.partition_rate(p)).collect())
        });
        Look { now, notices: notices(&status, &lately, now), status, points, partition_rates }
    }

    pub fn meter<T>(&self, work: impl FnOnce(&mut Meter) -> T) -> T {
        work(&mut self.meter.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn pipeline(&self, name: &str) -> Option<&Arc<Pipeline>> {
        self.pipelines.iter().find(|pipeline| pipeline.name == name)
    }

    pub fn pipeline_names(&self) -> Vec<String> {
        self.pipelines.iter().map(|pipeline| pipeline.name.clone()).collect()
    }

    /// The configuration as commands know it.
    pub fn config(&self) -> Config {
        Config { server: (*self.server).clone(), pipelines: self.pipelines.to_vec() }
    }

    /// Runs a query that reads, on the desk's threads.
    pub async fn ask(&self, user: &str, on: On, sql: &str, limit: usize) -> anyhow::Result<Answer> {
        self.ask_as(user, None, on, sql, limit).await
    }

    /// As [`Self::ask`], under a name by which the caller may ask how it stands and cancel it.
    pub async fn ask_as(
        &self,
        user: &str,
        id: Option<&str>,
        on: On,
        sql: &str,
        limit: usize,
    ) -> anyhow::Result<Answer> {
        let (queries, user, sql, id) = (self.queries.clone(), user.to_owned(), sql.to_owned(), id.map(str::to_owned));
        self.desk.run(async move { queries.run(&user, id.as_deref(), on, &sql, limit).await }).await
    }

    /// Whether cookies go over HTTPS alone.
    pub fn secure(&self) -> bool {
        self.server.console.tls_certificate.is_some()
    }
}
