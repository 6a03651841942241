//! What of a file has been written since its last sync.

use std::collections::BTreeMap;

/// The written ranges of one file, or all of it.
#[derive(Debug)]
pub struct Changes {
    whole: bool,
    mapped: bool,
    /// Start to end, apart from each other.
    ranges: BTreeMap<u64, u64>,
}

/// Beyond this many ranges the file is copied whole.
const RANGES_MAX: usize = 4096;

/// What a sync has to copy.
#[derive(Debug, PartialEq, Eq)]
pub enum Copy {
    /// The file.
    Whole,
    /// These bytes, start to end, and the length.
    Ranges(Vec<(u64, u64)>),
}

impl Changes {
    /// For a file met for the first time: others may have written to it before.
    #[must_use]
    pub fn unknown() -> Self {
        Self { whole: true, mapped: false, ranges: BTreeMap::new() }
    }

    /// For a file that has just been copied.
    #[must_use]
    pub fn none() -> Self {
        Self { whole: false, mapped: false, ranges: BTreeMap::new() }
    }

    /// Whether nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.whole && !self.mapped && self.ranges.is_empty()
    }

    /// Bytes in `[start, end)` may have changed.
    pub fn add(&mut self, start: u64, end: u64) {
        if self.whole || start >= end {
            return;
        }
        let (mut start, mut end) = (start, end);
        while let Some((&other_start, &other_end)) = self.ranges.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            self.ranges.remove(&other_start);
            start = start.min(other_start);
            end = end.max(other_end);
        }
        self.ranges.insert(start, end);
        if self.ranges.len() > RANGES_MAX {
            self.add_all();
        }
    }

    /// Any byte may have changed.
    pub fn add_all(&mut self) {
        self.whole = true;
        self.ranges.clear();
    }

    /// Bytes may change from now on without a call.
    pub fn map(&mut self) {
        self.mapped = true;
    }

    /// Hands over everything since the last time.
    pub fn take(&mut self) -> Copy {
        let whole = std::mem::take(&mut self.whole) || self.mapped;
        let ranges = std::mem::take(&mut self.ranges);
        if whole { Copy::Whole } else { Copy::Ranges(ranges.into_iter().collect()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(added: &[(u64, u64)]) -> Changes {
        let mut changes = Changes::unknown();
        assert_eq!(changes.take(), Copy::Whole);
        for (start, end) in added {
            changes.add(*start, *end);
        }
        changes
    }

    #[test]
    fn ranges_that_touch_become_one() {
        for (added, expected) in [
            (vec![(0, 10), (10, 20)], vec![(0, 20)]),
            (vec![(10, 20), (0, 10)], vec![(0, 20)]),
            (vec![(0, 10), (20, 30), (40, 50), (5, 45)], vec![(0, 50)]),
            (vec![(0, 100), (20, 30)], vec![(0, 100)]),
            (vec![(20, 30), (0, 100)], vec![(0, 100)]),
            (vec![(0, 10), (11, 20)], vec![(0, 10), (11, 20)]),
            (vec![(5, 5), (9, 3)], vec![]),
            (vec![(7, u64::MAX), (3, 4)], vec![(3, 4), (7, u64::MAX)]),
        ] {
            assert_eq!(changes(&added).take(), Copy::Ranges(expected), "{added:?}");
        }
    }

    #[test]
    fn a_sync_takes_the_ranges_once() {
        let mut changes = changes(&[(1, 2)]);
        assert_eq!(changes.take(), Copy::Ranges(vec![(1, 2)]));
        assert_eq!(changes.take(), Copy::Ranges(vec![]));
        changes.add_all();
        changes.add(1, 2);
        assert_eq!(changes.take(), Copy::Whole);
        changes.map();
        assert_eq!((changes.take(), changes.take()), (Copy::Whole, Copy::Whole));
    }

    #[test]
    fn too_many_ranges_are_the_whole_file() {
        let scattered: Vec<_> = (0..=RANGES_MAX as u64).map(|n| (n * 10, n * 10 + 1)).collect();
        assert_eq!(changes(&scattered).take(), Copy::Whole);
    }
}
