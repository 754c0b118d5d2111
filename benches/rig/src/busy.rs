//! How busy the machine is during a measurement.

/// How long the processors of the machine have been busy and idle.
#[derive(Clone, Copy, Debug)]
pub struct Busy {
    total: u64,
    idle: u64,
}

impl Busy {
    /// Reads the counters. None if the system does not provide them.
    #[must_use]
    pub fn now() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/stat").ok()?;
        let fields = text.lines().next()?.split_whitespace().skip(1);
        let fields: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
        // Idle time and time waiting for disks. Time of guests is already counted elsewhere.
        Some(Self { total: fields.iter().take(8).sum(), idle: fields.get(3)? + fields.get(4)? })
    }

    /// The share of the time in which the machine was busy.
    #[must_use]
    pub fn since(self, before: Self) -> Option<f64> {
        let total = self.total.checked_sub(before.total).filter(|total| 0 < *total)?;
        Some(1.0 - self.idle.checked_sub(before.idle)? as f64 / total as f64)
    }
}
