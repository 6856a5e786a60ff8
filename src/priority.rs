//! Threads that stand back for the stream's.

/// How much nicer they are: about a tenth of the stream's share where both want a core.
pub const NICE: i32 = 10;

/// Gives the calling thread a lower priority than the stream's threads have.
pub fn lower() {
    // SAFETY: both calls take and return integers; on Linux a thread's id stands for the thread alone.
    let refused = unsafe {
        let thread = libc::syscall(libc::SYS_gettid) as libc::id_t;
        libc::setpriority(libc::PRIO_PROCESS, thread, NICE)
    };
    if refused != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!(%error, thread = std::thread::current().name(), "a thread keeps the stream's priority");
    }
}
