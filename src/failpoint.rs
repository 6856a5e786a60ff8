//! Named places at which a test stops the process, as a SIGKILL would: between every two durable steps.
//!
//! `BOATHOUSE_FAIL_POINT=realtime.after_intents` ends the process the first time that point is reached,
//! `realtime.after_intents:3` the third time; `panic!actor.bronze_writer:3` panics there instead. Without the variable a point costs one relaxed load. The variable is
//! read here and not in `config`, because it is no setting of the product.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};

/// The environment variable that names the point.
pub const VARIABLE: &str = "BOATHOUSE_FAIL_POINT";

/// The process's exit code when it ends at a point.
pub const EXIT_CODE: i32 = 86;

const UNKNOWN: u8 = 0;
const OFF: u8 = 1;
const ON: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);
static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

#[derive(Debug)]
struct Armed {
    name: String,
    /// Whether to panic rather than to end the process.
    panic: bool,
    /// How often the point is still to be passed before it ends the process.
    left: AtomicI64,
}

/// Ends the process here, at once and without any clean-up, if this is the point that a test has named.
#[inline]
pub fn hit(name: &str) {
    if STATE.load(Ordering::Relaxed) != OFF {
        reached(name);
    }
}

#[cold]
fn reached(name: &str) {
    let armed = ARMED.get_or_init(|| {
        #[allow(clippy::disallowed_methods, reason = "no setting of the product, and a test must reach any process")]
        let armed = std::env::var(VARIABLE).ok().and_then(|spec| parse(&spec));
        STATE.store(if armed.is_some() { ON } else { OFF }, Ordering::Relaxed);
        armed
    });
    if let Some(armed) = armed
        && armed.name == name
        && armed.left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        assert!(!armed.panic, "fail point {name} reached");
        eprintln!("fail point {name} reached: the process ends");
        // SAFETY: `_exit` has no preconditions; it ends the process without running anything else, which is the point.
        unsafe { libc::_exit(EXIT_CODE) }
    }
}

fn parse(spec: &str) -> Option<Armed> {
    let (panic, spec) = spec.strip_prefix("panic!").map_or((false, spec), |rest| (true, rest));
    let (name, nth) = match spec.rsplit_once(':') {
        Some((name, nth)) => (name, nth.parse().ok()?),
        None => (spec, 1),
    };
    (!name.is_empty() && nth > 0).then(|| Armed { name: name.into(), panic, left: AtomicI64::new(nth) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_a_name_and_perhaps_a_number() {
        let read = |spec| parse(spec).map(|a| (a.name.clone(), a.left.load(Ordering::Relaxed)));
        assert_eq!(read("a.b"), Some(("a.b".into(), 1)));
        assert_eq!(read("a.b:3"), Some(("a.b".into(), 3)));
        assert_eq!(read(""), None);
        assert_eq!(read("a:0"), None);
        assert_eq!(read("a:x"), None);
    }
}
