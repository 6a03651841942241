//! The rows of the budget.

pub mod accept;
pub mod crypto;
pub mod latency;
pub mod life;
pub mod memory;
pub mod sync;

/// How long and how often rows run.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Pairs of a run and its limit's.
    pub runs: usize,
    /// Messages of a run.
    pub messages: usize,
}
