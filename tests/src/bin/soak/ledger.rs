//! The history of every request: how often servers saw it, and what its caller got.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};

/// One line for each request, by its number.
pub(crate) struct Ledger {
    lines: Vec<Line>,
    next: AtomicUsize,
}

#[derive(Default)]
struct Line {
    seen: AtomicU8,
    end: AtomicU8,
}

/// The result at the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum End {
    /// Not sent, or its task was lost.
    Lost,
    Answered,
    Failed,
    /// The caller went away.
    Cancelled,
}

/// Even numbers may be sent again. Odd numbers change something on the server.
pub(crate) fn is_idempotent(number: usize) -> bool {
    number.is_multiple_of(2)
}

impl Ledger {
    pub(crate) fn new(requests: usize) -> Self {
        let lines = (0..requests).map(|_| Line::default()).collect();
        Self { lines, next: AtomicUsize::new(0) }
    }

    /// The number of the next request, until all are used.
    pub(crate) fn next(&self) -> Option<usize> {
        let number = self.next.fetch_add(1, Relaxed);
        (number < self.lines.len()).then_some(number)
    }

    /// Records that a server has begun to carry it out.
    pub(crate) fn seen(&self, number: usize) {
        self.lines[number].seen.fetch_add(1, Relaxed);
    }

    pub(crate) fn ended(&self, number: usize, end: End) {
        self.lines[number].end.store(end as u8, Relaxed);
    }

    /// Prints the sums, and returns the violations.
    pub(crate) fn find_violations(&self) -> Vec<String> {
        let sent = self.next.load(Relaxed).min(self.lines.len());
        let count = |holds: &dyn Fn(bool, u8, u8) -> bool| {
            let lines = self.lines[..sent].iter().enumerate();
            lines
                .filter(|(number, line)| {
                    holds(is_idempotent(*number), line.seen.load(Relaxed), line.end.load(Relaxed))
                })
                .count()
        };
        let ended = |end: End| count(&|_, _, is| is == end as u8);
        println!(
            "{sent} requests: {} answered, {} failed ({} of them may be sent again), {} given up by callers; \
             {} seen more than once",
            ended(End::Answered),
            ended(End::Failed),
            count(&|idempotent, _, end| idempotent && end == End::Failed as u8),
            ended(End::Cancelled),
            count(&|_, seen, _| 1 < seen),
        );
        let rules: [(&str, usize); 3] = [
            ("requests have no end", ended(End::Lost)),
            (
                "answered requests were seen by no server",
                count(&|_, seen, end| seen == 0 && end == End::Answered as u8),
            ),
            (
                "requests that must not be repeated were carried out twice",
                count(&|idempotent, seen, _| !idempotent && 1 < seen),
            ),
        ];
        let broken = rules.into_iter().filter(|(_, count)| 0 < *count);
        broken.map(|(what, count)| format!("{count} {what}")).collect()
    }
}
