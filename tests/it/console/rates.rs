//! The charts of rates over a restart: what was measured is still there, and what was not is a gap, no zero.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::acts::until;
use super::alone;
use super::browser::Browser;

const RATES: &str = "/api/v1/rates?range=24h";

fn points(over: &Value) -> Vec<&str> {
    over["points"].as_array().into_iter().flatten().filter_map(|point| point["at"].as_str()).collect()
}

#[tokio::test]
async fn charts_go_on_after_a_restart_and_show_what_was_not_measured() {
    let site = alone();
    let mut daemon = site.start();
    let browser = Browser::signed_in(&site).await;
    let password = browser.password().to_owned();
    let before = until(&browser, &site, RATES, |over| points(over).len() >= 2).await;
    assert_eq!(before["unknown"], json!([]), "{before}");
    daemon.stop().await;
    let file = site.folder.join("data/console/rates.json");
    assert_eq!(std::fs::metadata(&file).expect("the rates").permissions().mode() & 0o777, 0o600);

    let mut daemon = site.start();
    let mut browser = Browser::of(&site).await;
    browser.sign_in("admin", &password).await;
    let again =
        until(&browser, &site, RATES, |over| over["unknown"].as_array().is_some_and(|all| !all.is_empty())).await;
    assert_eq!(again["known_since"], before["known_since"], "{again:#}");
    let (old, new) = (points(&before), points(&again));
    assert_eq!(new[..old.len()], old[..], "what was measured before");
    let gaps = again["unknown"].as_array().expect("gaps");
    let [from, to] = ["from", "to"].map(|end| gaps[0][end].as_str().expect("a moment"));
    assert!(gaps.len() == 1 && from < to, "{gaps:?}");
    let places = [from, to].map(|end| new.iter().position(|at| *at == end).expect("a point on either side"));
    assert_eq!(places[1], places[0] + 1, "nothing is made up between them");
    for path in ["/?range=24h", "/?range=30d"] {
        let page = browser.get(path).await.text().await.expect("a page");
        assert!(page.contains("Nothing was measured while this instance was down"), "{page}");
        assert!(page.contains("class=\"unknown\"") && page.contains("not measured from"), "{page}");
    }

    // One that is killed has lost a minute at most; here all since its start, as it never came to write.
    daemon.kill();
    let mut daemon = site.start();
    let mut browser = Browser::of(&site).await;
    browser.sign_in("admin", &password).await;
    let killed = until(&browser, &site, RATES, |over| points(over).len() > old.len()).await;
    assert_eq!(points(&killed)[..old.len()], old[..]);
    assert_eq!(killed["unknown"][0]["from"].as_str(), Some(from), "{killed:#}");
    daemon.stop().await;

    // A file that is none of ours stops nothing: it is told, and charts begin anew.
    std::fs::write(&file, "{\"boathouse_rates\":").expect("written");
    let mut daemon = site.start();
    let mut browser = Browser::of(&site).await;
    browser.sign_in("admin", &password).await;
    let anew = until(&browser, &site, RATES, |over| !points(over).is_empty()).await;
    assert!(anew["known_since"].as_str() > Some(to) && anew["unknown"] == json!([]), "{anew:#}");
    daemon.stop().await;
    let told = site.log();
    let told = told.lines().find(|line| line.contains("the rates of before cannot be read")).expect("it is told");
    assert!(told.contains("rates.json") && told.contains("cut short"), "{told}");
    assert!(std::fs::read_to_string(&file).expect("the rates").contains("user_events"), "written anew");
    site.assert_log_is_clean_but_for(&["the rates of before cannot be read"]);
}
