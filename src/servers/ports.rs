//! Ports on loopback: is one free, and give me one that is.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::ServerError;

/// Fails when another program listens on `port`; `hint` says what to set instead.
pub fn require_free(server: &'static str, port: u16, hint: impl Into<String>) -> Result<(), ServerError> {
    if is_free(port) {
        return Ok(());
    }
    Err(ServerError::PortInUse { server, port, hint: hint.into() })
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A port that is free now. It lies below the range from which systems take ports for outgoing
/// connections, and this process is not given the same one twice, so that it is still free when the server
/// binds it a second later. Another process may take it all the same: who needs certainty tries again.
pub fn free() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes that run side by side start at different places.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    let start = since.wrapping_add(std::process::id().wrapping_mul(7_919)) % COUNT;
    let _ = NEXT.compare_exchange(0, start + 1, Ordering::Relaxed, Ordering::Relaxed);
    loop {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        // FIRST + COUNT fits 16 bits.
        let port = (FIRST + offset) as u16;
        if is_free(port) {
            return port;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_refused_with_the_hint() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free())).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = require_free("the broker", port, "set --kafka-port").unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&port.to_string()) && text.contains("--kafka-port"), "{text}");
        drop(listener);
        require_free("the broker", port, "").unwrap();
    }

    #[test]
    fn no_port_is_given_twice() {
        let mut ports: Vec<u16> = (0..50).map(|_| free()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 50);
    }
}
