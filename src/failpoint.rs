//! Named places at which a test stops the process, as a SIGKILL would: between every two durable steps.
//!
//! `BOATHOUSE_FAIL_POINT=realtime.after_intents` ends the process the first time that point is reached,
//! `realtime.after_intents:3` the third time; `panic!actor.bronze_writer:3` panics there instead, `panics!…` from then on
//! each time, and `hang!reader.take:3`
//! keeps the thread there while the file that `BOATHOUSE_FAIL_POINT_WHILE` names is there, `stick!reader.take:3` for ever.
//! Without the variable a point costs one relaxed load. The variables are read here and not in `config`, because they are no
//! settings of the product.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::time::Duration;

/// The environment variable that names the point.
pub const VARIABLE: &str = "BOATHOUSE_FAIL_POINT";

/// The process's exit code when it ends at a point.
pub const EXIT_CODE: i32 = 86;

/// The environment variable that names the file while which is there a thread hangs at a point that is to hang.
const WHILE: &str = "BOATHOUSE_FAIL_POINT_WHILE";
/// How often it is looked whether the file is still there.
const LOOK: Duration = Duration::from_millis(10);

const UNKNOWN: u8 = 0;
const OFF: u8 = 1;
const ON: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);
static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// What happens at the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// The process ends.
    End,
    Panic,
    /// From then on each time.
    Panics,
    Hang,
    /// The thread never goes on.
    Stick,
}

#[derive(Debug)]
struct Armed {
    name: String,
    how: How,
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
        && match armed.left.fetch_sub(1, Ordering::SeqCst) {
            1 => true,
            left => left < 1 && armed.how == How::Panics,
        }
    {
        match armed.how {
            How::Panic | How::Panics => panic!("fail point {name} reached"),
            How::Hang => {
                eprintln!("fail point {name} reached: its thread hangs");
                #[expect(clippy::disallowed_methods, reason = "a thread that hangs is what a test asks for")]
                while std::env::var_os(WHILE).is_some_and(|file| Path::new(&file).exists()) {
                    std::thread::sleep(LOOK);
                }
            }
            How::Stick => {
                eprintln!("fail point {name} reached: its thread sticks there");
                loop {
                    std::thread::park();
                }
            }
            How::End => {
                eprintln!("fail point {name} reached: the process ends");
                // SAFETY: `_exit` has no preconditions; it ends the process without running anything else.
                unsafe { libc::_exit(EXIT_CODE) }
            }
        }
    }
}

fn parse(spec: &str) -> Option<Armed> {
    let (how, spec) = match spec.split_once('!') {
        Some(("panic", rest)) => (How::Panic, rest),
        Some(("panics", rest)) => (How::Panics, rest),
        Some(("hang", rest)) => (How::Hang, rest),
        Some(("stick", rest)) => (How::Stick, rest),
        Some(_) => return None,
        None => (How::End, spec),
    };
    let (name, nth) = match spec.rsplit_once(':') {
        Some((name, nth)) => (name, nth.parse().ok()?),
        None => (spec, 1),
    };
    (!name.is_empty() && nth > 0).then(|| Armed { name: name.into(), how, left: AtomicI64::new(nth) })
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
        assert_eq!(parse("hang!a").map(|a| a.how), Some(How::Hang));
        assert_eq!(parse("stick!a").map(|a| a.how), Some(How::Stick));
        assert_eq!(parse("panic!a:2").map(|a| a.how), Some(How::Panic));
        assert_eq!(parse("panics!a").map(|a| a.how), Some(How::Panics));
        assert_eq!(read("burn!a"), None);
    }
}
