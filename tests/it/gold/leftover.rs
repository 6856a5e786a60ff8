//! A model that was taken out of its folder: its figure ends at once, what is left of it is told of, and goes by hand.

use std::fs;
use std::process::Output;

use boathouse::batch::{TaskContext, publish_gold, run_gold};
use boathouse::config::{self, Config};
use boathouse::serving::Client;
use serde_json::Value;

use super::lakehouse::{Lakehouse, events};
use crate::support::daemon::Site;
use crate::support::engine::Engine;

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What `doctor` says of the gold models.
fn told(site: &Site) -> Vec<(String, String)> {
    let report: Value = serde_json::from_slice(&site.run(&["doctor", "--json"]).stdout).expect("a report");
    let findings = report["findings"].as_array().expect("findings").iter();
    let text = |f: &Value, key: &str| f[key].as_str().unwrap_or_default().to_owned();
    let of_models = findings.filter(|f| ["models", "gold."].iter().any(|check| text(f, "check").starts_with(check)));
    of_models.map(|f| (text(f, "check"), text(f, "found"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_removed_model_is_told_and_goes_by_hand_alone() {
    let engine = Engine::start();
    let site = Site::new("127.0.0.1:1", &engine.url, "removed-model");
    site.add_shipped_models();
    let client = Client::new(&config::ClickHouse { url: engine.url.clone(), ..config::ClickHouse::default() });
    let client = client.expect("a client");
    let mut lakehouse = Lakehouse::at(&site.lakehouse().to_string_lossy());
    // The pipeline as the folder has it: gold, and ClickHouse.
    let run = async |lakehouse: &mut Lakehouse, id: &str| -> Vec<String> {
        let config = Config::load(Some(&site.folder.join("config/boathouse.toml"))).expect("the configuration");
        lakehouse.pipeline = config.pipelines[0].clone();
        run_gold(&lakehouse.lake, &lakehouse.pipeline, &TaskContext::detached()).await.expect("gold");
        let (lines, mut told) = tokio::sync::mpsc::unbounded_channel();
        let (_cancel, cancelled) = tokio::sync::watch::channel(false);
        let task = TaskContext::new(lines, cancelled);
        publish_gold(&lakehouse.lake, &lakehouse.pipeline, &client, id, &task).await.expect("published");
        std::iter::from_fn(|| told.try_recv().ok()).map(|line| line.text).collect()
    };
    lakehouse.write(&events(21, 300, 0..3)).await;
    run(&mut lakehouse, "a").await;
    let in_use = site.run(&["tables", "drop", "gold.conversion_rate_daily"]);
    assert!(
        !in_use.status.success() && text(&in_use).contains("take the model out of the folder"),
        "{}",
        text(&in_use)
    );

    let model = site.pipeline_file().with_file_name("gold/conversion_rate_daily.sql");
    let kept = fs::read_to_string(&model).expect("the model");
    fs::remove_file(&model).expect("the model removed");
    // Somebody's own things beside it.
    engine.sql("CREATE VIEW gold.mine AS SELECT 1 AS one");
    let log = run(&mut lakehouse, "b").await;
    assert!(log.iter().any(|line| line.contains("tables drop gold.conversion_rate_daily")), "{log:#?}");
    assert_eq!(
        engine.try_sql("SELECT 1 FROM gold.conversion_rate_daily").0,
        404,
        "the next publication has none of it"
    );
    let found = told(&site);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[1..].iter().all(|(check, _)| check == "gold.conversion_rate_daily"), "{found:#?}");
    assert!(found[1].1.contains("Delta table: 3 rows") && found[2].1.contains("its tables: 3 rows"), "{found:#?}");

    let figures = "SELECT event_date, dau_count FROM gold.daily_active_users ORDER BY 1";
    let before = engine.sql(figures);
    let rows = "SELECT count() FROM system.tables WHERE database = 'gold' AND name LIKE 'conversion_rate_daily%'";
    let drop = ["tables", "drop", "gold.conversion_rate_daily"];
    let dry = site.run(&[&drop[..], &["--dry-run"]].concat());
    assert!(dry.status.success() && text(&dry).matches("would be deleted").count() == 2, "{}", text(&dry));
    assert_eq!(engine.sql(rows), "1\n");
    let table = site.lakehouse().join("gold/conversion_rate_daily");
    assert!(table.is_dir());

    let done = site.run(&drop);
    assert!(done.status.success(), "{}", text(&done));
    assert_eq!((engine.sql(rows), table.exists()), ("0\n".into(), false));
    assert_eq!(told(&site), [("models".into(), "11 models, and nothing is left of others".into())]);
    assert_eq!((engine.sql(figures), engine.sql("SELECT one FROM gold.mine")), (before, "1\n".into()));
    let again = site.run(&drop);
    assert!(!again.status.success() && text(&again).contains("nothing is left"), "{}", text(&again));

    // Brought back, it is as if it had never been away.
    fs::write(&model, kept).expect("the model");
    run(&mut lakehouse, "c").await;
    let [dau, _, _, conversion] = lakehouse.recount();
    let served = "SELECT event_date, active_users, purchasing_users, conversion_rate \
                  FROM gold.conversion_rate_daily ORDER BY 1";
    assert_eq!((engine.sql(figures), engine.sql(served)), (dau, conversion));
    // A whole pipeline that is gone leaves its views.
    engine.sql("CREATE VIEW gold.other AS SELECT 1 AS one COMMENT 'boathouse {\"pipeline\":\"gone\",\"tables\":[]}'");
    let found = told(&site);
    assert!(found.len() == 2 && found[1].1.contains("view of pipeline gone"), "{found:#?}");
    assert!(site.run(&["tables", "drop", "gold.other"]).status.success());
    assert_eq!(engine.try_sql("SELECT 1 FROM gold.other").0, 404);
}
