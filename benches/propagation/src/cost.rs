//! What a process costs, as the kernel counts it.

/// How long a process has worked, and what it holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// Milliseconds of processors.
    pub(crate) work: f64,
    /// Megabytes in memory.
    pub(crate) memory: f64,
}

impl Cost {
    /// Of a process, up to now; none where it has ended.
    pub(crate) fn of(process: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // What stands before the bracket may have spaces in it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: f64 =
            fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").trim().parse().ok()?;
        // A tick is a hundredth of a second on every Linux that counts in them for users.
        Some(Self { work: ticks * 10.0, memory: kilobytes * 1_024.0 / 1e6 })
    }
}
