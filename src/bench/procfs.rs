//! What Linux tells of a process and its threads in /proc, parsed.

/// The part of `/proc/PID/stat` (or of a thread's) that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// Ended, but not yet waited for: its CPU time is final.
    pub ended: bool,
    /// User and system time, clock ticks.
    pub cpu_ticks: u64,
}

/// Parses the text of a `stat` file. The name in parentheses may hold anything, so what counts begins behind the last one.
pub fn process_stat(text: &str) -> Option<ProcessStat> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    // utime and stime are the 14th and 15th field, the state is the 3rd.
    let (user, system) = (fields.nth(10)?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
    Some(ProcessStat { ended: matches!(state, "Z" | "X"), cpu_ticks: user + system })
}

/// The greatest resident size so far, from the text of `/proc/PID/status`, in bytes.
pub fn peak_rss_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The stage of the daemon that a thread's name (15 bytes, as the kernel keeps it) stands for.
pub fn stage(thread: &str) -> String {
    let known = match thread {
        name if name.starts_with("reader-") => "decode",
        name if name.starts_with("rdk:") => "librdkafka",
        "bronze" => "bronze",
        "stream" => "stream",
        "io" => "io",
        "metrics" => "metrics",
        "kafka-client" => "kafka_client",
        "boathouse" => "main",
        // Short-lived helpers of libraries: by their own name, without the number that tells them apart.
        other => return format!("other: {}", other.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-')),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_name() {
        let rest = "S 1 2 3 4 -1 6 7 8 9 10 250 50 13 14 20 0 9";
        for name in ["boathouse", "a) b (c", "rdk:broker 1)"] {
            let stat = process_stat(&format!("4711 ({name}) {rest}")).unwrap();
            assert_eq!(stat, ProcessStat { ended: false, cpu_ticks: 300 });
        }
        assert!(process_stat(&format!("1 (x) {}", rest.replacen('S', "Z", 1))).unwrap().ended);
        assert_eq!(process_stat("1 (x) S 1 2"), None);
        assert_eq!(process_stat(""), None);
    }

    #[test]
    fn peak_memory_is_in_bytes() {
        assert_eq!(peak_rss_bytes("Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t 1 kB\n"), Some(2048 * 1024));
        assert_eq!(peak_rss_bytes("Name:\tx\n"), None);
    }

    #[test]
    fn threads_belong_to_stages() {
        assert_eq!(stage("reader-17"), "decode");
        assert_eq!(stage("rdk:broker1"), "librdkafka");
        assert_eq!(stage("tokio-rt-7"), "other: tokio-rt");
    }
}
