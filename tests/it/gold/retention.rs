//! Old dates leave gold, in Delta and in ClickHouse; those that silver no longer has stay in gold as long as gold is kept.

use std::sync::Arc;
use std::time::Duration;

use boathouse::batch::upkeep::apply_retention;
use boathouse::batch::{TaskContext, data_quality_checks, publish_gold, run_gold};
use boathouse::config::{self, Pipeline};
use boathouse::serving::Client;

use super::lakehouse::{Lakehouse, day, events};
use crate::support::engine::Engine;

#[tokio::test(flavor = "multi_thread")]
async fn each_layer_keeps_its_own_dates() {
    let engine = Engine::start();
    let client = Client::new(&config::ClickHouse { url: engine.url.clone(), ..Default::default() }).unwrap();
    let context = TaskContext::detached();
    let mut lakehouse = Lakehouse::new();
    let days = |n: u64| Some(Duration::from_secs(n * 24 * 3600));
    let mut pipeline = Pipeline::clone(&lakehouse.pipeline);
    (pipeline.retention.silver, pipeline.retention.gold) = (days(2), days(4));
    lakehouse.pipeline = Arc::new(pipeline);
    lakehouse.write(&events(3, 400, 0..7)).await;
    let all = lakehouse.recount();
    let run = async |lakehouse: &Lakehouse, id: &str| {
        run_gold(&lakehouse.lake, &lakehouse.pipeline, &context).await.unwrap();
        publish_gold(&lakehouse.lake, &lakehouse.pipeline, &client, id, &context).await.unwrap();
        data_quality_checks(&lakehouse.lake, &lakehouse.pipeline, &client, id, &context).await.unwrap();
    };
    let served = || engine.sql("SELECT event_date, dau_count FROM gold.daily_active_users ORDER BY 1");
    run(&lakehouse, "one").await;
    assert_eq!(served(), all[0]);

    // On the seventh day silver keeps from the fifth on, gold from the third on.
    let now = day(6).and_hms_opt(12, 0, 0).unwrap().and_utc();
    let from = |n: u32| {
        all[0].lines().filter(|l| l[..10] >= *day(n).to_string()).map(|l| format!("{l}\n")).collect::<String>()
    };
    apply_retention(&lakehouse.lake, &lakehouse.pipeline, &client, now, &context).await.unwrap();
    assert_eq!(served(), from(2));
    let dates = async |lakehouse: &Lakehouse| lakehouse.gold("daily_active_users").await.len();
    assert_eq!(dates(&lakehouse).await, 5);
    run(&lakehouse, "two").await;
    assert_eq!(served(), from(2), "what left silver for its age is not taken out of gold");

    // A changed model is computed from what silver has; older dates stay.
    let mut pipeline = Pipeline::clone(&lakehouse.pipeline);
    let model = pipeline.models.iter_mut().find(|m| m.name == "user_days").unwrap();
    let changed = model.text.replace("GROUP BY event_date, user_id", "GROUP BY user_id, event_date");
    assert_ne!(changed, model.text);
    model.text = changed;
    lakehouse.pipeline = Arc::new(pipeline);
    run(&lakehouse, "three").await;
    assert_eq!(served(), from(2));
    assert_eq!(dates(&lakehouse).await, 5);

    // ClickHouse is lost: gold's tables give back what silver no longer has, too.
    engine.sql("DROP DATABASE gold");
    run(&lakehouse, "four").await;
    assert_eq!(served(), from(2));
}
