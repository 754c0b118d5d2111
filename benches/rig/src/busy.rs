//! How busy the machine is meanwhile.

/// How long the processors of the machine have worked, and been idle.
#[derive(Clone, Copy, Debug)]
pub struct Busy {
    total: u64,
    idle: u64,
}

impl Busy {
    /// Up to now; none where the system does not say.
    #[must_use]
    pub fn now() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/stat").ok()?;
        let fields = text.lines().next()?.split_whitespace().skip(1);
        let fields: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
        // Idle and waiting for disks; guests are counted among the others.
        Some(Self { total: fields.iter().take(8).sum(), idle: fields.get(3)? + fields.get(4)? })
    }

    /// The share of the machine that was busy.
    #[must_use]
    pub fn since(self, before: Self) -> Option<f64> {
        let total = self.total.checked_sub(before.total).filter(|total| 0 < *total)?;
        Some(1.0 - self.idle.checked_sub(before.idle)? as f64 / total as f64)
    }
}
