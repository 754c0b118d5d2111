//! A server's cache of the keys that it saw last.

/// The keys that a server remembers. When it is full, the oldest key is forgotten first.
#[derive(Debug)]
pub(crate) struct Remembered {
    is_known: Vec<u64>,
    keys: Vec<u32>,
    next: usize,
    size: usize,
}

impl Remembered {
    pub(crate) fn new(keys: u32, size: u32) -> Self {
        let words = keys.div_ceil(64) as usize;
        Self { is_known: vec![0; words], keys: Vec::new(), next: 0, size: size as usize }
    }

    /// Remembers the key, and returns whether it was remembered before.
    pub(crate) fn touch(&mut self, key: u32) -> bool {
        if self.is_known[key as usize / 64] >> (key % 64) & 1 != 0 {
            return true;
        }
        self.is_known[key as usize / 64] |= 1 << (key % 64);
        if self.keys.len() < self.size {
            self.keys.push(key);
            return false;
        }
        let oldest = std::mem::replace(&mut self.keys[self.next], key);
        self.is_known[oldest as usize / 64] &= !(1 << (oldest % 64));
        self.next = (self.next + 1) % self.size;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_key_is_forgotten_first() {
        let mut remembered = Remembered::new(1_000, 2);
        assert!(!remembered.touch(1));
        assert!(!remembered.touch(900));
        assert!(remembered.touch(1));
        assert!(!remembered.touch(2));
        assert!(!remembered.touch(1), "it was the oldest");
        assert!(remembered.touch(2));
    }
}
