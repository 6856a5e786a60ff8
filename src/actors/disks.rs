//! Looks every few seconds how much room is left where the daemon writes, for the metrics. Not at a scrape: a file
//! system that hangs must not take the metrics and the health check with it.

use std::time::Duration;

use crate::config::Server;
use crate::storage::Place;
use crate::telemetry::{Board, space};

const PERIOD: Duration = Duration::from_secs(10);

/// Puts the room on the board until the runtime ends.
pub fn watch(server: &Server, board: &Board, io: &tokio::runtime::Handle) {
    let mut places = vec![("data", server.data_dir.clone())];
    if let Ok(Place::Folder(path)) = Place::of(&server.lakehouse.uri) {
        places.push(("lakehouse", path));
    }
    for (place, path) in places {
        let board = board.clone();
        io.spawn(async move {
            loop {
                let path = path.clone();
                if let Ok(Some(space)) = tokio::task::spawn_blocking(move || space(&path)).await {
                    board.disk(place, space);
                }
                tokio::time::sleep(PERIOD).await;
            }
        });
    }
}
