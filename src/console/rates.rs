//! The charts of rates in a file, so that a restart leaves no hole but the time in which nothing was measured. It is written
//! whole once a minute, off every request's way, and when the console stops. Losing it harms nothing: charts begin anew.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::desk::Desk;
use super::meter::{Charts, Gap, Meter, Point};
use super::points::{KEPT, Kept};
use crate::owned_file;

const FILE: &str = "rates.json";
/// How much of the newest points a daemon that is killed may lose.
const EVERY: Duration = Duration::from_secs(60);
/// Of what a file of ours begins with. Another way of writing has another number.
const FORMAT: u32 = 1;
/// No file of ours is larger: a pipeline takes half a megabyte.
const BYTES_MAX: u64 = 64 << 20;

/// The file. Clones share it.
#[derive(Debug, Clone)]
pub struct Rates {
    path: PathBuf,
    meter: Arc<Mutex<Meter>>,
    /// When it is written next.
    due: Arc<Mutex<Option<Instant>>>,
    under_way: Arc<AtomicBool>,
    /// Held while it is written: the one that is written last is the one that is left.
    writing: Arc<Mutex<()>>,
    /// Whether it could not be written the last time, which is told once.
    failed: Arc<AtomicBool>,
}

impl Rates {
    /// Has the meter go on with what was kept of these pipelines. What cannot be read is told and left behind.
    pub fn open(folder: &Path, meter: Arc<Mutex<Meter>>, pipelines: &[String], now: DateTime<Utc>) -> Self {
        let path = folder.join(FILE);
        match read(&path, pipelines, now) {
            Ok(charts) => with(&meter, |meter| meter.go_on_with(charts)),
            Err(error) => tracing::warn!(
                file = %path.display(),
                error = format!("{error:#}"),
                "the rates of before cannot be read: charts begin anew, and the file is written anew"
            ),
        }
        Self {
            path,
            meter,
            due: Arc::default(),
            under_way: Arc::default(),
            writing: Arc::default(),
            failed: Arc::default(),
        }
    }

    /// Writes it where it is time to, behind the caller; once a second.
    pub fn keep(&self, desk: &Desk, now: Instant) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        if now < *due.get_or_insert(now + EVERY) || self.under_way.swap(true, Ordering::AcqRel) {
            return;
        }
        *due = Some(now + EVERY);
        let rates = self.clone();
        desk.begin(async move {
            let written = rates.clone();
            // A panic of it has been told by its hook.
            let _ = tokio::task::spawn_blocking(move || written.write()).await;
            rates.under_way.store(false, Ordering::Release);
        });
    }

    /// Writes it now; waits for the disk.
    pub fn write(&self) {
        // The console may stop while the minute's is under way: both would write the same fresh file.
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(charts) = with(&self.meter, |meter| meter.charts()) else { return };
        let written = serde_json::to_string(&Written::of(&charts)).map_err(io::Error::from);
        match written.and_then(|text| owned_file::write(&self.path, &text)) {
            Ok(()) => self.failed.store(false, Ordering::Release),
            Err(error) if !self.failed.swap(true, Ordering::AcqRel) => tracing::warn!(
                file = %self.path.display(),
                %error,
                "the rates cannot be kept: after a restart charts begin anew; it is tried again each minute"
            ),
            Err(_) => {}
        }
    }
}

fn with<T>(meter: &Mutex<Meter>, work: impl FnOnce(&mut Meter) -> T) -> T {
    work(&mut meter.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct Written {
    boathouse_rates: u32,
    /// Of every pipeline, the time of its newest points.
    newest: Option<DateTime<Utc>>,
    gaps: Vec<Gap>,
    pipelines: BTreeMap<String, OfPipeline>,
}

#[derive(Serialize, Deserialize)]
struct OfPipeline {
    begun: DateTime<Utc>,
    rings: Vec<OfRing>,
}

#[derive(Serialize, Deserialize)]
struct OfRing {
    step_seconds: i64,
    many: u32,
    points: Vec<Row>,
}

/// A point: milliseconds since 1970, the rates, what waits, the watermark's delay, memory, cores. Rates in single
/// precision, which no chart tells from double.
#[derive(Serialize, Deserialize)]
struct Row(i64, f32, f32, f32, i64, i64, i64, Option<f32>, Option<u64>, Option<f32>);

impl Row {
    fn of(p: &Point) -> Self {
        Self(
            p.at.timestamp_millis(),
            p.records_per_second as f32,
            p.bytes_per_second as f32,
            p.refused_per_second as f32,
            p.lag_records,
            p.bronze_waiting_records,
            p.realtime_waiting_records,
            p.watermark_delay_seconds.map(|seconds| seconds as f32),
            p.resident_bytes,
            p.cpu_cores.map(|cores| cores as f32),
        )
    }

    fn point(self) -> Option<Point> {
        let Self(at, records, bytes, refused, lag, bronze, realtime, delay, resident_bytes, cores) = self;
        Some(Point {
            at: DateTime::from_timestamp_millis(at)?,
            records_per_second: records.into(),
            bytes_per_second: bytes.into(),
            refused_per_second: refused.into(),
            lag_records: lag,
            bronze_waiting_records: bronze,
            realtime_waiting_records: realtime,
            watermark_delay_seconds: delay.map(f64::from),
            resident_bytes,
            cpu_cores: cores.map(f64::from),
        })
    }
}

impl Written {
    fn of(charts: &Charts) -> Self {
        let of = |(name, kept): (&String, &Kept)| {
            let ring = |((step_seconds, _), ring): (&(i64, usize), &super::points::Ring)| OfRing {
                step_seconds: *step_seconds,
                many: ring.many,
                points: ring.points.iter().map(Row::of).collect(),
            };
            let rings = KEPT.iter().zip(&kept.rings).map(ring).collect();
            (name.clone(), OfPipeline { begun: kept.begun, rings })
        };
        Self {
            boathouse_rates: FORMAT,
            newest: charts.newest,
            gaps: charts.gaps.iter().copied().collect(),
            pipelines: charts.kept.iter().map(of).collect(),
        }
    }
}

impl OfPipeline {
    fn kept(self) -> anyhow::Result<Kept> {
        let mut kept = Kept::since(self.begun);
        ensure!(self.rings.len() == KEPT.len(), "it has {} steps and not {}", self.rings.len(), KEPT.len());
        for ((ring, (step_seconds, most)), written) in kept.rings.iter_mut().zip(KEPT).zip(self.rings) {
            ensure!(written.step_seconds == step_seconds, "its steps are others");
            ensure!(written.points.len() <= most, "it has more than {most} points of {step_seconds} s");
            ring.many = written.many;
            ring.points =
                written.points.into_iter().map(Row::point).collect::<Option<_>>().context("a time is none")?;
            ensure!(ring.points.iter().is_sorted_by_key(|point| point.at), "its points are in no order");
        }
        Ok(kept)
    }
}

/// What was kept of these pipelines; nothing where there is no file.
fn read(path: &Path, pipelines: &[String], now: DateTime<Utc>) -> anyhow::Result<Charts> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Charts::default()),
        Err(error) => return Err(error.into()),
    };
    let mut text = String::new();
    file.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    ensure!(text.len() as u64 <= BYTES_MAX, "it is larger than {BYTES_MAX} bytes");
    let written: Written = serde_json::from_str(&text).context("it is none of ours, or was cut short")?;
    if written.boathouse_rates != FORMAT {
        bail!("it is of format {}, this version writes {FORMAT}", written.boathouse_rates);
    }
    let ours = written.pipelines.into_iter().filter(|(name, _)| pipelines.contains(name));
    let kept = ours.map(|(name, of)| Ok((name, of.kept()?))).collect::<anyhow::Result<_>>()?;
    let mut charts = Charts { kept, gaps: written.gaps.into(), newest: written.newest };
    charts.back_to(now);
    Ok(charts)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::console::range::Range;

    fn begin() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn point(at: DateTime<Utc>, rate: f64) -> Point {
        Point {
            at,
            records_per_second: rate,
            bytes_per_second: rate * 100.0,
            refused_per_second: 0.5,
            lag_records: 7,
            bronze_waiting_records: 3,
            realtime_waiting_records: 2,
            watermark_delay_seconds: None,
            resident_bytes: Some(1 << 30),
            cpu_cores: Some(0.25),
        }
    }

    /// Charts of so many points, five seconds apart.
    fn charts(points: i64) -> Charts {
        let mut kept = Kept::since(begin());
        let at = |n: i64| begin() + TimeDelta::seconds(5 * n);
        (0..points).for_each(|n| kept.take(&point(at(n), n as f64 / 3.0)));
        let gaps = [Gap { from: begin(), to: at(1) }].into();
        Charts { kept: [("user_events".to_owned(), kept)].into(), gaps, newest: Some(at(points - 1)) }
    }

    fn names() -> Vec<String> {
        vec!["user_events".to_owned()]
    }

    #[test]
    fn what_is_written_is_read_again_and_its_size_has_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        assert_eq!(read(&path, &names(), begin()).unwrap(), Charts::default(), "no file is nothing kept");
        let now = begin() + TimeDelta::days(40);
        for points in [1, 100, 30 * 86_400 / 5 + 2_000] {
            let charts = charts(points);
            let text = serde_json::to_string(&Written::of(&charts)).unwrap();
            assert!(text.len() < 600_000, "{} bytes of {points} points", text.len());
            owned_file::write(&path, &text).unwrap();
            let found = read(&path, &names(), now).unwrap();
            assert_eq!((&found.gaps, found.newest), (&charts.gaps, charts.newest));
            let (found, wanted) = (&found.kept["user_events"], &charts.kept["user_events"]);
            assert_eq!(found.begun, wanted.begun);
            for (found, wanted) in found.rings.iter().zip(&wanted.rings) {
                assert_eq!((found.points.len(), found.many), (wanted.points.len(), wanted.many));
                let near = |(a, b): (&Point, &Point)| {
                    let rate = (a.records_per_second - b.records_per_second).abs() <= b.records_per_second * 1e-6;
                    rate && (a.at, a.lag_records, a.resident_bytes) == (b.at, b.lag_records, b.resident_bytes)
                };
                assert!(found.points.iter().zip(&wanted.points).all(near));
            }
            assert!(read(&path, &["another".to_owned()], now).unwrap().kept.is_empty(), "of a pipeline that is gone");
        }
    }

    #[test]
    fn what_is_none_of_ours_is_told_and_charts_begin_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let now = begin() + TimeDelta::days(1);
        let good = serde_json::to_string(&Written::of(&charts(100))).unwrap();
        for bad in [
            "",
            "{}",
            "[1, 2]",
            "not JSON at all",
            &good[..good.len() / 2],
            &good.replace("\"boathouse_rates\":1", "\"boathouse_rates\":2"),
            &good.replace("\"step_seconds\":60", "\"step_seconds\":61"),
            &good.replace("[1800000000000,", "[1900000000000,"),
            &good.replace("[1800000000000,", "[9223372036854775807,"),
        ] {
            owned_file::write(&path, bad).unwrap();
            let said = format!("{:#}", read(&path, &names(), now).unwrap_err());
            assert!(!said.is_empty(), "{bad:.60}");
            let rates = Rates::open(folder.path(), Arc::default(), &names(), now);
            assert_eq!(with(&rates.meter, |meter| meter.over("user_events", Range::Week, now)).points, []);
        }
        owned_file::write(&path, &good).unwrap();
        // The clock has gone back: what is of a time to come is left behind, and no more than that.
        let found = read(&path, &names(), begin() + TimeDelta::seconds(7)).unwrap();
        let until = |ring: &super::super::points::Ring| ring.points.back().map(|point| point.at - begin());
        assert_eq!(until(&found.kept["user_events"].rings[0]), Some(TimeDelta::seconds(5)));
        assert_eq!(until(&found.kept["user_events"].rings[3]), Some(TimeDelta::seconds(7)));
        assert_eq!((found.gaps.len(), found.newest), (1, Some(begin() + TimeDelta::seconds(7))));
        std::fs::write(&path, [0xff, 0xfe, 0]).unwrap();
        assert!(read(&path, &names(), now).is_err());
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(read(&path, &names(), now).is_err());
    }
}
