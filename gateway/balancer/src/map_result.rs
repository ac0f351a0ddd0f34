//! The future of a layer that maps the result of the service below it. It has a name, so that a layer needs no box for each call.
//!
//! This is tower's `MapResult` with a type in place of the closure, whose type would have no name.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

/// What a layer does with the result of one call: the data of the call that it needs for that.
pub(super) trait MapResult<R> {
    type Output;

    fn map_result(self, result: R) -> Self::Output;
}

pin_project! {
    /// The mapped result of a future.
    #[derive(Debug)]
    pub(super) struct MapResultFuture<F, M> {
        #[pin]
        future: F,
        // Taken when the result is there.
        map: Option<M>,
    }
}

impl<F, M> MapResultFuture<F, M> {
    pub(super) fn new(future: F, map: M) -> Self {
        Self { future, map: Some(map) }
    }
}

impl<F: Future, M: MapResult<F::Output>> Future for MapResultFuture<F, M> {
    type Output = M::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<M::Output> {
        let this = self.project();
        let result = ready!(this.future.poll(context));
        let map = this.map.take().expect("a future is not polled after its end");
        Poll::Ready(map.map_result(result))
    }
}
