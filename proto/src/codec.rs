//! The codec of messages: limits are checked before decoding, and large messages do not block other tasks of the async runtime.

use std::cell::Cell;

use bytes::Buf;
use prost::Message;
use tokio::runtime::{Handle, RuntimeFlavor};
use tonic::{
    Status,
    codec::{self, BufferSettings, DecodeBuf, EncodeBuf},
};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::{Error, Limited, Reason};

/// Bytes of the largest message that is decoded without [`run_blocking`], in less than half a millisecond. A response of 32 vectors
/// has 66 kB.
const MAX_INLINE_DECODE: usize = 80 << 10;
/// The same for encoding. A request of so many bytes has a thousand sentences to copy and to free.
const MAX_INLINE_ENCODE: usize = 128 << 10;

/// prost's codec, which checks the limits of a message before it decodes it ([`Limited`]), and processes large messages with
/// [`run_blocking`].
#[derive(Debug, Clone)]
pub struct Codec<T, U>(ProstCodec<T, U>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(ProstCodec::default())
    }
}

impl<T, U> codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Limited + Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = MessageEncoder<T>;
    type Decoder = MessageDecoder<U>;

    fn encoder(&mut self) -> MessageEncoder<T> {
        MessageEncoder(self.0.encoder())
    }

    fn decoder(&mut self) -> MessageDecoder<U> {
        MessageDecoder(self.0.decoder())
    }
}

/// The encoder of [`Codec`].
#[derive(Debug)]
pub struct MessageEncoder<T>(ProstEncoder<T>);

impl<T: Message> codec::Encoder for MessageEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let length = message.encoded_len();
        run_blocking(length > MAX_INLINE_ENCODE, || {
            // Without this the buffer would grow in steps, and be copied at each.
            buffer.reserve(length);
            self.0.encode(message, buffer)
        })
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// The decoder of [`Codec`].
#[derive(Debug)]
pub struct MessageDecoder<U>(ProstDecoder<U>);

impl<U: Limited + Message + Default> codec::Decoder for MessageDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        run_blocking(buffer.remaining() > MAX_INLINE_DECODE, || {
            // tonic passes the whole message in one piece.
            U::check_limits(buffer.chunk())?;
            // tonic would return INTERNAL.
            let message = U::decode(buffer);
            message
                .map(Some)
                .map_err(|invalid| Error::new(Reason::InvalidArgument, invalid.to_string()).into())
        })
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

thread_local! {
    static BLOCKING_RUNS: Cell<u64> = const { Cell::new(0) };
}

/// How often this thread has run work with [`tokio::task::block_in_place`].
#[must_use]
pub fn blocking_runs() -> u64 {
    BLOCKING_RUNS.get()
}

/// Runs work. If it is `long`, the runtime first moves the other tasks of the thread to another one, if it has several threads.
pub fn run_blocking<T>(long: bool, work: impl FnOnce() -> T) -> T {
    let has_threads =
        || Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if !long || !has_threads() {
        return work();
    }
    BLOCKING_RUNS.set(BLOCKING_RUNS.get() + 1);
    tokio::task::block_in_place(work)
}
