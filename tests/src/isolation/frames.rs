//! An HTTP/2 client that writes single frames.
//!
//! HTTP/2 libraries decide when frames are written, and drop queued frames of a reset stream. The
//! drill needs control: HEADERS and RST_STREAM in one segment, a hundred resets in one segment, a
//! request body that never ends.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// The error code CANCEL.
const CANCEL: u32 = 8;
/// Default maximum size of a frame's payload.
const MAX_FRAME: usize = 16_384;
/// Default flow-control window of HTTP/2.
const DEFAULT_WINDOW: i64 = 65_535;
/// Timeout for a connection and its first frame.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// An event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A response head, or trailers.
    Head(u32),
    /// Bytes of the response.
    Data(u32, usize),
    /// The end of the response.
    End(u32),
    /// A reset by the server, with its error code.
    Reset(u32, u32),
}

impl Event {
    /// The id of the stream.
    #[must_use]
    pub fn stream(self) -> u32 {
        match self {
            Self::Head(id) | Self::Data(id, _) | Self::End(id) | Self::Reset(id, _) => id,
        }
    }
}

/// Queued data of a stream.
#[derive(Debug)]
struct Outgoing {
    window: i64,
    data: VecDeque<Bytes>,
    end: bool,
}

/// A client connection.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    written: Vec<u8>,
    read: BytesMut,
    window: i64,
    initial_window: i64,
    received: u32,
    next: u32,
    outgoing: HashMap<u32, Outgoing>,
    /// SETTINGS_MAX_CONCURRENT_STREAMS of the server.
    pub max_streams: usize,
}

impl Connection {
    /// Connects from a local address, with a receive window of `window` bytes for each stream. The
    /// window of the connection is never exhausted.
    ///
    /// # Errors
    ///
    /// If the server does not accept the connection or sends no SETTINGS.
    pub async fn open(from: IpAddr, to: SocketAddr, window: u32) -> io::Result<Self> {
        let socket = timeout(CONNECT_WITHIN, connect(from, to)).await??;
        let mut connection = Self {
            socket,
            written: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            read: BytesMut::new(),
            window: DEFAULT_WINDOW,
            initial_window: DEFAULT_WINDOW,
            received: 0,
            next: 1,
            outgoing: HashMap::new(),
            max_streams: 100,
        };
        // SETTINGS_HEADER_TABLE_SIZE and SETTINGS_INITIAL_WINDOW_SIZE.
        let mut settings = vec![0, 1, 0, 0, 0, 0, 0, 4];
        settings.extend_from_slice(&window.to_be_bytes());
        connection.frame(SETTINGS, 0, 0, &settings);
        connection.frame(WINDOW_UPDATE, 0, 0, &((1_u32 << 31) - 1 - DEFAULT_WINDOW as u32).to_be_bytes());
        connection.flush().await?;
        // The server's SETTINGS come first.
        timeout(CONNECT_WITHIN, connection.receive()).await??;
        Ok(connection)
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        put_frame(&mut self.written, kind, flags, stream, payload);
    }

    /// Opens a stream. With `end` the request has no body. Nothing is written before
    /// [`Connection::flush`].
    pub fn open_stream(&mut self, head: &[u8], end: bool) -> u32 {
        let id = self.next;
        self.next += 2;
        let mut parts = head.chunks(MAX_FRAME).peekable();
        let mut kind = HEADERS;
        while let Some(part) = parts.next() {
            let last = if parts.peek().is_none() { END_HEADERS } else { 0 };
            let flags = if kind == HEADERS && end { END_STREAM | last } else { last };
            self.frame(kind, flags, id, part);
            kind = CONTINUATION;
        }
        let outgoing = Outgoing { window: self.initial_window, data: VecDeque::new(), end: false };
        self.outgoing.insert(id, outgoing);
        id
    }

    /// Queues bytes of a request, which are written as far as the server's windows allow.
    pub fn send(&mut self, id: u32, data: Bytes, end: bool) {
        let Some(outgoing) = self.outgoing.get_mut(&id) else { return };
        outgoing.data.push_back(data);
        outgoing.end = end;
        self.pump(id);
    }

    /// Whether queued bytes of the stream wait for the server's windows.
    #[must_use]
    pub fn is_blocked(&self, id: u32) -> bool {
        self.outgoing.get(&id).is_some_and(|outgoing| !outgoing.data.is_empty())
    }

    /// Resets a stream with CANCEL.
    pub fn reset(&mut self, id: u32) {
        self.outgoing.remove(&id);
        self.frame(RST_STREAM, 0, id, &CANCEL.to_be_bytes());
    }

    /// Increases the window of a stream by `bytes`.
    pub fn grant(&mut self, id: u32, bytes: u32) {
        self.frame(WINDOW_UPDATE, 0, id, &bytes.to_be_bytes());
    }

    /// Removes the state of a stream that has ended.
    pub fn forget(&mut self, id: u32) {
        self.outgoing.remove(&id);
    }

    /// Sends GOAWAY.
    pub fn go_away(&mut self) {
        self.frame(GOAWAY, 0, 0, &[0; 8]);
    }

    fn pump(&mut self, id: u32) {
        while let Some(outgoing) = self.outgoing.get_mut(&id) {
            let room = outgoing.window.min(self.window).min(MAX_FRAME as i64);
            let Some(front) = outgoing.data.front_mut() else { return };
            let length = front.len().min(usize::try_from(room).unwrap_or(0));
            if length == 0 && !front.is_empty() {
                return;
            }
            let part = front.split_to(length);
            if front.is_empty() {
                outgoing.data.pop_front();
            }
            let flags = if outgoing.end && outgoing.data.is_empty() { END_STREAM } else { 0 };
            outgoing.window -= length as i64;
            self.window -= length as i64;
            self.frame(DATA, flags, id, &part);
        }
    }

    /// Writes all queued frames, and reads concurrently to avoid a deadlock.
    ///
    /// # Errors
    ///
    /// If the connection has ended.
    pub async fn flush(&mut self) -> io::Result<()> {
        while !self.written.is_empty() {
            let (mut reader, mut writer) = self.socket.split();
            tokio::select! {
                biased;
                written = writer.write(&self.written) => {
                    self.written.drain(..written?);
                }
                read = reader.read_buf(&mut self.read) => {
                    if read? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits for frames and returns the events of streams.
    ///
    /// # Errors
    ///
    /// If the server closes the connection. The message contains the error code of GOAWAY.
    pub async fn receive(&mut self) -> io::Result<Vec<Event>> {
        loop {
            let (mut events, mut any) = (Vec::new(), false);
            while self.parse(&mut events)? {
                any = true;
            }
            if any {
                self.flush().await?;
                return Ok(events);
            }
            if self.socket.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Like [`Connection::receive`], but returns no events if nothing arrives within that time.
    ///
    /// # Errors
    ///
    /// As [`Connection::receive`].
    pub async fn receive_within(&mut self, within: Duration) -> io::Result<Vec<Event>> {
        timeout(within, self.receive()).await.unwrap_or(Ok(Vec::new()))
    }

    /// Parses one frame from the read buffer.
    fn parse(&mut self, events: &mut Vec<Event>) -> io::Result<bool> {
        let Some(head) = self.read.first_chunk::<9>() else { return Ok(false) };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let id = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        if self.read.len() < 9 + length {
            return Ok(false);
        }
        self.read.advance(9);
        let payload = self.read.split_to(length).freeze();
        let number = |at: usize| {
            payload
                .get(at..at + 4)
                .map_or(0, |bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        match kind {
            DATA | HEADERS => {
                if kind == HEADERS {
                    events.push(Event::Head(id));
                } else {
                    self.received += u32::try_from(length).unwrap_or_default();
                    events.push(Event::Data(id, length));
                    if self.received > 1 << 28 {
                        let update = self.received.to_be_bytes();
                        self.frame(WINDOW_UPDATE, 0, 0, &update);
                        self.received = 0;
                    }
                }
                if flags & END_STREAM != 0 {
                    events.push(Event::End(id));
                }
            }
            RST_STREAM => events.push(Event::Reset(id, number(0))),
            SETTINGS if flags & ACK == 0 => {
                for setting in payload.chunks_exact(6) {
                    let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
                    match setting[1] {
                        3 => self.max_streams = value as usize,
                        4 => self.initial_window = i64::from(value),
                        _ => {}
                    }
                }
                self.frame(SETTINGS, ACK, 0, &[]);
            }
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, &payload),
            GOAWAY if number(4) != 0 => {
                let text = String::from_utf8_lossy(payload.get(8..).unwrap_or_default()).into_owned();
                return Err(io::Error::other(format!("GOAWAY with error code {}: {text}", number(4))));
            }
            WINDOW_UPDATE if id == 0 => {
                self.window += i64::from(number(0));
                let blocked: Vec<u32> = self.outgoing.keys().copied().collect();
                for id in blocked {
                    self.pump(id);
                }
            }
            WINDOW_UPDATE => {
                if let Some(outgoing) = self.outgoing.get_mut(&id) {
                    outgoing.window += i64::from(number(0));
                    self.pump(id);
                }
            }
            _ => {}
        }
        Ok(true)
    }

    /// Closes the connection: with FIN, or abruptly with RST, which discards buffered data.
    ///
    /// # Errors
    ///
    /// If the socket option cannot be set.
    pub fn close(self, abruptly: bool) -> io::Result<()> {
        if abruptly { self.socket.set_zero_linger() } else { Ok(()) }
    }
}

/// Connects from a local address.
///
/// # Errors
///
/// An error of the operating system.
pub async fn connect(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Thousands of closed connections would exhaust the ports.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(from, 0))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Everything that a client writes for one open stream, for clients that cannot read.
///
/// # Panics
///
/// If the data exceeds the default window of HTTP/2.
#[must_use]
pub fn opening(head: &[u8], data: &[u8]) -> Vec<u8> {
    assert!(data.len() < DEFAULT_WINDOW as usize, "the data fits into the window");
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    put_frame(&mut bytes, SETTINGS, 0, 0, &[]);
    put_frame(&mut bytes, HEADERS, END_HEADERS, 1, head);
    for part in data.chunks(MAX_FRAME) {
        put_frame(&mut bytes, DATA, 0, 1, part);
    }
    bytes
}

fn put_frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a frame is short").to_be_bytes();
    bytes.extend_from_slice(&length[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

/// Encodes a head in HPACK, without the dynamic table and Huffman codes.
#[must_use]
pub fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// Encodes an HPACK integer with a prefix of seven bits.
fn integer(block: &mut Vec<u8>, value: usize) {
    if value < 127 {
        block.push(value as u8);
        return;
    }
    block.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}
