//! A map of numbers that lie close to each other, as offsets do, and values that clients count up.

use std::collections::BTreeMap;
use std::ops::Range;

/// How many numbers in a row share a page.
const PAGE: u64 = 32;

/// A number that can be a key: an order-preserving way to 64 bits without a sign, and back.
pub(super) trait Key: Copy {
    fn to_bits(self) -> u64;
    fn from_bits(bits: u64) -> Self;
}

impl Key for u64 {
    fn to_bits(self) -> u64 {
        self
    }

    fn from_bits(bits: u64) -> u64 {
        bits
    }
}

impl Key for i64 {
    fn to_bits(self) -> u64 {
        self.cast_unsigned() ^ (1 << 63)
    }

    fn from_bits(bits: u64) -> i64 {
        (bits ^ (1 << 63)).cast_signed()
    }
}

/// A sorted map that looks for pages of keys instead of keys: a history's records are looked up
/// by the million, most of them behind the one before.
#[derive(Debug)]
pub(super) struct Paged<K, T> {
    pages: BTreeMap<u64, Vec<Option<T>>>,
    keys: std::marker::PhantomData<K>,
}

impl<K: Key, T> Paged<K, T> {
    pub(super) fn new() -> Paged<K, T> {
        Paged {
            pages: BTreeMap::new(),
            keys: std::marker::PhantomData,
        }
    }

    pub(super) fn get(&self, key: K) -> Option<&T> {
        let (page, at) = place(key);
        self.pages.get(&page)?[at].as_ref()
    }

    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let (page, at) = place(key);
        self.pages.get_mut(&page)?[at].as_mut()
    }

    /// What is there, which is `value` if nothing was.
    pub(super) fn get_or_insert(&mut self, key: K, value: T) -> &mut T {
        self.slot(key).get_or_insert(value)
    }

    /// Puts `value` there; what was there before.
    pub(super) fn insert(&mut self, key: K, value: T) -> Option<T> {
        self.slot(key).replace(value)
    }

    /// All of it, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        let all = self.pages.iter().flat_map(in_page);
        all.map(|(bits, value)| (K::from_bits(bits), value))
    }

    /// The first of these keys that is there.
    pub(super) fn first_in(&self, keys: Range<K>) -> Option<(K, &T)> {
        let (from, to) = (keys.start.to_bits(), keys.end.to_bits());
        let pages = self.pages.range(from / PAGE..=to / PAGE);
        let mut all = pages.flat_map(in_page);
        let found = all.find(|(bits, _)| (from..to).contains(bits));
        found.map(|(bits, value)| (K::from_bits(bits), value))
    }

    /// The last key that is there.
    pub(super) fn last_key(&self) -> Option<K> {
        let (page, slots) = self.pages.last_key_value()?;
        let at = slots.iter().rposition(Option::is_some)?;
        let at = u64::try_from(at).expect("within a page");
        Some(K::from_bits(page * PAGE + at))
    }

    fn slot(&mut self, key: K) -> &mut Option<T> {
        let (page, at) = place(key);
        let slots = self
            .pages
            .entry(page)
            .or_insert_with(|| (0..PAGE).map(|_| None).collect());
        &mut slots[at]
    }
}

/// What is there in a page.
fn in_page<'a, T>((page, slots): (&u64, &'a Vec<Option<T>>)) -> impl Iterator<Item = (u64, &'a T)> {
    let first = page * PAGE;
    let slots = (0..PAGE).zip(slots);
    slots.filter_map(move |(at, slot)| Some((first + at, slot.as_ref()?)))
}

/// The page of a key, and its place there.
fn place<K: Key>(key: K) -> (u64, usize) {
    let bits = key.to_bits();
    let at = usize::try_from(bits % PAGE).expect("within a page");
    (bits / PAGE, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_sorted_map() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut paged = Paged::new();
        let mut model = BTreeMap::new();
        let ends = [i64::MIN, -1, 0, 31, 32, i64::MAX];
        for key in ends.into_iter().chain((0..500).map(|_| rng.i64(-200..200))) {
            assert_eq!(paged.insert(key, key), model.insert(key, key));
        }
        assert!(
            paged
                .iter()
                .eq(model.iter().map(|(key, value)| (*key, value)))
        );
        assert_eq!(paged.last_key(), Some(i64::MAX));
        for key in -210..210 {
            assert_eq!(paged.get(key), model.get(&key));
            assert_eq!(paged.get_mut(key).copied(), model.get(&key).copied());
            let to = key + rng.i64(0..100);
            let first = model.range(key..to).next();
            let first = first.map(|(key, value)| (*key, value));
            assert_eq!(paged.first_in(key..to), first, "{key}..{to}");
        }
        assert_eq!(*paged.get_or_insert(31, 7), 31);
        assert_eq!(*paged.get_or_insert(1_000, 7), 7);
    }
}
