//! Routes that are also a list: what a server answers can be compared with the document that describes it.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};
use http::Method;

/// The routes of a server with the state `S`, and the list of them.
#[derive(Clone, Debug)]
pub struct Api<S = ()> {
    router: Router<S>,
    operations: Vec<Operation>,
}

/// A method at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The method.
    pub method: Method,
    /// The path's pattern, parameters in braces, as OpenAPI writes it too.
    pub path: &'static str,
    /// Bytes of the longest body that is read; 0 where none is.
    pub body_bytes_max: usize,
}

impl<S: Clone + Send + Sync + 'static> Api<S> {
    /// No routes yet.
    #[must_use]
    pub fn new() -> Self {
        Self { router: Router::new(), operations: Vec::new() }
    }

    /// With `GET` at `path`.
    #[must_use]
    pub fn get<H: Handler<T, S>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.route(Method::GET, MethodFilter::GET, path, 0, handler)
    }

    /// With `PUT` at `path` of a body of at most `body_bytes_max`.
    #[must_use]
    pub fn put<H: Handler<T, S>, T: 'static>(
        self,
        path: &'static str,
        body_bytes_max: usize,
        handler: H,
    ) -> Self {
        self.route(Method::PUT, MethodFilter::PUT, path, body_bytes_max, handler)
    }

    /// With `POST` at `path` of a body of at most `body_bytes_max`.
    #[must_use]
    pub fn post<H: Handler<T, S>, T: 'static>(
        self,
        path: &'static str,
        body_bytes_max: usize,
        handler: H,
    ) -> Self {
        self.route(Method::POST, MethodFilter::POST, path, body_bytes_max, handler)
    }

    /// The list of the routes.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The routes, with their state.
    #[must_use]
    pub fn with_state(self, state: S) -> Api {
        Api { router: self.router.with_state(state), operations: self.operations }
    }

    fn route<H: Handler<T, S>, T: 'static>(
        mut self,
        method: Method,
        filter: MethodFilter,
        path: &'static str,
        body_bytes_max: usize,
        handler: H,
    ) -> Self {
        let limited = on(filter, handler).layer(DefaultBodyLimit::max(body_bytes_max));
        self.router = self.router.route(path, limited);
        self.operations.push(Operation { method, path, body_bytes_max });
        self
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Api<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl Api {
    pub(super) fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.operations.extend(other.operations);
        self
    }

    pub(super) fn into_router(self) -> Router {
        self.router
    }
}
