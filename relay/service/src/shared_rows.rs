//! The keyspaces that the stores of both servers have.

use crate::engine::Keyspace;

/// Where the parts of this crate keep their rows. Each server declares them among its own keyspaces.
#[derive(Clone, Copy, Debug)]
pub struct SharedKeyspaces {
    /// Client assertions that were used; see [`access`](crate::access).
    pub assertions: Keyspace,
    /// Tenant statuses; see [`tenants`](crate::tenants).
    pub statuses: Keyspace,
    /// Audit rows; see [`audit`](crate::audit).
    pub audit: Keyspace,
}
