//! The live tap: decoded events, filtered, sent while they come; and without a script the newest of them.

use std::time::Instant;

use futures::StreamExt;
use serde_json::Value;

use super::acts::until;
use super::browser::{Browser, header};
use super::views::shown;
use crate::scheduler::filled;
use crate::support::broker::{Record, broker};
use crate::support::daemon::PATIENCE;
use crate::support::engine::Engine;

#[tokio::test(flavor = "multi_thread")]
async fn events_are_tapped_while_they_come() {
    let engine = Engine::start();
    let (site, mut daemon) = filled(&engine, "console-tap").await;
    let kafka = broker().await;
    let browser = Browser::signed_in(&site).await;

    // The newest, once, by the page and by the API; on a busy machine, none may have been read when their time is over.
    let asked = "where=event_type%3Dpurchase+user_id%3E0";
    let page = shown(&browser, &format!("/stream/tap?last=1&{asked}"), "<code>purchase</code>").await;
    assert!(!page.contains("<code>login</code>") && !page.contains("data-live"), "{page}");
    let any = |events: &Value| events.as_array().is_some_and(|events| !events.is_empty());
    let events = until(&browser, &site, &format!("/api/v1/stream/tap?{asked}"), any).await;
    let events = events.as_array().expect("events");
    assert!(events.len() <= 100, "{events:?}");
    for event in events {
        assert_eq!((&event["event"]["event_type"], &event["verdict"]), (&"purchase".into(), &"ok".into()), "{event}");
    }
    for wrong in ["where=colour%3Dred", "where=page", "partition=x", "verdict=odd", "pipeline=none"] {
        let status = browser.get(&format!("/stream/tap?last=1&{wrong}")).await.status().as_u16();
        assert!([404, 422, 503].contains(&status), "{wrong}: {status}");
    }

    // What Kafka alone knows is told in the page, which has begun.
    let page = browser.get("/stream/tap?last=1&partition=99").await.text().await.expect("a page");
    assert!(page.contains("role=\"alert\"") && page.ends_with("</html>"), "{page}");

    // What comes, as long as somebody is signed in.
    let page = browser.get("/stream/tap?verdict=unparsed").await.text().await.expect("a page");
    assert!(page.contains("data-live=\"/live/tap?"), "{page}");
    let answer = browser.get("/live/tap?verdict=unparsed").await;
    assert_eq!(header(&answer, "content-type"), "text/event-stream");
    let mut stream = answer.bytes_stream();
    let (mut text, mut sent, begin) = (String::new(), false, Instant::now());
    while !text.contains("tapped-now") {
        assert!(begin.elapsed() < PATIENCE, "{text}");
        let chunk = tokio::time::timeout(PATIENCE, stream.next()).await.expect("in time").expect("goes on");
        text.push_str(&String::from_utf8_lossy(&chunk.expect("a chunk")));
        if !sent && text.contains("\"id\":\"tap\"") {
            sent = true;
            kafka.produce(&site.topic, 1, Record::of(b"{\"tapped-now\": <script>")).await;
        }
    }
    assert!(text.contains("not JSON") && !text.contains("<script>"), "{text}");
    browser.post("/logout", &[]).await;
    let mut rest = String::new();
    while let Ok(Some(Ok(chunk))) = tokio::time::timeout(PATIENCE, stream.next()).await {
        rest.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(rest.ends_with("event: ended\ndata: {}\n\n"), "{rest}");

    // So many may look at the same time, and no more.
    let browser = Browser::again(&site, &browser).await;
    let mut open = Vec::new();
    let refused = loop {
        let answer = browser.get("/live/tap").await;
        if answer.status() != 200 {
            break answer.status().as_u16();
        }
        open.push(answer);
        assert!(open.len() <= 8, "no bound");
    };
    // The one of before may be ending yet.
    assert!(refused == 503 && (7..=8).contains(&open.len()), "{refused} behind {}", open.len());
    drop(open);
    let begin = Instant::now();
    while browser.get("/live/tap").await.status() != 200 {
        assert!(begin.elapsed() < PATIENCE, "a tap that nobody looks at does not end");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    // Nor does one that is open hold up the end.
    let _open = browser.get("/live/tap").await;
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[]);
}
