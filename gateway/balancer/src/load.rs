//! The load of an endpoint: the weight of its calls in flight, by which the least loaded endpoint is picked.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

/// The load of an endpoint, in bytes. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Load(Arc<AtomicUsize>);

impl Load {
    /// The weight of all calls in flight.
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds a call of this weight. It counts until the result is dropped.
    pub(super) fn begin(&self, weight: usize) -> Arc<InFlight> {
        let call = InFlight { load: self.clone(), weight: AtomicUsize::new(0) };
        call.add(weight);
        Arc::new(call)
    }
}

/// A call in flight, which counts as load until this is dropped.
#[derive(Debug)]
pub(super) struct InFlight {
    load: Load,
    weight: AtomicUsize,
}

impl InFlight {
    /// Adds to the weight of the call.
    fn add(&self, weight: usize) {
        self.weight.fetch_add(weight, Ordering::Relaxed);
        self.load.0.fetch_add(weight, Ordering::Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.load.0.fetch_sub(*self.weight.get_mut(), Ordering::Relaxed);
    }
}

/// A request body whose bytes are added to the weight of its call when they are sent.
#[derive(Debug)]
pub(super) struct WeighedBody<B> {
    pub(super) body: B,
    pub(super) call: Arc<InFlight>,
}

impl<B: Body<Data = Bytes, Error = Status> + Unpin> Body for WeighedBody<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            this.call.add(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    #[tokio::test]
    async fn load_is_the_weight_and_bytes_of_calls_in_flight() {
        let load = Load::default();
        let (first, second) = (load.begin(1), load.begin(10));
        assert_eq!(load.get(), 11);
        let body = Full::new(Bytes::from_static(b"abc")).map_err(|never| match never {});
        let mut body = WeighedBody { body, call: first };
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
        assert_eq!(load.get(), 14);
        drop(body);
        assert_eq!(load.get(), 10);
        drop(second);
        assert_eq!(load.get(), 0);
    }
}
