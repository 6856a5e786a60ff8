//! The state of everything, and who asks.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use crate::console::access::Role;
use crate::console::days;
use crate::console::meter::Point;
use crate::console::notices::Notice;
use crate::console::pages::batch::known;
use crate::console::problem::Problem;
use crate::console::range::Range;
use crate::console::shared::Shared;
use crate::console::view::View;
use crate::telemetry::Status;

/// The board, and what is wrong on it.
#[derive(Serialize)]
pub struct Answer {
    #[serde(flatten)]
    status: Status,
    notices: Vec<Notice>,
}

pub async fn status(shared: web::Data<Shared>) -> HttpResponse {
    let look = shared.look();
    HttpResponse::Ok().json(Answer { status: look.status, notices: look.notices })
}

/// Which pipeline.
#[derive(Deserialize, schemars::JsonSchema)]
pub struct Of {
    /// The pipeline; without it the first.
    pipeline: Option<String>,
}

pub async fn hour(of: web::Query<Of>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let names = shared.pipeline_names();
    let name = of.pipeline.clone().or_else(|| names.first().cloned()).unwrap_or_default();
    let points: Vec<Point> = shared.meter(|meter| meter.over(&name, Range::Hour, Utc::now()).points);
    Ok(HttpResponse::Ok().json(points))
}

/// Which pipeline, and how far back.
#[derive(Deserialize, schemars::JsonSchema)]
pub struct OverTime {
    /// The pipeline; without it the first for rates, and all for the lag.
    pipeline: Option<String>,
    /// `15m`, `1h`, `6h`, `24h`, `7d` or `30d`; without it an hour of rates, and seven days of lag.
    range: Option<String>,
}

impl OverTime {
    fn range(&self, default: Range) -> Result<Range, Problem> {
        Range::named(self.range.as_deref().unwrap_or_default(), default)
    }
}

pub async fn rates(of: web::Query<OverTime>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let range = of.range(Range::Hour)?;
    let name = match &of.pipeline {
        Some(name) => known(&shared, name)?,
        None => shared.pipeline_names().into_iter().next().unwrap_or_default(),
    };
    Ok(HttpResponse::Ok().json(shared.meter(|meter| meter.over(&name, range, Utc::now()))))
}

/// How far one view or layer lay behind.
#[derive(Serialize, schemars::JsonSchema)]
pub struct Lag {
    pipeline: String,
    of: days::Of,
    /// The aggregate, or the layer.
    name: String,
    /// Oldest first; each is the greatest of its step.
    points: Vec<LagPoint>,
}

/// One moment.
#[derive(Serialize, schemars::JsonSchema)]
pub struct LagPoint {
    at: String,
    lag_seconds: f64,
}

pub async fn lag(of: web::Query<OverTime>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let range = of.range(Range::Week)?;
    let names = match &of.pipeline {
        Some(name) => vec![known(&shared, name)?],
        None => shared.pipeline_names(),
    };
    let server = shared.server.clone();
    let lags = shared.desk.run(async move { days::look_up(&server, &names, range).await }).await?;
    let point = |(at, lag_seconds): (DateTime<Utc>, f64)| LagPoint {
        at: at.to_rfc3339_opts(SecondsFormat::Secs, true),
        lag_seconds,
    };
    let each = lags.into_iter().flat_map(|lag| {
        let (pipeline, of) = (lag.pipeline, lag.of);
        lag.series.into_iter().map(move |(name, points)| Lag {
            pipeline: pipeline.clone(),
            of,
            name,
            points: points.into_iter().map(point).collect(),
        })
    });
    Ok(HttpResponse::Ok().json(each.collect::<Vec<_>>()))
}

/// Who asks.
#[derive(Serialize, schemars::JsonSchema)]
pub struct Session {
    name: String,
    role: Role,
    /// To be sent as the header `x-csrf-token` with everything that changes something; empty for tokens.
    csrf: String,
}

pub async fn session(view: View) -> HttpResponse {
    let caller = &view.caller;
    HttpResponse::Ok().json(Session { name: caller.name.clone(), role: caller.role, csrf: caller.csrf().to_owned() })
}
