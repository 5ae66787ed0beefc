//! The verdict cache: the same behaviour, rules, memory, judge and calibration give
//! the same verdict without asking again.

mod key;
mod keys;

use std::{collections::HashMap, mem};

pub(crate) use keys::Keys;

/// SHA-256 over everything a verdict depends on.
pub(crate) type CacheKey = [u8; 32];

/// Keeps the values used last, at most `max_entries`, in two halves: what is not
/// used while the young half fills up is forgotten with the old half.
#[derive(Debug)]
pub(crate) struct RecentCache<V> {
    young: HashMap<CacheKey, V>,
    old: HashMap<CacheKey, V>,
    max_half: usize,
}

impl<V: Clone> RecentCache<V> {
    pub(crate) fn new(max_entries: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            max_half: max_entries / 2,
        }
    }

    pub(crate) fn find(&mut self, key: &CacheKey) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.insert(*key, value.clone());
        Some(value)
    }

    pub(crate) fn insert(&mut self, key: CacheKey, value: V) {
        if self.max_half == 0 {
            return;
        }
        if self.young.len() >= self.max_half && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> CacheKey {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_le_bytes());
        key
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let mut cache = RecentCache::new(10);
        cache.insert(key(0), 0);
        for n in 1..1000 {
            assert_eq!(cache.find(&key(0)), Some(0), "before {n}");
            cache.insert(key(n), n);
            assert!(cache.len() <= 10);
        }
        assert_eq!(cache.find(&key(1)), None);
        assert_eq!(cache.find(&key(999)), Some(999));
    }

    #[test]
    fn a_cache_of_nothing_keeps_nothing() {
        let mut cache = RecentCache::new(0);
        cache.insert(key(1), 1);
        assert_eq!(cache.find(&key(1)), None);
    }
}
