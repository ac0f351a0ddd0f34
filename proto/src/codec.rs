//! Messages of megabytes, without holding up what else a thread of the async runtime has to do.

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

/// Bytes of a message that are decoded at once, in less than half a millisecond. An answer of 32 vectors has 66 kB.
const BRIEF_TO_DECODE: usize = 80 << 10;
/// The same for a message to encode. A request of as many bytes has a thousand sentences to copy and to free.
const BRIEF_TO_ENCODE: usize = 128 << 10;

/// prost's encoding. The limits of a message are checked before it is decoded ([`Limited`]). A large message is worked on while the thread's other tasks go on elsewhere.
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
    type Encoder = Encoder<T>;
    type Decoder = Decoder<U>;

    fn encoder(&mut self) -> Encoder<T> {
        Encoder(self.0.encoder())
    }

    fn decoder(&mut self) -> Decoder<U> {
        Decoder(self.0.decoder())
    }
}

/// The encoder of [`Codec`].
#[derive(Debug)]
pub struct Encoder<T>(ProstEncoder<T>);

impl<T: Message> codec::Encoder for Encoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let length = message.encoded_len();
        run_blocking(length > BRIEF_TO_ENCODE, || {
            // By itself it grows step by step, and is copied each time.
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
pub struct Decoder<U>(ProstDecoder<U>);

impl<U: Limited + Message + Default> codec::Decoder for Decoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        run_blocking(buffer.remaining() > BRIEF_TO_DECODE, || {
            // tonic has the whole message in one piece.
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
    static ASIDES: Cell<u64> = const { Cell::new(0) };
}

/// How often this thread has done long work after its other tasks had gone elsewhere.
#[must_use]
pub fn blocking_runs() -> u64 {
    ASIDES.get()
}

/// Does work that may be long after the thread's other tasks were handed to another one, where the runtime has several.
pub fn run_blocking<T>(long: bool, work: impl FnOnce() -> T) -> T {
    let elsewhere =
        || Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if !long || !elsewhere() {
        return work();
    }
    ASIDES.set(ASIDES.get() + 1);
    tokio::task::block_in_place(work)
}
