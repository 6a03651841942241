//! Tokens that were verified, by their hash.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::{Access, TokenHash};

/// A bounded map in two generations: when the young one is half of the bound, it becomes the old one and the
/// old one is forgotten. What is asked for is kept young, so a token in use survives; no entry is ever
/// searched for.
pub(super) struct TokenCache {
    generations: RwLock<Generations>,
    generation_max: usize,
}

#[derive(Default)]
struct Generations {
    young: HashMap<TokenHash, Arc<Access>>,
    old: HashMap<TokenHash, Arc<Access>>,
}

impl TokenCache {
    pub(super) fn new(capacity: usize) -> Self {
        Self { generations: RwLock::default(), generation_max: (capacity / 2).max(1) }
    }

    pub(super) fn find(&self, hash: &TokenHash) -> Option<Arc<Access>> {
        let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(access) = generations.young.get(hash) {
            return Some(access.clone());
        }
        let access = generations.old.get(hash)?.clone();
        drop(generations);
        self.insert(*hash, access.clone());
        Some(access)
    }

    pub(super) fn insert(&self, hash: TokenHash, access: Arc<Access>) {
        let mut generations = self.generations.write().unwrap_or_else(PoisonError::into_inner);
        if generations.young.len() >= self.generation_max {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(hash, access);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let generations = self.generations.read().unwrap();
        generations.young.len() + generations.old.len()
    }
}
