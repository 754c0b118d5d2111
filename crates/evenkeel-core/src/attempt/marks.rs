//! The small fields of an attempt, in one word.

use crate::observe::Fault;

/// The small fields of an attempt, in one word. When an attempt is moved, it is read in words, and
/// reading a word that was just written in parts stalls the processor.
#[derive(Clone, Copy)]
pub(super) struct Marks(u64);

impl Marks {
    const COUNTED: u32 = 16;
    const FAULT: u32 = 24;
    const IN_FLIGHT: u32 = 32;
    const UNTIMED: u32 = 33;
    const WAITING: u32 = 34;

    #[inline]
    pub(super) fn new(epoch: u16, is_in_flight: bool) -> Self {
        Self(u64::from(epoch) | u64::from(is_in_flight) << Self::IN_FLIGHT)
    }

    /// The node's epoch when the attempt began.
    #[inline]
    pub(super) fn epoch(self) -> u16 {
        self.0 as u16
    }

    #[inline]
    pub(super) fn set_epoch(&mut self, epoch: u16) {
        self.0 = self.0 & !0xFFFF | u64::from(epoch);
    }

    /// How many observers, from the first one on, may have counted the attempt.
    #[inline]
    pub(super) fn counted(self) -> u8 {
        (self.0 >> Self::COUNTED) as u8
    }

    #[inline]
    pub(super) fn set_counted(&mut self, observers: u8) {
        self.0 = self.0 & !(0xFF << Self::COUNTED) | u64::from(observers) << Self::COUNTED;
    }

    #[inline]
    pub(super) fn fault(self) -> Fault {
        match (self.0 >> Self::FAULT) as u8 {
            0 => Fault::Server,
            1 => Fault::Gateway,
            _ => Fault::Local,
        }
    }

    #[inline]
    pub(super) fn set_fault(&mut self, fault: Fault) {
        self.0 = self.0 & !(0xFF << Self::FAULT) | (fault as u64) << Self::FAULT;
    }

    /// Whether the attempt's end has to be counted at the node.
    #[inline]
    pub(super) fn is_in_flight(self) -> bool {
        self.0 >> Self::IN_FLIGHT & 1 != 0
    }

    /// Whether the time that the attempt takes says nothing.
    #[inline]
    pub(super) fn is_untimed(self) -> bool {
        self.0 >> Self::UNTIMED & 1 != 0
    }

    #[inline]
    pub(super) fn set_untimed(&mut self) {
        self.0 |= 1 << Self::UNTIMED;
    }

    /// Whether the attempt has had to wait, and still waits for the head of the response.
    #[inline]
    pub(super) fn is_waiting(self) -> bool {
        self.0 >> Self::WAITING & 1 != 0
    }

    #[inline]
    pub(super) fn set_waiting(&mut self, is_waiting: bool) {
        self.0 = self.0 & !(1 << Self::WAITING) | u64::from(is_waiting) << Self::WAITING;
    }

    /// Takes the marks, and leaves an attempt that is counted nowhere.
    #[inline]
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self(0))
    }
}
