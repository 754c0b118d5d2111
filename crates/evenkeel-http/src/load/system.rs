//! How much of its CPUs and memory the process uses.

use std::{fs, num::NonZero, sync::Mutex, thread::available_parallelism, time::Duration};

use evenkeel_core::{load::LoadReport, time::Timestamp};

/// The interval between two readings.
const EVERY: Duration = Duration::from_secs(1);

/// What the system says about the process.
pub(super) struct System {
    cpus: f64,
    /// In bytes; `None` if it is not known.
    max_memory: Option<f64>,
    last: Mutex<Look>,
}

#[derive(Clone, Copy)]
struct Look {
    at: Timestamp,
    /// CPU time of the process until then.
    used: Duration,
    cpu: f64,
    memory: f64,
}

impl System {
    pub(super) fn new(now: Timestamp) -> Self {
        let cpus = available_parallelism().map_or(1, NonZero::get) as f64;
        let last = Look { at: now, used: cpu_time(), cpu: 0.0, memory: 0.0 };
        Self { cpus, max_memory: max_memory(), last: Mutex::new(last) }
    }

    /// Adds to a report the values that it lacks.
    pub(super) fn complete(&self, report: &mut LoadReport, now: Timestamp) {
        let Ok(mut last) = self.last.try_lock() else { return };
        let span = now.since(last.at);
        if EVERY <= span {
            let used = cpu_time();
            let cpu = used.saturating_sub(last.used).as_secs_f64() / span.as_secs_f64() / self.cpus;
            let memory = self.max_memory.map_or(0.0, |max| memory_used().unwrap_or(0.0) / max);
            *last = Look { at: now, used, cpu, memory };
        }
        if report.cpu_utilization == 0.0 {
            report.cpu_utilization = last.cpu;
        }
        if report.memory_utilization == 0.0 {
            report.memory_utilization = last.memory;
        }
    }
}

/// CPU time that all threads of the process have used.
#[cfg(unix)]
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Not known on this system.
#[cfg(not(unix))]
fn cpu_time() -> Duration {
    Duration::ZERO
}

/// Bytes of memory that the process may use: its control group's limit, else the system's memory.
fn max_memory() -> Option<f64> {
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max");
    let group = group.ok().and_then(|max| max.trim().parse().ok());
    group.or_else(|| kilobytes("/proc/meminfo", "MemTotal:"))
}

/// Bytes of memory that the process uses.
fn memory_used() -> Option<f64> {
    kilobytes("/proc/self/status", "VmRSS:")
}

/// The value of a line such as `VmRSS:   1234 kB` in a file of the kernel, in bytes.
fn kilobytes(file: &str, name: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_computes_uses_cpus_and_memory() {
        let start = Timestamp::from_nanos(1 << 50);
        let system = System::new(start);
        let mut sum = 0_u64;
        let before = cpu_time();
        while cpu_time() < before + Duration::from_millis(20) {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        let mut report = LoadReport::default();
        system.complete(&mut report, start + Duration::from_secs(1));

        assert!(0.0 < report.cpu_utilization && report.cpu_utilization.is_finite());
        if cfg!(target_os = "linux") {
            assert!(0.0 < report.memory_utilization && report.memory_utilization < 1.0);
        }
    }

    #[test]
    fn what_the_application_says_comes_first_and_clocks_may_stand() {
        let start = Timestamp::from_nanos(1 << 50);
        let system = System::new(start);
        let mut report = LoadReport { cpu_utilization: 0.7, ..LoadReport::default() };
        for now in [start, Timestamp::default(), start] {
            system.complete(&mut report, now);
            assert_eq!(report.cpu_utilization, 0.7);
        }
    }
}
