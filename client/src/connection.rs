//! One connection: requests go out in order, many at a time, and answers come in that order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use highwater_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, StrBytes};
use highwater_protocol::{
    ApiKey, Call, ErrorCode, LENGTH_BYTES, RequestHeader, api_versions_request,
    decode_response_header, frame_length,
};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::error::{CallError, ConnectError, StreamError};
use crate::transport::{ChunkWriter, Link, Transport};

/// Requests that one connection has on the way at most; more wait for a place.
const IN_FLIGHT_MAX: usize = 64;

/// The largest response that is accepted. Fetch asks for less than half of it.
const RESPONSE_BYTES_MAX: usize = 256 << 20;

/// Reserved for a response before its bytes have come; it grows with them, not with its length.
const RESPONSE_BYTES_RESERVED: usize = 4 << 20;

/// What a connection is told by its client.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionOptions {
    pub(crate) client_id: StrBytes,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
}

/// A connection whose versions are agreed. Cheap to clone; closes when the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    address: String,
    client_id: StrBytes,
    request_timeout: Duration,
    versions: BTreeMap<ApiKey, i16>,
    queue: Arc<Queue>,
    places: Semaphore,
    tasks: [AbortHandle; 2],
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue.fail(StreamError::Shutdown);
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What was written and waits for its answer, in order.
#[derive(Debug)]
struct Queue {
    state: Mutex<QueueState>,
    outgoing: mpsc::UnboundedSender<Vec<Bytes>>,
}

#[derive(Debug)]
struct QueueState {
    next_correlation_id: i32,
    waiting: VecDeque<Waiting>,
    /// Set once: nothing goes out or comes in any more.
    failed: Option<StreamError>,
}

#[derive(Debug)]
struct Waiting {
    correlation_id: i32,
    key: ApiKey,
    version: i16,
    answer: oneshot::Sender<Result<Bytes, StreamError>>,
}

/// The answer to a request that is on its way.
pub(crate) struct Pending<C: Call> {
    connection: Connection,
    correlation_id: i32,
    version: i16,
    answer: oneshot::Receiver<Result<Bytes, StreamError>>,
    kind: std::marker::PhantomData<fn() -> C>,
}

impl Connection {
    /// Dials and agrees on versions.
    pub(crate) async fn open(
        transport: &dyn Transport,
        host: &str,
        port: u16,
        options: &ConnectionOptions,
    ) -> Result<Self, ConnectError> {
        let address = format!("{host}:{port}");
        let opening = async {
            let link = transport
                .dial(host, port)
                .await
                .map_err(|error| ConnectError::Dial {
                    address: address.clone(),
                    source: error.into(),
                })?;
            let connection = Self::start(link, address.clone(), options);
            connection.agree_on_versions().await
        };
        let after = options.connect_timeout;
        tokio::time::timeout(after, opening)
            .await
            .unwrap_or_else(|_| {
                Err(ConnectError::Timeout {
                    address: address.clone(),
                    after,
                })
            })
    }

    fn start(link: Link, address: String, options: &ConnectionOptions) -> Self {
        let (outgoing, frames) = mpsc::unbounded_channel();
        let queue = Arc::new(Queue {
            state: Mutex::new(QueueState {
                next_correlation_id: 0,
                waiting: VecDeque::new(),
                failed: None,
            }),
            outgoing,
        });
        let writing = tokio::spawn(write_frames(link.writer, frames, Arc::clone(&queue)));
        let reading = tokio::spawn(read_frames(link.reader, Arc::clone(&queue)));
        let shared = Shared {
            address,
            client_id: options.client_id.clone(),
            request_timeout: options.request_timeout,
            versions: BTreeMap::from([(ApiKey::ApiVersions, 3)]),
            queue,
            places: Semaphore::new(IN_FLIGHT_MAX),
            tasks: [writing.abort_handle(), reading.abort_handle()],
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Asks what the broker speaks: in version 3, and in 0 if it does not know that. Such brokers
    /// should say so in the form of version 0; librdkafka's mock cluster says it in none, so an
    /// answer that makes no sense is taken for the same.
    async fn agree_on_versions(mut self) -> Result<Self, ConnectError> {
        let mut answer = self.call(&api_versions_request()).await;
        let unsupported = match &answer {
            Ok(answer) => answer.error_code == ErrorCode::UnsupportedVersion.code(),
            Err(error) => matches!(error, CallError::Decode { .. }),
        };
        if unsupported {
            self.shared_mut().versions.insert(ApiKey::ApiVersions, 0);
            answer = self.call(&ApiVersionsRequest::default()).await;
        }
        let answer = answer.and_then(|answer| {
            ErrorCode::from_code(answer.error_code)
                .into_result()
                .map_err(|error| self.refused(ApiKey::ApiVersions, error))?;
            Ok(answer)
        });
        match answer {
            Ok(answer) => {
                self.shared_mut().versions = agreed_versions(&answer);
                Ok(self)
            }
            Err(source) => Err(ConnectError::Handshake {
                address: self.shared.address.clone(),
                source: Box::new(source),
            }),
        }
    }

    fn shared_mut(&mut self) -> &mut Shared {
        Arc::get_mut(&mut self.shared).expect("nobody else has a connection that is being opened")
    }

    /// Host and port of the broker.
    pub(crate) fn address(&self) -> &str {
        &self.shared.address
    }

    /// The version of a request that was agreed on, if there is one.
    pub(crate) fn version(&self, key: ApiKey) -> Option<i16> {
        self.shared.versions.get(&key).copied()
    }

    /// Gives the connection up: everybody who waits for an answer is told.
    pub(crate) fn abandon(&self) {
        self.shared.queue.fail(StreamError::Deposed);
    }

    /// Whether the connection can still be used.
    pub(crate) fn is_usable(&self) -> bool {
        self.shared.queue.lock().failed.is_none()
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn call<C: Call>(&self, request: &C) -> Result<C::Answer, CallError> {
        self.call_within(request, self.shared.request_timeout).await
    }

    /// As [`Connection::call`], with a time limit of its own (for requests that wait at the
    /// broker).
    pub(crate) async fn call_within<C: Call>(
        &self,
        request: &C,
        timeout: Duration,
    ) -> Result<C::Answer, CallError> {
        let _place = self
            .shared
            .places
            .acquire()
            .await
            .expect("the semaphore is never closed");
        self.send(request)?.answer(timeout).await
    }

    /// Sends a request; requests go out in the order of these calls.
    pub(crate) fn send<C: Call>(&self, request: &C) -> Result<Pending<C>, CallError> {
        let Some(&version) = self.shared.versions.get(&C::KEY) else {
            return Err(CallError::Unsupported {
                address: self.shared.address.clone(),
                key: C::KEY,
            });
        };
        let (sender, answer) = oneshot::channel();
        let mut queue = self.shared.queue.lock();
        if let Some(error) = &queue.failed {
            return Err(self.lost(error));
        }
        let correlation_id = queue.next_correlation_id;
        let header = RequestHeader {
            key: C::KEY,
            version,
            correlation_id,
            client_id: Some(self.shared.client_id.clone()),
        };
        let chunks = request
            .encode(&header)
            .map_err(|source| CallError::Encode {
                address: self.shared.address.clone(),
                source,
            })?;
        queue.next_correlation_id = correlation_id.wrapping_add(1);
        queue.waiting.push_back(Waiting {
            correlation_id,
            key: C::KEY,
            version,
            answer: sender,
        });
        // Under the lock, so that frames leave in the order in which answers are awaited. If the
        // writer has ended, the queue fails and with it this request.
        let _ = self.shared.queue.outgoing.send(chunks);
        drop(queue);
        Ok(Pending {
            connection: self.clone(),
            correlation_id,
            version,
            answer,
            kind: std::marker::PhantomData,
        })
    }

    fn lost(&self, error: &StreamError) -> CallError {
        CallError::ConnectionLost {
            address: self.shared.address.clone(),
            reason: error.to_string(),
        }
    }

    pub(crate) fn refused(&self, key: ApiKey, error: ErrorCode) -> CallError {
        CallError::Refused {
            address: self.shared.address.clone(),
            key,
            error,
        }
    }
}

impl<C: Call> Pending<C> {
    /// Waits for the answer. When it is overdue the whole connection is given up: what comes
    /// later on it would be late too, and an answer that nobody awaits must not be taken for
    /// another's.
    pub(crate) async fn answer(self, timeout: Duration) -> Result<C::Answer, CallError> {
        let Self {
            connection,
            correlation_id,
            version,
            answer,
            ..
        } = self;
        let frame = match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(Ok(frame))) => frame,
            Ok(Ok(Err(error))) => return Err(connection.lost(&error)),
            Ok(Err(_)) => return Err(connection.lost(&StreamError::Closed)),
            Err(_) => {
                let overdue = StreamError::Overdue { correlation_id };
                connection.shared.queue.fail(overdue);
                return Err(CallError::Timeout {
                    address: connection.shared.address.clone(),
                    key: C::KEY,
                    after: timeout,
                });
            }
        };
        C::decode_answer(version, &frame).map_err(|source| CallError::Decode {
            address: connection.shared.address.clone(),
            key: C::KEY,
            source,
        })
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, QueueState> {
        // Nothing panics while it holds the lock with the queue half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection: everybody who waits gets the reason, and so does who comes later.
    fn fail(&self, error: StreamError) {
        let mut state = self.lock();
        let error = state.failed.get_or_insert(error).clone();
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for request in waiting {
            let _ = request.answer.send(Err(error.clone()));
        }
    }

    /// Gives a response to the request that is first in the row, which it must answer.
    fn deliver(&self, frame: Bytes) -> Result<(), StreamError> {
        let mut state = self.lock();
        let front = state.waiting.pop_front();
        drop(state);
        let Some(request) = front else {
            let received = frame.first_chunk().map_or(-1, |id| i32::from_be_bytes(*id));
            return Err(StreamError::Unexpected { received });
        };
        let checked = decode_response_header(request.key, request.version, &frame)
            .map_err(StreamError::from)
            .and_then(|(received, _)| {
                let expected = request.correlation_id;
                (received == expected)
                    .then_some(())
                    .ok_or(StreamError::OutOfOrder { received, expected })
            });
        let _ = request.answer.send(checked.clone().map(|()| frame));
        checked
    }
}

async fn write_frames(
    mut writer: Box<dyn ChunkWriter>,
    mut frames: mpsc::UnboundedReceiver<Vec<Bytes>>,
    queue: Arc<Queue>,
) {
    while let Some(mut chunks) = frames.recv().await {
        // What has queued up meanwhile leaves in the same write; bounded by IN_FLIGHT_MAX.
        while let Ok(more) = frames.try_recv() {
            chunks.extend(more);
        }
        if let Err(error) = writer.write(chunks).await {
            return queue.fail(error.into());
        }
    }
}

async fn read_frames(mut reader: Box<dyn AsyncRead + Send + Unpin>, queue: Arc<Queue>) {
    loop {
        let delivered = match read_frame(&mut reader).await {
            Ok(frame) => queue.deliver(frame),
            Err(error) => Err(error),
        };
        if let Err(error) = delivered {
            return queue.fail(error);
        }
    }
}

async fn read_frame(reader: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Bytes, StreamError> {
    let mut prefix = [0; LENGTH_BYTES];
    reader.read_exact(&mut prefix).await?;
    let length = frame_length(prefix, RESPONSE_BYTES_MAX)?;
    let mut frame = BytesMut::with_capacity(length.min(RESPONSE_BYTES_RESERVED));
    let mut rest = reader.take(u64::try_from(length).expect("bounded by RESPONSE_BYTES_MAX"));
    while frame.len() < length {
        if frame.len() == frame.capacity() {
            // Doubling, but never beyond the frame: memory follows the bytes that have come.
            frame.reserve(frame.len().min(length - frame.len()));
        }
        if rest.read_buf(&mut frame).await? == 0 {
            return Err(StreamError::Closed);
        }
    }
    Ok(frame.freeze())
}

/// The highest version of each request that both sides speak.
fn agreed_versions(answer: &ApiVersionsResponse) -> BTreeMap<ApiKey, i16> {
    answer
        .api_keys
        .iter()
        .filter_map(|range| {
            let key = ApiKey::from_code(range.api_key)?;
            let version = key.versions().agree(range.min_version, range.max_version)?;
            Some((key, version))
        })
        .collect()
}
