//! Every door of both servers, from their OpenAPI documents: each way that a caller can be wrong or hostile.
//!
//! # In scope
//! Reading the documents, comparing them with the routers and the types of the bodies, and building the cases
//! of the matrix from them, so that a new endpoint cannot be forgotten.
//!
//! # Out of scope
//! What an endpoint does for a caller who is right: that is in the tests of each server.

pub mod call;
pub mod document;
pub mod hospital;
pub mod matrix;
pub mod server;
pub mod shape;
pub mod stage;
