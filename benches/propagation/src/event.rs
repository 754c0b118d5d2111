//! The events that are measured.

/// One kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Join,
    Leave,
    Weight,
    Crash,
    Restart,
    Partition,
    Leader,
    Thousand,
    Churn,
    WholeSet,
}

impl Event {
    pub(crate) const ALL: [Self; 10] = [
        Self::Join,
        Self::Leave,
        Self::Weight,
        Self::Crash,
        Self::Restart,
        Self::Partition,
        Self::Leader,
        Self::Thousand,
        Self::Churn,
        Self::WholeSet,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Weight => "weight",
            Self::Crash => "crash",
            Self::Restart => "restart",
            Self::Partition => "partition",
            Self::Leader => "leader",
            Self::Thousand => "thousand",
            Self::Churn => "churn",
            Self::WholeSet => "whole-set",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Join => "a backend joins three others",
            Self::Leave => "one of four deregisters, serves on for some time, and stops",
            Self::Weight => "one of four changes its weight",
            Self::Crash => "one of four is killed without deregistering",
            Self::Restart => "the registry is killed and started again, and then a backend joins",
            Self::Partition => "the registry is stopped and resumed, and then a backend joins",
            Self::Leader => "the leader of the registry is killed, and a backend joins at once",
            Self::Thousand => "1,000 endpoints appear at once",
            Self::Churn => "10 changes a second among many endpoints",
            Self::WholeSet => "a whole set of many endpoints, from a channel, in one process",
        }
    }

    /// The meaning of the time until a change is in every balancer. None if that is not measured.
    pub(crate) fn applied(self) -> &'static str {
        match self {
            Self::Leave | Self::Crash => "out of every balancer, ms",
            Self::WholeSet => "whole set applied, ms",
            _ => "in every balancer, ms",
        }
    }

    /// The meaning of the time that is seen at the backend itself. None if nothing is seen there.
    pub(crate) fn request(self) -> Option<&'static str> {
        match self {
            Self::Join | Self::Restart | Self::Partition | Self::Leader => {
                Some("first request, ms")
            }
            Self::Leave => Some("last request, ms"),
            Self::Crash => Some("last attempt or error, ms"),
            Self::WholeSet => Some("one change in a set of all, ms"),
            Self::Weight | Self::Thousand | Self::Churn => None,
        }
    }

    /// Whether callers must not see an error.
    pub(crate) fn must_be_unseen(self) -> bool {
        matches!(self, Self::Join | Self::Leave | Self::Restart | Self::Partition | Self::Leader)
    }

    /// Whether it takes long enough to measure the processor time of callers.
    pub(crate) fn is_long(self) -> bool {
        matches!(
            self,
            Self::Restart | Self::Partition | Self::Leader | Self::Thousand | Self::Churn
        )
    }

    /// Whether it is about large numbers, and therefore runs alone on the machine.
    pub(crate) fn is_large(self) -> bool {
        matches!(self, Self::Thousand | Self::Churn | Self::WholeSet)
    }
}
