//! A map that forgets what was not touched for longest.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

/// At most a fixed number of entries; what is pushed out is counted.
#[derive(Debug)]
pub(super) struct Bounded<K, V> {
    entries: HashMap<K, (u64, V)>,
    /// By when they were touched; the order of one, since time only counts up.
    order: BTreeMap<u64, K>,
    touched: u64,
    max_entries: usize,
    pub(super) evicted: u64,
}

impl<K: Hash + Eq + Clone, V: Default> Bounded<K, V> {
    pub(super) fn new(max_entries: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            touched: 0,
            max_entries: max_entries.max(1),
            evicted: 0,
        }
    }

    /// The entry, made if it is not there; it is the youngest now.
    pub(super) fn touch(&mut self, key: &K) -> &mut V {
        self.touched += 1;
        if let Some((at, _)) = self.entries.get_mut(key) {
            self.order.remove(at);
            *at = self.touched;
        } else {
            if self.entries.len() >= self.max_entries
                && let Some((_, oldest)) = self.order.pop_first()
            {
                self.entries.remove(&oldest);
                self.evicted += 1;
            }
            let fresh = (self.touched, V::default());
            self.entries.insert(key.clone(), fresh);
        }
        self.order.insert(self.touched, key.clone());
        let (_, value) = self.entries.entry(key.clone()).or_default();
        value
    }

    pub(super) fn find(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub(super) fn find_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_untouched_goes_first_and_is_counted() {
        let mut map: Bounded<u32, u32> = Bounded::new(2);
        *map.touch(&1) = 10;
        *map.touch(&2) = 20;
        *map.touch(&1) += 1;
        *map.touch(&3) = 30;
        assert_eq!(map.find(&1), Some(&11));
        assert_eq!(map.find(&2), None);
        assert_eq!((map.len(), map.evicted), (2, 1));
        assert_eq!(map.order.len(), 2);
    }
}
