//! The cost of a process, as the kernel counts it.

/// The processor time and memory of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// Milliseconds of processor time.
    pub(crate) work: f64,
    /// Megabytes of memory.
    pub(crate) memory: f64,
}

impl Cost {
    /// The cost of a process until now. None if it has ended. Threads that have ended are not
    /// counted.
    pub(crate) fn of(process: u32) -> Option<Self> {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
        let nanos = tasks.filter_map(|task| {
            let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            stat.split_whitespace().next()?.parse::<f64>().ok()
        });
        let work = nanos.sum::<f64>() / 1e6;
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").trim().parse().ok()?;
        Some(Self { work, memory: kilobytes * 1_024.0 / 1e6 })
    }
}
