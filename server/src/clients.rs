//! Clients' connections on one shard's thread: a task reads requests, another writes answers.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use highwater_engine::kafka::REQUESTS_IN_FLIGHT_MAX;
use highwater_engine::{ConnId, Input};
use highwater_net::kafka::{ChunkWrite, FrameReader, ReadLimits};
use highwater_record::BufferPool;
use tokio::io::AsyncRead;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

/// How often a connection that may not read asks again whether the shard takes more.
const PRESSURE_RETRY: Duration = Duration::from_millis(1);

/// An answer goes out in pieces of so many bytes, each of which its client must take in time: one
/// that is slow gets its answer, one that does not read gives back what it holds.
const PIECE_BYTES_MAX: usize = 1 << 20;

/// A shard's thread, as its connections see it.
pub(crate) trait Host {
    /// Hands something to the shard and wakes it.
    fn push(&self, input: Input);

    /// Whether clients should be read from now.
    fn accepts_input(&self) -> bool;
}

/// The connections of one thread.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    next: Cell<u64>,
    open: RefCell<BTreeMap<ConnId, Client>>,
}

#[derive(Debug, Clone)]
struct Client {
    /// Never full: at most [`REQUESTS_IN_FLIGHT_MAX`] answers and one close wait in it.
    answers: mpsc::UnboundedSender<Answer>,
}

#[derive(Debug)]
enum Answer {
    Chunks(Vec<Bytes>),
    Close,
}

/// The requests of one connection that are read and not yet answered to the last byte.
#[derive(Debug, Default)]
struct InFlight {
    count: Cell<usize>,
    changed: Notify,
}

impl Clients {
    /// A number for a connection, never used before on this thread.
    pub(crate) fn number(&self) -> ConnId {
        let number = self.next.get();
        self.next.set(number + 1);
        ConnId(number)
    }

    /// Hands an answer to the connection's writer; `false` if the connection is not of a client.
    pub(crate) fn answer(&self, conn: ConnId, chunks: Vec<Bytes>) -> bool {
        self.tell(conn, Answer::Chunks(chunks))
    }

    /// Ends a connection once what was answered is written.
    pub(crate) fn close(&self, conn: ConnId) {
        self.tell(conn, Answer::Close);
    }

    fn tell(&self, conn: ConnId, answer: Answer) -> bool {
        match self.open.borrow().get(&conn) {
            // A writer that has ended has no use for it.
            Some(client) => client.answers.send(answer).map_or(true, |()| true),
            None => false,
        }
    }
}

/// What all connections of a listener have in common.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) pool: BufferPool,
    pub(crate) limits: ReadLimits,
}

/// Serves one connection until either side ends it.
pub(crate) async fn serve<R, W>(
    host: &impl Host,
    clients: &Clients,
    terms: Terms,
    (read, write): (R, W),
    from: SocketAddr,
) where
    R: AsyncRead + Unpin,
    W: ChunkWrite,
{
    let conn = clients.number();
    let (answers, waiting) = mpsc::unbounded_channel();
    clients.open.borrow_mut().insert(conn, Client { answers });
    let in_flight = Rc::new(InFlight::default());
    let reader = FrameReader::new(read, terms.pool, terms.limits);
    tracing::debug!(conn = conn.0, %from, "client connected");
    let reason = tokio::select! {
        reason = read_requests(host, conn, reader, &in_flight) => reason,
        reason = write_answers(write, waiting, &in_flight, terms.limits.frame) => reason,
    };
    tracing::debug!(conn = conn.0, %reason, "client gone");
    clients.open.borrow_mut().remove(&conn);
    host.push(Input::ConnClosed { conn });
}

async fn read_requests<R: AsyncRead + Unpin>(
    host: &impl Host,
    conn: ConnId,
    mut reader: FrameReader<R>,
    in_flight: &InFlight,
) -> String {
    loop {
        while in_flight.count.get() >= REQUESTS_IN_FLIGHT_MAX {
            in_flight.changed.notified().await;
        }
        while !host.accepts_input() {
            tokio::time::sleep(PRESSURE_RETRY).await;
        }
        match reader.next().await {
            Ok(Some(frame)) => {
                in_flight.count.set(in_flight.count.get() + 1);
                host.push(Input::Request { conn, frame });
            }
            Ok(None) => {
                // A client may shut its sending side and still wait for answers.
                while in_flight.count.get() > 0 {
                    in_flight.changed.notified().await;
                }
                return "it has closed".to_owned();
            }
            Err(error) => return error.to_string(),
        }
    }
}

async fn write_answers<W: ChunkWrite>(
    mut stream: W,
    mut waiting: mpsc::UnboundedReceiver<Answer>,
    in_flight: &InFlight,
    patience: Duration,
) -> String {
    while let Some(answer) = waiting.recv().await {
        match answer {
            Answer::Chunks(mut chunks) => {
                loop {
                    let rest = cut(&mut chunks);
                    match timeout(patience, stream.write_chunks(chunks)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => return error.to_string(),
                        Err(_) => return format!("it read too little in {patience:?}"),
                    }
                    if rest.is_empty() {
                        break;
                    }
                    chunks = rest;
                }
                in_flight.count.set(in_flight.count.get() - 1);
                in_flight.changed.notify_one();
            }
            Answer::Close => return "it broke the protocol".to_owned(),
        }
    }
    "the node stops".to_owned()
}

/// Leaves of an answer what a piece may have, [`PIECE_BYTES_MAX`], and gives the rest, without a
/// copy. Most answers are one piece: they stay as they are.
fn cut(chunks: &mut Vec<Bytes>) -> Vec<Bytes> {
    let mut room = PIECE_BYTES_MAX;
    for (number, chunk) in chunks.iter_mut().enumerate() {
        if chunk.len() > room {
            let rest = chunk.split_off(room);
            let behind = chunks.split_off(number + 1);
            return std::iter::once(rest).chain(behind).collect();
        }
        room -= chunk.len();
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lengths: &[usize], expected: &[usize]) {
        let chunk =
            |&length: &usize| Bytes::from(vec![u8::try_from(length % 251).unwrap(); length]);
        let mut chunks: Vec<Bytes> = lengths.iter().map(chunk).collect();
        let whole = chunks.concat();
        let mut pieces = Vec::new();
        loop {
            let rest = cut(&mut chunks);
            pieces.push(chunks);
            if rest.is_empty() {
                break;
            }
            chunks = rest;
        }
        let sizes: Vec<usize> = pieces.iter().map(|it| it.concat().len()).collect();
        assert_eq!(sizes, expected);
        assert_eq!(pieces.concat().concat(), whole);
    }

    #[test]
    fn answers_are_cut_where_a_piece_is_full() {
        const MAX: usize = PIECE_BYTES_MAX;
        check(&[], &[0]);
        check(&[10, 0, 20], &[30]);
        check(&[MAX], &[MAX]);
        check(&[MAX, 1], &[MAX, 1]);
        check(&[1, 2 * MAX, 5], &[MAX, MAX, 6]);
    }
}
