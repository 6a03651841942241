//! Groups of several devices in one process, over stores that can lose a transaction.

mod hostile;
mod life;
mod races;
mod recovery;
mod rules;
mod vectors;
mod world;
