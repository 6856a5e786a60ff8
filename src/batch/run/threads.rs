//! The threads of batch work: few, named, and of a lower priority, so that a batch never starves the stream.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Runtime};

use crate::priority;

/// Threads for blocking file access; tokio ends idle ones.
const BLOCKING: usize = 16;

/// A runtime of `batch.threads` worker threads, `batch-1` and so on.
pub fn runtime(threads: u32) -> std::io::Result<Runtime> {
    let next = AtomicUsize::new(1);
    Builder::new_multi_thread()
        .worker_threads(threads.max(1) as usize)
        .max_blocking_threads(BLOCKING)
        .thread_name_fn(move || format!("batch-{}", next.fetch_add(1, Ordering::Relaxed)))
        .on_thread_start(priority::lower)
        .enable_all()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_threads_are_named_and_nice() {
        let runtime = runtime(2).unwrap();
        let (name, nice) = runtime
            .block_on(runtime.spawn(async {
                // SAFETY: as above; the thread asks about itself.
                let nice =
                    unsafe { libc::getpriority(libc::PRIO_PROCESS, libc::syscall(libc::SYS_gettid) as libc::id_t) };
                (std::thread::current().name().map(str::to_owned), nice)
            }))
            .unwrap();
        assert!(name.is_some_and(|name| name.starts_with("batch-")));
        assert!(nice >= priority::NICE, "{nice}");
        runtime.shutdown_background();
    }
}
