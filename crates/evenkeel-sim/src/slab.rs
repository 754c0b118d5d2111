//! Things that come and go, stored in place and named by tickets that are never reused.

/// Names one thing in a [`Slab`]. Once the thing is gone, the ticket finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    index: u32,
    round: u32,
}

/// Things that come and go, without an allocation for each. A ticket that outlives its thing finds
/// nothing.
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place<T> {
    round: u32,
    thing: Option<T>,
}

impl<T> Slab<T> {
    /// An empty slab.
    #[must_use]
    pub fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    /// How many things there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether the slab is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a thing.
    ///
    /// # Panics
    /// If there are 2³² things.
    pub fn add(&mut self, thing: T) -> Ticket {
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.thing = Some(thing);
            return Ticket { index, round: place.round };
        }
        let index = u32::try_from(self.places.len()).expect("fewer than 2³² things");
        self.places.push(Place { round: 0, thing: Some(thing) });
        Ticket { index, round: 0 }
    }

    /// All things and their tickets, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (Ticket, &T)> {
        (0..).zip(&self.places).filter_map(|(index, place)| {
            place.thing.as_ref().map(|thing| (Ticket { index, round: place.round }, thing))
        })
    }

    /// The thing of this ticket, if it is still there.
    #[must_use]
    #[inline]
    pub fn find(&self, ticket: Ticket) -> Option<&T> {
        let place = &self.places[ticket.index as usize];
        if place.round == ticket.round { place.thing.as_ref() } else { None }
    }

    /// The thing of this ticket, if it is still there.
    #[must_use]
    #[inline]
    pub fn find_mut(&mut self, ticket: Ticket) -> Option<&mut T> {
        let place = &mut self.places[ticket.index as usize];
        if place.round == ticket.round { place.thing.as_mut() } else { None }
    }

    /// Takes the thing of this ticket, if it is still there.
    pub fn take(&mut self, ticket: Ticket) -> Option<T> {
        let place = &mut self.places[ticket.index as usize];
        if place.round != ticket.round {
            return None;
        }
        let thing = place.thing.take();
        if thing.is_some() {
            place.round = place.round.wrapping_add(1);
            self.free.push(ticket.index);
        }
        thing
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_that_outlives_its_item_finds_nothing() {
        let mut slab = Slab::new();
        let first = slab.add('a');
        assert_eq!(slab.take(first), Some('a'));
        let second = slab.add('b');

        assert_eq!(first.index, second.index, "places are used again");
        assert_eq!(slab.find(first), None);
        assert_eq!(slab.take(first), None);
        assert_eq!(slab.find(second), Some(&'b'));
        assert_eq!(slab.len(), 1);
    }
}
