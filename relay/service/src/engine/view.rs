//! What a command sees and writes: the store, plus what the open group has written so far.

use std::{
    cell::Cell,
    cmp::Ordering,
    collections::{BTreeMap, btree_map},
    iter::Peekable,
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use fjall::Slice;

use super::{
    KEY_BYTES_MAX, Keyspace, Row, VALUE_BYTES_MAX,
    store::{INCARNATION_KEY, Store, incarnation_of},
};

/// The store as a command sees it. Lives on the writer thread.
///
/// A read that fails gives nothing, here and for the rest of the command; the engine then takes the command
/// back and answers [`EngineError::Read`](super::EngineError::Read), whatever it decided.
pub struct View {
    store: Arc<Store>,
    /// For each keyspace, what the open group has written: a value, or `None` for a removed row.
    overlay: Vec<Overlay>,
    /// How to take the running command back: what the overlay held before each of its writes.
    undo: Vec<Undo>,
    /// Bytes of keys and values written by the group.
    bytes: usize,
    bytes_before_command: usize,
    /// What is to happen once the group is durable; the running command's are the last.
    after_commit: Vec<AfterCommit>,
    after_commit_before_command: usize,
    read_error: Cell<Option<fjall::Error>>,
}

/// Something to do once a command is durable.
type AfterCommit = Box<dyn FnOnce() + Send>;

/// Rows of the open group. Ordered, because ranges are merged from it; keys and values are shared, not
/// copied, with the batch that it becomes.
type Overlay = BTreeMap<Slice, Option<Slice>>;

struct Undo {
    keyspace: Keyspace,
    key: Slice,
    before: Option<Option<Slice>>,
}

impl View {
    /// The value of `key`.
    pub fn get(&self, keyspace: Keyspace, key: impl AsRef<[u8]>) -> Option<Slice> {
        let key = key.as_ref();
        if let Some(written) = self.overlay[keyspace.slot()].get(key) {
            return written.clone();
        }
        self.noting_error(self.store.get(keyspace, key)).flatten()
    }

    /// Whether there is a row `key`.
    pub fn contains(&self, keyspace: Keyspace, key: impl AsRef<[u8]>) -> bool {
        let key = key.as_ref();
        match self.overlay[keyspace.slot()].get(key) {
            Some(written) => written.is_some(),
            None => self.noting_error(self.store.contains(keyspace, key)).unwrap_or(false),
        }
    }

    /// Stores `value` under `key`, in place of what was there.
    ///
    /// # Panics
    /// If the key is empty or longer than [`KEY_BYTES_MAX`], or the value larger than [`VALUE_BYTES_MAX`].
    pub fn put(&mut self, keyspace: Keyspace, key: impl Into<Slice>, value: impl Into<Slice>) {
        let value = value.into();
        assert!(value.len() <= VALUE_BYTES_MAX, "value of {} bytes in {}", value.len(), keyspace.name());
        self.set(keyspace, key.into(), Some(value));
    }

    /// Removes the row `key`, if there is one.
    ///
    /// # Panics
    /// If the key is empty or longer than [`KEY_BYTES_MAX`].
    pub fn remove(&mut self, keyspace: Keyspace, key: impl Into<Slice>) {
        self.set(keyspace, key.into(), None);
    }

    /// Removes the row `key` and gives its value.
    ///
    /// # Panics
    /// If the key is empty or longer than [`KEY_BYTES_MAX`].
    pub fn take(&mut self, keyspace: Keyspace, key: impl Into<Slice>) -> Option<Slice> {
        let key = key.into();
        let value = self.get(keyspace, &key)?;
        self.set(keyspace, key, None);
        Some(value)
    }

    /// Takes back the last row under `prefix` that the open group has put, if its value has at most `bytes_max`
    /// bytes: a command that adds to it puts one row where there would be two. Only for rows whose keys were
    /// never in the store before, because nothing is left of the one that is taken.
    pub fn take_open(&mut self, keyspace: Keyspace, prefix: &[u8], bytes_max: usize) -> Option<Row> {
        let range = KeyRange::of_prefix(prefix);
        let overlay = &mut self.overlay[keyspace.slot()];
        let (key, value) = overlay.range::<[u8], _>(range.bounds()).next_back()?;
        let (key, value) = (key.clone(), value.clone().filter(|value| value.len() <= bytes_max)?);
        overlay.remove(&key);
        self.bytes = self.bytes.saturating_sub(key.len() + value.len());
        self.undo.push(Undo { keyspace, key: key.clone(), before: Some(Some(value.clone())) });
        Some((key, value))
    }

    /// Has `act` called once the command is durable and visible: on the writer thread, in the order of the
    /// commands, before any of the group is answered, and whether or not somebody still waits for the answer.
    /// Not called for a command that fails. For what memory keeps beside the store, and for waking those who
    /// wait: everybody waits while it runs, and a panic in it ends the engine.
    pub fn after_commit(&mut self, act: impl FnOnce() + Send + 'static) {
        self.after_commit.push(Box::new(act));
    }

    /// Rows whose keys lie in `bounds`, ascending. A range that ends before it begins is empty.
    pub fn range<'k>(&self, keyspace: Keyspace, bounds: impl RangeBounds<&'k [u8]>) -> ViewRows<'_> {
        self.merged(keyspace, &KeyRange::new(&bounds), Direction::Ascending)
    }

    /// Rows whose keys lie in `bounds`, descending.
    pub fn range_rev<'k>(&self, keyspace: Keyspace, bounds: impl RangeBounds<&'k [u8]>) -> ViewRows<'_> {
        self.merged(keyspace, &KeyRange::new(&bounds), Direction::Descending)
    }

    /// Rows whose keys begin with `prefix`, ascending.
    pub fn prefix(&self, keyspace: Keyspace, prefix: impl AsRef<[u8]>) -> ViewRows<'_> {
        self.merged(keyspace, &KeyRange::of_prefix(prefix.as_ref()), Direction::Ascending)
    }

    /// Rows whose keys begin with `prefix`, descending.
    pub fn prefix_rev(&self, keyspace: Keyspace, prefix: impl AsRef<[u8]>) -> ViewRows<'_> {
        self.merged(keyspace, &KeyRange::of_prefix(prefix.as_ref()), Direction::Descending)
    }
}

/// Rows of a [`View`], in key order.
pub struct ViewRows<'v> {
    store: Peekable<StoreRows<'v>>,
    overlay: Peekable<OverlayRows<'v>>,
    direction: Direction,
}

impl Iterator for ViewRows<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        loop {
            let order = match (self.store.peek(), self.overlay.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((stored, _)), Some((written, _))) => self.direction.order(stored, written),
            };
            if order == Ordering::Less {
                return self.store.next();
            }
            if order == Ordering::Equal {
                self.store.next();
            }
            // A removed row is skipped, together with what it hides.
            if let Some((key, Some(value))) = self.overlay.next() {
                return Some((key.clone(), value.clone()));
            }
        }
    }
}

impl View {
    pub(super) fn new(store: Arc<Store>) -> Self {
        let overlay = (0..store.slot_count()).map(|_| Overlay::new()).collect();
        Self {
            store,
            overlay,
            undo: Vec::new(),
            bytes: 0,
            bytes_before_command: 0,
            after_commit: Vec::new(),
            after_commit_before_command: 0,
            read_error: Cell::new(None),
        }
    }

    /// A command begins: what came before can no longer be taken back.
    pub(super) fn begin(&mut self) {
        self.undo.clear();
        self.bytes_before_command = self.bytes;
        self.after_commit_before_command = self.after_commit.len();
    }

    /// Takes back everything that the running command wrote.
    pub(super) fn take_back(&mut self) {
        while let Some(Undo { keyspace, key, before }) = self.undo.pop() {
            let overlay = &mut self.overlay[keyspace.slot()];
            match before {
                Some(written) => overlay.insert(key, written),
                None => overlay.remove(&key),
            };
        }
        self.bytes = self.bytes_before_command;
        self.after_commit.truncate(self.after_commit_before_command);
    }

    /// What the commands of the group want done now that it is durable, in their order.
    pub(super) fn take_after_commit(&mut self) -> Vec<AfterCommit> {
        std::mem::take(&mut self.after_commit)
    }

    pub(super) fn take_read_error(&self) -> Option<fjall::Error> {
        self.read_error.take()
    }

    /// Bytes of keys and values that the open group has written.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows that the group has written, keyspace by keyspace; leaves an empty group.
    pub(super) fn take_group(&mut self) -> impl Iterator<Item = (usize, Overlay)> + '_ {
        self.undo.clear();
        self.bytes = 0;
        self.overlay.iter_mut().map(std::mem::take).enumerate().filter(|(_, overlay)| !overlay.is_empty())
    }

    pub(super) fn raise_incarnation(&mut self) -> u64 {
        let stored = self.get(Keyspace::STORE, INCARNATION_KEY);
        let raised = stored.map_or(0, |value| incarnation_of(&value)).saturating_add(1);
        self.put(Keyspace::STORE, INCARNATION_KEY, raised.to_be_bytes());
        raised
    }

    fn set(&mut self, keyspace: Keyspace, key: Slice, value: Option<Slice>) {
        assert!(
            !key.is_empty() && key.len() <= KEY_BYTES_MAX,
            "key of {} bytes in {}",
            key.len(),
            keyspace.name()
        );
        self.bytes += key.len() + value.as_ref().map_or(0, |value| value.len());
        let before = self.overlay[keyspace.slot()].insert(key.clone(), value);
        self.undo.push(Undo { keyspace, key, before });
    }

    fn merged(&self, keyspace: Keyspace, range: &KeyRange<'_>, direction: Direction) -> ViewRows<'_> {
        let (store, overlay) = if range.is_empty() {
            (None, None)
        } else {
            let overlay = self.overlay[keyspace.slot()].range::<[u8], _>(range.bounds());
            (Some(self.store.range(keyspace, range)), Some(overlay))
        };
        ViewRows {
            store: StoreRows { rows: store, direction, read_error: &self.read_error }.peekable(),
            overlay: OverlayRows { rows: overlay, direction }.peekable(),
            direction,
        }
    }

    fn noting_error<T>(&self, read: fjall::Result<T>) -> Option<T> {
        read.map_err(|error| self.read_error.set(Some(error))).ok()
    }
}

/// The rows of a range that are in the store.
struct StoreRows<'v> {
    rows: Option<fjall::Iter>,
    direction: Direction,
    read_error: &'v Cell<Option<fjall::Error>>,
}

impl Iterator for StoreRows<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        let rows = self.rows.as_mut()?;
        let row = match self.direction {
            Direction::Ascending => rows.next(),
            Direction::Descending => rows.next_back(),
        }?;
        match row.into_inner() {
            Ok(row) => Some(row),
            Err(error) => {
                self.read_error.set(Some(error));
                self.rows = None;
                None
            }
        }
    }
}

/// The rows of a range that the open group has written or removed.
struct OverlayRows<'v> {
    rows: Option<btree_map::Range<'v, Slice, Option<Slice>>>,
    direction: Direction,
}

impl<'v> Iterator for OverlayRows<'v> {
    type Item = (&'v Slice, &'v Option<Slice>);

    fn next(&mut self) -> Option<Self::Item> {
        let rows = self.rows.as_mut()?;
        match self.direction {
            Direction::Ascending => rows.next(),
            Direction::Descending => rows.next_back(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Direction {
    Ascending,
    Descending,
}

impl Direction {
    fn order(self, left: &Slice, right: &Slice) -> Ordering {
        match self {
            Self::Ascending => left.cmp(right),
            Self::Descending => right.cmp(left),
        }
    }
}

/// Bounds of a range of keys, with the end of a prefix where one is given.
pub(super) struct KeyRange<'k> {
    start: Bound<&'k [u8]>,
    end: End<'k>,
}

enum End<'k> {
    Given(Bound<&'k [u8]>),
    /// The first key after all that begin with a prefix, not part of the range.
    After(Vec<u8>),
}

impl<'k> KeyRange<'k> {
    pub(super) fn new(bounds: &impl RangeBounds<&'k [u8]>) -> Self {
        let copied = |bound: Bound<&&'k [u8]>| bound.map(|key| *key);
        Self { start: copied(bounds.start_bound()), end: End::Given(copied(bounds.end_bound())) }
    }

    pub(super) fn of_prefix(prefix: &'k [u8]) -> Self {
        // Count up at the last byte that can: what follows it is dropped. A prefix of 0xff alone has no end.
        let end = match prefix.iter().rposition(|byte| *byte < u8::MAX) {
            None => End::Given(Bound::Unbounded),
            Some(last) => {
                let mut after = prefix[..=last].to_vec();
                after[last] += 1;
                End::After(after)
            }
        };
        Self { start: Bound::Included(prefix), end }
    }

    pub(super) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let end = match &self.end {
            End::Given(bound) => *bound,
            End::After(key) => Bound::Excluded(key.as_slice()),
        };
        (self.start, end)
    }

    /// Whether no key can lie in it; such bounds are a panic in a `BTreeMap`.
    pub(super) fn is_empty(&self) -> bool {
        match self.bounds() {
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end))
            | (Bound::Excluded(start), Bound::Included(end)) => start >= end,
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        }
    }
}
